"""Training loop, settings and prefetching of batches, for all models."""

from ojala.models.training.prefetch import prefetch
from ojala.models.training.settings import TrainingSettings
from ojala.models.training.trainer import Trainer

__all__ = ["Trainer", "TrainingSettings", "prefetch"]
