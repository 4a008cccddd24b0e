"""Calibration of errors: one factor per quantity and class, fitted to held-out mock spectra.

With the factors, 68.3 % of the truths are within the errors; the coverage of the 95.4 % interval is measured,
not fitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ojala.models.checkpoint import StoredPart
from ojala.models.layers.distributions import STUDENT_T3_HALF_WIDTH
from ojala.models.quantities import CLASSES
from ojala.models.spectral_tokenizer.heads import STELLAR

SCALED: tuple[tuple[str, str], ...] = (
    ("z", "GALAXY"),
    ("z", "QSO"),
    *((quantity.name, "STAR") for quantity in STELLAR),
)
"""Quantity and class of each factor."""

_ONE_SIGMA = 0.6827
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
        factor.append(np.quantile(deviation, _ONE_SIGMA) if len(deviation) else 1.0)
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
