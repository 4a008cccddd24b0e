"""Demonstration on the bundled patch of sky."""
