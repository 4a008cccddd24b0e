"""Training of the spectral tokenizer from a library of spectra and a TOML file; writes calibrated weights.

settings = Path("flows/training/configs/spectral_tokenizer.toml")
weights = train_from(settings, library=Path("library.npz"), folder=Path("here"))
"""

from __future__ import annotations

import functools
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ojala.catalogs_schema.errors import InputError
from ojala.flows.mocks.library import load_sky
from ojala.flows.mocks.spectra import SIGNAL_TO_NOISE, draw_spectra
from ojala.models.data import LabelledSpectra
from ojala.models.evaluation.card import write_card
from ojala.models.settings import from_mapping, read_toml
from ojala.models.simulation.skies.spectroscopic import SpectraSky
from ojala.models.spectral_tokenizer.calibration import coverage, fit_error_scales
from ojala.models.spectral_tokenizer.checkpoint import TokenizerInfo, load, save
from ojala.models.spectral_tokenizer.evaluation import quality
from ojala.models.spectral_tokenizer.heads import TokenizerWithHeads
from ojala.models.spectral_tokenizer.predictor import SpectralTokenizerPredictor
from ojala.models.spectral_tokenizer.training import Draw, TokenizerTraining, train
from ojala.models.training.trainer import Report, ignore

DRAWS = 1000
"""Spectra of each instrument that are fitted; as many others measure what came of it."""

_SEED = 2**31 + 1


def calibrate_tokenizer(weights: Path, sky: SpectraSky) -> dict[str, Any]:
    """Fit the scales of the errors and write them into the file of weights, whole or not at all.

    Parameters
    ----------
    weights : Path
        Weights; scales that they hold are replaced. Their hash changes.
    sky : SpectraSky
        The sky that they were trained on; held-out members are drawn.

    Returns
    -------
    dict
        ``before`` and ``after``: `ojala.models.spectral_tokenizer.calibration.coverage` on spectra that were
        not fitted; ``draws``.
    """
    model, info = load(weights)
    unscaled = replace(info, error_scales=None)
    predictor = SpectralTokenizerPredictor(model, unscaled, device="cpu", precision="bf16", batch_size=16)
    rng = np.random.default_rng(_SEED)
    fitted, measured = (
        LabelledSpectra.joined(
            [draw_spectra(sky, name, DRAWS, rng, rng, held_out=True) for name in SIGNAL_TO_NOISE]
        )
        for _ in range(2)
    )
    scales = fit_error_scales(predictor.predict(fitted.spectra), fitted.class_code, fitted.labels)
    answers = predictor.predict(measured.spectra)
    before = coverage(answers, measured.class_code, measured.labels)
    scales.apply(answers)
    measures = {
        "draws": DRAWS * len(SIGNAL_TO_NOISE),
        "before": before,
        "after": coverage(answers, measured.class_code, measured.labels),
    }
    save(
        weights,
        model,
        name=info.name,
        version=info.version,
        training=info.training | {"calibrated": measures},
        error_scales=scales,
    )
    return measures


HELD_OUT = 256
"""Held-out spectra of each instrument that are checked at each save."""


class HeldOutCheck:
    """Measures on the same held-out spectra at each save."""

    def __init__(self, sky: SpectraSky, n: int) -> None:
        rng = np.random.default_rng(2**31)
        self._drawn = {name: draw_spectra(sky, name, n, rng, rng, held_out=True) for name in SIGNAL_TO_NOISE}

    def __call__(self, model: TokenizerWithHeads) -> dict[str, float]:
        """Quality by instrument, as `evaluation.quality`, and the mean residual."""
        info = TokenizerInfo("in training", "", model.config, {}, "")
        device = next(model.parameters()).device.type
        predictor = SpectralTokenizerPredictor(model, info, device=device, precision="bf16", batch_size=16)
        found: dict[str, float] = {}
        for name, drawn in self._drawn.items():
            answers = predictor.predict(drawn.spectra)
            measures = quality(answers, drawn.class_code, drawn.labels)
            measures["residual"] = float(np.nanmedian(answers["reconstruction_residual"]))
            found |= {f"{name} {measure}": round(value, 5) for measure, value in measures.items()}
        return found


def read_settings(settings: Path) -> tuple[TokenizerTraining, TokenizerTraining]:
    """The two stages that a TOML file describes: of network and heads, then of the heads alone.

    Fields of `ojala.models.spectral_tokenizer.training.TokenizerTraining`, those of the second stage that
    differ in the table ``heads``, a stage's masking in a table of its own.

    Raises
    ------
    InputError
        A setting is unknown or wrong.
    """
    given = read_toml(settings)
    heads = given.pop("heads", {})
    shared = {name: given[name] for name in ("name", "version", "preset", "seed", "device") if name in given}
    try:
        return from_mapping(TokenizerTraining, given), from_mapping(TokenizerTraining, shared | heads)
    except InputError as error:
        raise InputError(f"{settings}: {error}") from error


def train_from(
    settings: Path,
    *,
    library: Path,
    folder: Path,
    report: Report = ignore,
) -> Path:
    """Train network and heads, then the heads alone, then fit the scales of their errors.

    An unfinished training with these settings in ``folder`` is resumed.

    Parameters
    ----------
    settings : Path
        See `read_settings`.
    library : Path
        Library of spectra, as written by `ojala.flows.mocks.library.build_library`.
    folder : Path
        Gets ``network`` and ``heads`` with the stages' states and metrics, and the weights.
    report : callable
        Is given each record of the metrics.

    Returns
    -------
    Path
        File of the weights.

    Raises
    ------
    InputError
        A setting is unknown or wrong, or the folder holds a training with other settings.
    """
    network, heads = read_settings(settings)
    sky = SpectraSky(load_sky(library).population)
    draws: dict[str, Draw] = {name: functools.partial(draw_spectra, sky, name) for name in SIGNAL_TO_NOISE}
    check = HeldOutCheck(sky, HELD_OUT)
    first = train(network, draws, check, folder / "network", report)
    heads = replace(heads, frozen=str(first))
    second = train(heads, draws, check, folder / "heads", report)
    weights = folder / second.name
    shutil.copyfile(second, weights)
    calibrate_tokenizer(weights, sky)
    write_card(weights)
    return weights
