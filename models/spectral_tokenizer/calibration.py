"""Calibration: factors of the errors, and parameters of stars by real stars.

Errors have one factor per quantity and class, fitted to held-out spectra: with the factors, 68.3 % of the
truths are within the errors; the coverage of the 95.4 % interval is measured, not fitted.

Real stars differ from mock ones in continuum and lines. `StellarCalibration` predicts their parameters by a
linear function of what the frozen heads found in a spectrum, fitted to real stars and mock ones together by
ridge regression.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ojala.models.checkpoint import StoredPart
from ojala.models.data import Spectra
from ojala.models.layers.distributions import MEAN_LIMIT, STUDENT_T3_HALF_WIDTH
from ojala.models.quantities import CLASSES
from ojala.models.spectral_tokenizer.heads import STELLAR, HeadOutputs

SCALED: tuple[tuple[str, str], ...] = (
    ("z", "GALAXY"),
    ("z", "QSO"),
    *((quantity.name, "STAR") for quantity in STELLAR),
)
"""Quantity and class of each factor."""

CALIBRATED = ("teff", "fe_h")
"""Parameters that are calibrated: log g of mock stars and of LAMOST's is better as the network has it."""

CALIBRATED_TEFF = (10_000.0, 12_000.0)
"""Temperatures [K] up to which the network's own prediction has no weight, and from which it has all."""

COARSE_STEP = 0.5
"""Least distance of pixels [Angstrom] of the spectra that are calibrated: finer ones, as GALAH's, resolve
lines that the libraries of real stars do not."""

RIDGE = 400.0
"""Penalty of the squared weights of features in units of their scatter."""

_TEFF = STELLAR[0]
ONE_SIGMA = 0.6827
"""Share of the truths that lie within right errors."""

_TWO_SIGMA = {"z": 2.0} | {q.name: 3.3068 / STUDENT_T3_HALF_WIDTH for q in STELLAR}
"""Half-width of the central 95.45 % interval over that of the 68.27 % one: Gaussian; Student-t, nu = 3."""


@dataclass(frozen=True, slots=True)
class ErrorScales(StoredPart):
    """Factors of the errors of `SCALED`.

    Attributes
    ----------
    factor : Tensor, shape (len(SCALED),)
        Positive.
    """

    TITLE = "the factors of the errors"

    factor: Tensor

    def check_shapes(self) -> None:
        """Check that there is a positive factor for each of `SCALED`."""
        if self.factor.shape != (len(SCALED),) or not bool((self.factor > 0.0).all()):
            raise ValueError(f"{self.TITLE} are not {len(SCALED)} positive numbers")

    def apply(self, predictions: dict[str, np.ndarray]) -> None:
        """Scale the errors of predictions in place, those of redshifts by the predicted class."""
        for (name, kind), factor in zip(SCALED, self.factor.tolist(), strict=True):
            rows = predictions["class"] == kind if name == "z" else slice(None)
            predictions[f"{name}_err"][rows] *= np.float32(factor)


@dataclass(frozen=True, slots=True)
class StellarCalibration(StoredPart):
    """Linear function of F features (see `features`) to the standardised parameters `STELLAR`.

    Attributes
    ----------
    mean : Tensor, shape (F,)
        Mean features.
    weight : Tensor, shape (F, 3)
        Parameters over features.
    offset : Tensor, shape (3,)
        Parameters at the mean features.
    error : Tensor, shape (3,)
        Positive factors of the errors of calibrated parameters.
    """

    TITLE = "the calibration of stellar parameters"

    mean: Tensor
    weight: Tensor
    offset: Tensor
    error: Tensor

    def check_shapes(self) -> None:
        """Check that the shapes fit each other."""
        if self.weight.shape != (len(self.mean), len(STELLAR)) or self.offset.shape != (len(STELLAR),):
            raise ValueError(f"{self.TITLE} has shapes that do not fit each other")
        if self.error.shape != (len(STELLAR),) or not bool((self.error > 0.0).all()):
            raise ValueError(
                f"{self.TITLE} has factors of errors that are not {len(STELLAR)} positive numbers"
            )

    def apply(self, stellar: Tensor, features: Tensor, coarse: Tensor) -> Tensor:
        """Calibrated (N, 3, 2) from locations and log-scales (N, 3, 2), features (N, F) and `coarse` (N,).

        Only the parameters `CALIBRATED` of coarse spectra change. Those of stars above `CALIBRATED_TEFF` are
        left as they are, as there are few such stars to calibrate with; between the limits both are mixed.
        """
        location, log_scale = stellar.unbind(-1)
        cool, hot = CALIBRATED_TEFF
        teff = 10.0 ** (location[:, :1] * _TEFF.scale + _TEFF.center)
        share = ((hot - teff) / (hot - cool)).clamp(0.0, 1.0) * coarse[:, None]
        share = share * share.new_tensor([float(q.name in CALIBRATED) for q in STELLAR])
        # In the order of the rows alone: a product of matrices may depend on the size of the batch.
        calibrated = ((features - self.mean)[:, :, None] * self.weight).sum(dim=1) + self.offset
        mixed = share * calibrated + (1.0 - share) * location
        return torch.stack(
            [mixed.clamp(-MEAN_LIMIT, MEAN_LIMIT), log_scale + share * self.error.log()], dim=-1
        )


