"""Training, calibration and fine-tuning of the models; `configs` holds their settings."""

from ojala.flows.training.registry import TRAININGS, start_training

__all__ = ["TRAININGS", "start_training"]
