"""Adaptation of weights to a survey's photometry, which differs from mocks in zero points, noise and priors.

A share of the draws are objects of known class and redshift, the others mocks as in the first training, so
that what only mocks teach is kept; encodings of mocks are drawn to those of the catalogue's unlabelled rows.
By default the encoder learns while decoder and heads stay (as published: Martinez-Solaeche et al.,
arXiv:2604.00661).

settings = Path("flows/training/configs/adapt.toml")
weights = adapt(settings, weights=..., photometry=..., truth=..., library=..., folder=...)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from upath import UPath

from ojala.flows.mocks.library import load_sky
from ojala.flows.training.calibrate import calibrate_weights
from ojala.flows.training.labelled import labelled_rows
from ojala.flows.training.learning_curve import write_curve
from ojala.flows.training.ojala import CURVE_CHECKS, CURVE_LOSSES, HeldOutSky, ObservedPhotometry
from ojala.models.data import LabelledPhotometry
from ojala.models.evaluation.card import write_card
from ojala.models.evaluation.metrics import catalogue_metrics
from ojala.models.ojala.calibration import Calibration, fit_calibration
from ojala.models.ojala.checkpoint import load, save_again
from ojala.models.ojala.network import PRESETS
from ojala.models.ojala.outputs import RawOutputs, predict_uncalibrated
from ojala.models.ojala.predictor import OjalaPredictor
from ojala.models.ojala.training import OjalaTraining, train
from ojala.models.ojala.zero_points import ZeroPoints, fit_zero_points
from ojala.models.settings import read_settings
from ojala.models.simulation.skies.mixed import MixedSky
from ojala.models.simulation.skies.photometric import CLASS_WEIGHTS
from ojala.models.training.trainer import Report, ignore
from ojala.pipeline.quality.validation.truth import read_truth

LABELLED_SHARE = 0.4
"""Share of the draws that are labelled objects."""

LEARN_SHARE, CALIBRATE_SHARE = 0.7, 0.15
"""Shares of the labelled objects that the network learns from and that the calibration is fitted to; what
came of it is measured on the rest."""

ADDED_NOISE = 0.3
"""Noise that is added to a labelled object each time it is drawn, in units of its errors."""

FEWEST_REDSHIFTS = 50
"""Labelled objects with a redshift that its calibration needs."""

ZERO_POINT_ROWS = 2_000
"""Rows of the catalogue, labelled or not, from which zero points are fitted."""

MOCKS_TO_MEASURE = 4_000
"""Held-out mocks on which weights are compared before and after."""


@dataclass(frozen=True)
class LabelledSky:
    """Labelled objects, drawn with replacement.

    Attributes
    ----------
    objects : LabelledPhotometry
        The objects.
    class_weights : tuple of float
        Weights of the classes in the training's loss, which the chance of a draw makes good: in the loss
        classes count as they occur among the objects.
    """

    objects: LabelledPhotometry
    class_weights: tuple[float, float, float]

    def draw(self, n: int, rng: np.random.Generator) -> LabelledPhotometry:
        """Photometry of n objects, with a little noise added."""
        chance = 1.0 / np.array([*self.class_weights, 1.0])[self.objects.class_code]
        drawn = self.objects.rows(rng.choice(len(self.objects), n, p=chance / chance.sum()))
        noise = ADDED_NOISE * drawn.error * rng.standard_normal(drawn.flux.shape, dtype=np.float32)
        return replace(
            drawn, flux=drawn.flux + noise, error=drawn.error * np.float32(np.hypot(1.0, ADDED_NOISE))
        )


def adapt(
    settings: Path,
    *,
    weights: Path,
    photometry: UPath,
    truth: Path,
    library: Path,
    folder: Path,
    report: Report = ignore,
) -> Path:
    """Adapt weights to a photometry catalogue, calibrate them and write their card; resumes.

    Zero points of the bands come first, from all rows (`ojala.models.ojala.zero_points`): the network learns
    from fluxes without them, and the adapted weights hold them.

    Parameters
    ----------
    settings : Path
        TOML with fields of `ojala.models.ojala.training.OjalaTraining`.
    weights : Path
        Weights to start from; they are not changed.
    photometry : UPath
        Catalogue made by `ojala ingest`; all of its rows are read without labels.
    truth : Path
        Classes and redshifts of some of its objects, as for
        `ojala.pipeline.quality.validation.truth.read_truth`.
    library : Path
        Library of spectra for the mocks.
    folder : Path
        Gets weights, state, metrics, learning curve and model card.
    report : callable
        Is given each record of the metrics.

    Returns
    -------
    Path
        File of the adapted weights.

    Raises
    ------
    InputError
        A setting is wrong, there are too few labels, or the folder holds another training.
    """
    config = read_settings(OjalaTraining, settings)
    objects, mock = labelled_rows(photometry, read_truth(UPath(truth))), load_sky(library)
    survey = ObservedPhotometry(photometry)
    zero_points = _zero_points(weights, survey, config.seed)
    factor = zero_points.factor.numpy()
    survey.flux, survey.error = survey.flux / factor, survey.error / factor
    order = np.random.default_rng(config.seed).permutation(len(objects))
    ends = (np.cumsum([LEARN_SHARE, CALIBRATE_SHARE]) * len(objects)).astype(int)
    learn, fit, test = (objects.rows(rows) for rows in np.split(order, ends))
    learn, fit = (scaled(rows, 1.0 / factor) for rows in (learn, fit))
    sky = MixedSky(mock, LabelledSky(learn, CLASS_WEIGHTS), LABELLED_SHARE)
    shape = load(weights)[1].config
    config = replace(
        config,
        preset=next((name for name, preset in PRESETS.items() if preset == shape), config.preset),
        start=str(weights),
        class_weights=CLASS_WEIGHTS,
        note=f"{config.note} {LABELLED_SHARE:.0%} of the draws are {len(learn):,} labelled objects of "
        f"{photometry.name}; the parts trained are {', '.join(config.parts) or 'all'}; fluxes are divided by "
        f"zero points that scatter by {np.std(np.log(factor)):.1%}.".strip(),
    )
    adapted = train(config, sky, HeldOutSky(mock), folder, report, survey if config.discrepancy > 0 else None)

    calibrate_weights(adapted, mock)
    model, info = load(adapted)
    assert info.calibration is not None  # it was just made
    calibration = _calibrate(info.calibration, predict_uncalibrated(model, fit))
    info = replace(info, calibration=calibration, zero_points=zero_points)
    save_again(adapted, model, info)
    mocks = HeldOutSky(mock).draw(MOCKS_TO_MEASURE, np.random.default_rng([config.seed, 1]))
    samples = {
        f"{len(test):,} labelled objects": (test, test),
        f"{len(mocks):,} mocks": (mocks, scaled(mocks, factor)),  # as the survey would measure them
    }
    measures = {
        f"{name}, {when}": measure(file, rows)
        for name, versions in samples.items()
        for when, file, rows in zip(("before", "after"), (weights, adapted), versions, strict=True)
    }
    save_again(adapted, model, replace(info, training=info.training | {"adapted": measures}))
    write_curve(adapted.with_suffix(".svg"), config.batch_size, CURVE_LOSSES, CURVE_CHECKS)
    write_card(adapted)
    return adapted


def _calibrate(mocks: Calibration, labelled: RawOutputs) -> Calibration:
    """The calibration of the mocks, with that of labelled objects for classes and redshifts.

    A redshift that fewer than `FEWEST_REDSHIFTS` of them have keeps the calibration of the mocks.
    """
    own = fit_calibration(labelled, (1.0, 1.0, 1.0), knots=mocks.knots)
    enough = torch.isfinite(labelled.targets.redshift).sum(dim=1, keepdim=True) >= FEWEST_REDSHIFTS

    def chosen(name: str) -> Tensor:
        return torch.where(enough, getattr(own, name), getattr(mocks, name))

    return replace(
        mocks,
        class_log_temperature=own.class_log_temperature,
        class_bias=own.class_bias,
        redshift_log_temperature=chosen("redshift_log_temperature"),
        redshift_floor=chosen("redshift_floor"),
        redshift_population=chosen("redshift_population"),
    )


def _zero_points(weights: Path, survey: ObservedPhotometry, seed: int) -> ZeroPoints:
    """Zero points of a catalogue; those that change nothing where the weights cannot be asked for bands."""
    model, info = load(weights)
    if model.band_requests is None:
        return ZeroPoints.none()
    rows = np.random.default_rng(seed).permutation(len(survey.flux))[:ZERO_POINT_ROWS]
    plain = OjalaPredictor(
        model,
        replace(info, zero_points=None),
        device="cpu",
        precision="fp32",
        batch_size=OjalaPredictor.BATCH_SIZE,
    )
    return fit_zero_points(plain.predict_bands, survey.flux[rows], survey.error[rows], survey.ebv[rows])


def scaled(objects: LabelledPhotometry, factor: np.ndarray) -> LabelledPhotometry:
    """Multiply fluxes and errors (N, 63) of objects by factors (63,)."""
    return replace(objects, flux=objects.flux * factor, error=objects.error * factor)


def measure(weights: Path, objects: LabelledPhotometry) -> dict[str, dict[str, float]]:
    """Class and redshift measures of the predictions of labelled objects, without bins of magnitude."""
    predictions = OjalaPredictor.load(weights).predict(objects.flux, objects.error, objects.ebv)
    everywhere = np.full(len(objects), np.nan)
    return catalogue_metrics(predictions, objects.class_code, objects.labels, everywhere)
