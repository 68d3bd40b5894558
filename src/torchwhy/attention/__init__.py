"""Explanations from the attention between tokens."""
