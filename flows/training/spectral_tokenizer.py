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
from ojala.models.serving.precision import fastest_precision
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
"""Spectra of each instrument for the fit, and as many for its measures."""

_SEED = 2**31 + 1


def calibrate_tokenizer(weights: Path, sky: SpectraSky) -> dict[str, Any]:
    """Fit the factors of the errors and store them in the file of weights.

    Parameters
    ----------
    weights : Path
        Weights; existing factors are replaced. Their hash changes.
    sky : SpectraSky
        Sky of the training; held-out members are drawn.

    Returns
    -------
    dict
        ``before`` and ``after``: `ojala.models.spectral_tokenizer.calibration.coverage` on spectra outside of
        the fit; ``draws``.
    """
    model, info = load(weights)
    unscaled = replace(info, error_scales=None)
    predictor = SpectralTokenizerPredictor(
        model, unscaled, device="cpu", precision=fastest_precision(), batch_size=16
    )
    rng = np.random.default_rng(_SEED)
    fitted, measured = (
        LabelledSpectra.joined(
            [draw_spectra(sky, name, DRAWS, rng, rng, held_out=True) for name in SIGNAL_TO_NOISE]
        )
        for _ in range(2)
    )
    scales = fit_error_scales(predictor.predict(fitted.spectra), fitted.class_code, fitted.labels)
    predictions = predictor.predict(measured.spectra)
    before = coverage(predictions, measured.class_code, measured.labels)
    scales.apply(predictions)
    measures = {
        "draws": DRAWS * len(SIGNAL_TO_NOISE),
        "before": before,
        "after": coverage(predictions, measured.class_code, measured.labels),
    }
    save(
        weights,
        model,
        name=info.name,
        version=info.version,
        training=info.training | {"calibrated": measures},
        error_scales=scales,
        stellar_calibration=info.stellar_calibration,
    )
    return measures


HELD_OUT = 256
"""Held-out spectra of each instrument that are measured at each save."""


class HeldOutCheck:
    """Measures on a fixed sample of held-out spectra."""

    def __init__(self, sky: SpectraSky, n: int) -> None:
        rng = np.random.default_rng(2**31)
        self._drawn = {name: draw_spectra(sky, name, n, rng, rng, held_out=True) for name in SIGNAL_TO_NOISE}

    def __call__(self, model: TokenizerWithHeads) -> dict[str, float]:
        """Compute `evaluation.quality` and the median residual by instrument."""
        info = TokenizerInfo("in training", "", model.config, {}, "")
        device = next(model.parameters()).device.type
        predictor = SpectralTokenizerPredictor(
            model, info, device=device, precision=fastest_precision(device), batch_size=16
        )
        by_instrument: dict[str, float] = {}
        for name, drawn in self._drawn.items():
            predictions = predictor.predict(drawn.spectra)
            measures = quality(predictions, drawn.class_code, drawn.labels)
            measures["residual"] = float(np.nanmedian(predictions["reconstruction_residual"]))
            by_instrument |= {f"{name} {measure}": round(value, 5) for measure, value in measures.items()}
        return by_instrument


def read_settings(settings: Path) -> tuple[TokenizerTraining, TokenizerTraining]:
    """Read the two stages of a training: network and heads, then the heads alone.

    The TOML file has fields of `ojala.models.spectral_tokenizer.training.TokenizerTraining`; those of the
    second stage are in the table ``heads``.

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


def train_from(settings: Path, *, library: Path, folder: Path, report: Report = ignore) -> Path:
    """Train network and heads, then the heads alone, then fit the factors of their errors.

    See `ojala.flows.training.registry.start_training`, and `read_settings` for the settings. State and
    metrics of the stages are in ``network`` and ``heads`` in the folder.
    """
    network, heads = read_settings(settings)
    sky = SpectraSky(load_sky(library).population)
    draws: dict[str, Draw] = {name: functools.partial(draw_spectra, sky, name) for name in SIGNAL_TO_NOISE}
    check = HeldOutCheck(sky, HELD_OUT)
    first = train(network, draws, check, folder / "network", report)
    heads = replace(heads, frozen=str(first))
    second = train(heads, draws, check, folder / "heads", report)
    weights = Path(shutil.copy(second, folder))
    calibrate_tokenizer(weights, sky)
    write_card(weights)
    return weights