def coarse(spectra: Spectra) -> np.ndarray:
    """Spectra with a median distance of the pixels of at least `COARSE_STEP`; bool, shape (N,)."""
    return np.array([len(w) > 1 and bool(np.median(np.diff(w)) >= COARSE_STEP) for w, _, _ in spectra], bool)


def features(outputs: HeadOutputs, embedding: Tensor) -> Tensor:
    """Features of N spectra (N, F): outputs of all queries of the heads, and the embedding (N, d)."""
    return torch.cat([outputs.pooled.flatten(1), embedding.float()], dim=1)


def fit_stellar_calibration(found: Tensor, target: Tensor, weight: Tensor) -> StellarCalibration:
    """Fit a calibration by ridge regression.

    Parameters
    ----------
    found : Tensor, shape (N, F)
        `features` of spectra of stars.
    target : Tensor, shape (N, 3)
        True standardised parameters, finite.
    weight : Tensor, shape (N,)
        Weight of each spectrum.
    """
    weight = (weight / weight.mean()).double()[:, None]
    found, target = found.double(), target.double()
    mean, offset = (weight * found).mean(dim=0), (weight * target).mean(dim=0)
    scatter = found.std(dim=0).clamp_min(1e-6)
    rest = (found - mean) / scatter
    gram = (weight * rest).T @ rest + RIDGE * torch.eye(found.shape[1], dtype=torch.double)
    solved = torch.linalg.solve(gram, (weight * rest).T @ (target - offset))
    parts = (mean, solved / scatter[:, None], offset, torch.ones(len(STELLAR)))
    return StellarCalibration(*(part.float() for part in parts))


def fit_error_scales(
    predictions: Mapping[str, np.ndarray], class_code: np.ndarray, labels: Mapping[str, np.ndarray]
) -> ErrorScales:
    """Fit factors with 68.3 % of the truths within the errors; 1 without any truth.

    Parameters
    ----------
    predictions : mapping
        Of `ojala.models.spectral_tokenizer.predictor.SpectralTokenizerPredictor.predict`, with unscaled
        errors.
    class_code : ndarray of int, shape (N,)
        True class, index into `CLASSES`.
    labels : mapping of str to ndarray, shape (N,)
        Truth.
    """
    factor = []
    for name, kind in SCALED:
        deviation = _deviations(predictions, class_code, labels, name, kind)
        factor.append(np.quantile(deviation, ONE_SIGMA) if len(deviation) else 1.0)
    return ErrorScales(torch.tensor(factor, dtype=torch.float32))


def coverage(
    predictions: Mapping[str, np.ndarray], class_code: np.ndarray, labels: Mapping[str, np.ndarray]
) -> dict[str, dict[str, float]]:
    """Measure the coverage of the 68.3 % and 95.4 % intervals, and the number of truths, by quantity."""
    measures = {}
    for name, kind in SCALED:
        deviation = _deviations(predictions, class_code, labels, name, kind)
        if len(deviation):
            measures[f"{name} of {kind}"] = {
                "n": float(len(deviation)),
                "within_68": float(np.mean(deviation <= 1.0)),
                "within_95": float(np.mean(deviation <= _TWO_SIGMA[name])),
            }
    return measures


def _deviations(
    predictions: Mapping[str, np.ndarray],
    class_code: np.ndarray,
    labels: Mapping[str, np.ndarray],
    name: str,
    kind: str,
) -> np.ndarray:
    """Absolute deviations from the truth in units of the errors, for recognised objects of a class."""
    own = (class_code == CLASSES.index(kind)) & (predictions["class"] == kind)
    value, error, truth = (
        np.asarray(v[own], float) for v in (predictions[name], predictions[f"{name}_err"], labels[name])
    )
    deviation = np.abs(value - truth) / error
    return np.asarray(deviation[np.isfinite(deviation)])
