"""Inference on one partition: input, model, products, receipt."""
