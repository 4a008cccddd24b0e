"""What is known of a spectrum beside its patches, which are divided by its brightness."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from models.spectral_tokenizer.patches import Cut

RANGE = (-4.0, 5.0)
"""Bounds of log10 of the brightness [1e-17 erg/s/cm2/Angstrom]."""


def facts_of(cuts: Sequence[Cut]) -> Tensor:
    """log10 of the brightness, and whether it is known (0 and 0 where not); float32, shape (N, 2)."""
    brightness = np.array([one.brightness for one in cuts], np.float64)
    known = np.isfinite(brightness) & (brightness > 0.0)
    log = np.log10(np.where(known, brightness, 1.0)).clip(*RANGE)
    return torch.from_numpy(np.stack([log, known], axis=1).astype(np.float32).reshape(-1, 2))
