"""The demonstration on the bundled patch of sky, and its data."""
