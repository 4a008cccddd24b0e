"""Metrics of redshifts and classes, and their bootstrap errors."""
