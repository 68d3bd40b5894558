"""Images: blurring, resizing and filling in, batched and on the device (``filters``)."""
