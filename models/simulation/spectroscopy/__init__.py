"""Synthetic spectroscopy: instruments, night sky, stellar lines."""
