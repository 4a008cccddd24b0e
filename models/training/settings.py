"""Settings that every training has: budget, optimizer, learning-rate schedule, seed and device."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

from ojala.catalogs_schema.errors import InputError
from ojala.models.settings import checked, from_mapping

Training = TypeVar("Training", bound="TrainingSettings")


@checked
@dataclass(frozen=True)
class TrainingSettings:
    """Settings of a training; each model adds its own and sets the defaults.

    Attributes
    ----------
    name, version : str
        Name and version of the weights.
    preset : str
        Shape of the network, a key of the model's ``PRESETS``.
    minutes : float or None
        Duration of the training and of the learning-rate schedule; the weights then depend on the speed of
        the machine.
    batch_size : int
        Objects per step.
    learning_rate, weight_decay, clip : float
        Peak rate of Muon (inner matrices, with decoupled decay) and AdamW (all other parameters); upper limit
        of the gradient's norm.
    warm_up : int
        Steps over which the rate rises; it then falls as a cosine to 1 % of its peak.
    ema_decay : float
        Decay of the running mean of the weights, which becomes the checkpoint.
    seed : int
        Seed of initial weights and batches.
    device : str
        "cpu" or "cuda".
    checkpoint_minutes : float
        Time between saves, each with a check on held-out objects.
    """

    name: str
    version: str = "0.1"
    preset: str = "base"
    minutes: float | None = None
    batch_size: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    clip: float = 1.0
    warm_up: int = 100
    ema_decay: float = 0.998
    seed: int = 0
    device: str = "cpu"
    checkpoint_minutes: float = 5.0

    SHAPES: ClassVar[Mapping[str, object]]
    """Shapes of the network by preset."""

    MAY_CHANGE: ClassVar[tuple[str, ...]] = ("checkpoint_minutes",)
    """Settings that a resumed training may change."""

    def __post_init__(self) -> None:
        if self.preset not in self.SHAPES:
            raise InputError(f"unknown preset {self.preset!r}; choose one of {', '.join(self.SHAPES)}")
        if self.batch_size < 1:
            raise InputError(f"batch_size must be at least 1, not {self.batch_size}")
        if self.minutes is not None and self.minutes <= 0.0:
            raise InputError(f"minutes must be more than 0, not {self.minutes}")

    def progress(self, step: int, seconds: float) -> float:
        """Compute the fraction of the training that is done; it ends at 1."""
        return 0.0 if self.minutes is None else seconds / (60.0 * self.minutes)

    def rate(self, step: int, seconds: float) -> float:
        """Compute the learning rate: linear warm-up, then a cosine to 1 % of the peak."""
        cosine = math.cos(math.pi * min(self.progress(step, seconds), 1.0))
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1.0 + cosine)) * min(1.0, (step + 1) / self.warm_up)

    def continues(self: Training, saved: Mapping[str, Any]) -> bool:
        """Whether a training with the ``saved`` settings may go on with these."""
        try:
            before = from_mapping(type(self), saved)
        except InputError:
            return False
        return replace(before, **{name: getattr(self, name) for name in self.MAY_CHANGE}) == self
