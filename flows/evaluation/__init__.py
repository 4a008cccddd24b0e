"""Evaluations of the models for the model cards."""
