"""Inference with trained networks: batches, precision, CUDA graphs."""
