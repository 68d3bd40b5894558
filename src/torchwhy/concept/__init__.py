"""Explanations by concepts and by what units of a model respond to."""
