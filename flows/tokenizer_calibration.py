"""Scales of the tokenizer's errors, fitted on held-out mock spectra and stored with its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from flows.tokenizer_draws import SIGNAL_TO_NOISE, draw_spectra
from models.batch import LabelledSpectra
from models.spectral_tokenizer.error_scales import coverage, fit_error_scales
from models.spectral_tokenizer.predictor import SpectralTokenizerPredictor
from models.spectral_tokenizer.weights import TokenizerInfo, load_tokenizer, save_tokenizer
from models.synthesis.spectrograph import SpectraSky

DRAWS = 1000
"""Spectra of each instrument that are fitted; as many others measure what came of it."""

_SEED = 2**31 + 1


def calibrate_tokenizer(weights: Path, sky: SpectraSky) -> dict[str, Any]:
    """Fit the scales and write them into the file of weights, which is renewed whole.

    Parameters
    ----------
    weights : Path
        Weights; scales that they hold are replaced. Their hash changes.
    sky : SpectraSky
        The sky that they were trained on; held-out members are drawn.

    Returns
    -------
    dict
        ``before`` and ``after``: `models.spectral_tokenizer.error_scales.coverage` on spectra that were not
        fitted; ``draws``.
    """
    model, heads, info = load_tokenizer(weights)
    plain = TokenizerInfo(info.name, info.version, info.config, info.training, info.sha256)
    asked = SpectralTokenizerPredictor(model, heads, plain, device="cpu", precision="bf16", batch_size=16)
    rng = np.random.default_rng(_SEED)
    fitted, measured = (
        LabelledSpectra.joined(
            [draw_spectra(sky, name, DRAWS, rng, rng, held_out=True) for name in SIGNAL_TO_NOISE]
        )
        for _ in range(2)
    )
    scales = fit_error_scales(asked.predict(fitted.spectra), fitted.class_code, fitted.labels)
    answers = asked.predict(measured.spectra)
    before = coverage(answers, measured.class_code, measured.labels)
    scales.apply(answers)
    measures = {
        "draws": DRAWS * len(SIGNAL_TO_NOISE),
        "before": before,
        "after": coverage(answers, measured.class_code, measured.labels),
    }
    save_tokenizer(
        weights,
        model,
        heads,
        name=info.name,
        version=info.version,
        training=info.training | {"calibrated": measures},
        scales=scales,
    )
    return measures
