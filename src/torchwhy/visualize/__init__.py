"""Pictures of attributions: pure functions over arrays."""
