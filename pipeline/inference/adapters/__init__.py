"""Adapters between the pipeline and each model, and their registry."""
