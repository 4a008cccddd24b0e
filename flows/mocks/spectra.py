"""Mock spectra for training and evaluation of the tokenizer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ojala.models.data import LabelledSpectra
from ojala.models.simulation.skies.spectroscopic import INSTRUMENTS, SpectraSky

SIGNAL_TO_NOISE: Mapping[str, tuple[float, float] | None] = {
    "DESI": None,
    "SDSS": (1.0, 50.0),
    "LAMOST": (2.0, 100.0),
    "GALAH": (3.0, 100.0),
}
"""Range of median signal-to-noise ratios by instrument; None for typical exposures of DESI."""


def draw_spectra(
    sky: SpectraSky,
    instrument: str,
    n: int,
    of: np.random.Generator,
    rng: np.random.Generator,
    *,
    held_out: bool = False,
) -> LabelledSpectra:
    """Draw spectra of new objects, determined by ``of``, with an instrument."""
    objects = sky.draw_objects(n, of, held_out=held_out)
    return sky.observe(objects, INSTRUMENTS[instrument], rng, signal_to_noise=SIGNAL_TO_NOISE[instrument])
