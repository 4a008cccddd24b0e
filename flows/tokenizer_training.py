"""Training of the spectral tokenizer: a library of spectra and a TOML file in, weights out.

weights = train_tokenizer_from(Path("flows/tokenizer.toml"), library=Path("library.npz"), folder=Path("here"))
"""

from __future__ import annotations

import functools
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from flows.synthesis import load_sky
from flows.tokenizer_calibration import calibrate_tokenizer
from flows.tokenizer_draws import SIGNAL_TO_NOISE, draw_spectra
from models.spectral_tokenizer.heads import Heads
from models.spectral_tokenizer.network import SpectralTokenizer
from models.spectral_tokenizer.predictor import SpectralTokenizerPredictor
from models.spectral_tokenizer.quality import quality
from models.spectral_tokenizer.training import Draw, TokenizerTraining, train_tokenizer
from models.spectral_tokenizer.weights import TokenizerInfo
from models.synthesis.spectrograph import SpectraSky

HELD_OUT = 256
"""Held-out spectra of each instrument that are checked at each save."""


class HeldOutCheck:
    """Measures on the same held-out spectra at each save."""

    def __init__(self, sky: SpectraSky, n: int) -> None:
        rng = np.random.default_rng(2**31)
        self._drawn = {name: draw_spectra(sky, name, n, rng, rng, held_out=True) for name in SIGNAL_TO_NOISE}

    def __call__(self, model: SpectralTokenizer, heads: Heads) -> dict[str, float]:
        """Quality by instrument, as `models.spectral_tokenizer.quality.quality`, and the mean residual."""
        info = TokenizerInfo("in training", "", model.config, {}, "")
        device = next(model.parameters()).device.type
        predictor = SpectralTokenizerPredictor(
            model, heads, info, device=device, precision="bf16", batch_size=16
        )
        found: dict[str, float] = {}
        for name, drawn in self._drawn.items():
            answers = predictor.predict(drawn.spectra)
            measures = quality(answers, drawn.class_code, drawn.labels)
            measures["residual"] = float(np.nanmedian(answers["reconstruction_residual"]))
            found |= {f"{name} {measure}": round(value, 5) for measure, value in measures.items()}
        return found


def read_settings(settings: Path) -> tuple[TokenizerTraining, TokenizerTraining]:
    """The two stages that a TOML file describes: of network and heads, then of the heads alone.

    Fields of `models.spectral_tokenizer.training.TokenizerTraining`, those of the second stage that differ in
    the table ``heads``, a stage's lesson in a table of its own.

    Raises
    ------
    ValueError
        A setting is unknown or wrong.
    """
    try:
        given = tomllib.loads(settings.read_text())
        heads = given.pop("heads", {})
        network = TokenizerTraining.from_settings(given)
        shared = {
            name: given[name] for name in ("name", "version", "preset", "seed", "device") if name in given
        }
        return network, TokenizerTraining.from_settings(shared | heads)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{settings}: {error}") from error


def train_tokenizer_from(
    settings: Path,
    *,
    library: Path,
    folder: Path,
    report: Callable[[dict[str, object]], None] = lambda record: None,
) -> Path:
    """Train network and heads, then the heads alone, then fit the scales of their errors.

    What ``folder`` holds of an unfinished training of these settings is gone on with.

    Parameters
    ----------
    settings : Path
        See `read_settings`.
    library : Path
        Library of spectra, as written by `flows.synthesis.build_library`.
    folder : Path
        Gets ``network`` and ``heads`` with the stages' states and metrics, and the weights.
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
    network, heads = read_settings(settings)
    sky = SpectraSky(load_sky(library).population)
    draws: dict[str, Draw] = {name: functools.partial(draw_spectra, sky, name) for name in SIGNAL_TO_NOISE}
    check = HeldOutCheck(sky, HELD_OUT)
    first = train_tokenizer(network, draws, check, folder / "network", report)
    heads = replace(heads, frozen=str(first))
    second = train_tokenizer(heads, draws, check, folder / "heads", report)
    weights = folder / second.name
    shutil.copyfile(second, weights)
    calibrate_tokenizer(weights, sky)
    return weights
