"""Calibration and novelty score of trained weights.

measures = calibrate_weights(Path("ojala-base.safetensors"), load_sky(Path("library.npz")))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ojala.models.data import LabelledPhotometry
from ojala.models.evaluation.card import write_card
from ojala.models.ojala.calibration import Calibration, calibration_measures, fit_calibration, fit_floors
from ojala.models.ojala.checkpoint import load, save_again
from ojala.models.ojala.network import Ojala
from ojala.models.ojala.novelty import Novelty, fit_novelty, raw_vector
from ojala.models.ojala.outputs import RawBands, RawOutputs, predict_uncalibrated, predict_uncalibrated_bands
from ojala.models.simulation.skies.photometric import SURVEY_SHARES, TRAINING_SHARES, MockSky
from ojala.pipeline.storage import progress

DRAWN_SHARES = (0.50, 0.20, 0.30)
"""Shares of galaxies, stars and quasars in the calibration sample."""

BAND_DRAWS = 6_000
"""Largest number of held-out objects for the calibration of bands, with some fifty bands each."""

FIT_SHARE = 2.0 / 3.0
"""Fraction of the held-out draws for the fit; the rest is for the measures."""


def calibrate_weights(
    weights: Path,
    sky: MockSky,
    *,
    observed: LabelledPhotometry | None = None,
    draws: int = 18_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Fit calibration and novelty and store both in the file of weights, and renew its model card.

    Parameters
    ----------
    weights : Path
        Weights; an existing calibration is replaced. Their hash changes, so their heads must be trained
        again.
    sky : MockSky
        Sky of the training. The calibration is fitted to its held-out members.
    observed : LabelledPhotometry, optional
        Observed objects that the network was not trained on, for the floors of the errors; those of one
        object or place side by side.
    draws : int
        Held-out objects; half as many training objects are drawn for the novelty.
    seed : int
        Seed of the draws.

    Returns
    -------
    dict
        ``before``, ``fitted`` (without the broadening by `ojala.models.ojala.calibration.MISMATCH`) and
        ``after``: `ojala.models.ojala.calibration.calibration_measures` on draws outside of the fit;
        ``novel``, their fraction with a novelty above 1; ``observed``, with observed objects: the same
        measures of these ``without`` and ``with`` floors, by twofold cross-validation.
    """
    model, info = load(weights)
    progress.report(f"predicting {draws:,} held-out draws")
    held_out = sky.draw(draws, np.random.default_rng([seed, 0]), shares=DRAWN_SHARES, held_out=True)
    raw = predict_uncalibrated(model, held_out)
    chosen = torch.arange(draws) < int(draws * FIT_SHARE)
    fit, test = raw.rows(chosen), raw.rows(~chosen)
    galaxy, star, quasar = np.array(SURVEY_SHARES) / np.array(DRAWN_SHARES)
    to_survey = (float(galaxy), float(star), float(quasar))
    fit_bands, test_bands = _bands(model, held_out)
    progress.report("fitting probabilities and errors")
    calibration = fit_calibration(fit, to_survey, fit_bands)

    progress.report(f"predicting {draws // 2:,} training draws for the novelty")
    trained = sky.draw(draws // 2, np.random.default_rng([seed, 1]), shares=TRAINING_SHARES)
    novelty = fit_novelty(predict_uncalibrated(model, trained), fit)
    fitted = replace(calibration, redshift_kernel=torch.ones(1))
    floors = {}
    if observed is not None:
        known = predict_uncalibrated(model, observed)
        floors = {"observed": _cross_validate(calibration, known)}
        calibration = fit_floors(calibration, known)
    progress.report("measuring the calibration")
    measures = {
        "draws": draws,
        "before": calibration_measures(test, Calibration.none(), to_survey, test_bands),
        "fitted": calibration_measures(test, fitted, to_survey, test_bands),
        "after": calibration_measures(test, calibration, to_survey, test_bands),
        "novel": _share_novel(novelty, test),
    } | floors
    training = info.training | {"calibrated": measures}
    save_again(weights, model, replace(info, training=training, calibration=calibration, novelty=novelty))
    if weights.with_suffix(".md").exists():  # it states the hash
        write_card(weights)
    return measures


def _cross_validate(calibration: Calibration, observed: RawOutputs) -> dict[str, dict[str, dict[str, float]]]:
    """Measures of each half of the observed objects with the floors of the other half, averaged."""
    first = torch.arange(len(observed.depth)) < len(observed.depth) // 2
    halves = observed.rows(first), observed.rows(~first)
    floored = [fit_floors(calibration, other) for other in halves[::-1]]

    def measures(used: Sequence[Calibration]) -> dict[str, dict[str, float]]:
        pairs = zip(halves, used, strict=True)
        return _average([calibration_measures(half, one, (1.0, 1.0, 1.0)) for half, one in pairs])

    return {"without": measures([calibration, calibration]), "with": measures(floored)}


def _average(samples: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Measures averaged over samples by their sizes ``n``, of the quantities that all of them have."""
    found = {}
    for quantity in samples[0]:
        all_of_it = [sample[quantity] for sample in samples if quantity in sample]
        n = sum(one["n"] for one in all_of_it)
        if n and len(all_of_it) == len(samples):
            means = {name: sum(one["n"] * one[name] for one in all_of_it) / n for name in all_of_it[0]}
            found[quantity] = means | {"n": n}
    return found


def _bands(model: Ojala, drawn: LabelledPhotometry) -> tuple[RawBands, RawBands] | tuple[None, None]:
    """Raw predictions of bands for the fit and the measures; None for weights without band requests."""
    if model.band_requests is None or drawn.noiseless is None:
        return None, None
    count = min(len(drawn), BAND_DRAWS)
    raw = predict_uncalibrated_bands(model, drawn.rows(slice(count)))
    chosen = torch.arange(count) < int(count * FIT_SHARE)
    return raw.rows(chosen), raw.rows(~chosen)


def _share_novel(novelty: Novelty, raw: RawOutputs) -> float:
    vector = raw_vector(raw.class_logits, raw.scalars)
    return float((novelty.score(raw.embedding, vector, raw.depth) > 1).float().mean())
