"""The global view: what matters over all rows, and simple models in place of the model."""
