"""Evaluations of the models, for model cards and documentation."""
