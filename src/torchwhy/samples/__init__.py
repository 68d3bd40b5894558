"""Samples: texts, prompts and whatever else knows its features, in the place of ``inputs``."""
