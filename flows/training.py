"""Training: a library of spectra and a TOML file in, weights and their model card out.

weights = train_from(Path("flows/training.toml"), library=Path("library.npz"), folder=Path("runs/ojala-base"))
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from upath import UPath

from flows.synthesis import load_sky
from models.batch import LabelledPhotometry
from models.card import model_card
from models.checkpoint import load_weights
from models.synthesis.sky import SURVEY_SHARES, TRAINING_SHARES, MockSky
from models.training import config_from, train
from pipeline.leaf import write_whole


@dataclass(frozen=True)
class HeldOutSky:
    """The held-out members of a mock sky, in the mix of a survey."""

    sky: MockSky

    def draw(self, n: int, rng: np.random.Generator) -> LabelledPhotometry:
        """Photometry of n objects that no training draw shares a spectrum with."""
        return self.sky.draw(n, rng, held_out=True, shares=SURVEY_SHARES)


def train_from(
    settings: Path,
    *,
    library: Path,
    folder: Path,
    report: Callable[[dict[str, object]], None] = lambda record: None,
) -> Path:
    """Train as a TOML file says, or go on with the training that ``folder`` holds.

    Parameters
    ----------
    settings : Path
        TOML with fields of `models.training.TrainingConfig`.
    library : Path
        Library of spectra, as written by `flows.synthesis.build_library`.
    folder : Path
        Gets weights, state, metrics and the model card ``<name>.md``.
    report : callable
        Is given each record of the metrics.

    Returns
    -------
    Path
        Of the weights.

    Raises
    ------
    ValueError
        A setting is unknown or wrong, or the folder holds a training with other settings.
    """
    try:
        config = config_from(tomllib.loads(settings.read_text()))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{settings}: {error}") from error
    galaxy, star, qso = np.array(SURVEY_SHARES) / np.array(TRAINING_SHARES)
    config = replace(config, class_weights=(float(galaxy), float(star), float(qso)))
    sky = load_sky(library)
    weights = train(config, sky, HeldOutSky(sky), folder, report)
    card = weights.with_suffix(".md")
    write_whole(UPath(card), model_card(load_weights(weights)[1]).encode())
    return weights
