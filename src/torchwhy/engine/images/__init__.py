"""Images: blurring and filling in, batched and on the device (``filters``)."""
