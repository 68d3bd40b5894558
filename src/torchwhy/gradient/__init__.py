"""Methods that read the gradient, at the input or along a path."""
