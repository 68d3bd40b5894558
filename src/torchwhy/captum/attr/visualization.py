"""Captum's pictures of attributions, drawn by torchwhy.visualize."""
