"""Methods that share out the output among the features by their coalitions."""
