"""Metrics of redshifts and classes, their bootstrap errors, and model cards."""
