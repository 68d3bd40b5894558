"""The model as a whole: what matters over all rows, how the score goes with a feature, and simple models in its place."""
