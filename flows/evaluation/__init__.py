"""Evaluations of the models; they give the numbers of the model cards."""
