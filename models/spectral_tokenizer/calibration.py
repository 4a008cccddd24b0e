"""Errors that come true as often as they say: a factor on each stated error, for each class.

The heads state errors in the measure of their training, where noise is what they have learned. Fitted on
held-out mock spectra, one factor per quantity and class makes 68.3 % of the truths lie within the error; what
then lies within the 95.4 % interval is measured, not fitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ojala.models.layers.distributions import STUDENT_T3_HALF_WIDTH
from ojala.models.quantities import CLASSES
from ojala.models.spectral_tokenizer.heads import STELLAR

SCALED: tuple[tuple[str, str], ...] = (
    ("z", "GALAXY"),
    ("z", "QSO"),
    *((quantity.name, "STAR") for quantity in STELLAR),
)
"""The quantities, each with the class of the objects to which its factor belongs."""

_ONE_SIGMA = 0.6827
_WIDER = {"z": 2.0} | {q.name: 3.3068 / STUDENT_T3_HALF_WIDTH for q in STELLAR}
"""Half of the central 95.45 % interval over half of the 68.27 % one: of a Gaussian, of a t(3)."""


@dataclass(frozen=True, slots=True)
class ErrorScales:
    """What the errors of `SCALED` are multiplied by.

    Attributes
    ----------
    factor : Tensor, shape (len(SCALED),)
        Positive.
    """

    factor: Tensor

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> ErrorScales:
        """From the tensors of a file of weights.

        Raises
        ------
        ValueError
            They are not exactly the factors.
        """
        if set(tensors) != {"factor"}:
            raise ValueError("the factors of the errors are missing, or are not alone")
        factor = tensors["factor"]
        if factor.shape != (len(SCALED),) or not bool((factor.isfinite() & (factor > 0.0)).all()):
            raise ValueError(f"the errors' factors are not {len(SCALED)} positive numbers")
        return cls(factor)

    def tensors(self) -> dict[str, Tensor]:
        """Arrays by name, as they are stored."""
        return {"factor": self.factor}

    def apply(self, answers: dict[str, np.ndarray]) -> None:
        """Scale the errors of answers in place; that of the redshift by the object's likeliest class."""
        for (name, kind), factor in zip(SCALED, self.factor.tolist(), strict=True):
            rows = answers["class"] == kind if name == "z" else slice(None)
            answers[f"{name}_err"][rows] *= np.float32(factor)


def fit_error_scales(
    answers: Mapping[str, np.ndarray], class_code: np.ndarray, labels: Mapping[str, np.ndarray]
) -> ErrorScales:
    """Factors by which 68.3 % of the truths lie within the errors; 1 where nothing is known.

    Parameters
    ----------
    answers : mapping
        As of `ojala.models.spectral_tokenizer.predictor.SpectralTokenizerPredictor.predict`, errors not
        scaled.
    class_code : ndarray of int, shape (N,)
        True class, index into `CLASSES`.
    labels : mapping of str to ndarray, shape (N,)
        Truth.
    """
    factor = []
    for name, kind in SCALED:
        deviation = _deviations(answers, class_code, labels, name, kind)
        factor.append(np.quantile(deviation, _ONE_SIGMA) if len(deviation) else 1.0)
    return ErrorScales(torch.tensor(factor, dtype=torch.float32))


def coverage(
    answers: Mapping[str, np.ndarray], class_code: np.ndarray, labels: Mapping[str, np.ndarray]
) -> dict[str, dict[str, float]]:
    """Shares of the truths within the stated 68.3 % and 95.4 % intervals, and their number, by quantity."""
    found = {}
    for name, kind in SCALED:
        deviation = _deviations(answers, class_code, labels, name, kind)
        if len(deviation):
            found[f"{name} of {kind}"] = {
                "n": float(len(deviation)),
                "within_68": float(np.mean(deviation <= 1.0)),
                "within_95": float(np.mean(deviation <= _WIDER[name])),
            }
    return found


def _deviations(
    answers: Mapping[str, np.ndarray],
    class_code: np.ndarray,
    labels: Mapping[str, np.ndarray],
    name: str,
    kind: str,
) -> np.ndarray:
    """Moduli of answer less truth in stated errors, of objects of a class that were taken for it."""
    own = (class_code == CLASSES.index(kind)) & (answers["class"] == kind)
    value, error, truth = (
        np.asarray(v[own], float) for v in (answers[name], answers[f"{name}_err"], labels[name])
    )
    deviation = np.abs(value - truth) / error
    return np.asarray(deviation[np.isfinite(deviation)])
