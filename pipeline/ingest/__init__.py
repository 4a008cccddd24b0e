"""Readers of the forms in which surveys hand out their data."""
