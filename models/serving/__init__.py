"""Inference with trained networks: base class of predictors, batches, precision, CUDA graphs."""

from ojala.models.serving.batching import BatchPipeline
from ojala.models.serving.precision import Precision, has_native_bf16
from ojala.models.serving.predictor import BasePredictor

__all__ = ["BasePredictor", "BatchPipeline", "Precision", "has_native_bf16"]
