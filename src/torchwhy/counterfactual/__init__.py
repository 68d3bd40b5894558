"""Counterfactuals: what would have to change for another answer."""
