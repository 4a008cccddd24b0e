"""Training of SpecPT from a library of spectra and a TOML file; writes weights and their model card.

settings = Path("flows/training/configs/specpt.toml")
weights = train_from(settings, library=Path("library.npz"), folder=Path("specpt"))
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ojala.flows.mocks.library import load_sky
from ojala.models.data import LabelledSpectra
from ojala.models.evaluation.card import write_card
from ojala.models.settings import read_settings
from ojala.models.simulation.skies.spectroscopic import INSTRUMENTS, SpectraSky, Targets
from ojala.models.specpt.training import SpecPTTraining, train
from ojala.models.training.trainer import Report, ignore

TARGETS: tuple[Targets, ...] = ("bgs", "elg")
"""Targets of the training and of the held-out measures."""

SHARES = {"bgs": 0.35, "elg": 0.35, "faint": 0.1, "bright": 0.1, "SDSS": 0.1}
"""Shares of the draws: three kinds of targets in typical exposures of DESI, and bright galaxies in long
exposures of DESI and of SDSS, for high signal-to-noise ratios and another resolution."""

LONG_EXPOSURES = (2.0, 60.0)
"""Range of the median signal-to-noise ratio of the long exposures."""

HELD_OUT = 512
"""Held-out spectra of each of `TARGETS` that are measured at each save."""

_HELD_OUT_DRAW = 2**31


def specpt_spectra(
    sky: SpectraSky, n: int, rng: np.random.Generator, targets: Targets, *, held_out: bool = False
) -> LabelledSpectra:
    """Draw DESI spectra of its bright or of its emission-line galaxies."""
    return sky.draw(n, rng, INSTRUMENTS["DESI"], held_out=held_out, targets=targets)


def training_spectra(sky: SpectraSky, n: int, rng: np.random.Generator) -> LabelledSpectra:
    """Draw training spectra in the mix `SHARES`."""
    counts = dict(zip(SHARES, rng.multinomial(n, list(SHARES.values())).tolist(), strict=True))
    kinds: tuple[Targets, ...] = ("bgs", "elg", "faint")
    parts = [specpt_spectra(sky, counts[targets], rng, targets) for targets in kinds]
    for name, instrument in (("bright", "DESI"), ("SDSS", "SDSS")):
        objects = sky.draw_objects(counts[name], rng, targets="bgs")
        parts.append(sky.observe(objects, INSTRUMENTS[instrument], rng, signal_to_noise=LONG_EXPOSURES))
    return LabelledSpectra.joined(parts)


def train_from(settings: Path, *, library: Path, folder: Path, report: Report = ignore) -> Path:
    """Train SpecPT; see `ojala.flows.training.registry.start_training`.

    The settings are fields of `ojala.models.specpt.training.SpecPTTraining`.
    """
    config = read_settings(SpecPTTraining, settings)
    sky = SpectraSky(load_sky(library).population)

    def draw(n: int, rng: np.random.Generator) -> LabelledSpectra:
        return training_spectra(sky, n, rng)

    checks: dict[str, LabelledSpectra] = {
        targets: specpt_spectra(sky, HELD_OUT, np.random.default_rng(_HELD_OUT_DRAW), targets, held_out=True)
        for targets in TARGETS
    }
    weights = train(config, draw, checks, folder, report)
    write_card(weights)
    return weights
