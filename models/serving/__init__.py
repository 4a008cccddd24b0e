"""Inference with trained networks: base class of predictors, batches, precision, CUDA graphs."""
