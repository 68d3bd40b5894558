"""A room of the engine."""
