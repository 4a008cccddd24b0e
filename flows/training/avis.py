"""Training of AVIS from a library of spectra and a TOML file, in stages; writes weights and their model card.

settings = Path("flows/training/configs/avis.toml")
weights = train_from(settings, library=Path("library.npz"), folder=Path("avis"))
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ojala.catalogs_schema.errors import InputError
from ojala.flows.mocks.library import load_sky
from ojala.flows.mocks.pairs import INSTRUMENT_CYCLE, PairSky, StoredPairs
from ojala.flows.training.learning_curve import Checks, write_curve
from ojala.models import WEIGHTS_FOLDER
from ojala.models.avis.checkpoint import AvisInfo
from ojala.models.avis.network import Avis
from ojala.models.avis.predictor import AvisPredictor
from ojala.models.avis.training import AvisTraining, Draw, train
from ojala.models.data import Pairs
from ojala.models.evaluation.card import write_card
from ojala.models.serving.precision import fastest_precision
from ojala.models.settings import from_mapping, read_toml
from ojala.models.spectral_tokenizer.evaluation import retrieval
from ojala.models.training.trainer import METRICS_FILE, Report, ignore

CURVE_LOSSES = ("joint", "spectrum", "image", "second_view")
CURVE_CHECKS: Checks = {"median rank of the image of a spectrum": ("median_rank",), "first": ("top_1",)}
"""Losses and measures of the learning curve."""

HELD_OUT = 500
"""Held-out pairs that are measured at each save."""


class HeldOutCheck:
    """Retrieval of images by spectra of the same held-out objects."""

    def __init__(self, sky: PairSky, n: int) -> None:
        self._pairs = sky.draw(n, np.random.default_rng(2**31), held_out=True).pairs

    def __call__(self, model: Avis) -> dict[str, float]:
        """Ranks of the right image among all for a spectrum."""
        info = AvisInfo("in training", "", model.config, {}, "")
        device = next(model.parameters()).device.type
        predictor = AvisPredictor(
            model, info, device=device, precision=fastest_precision(device), batch_size=32
        )
        predictions = predictor.predict(self._pairs)
        ranks = retrieval(predictions["embedding_spectrum"], predictions["embedding_image"])
        return {name: round(value, 4) for name, value in ranks.items()}


def on_the_fly(sky: PairSky, seed: int) -> Draw:
    """Source of new pairs for each step."""

    def draw(step: int, n: int) -> Pairs:
        instrument = INSTRUMENT_CYCLE[step % len(INSTRUMENT_CYCLE)]
        return sky.draw(n, np.random.default_rng([seed, step]), instrument=instrument).pairs

    return draw


def read_stages(settings: Path) -> list[AvisTraining]:
    """Read the stages of a training, in order.

    Each table ``[[stages]]`` of the TOML file holds fields of `ojala.models.avis.training.AvisTraining`;
    fields outside of the tables belong to all stages.

    Raises
    ------
    InputError
        There is no stage, or a setting is unknown or wrong.
    """
    shared = read_toml(settings)
    stages: list[dict[str, Any]] = shared.pop("stages", [])
    if not stages:
        raise InputError(f"{settings}: there is no table [[stages]]; a training of AVIS has one per stage")
    try:
        return [from_mapping(AvisTraining, shared | stage) for stage in stages]
    except InputError as error:
        raise InputError(f"{settings}: {error}") from error


def _bundled(weights: Path) -> Path:
    """The file, or the bundled one of this name where there is none."""
    return weights if weights.exists() else WEIGHTS_FOLDER / weights.name


def train_from(
    settings: Path, *, library: Path, folder: Path, report: Report = ignore, pairs: Path | None = None
) -> Path:
    """Train AVIS in the stages of a TOML file, each from the weights of the one before.

    Also writes the learning curve of the last stage, ``<name>.svg``.

    See `ojala.flows.training.registry.start_training` for the other parameters, the result and the errors.

    Parameters
    ----------
    settings : Path
        See `read_stages`.
    pairs : Path, optional
        Folder of stored pairs, as `ojala.flows.mocks.pairs` fills it; by default each step draws new pairs.
    """
    stages = read_stages(settings)
    sky = PairSky(load_sky(library))
    check = HeldOutCheck(sky, HELD_OUT)
    weights = Path()
    for number, stage in enumerate(stages, start=1):
        draw = on_the_fly(sky, stage.seed)
        if pairs is not None:
            draw = partial(StoredPairs(pairs).batch, seed=stage.seed)
        config = stage if number == 1 else replace(stage, start=str(weights))
        if config.tokenizer:
            config = replace(config, tokenizer=str(_bundled(Path(config.tokenizer))))
        own = folder / f"stage-{number}"
        weights = train(config, draw, check, own, report)
    final = Path(shutil.copy(weights, folder))
    write_curve(
        final.with_suffix(".svg"), stages[-1].batch_size, CURVE_LOSSES, CURVE_CHECKS, own / METRICS_FILE
    )
    write_card(final)
    return final
