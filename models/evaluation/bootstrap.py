"""Bootstrap errors of measures, by resampling of objects with replacement (Efron 1979)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ojala.models.evaluation.metrics import CENTRAL_68

RESAMPLES = 200
"""Resamples of an error, whose own relative error is then 5 %."""

SEED = 20260401
"""Seed of the draws: the same catalogue and truth give the same errors."""

_BLOCK = 4_000_000  # numbers that are resampled at a time, to bound memory


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measure of a sample and its error.

    Attributes
    ----------
    value : ndarray, shape (...)
        The measure of the sample.
    error : ndarray, shape (...)
        Half the central 68.3 % range of the measure over the resamples, one standard deviation of a Gaussian;
        NaN where the measure is not finite in all of them.
    """

    value: np.ndarray
    error: np.ndarray


Formula = Callable[..., dict[str, np.ndarray]]


def bootstrap_objects(formula: Formula, *columns: np.ndarray) -> dict[str, Estimate]:
    """Estimate measures of a sample by resampling its objects.

    Parameters
    ----------
    formula : callable
        Takes the columns, shape (N,) or (R, N), and reduces the last axis.
    columns : ndarray, shape (N,)
        Columns of N objects, N > 0.
    """
    n = len(columns[0])
    rng, drawn = np.random.default_rng(SEED), []
    each = max(1, _BLOCK // n)
    for first in range(0, RESAMPLES, each):
        chosen = rng.integers(0, n, (min(each, RESAMPLES - first), n))
        drawn.append(formula(*(column[chosen] for column in columns)))
    return _estimates(formula(*columns), drawn)


def bootstrap_counts(formula: Formula, counts: np.ndarray) -> dict[str, Estimate]:
    """Estimate measures of a table of counts by resampling its cells.

    Parameters
    ----------
    formula : callable
        Takes counts of the table's shape, or of that with an axis of resamples before it.
    counts : ndarray of int, any shape
        Objects per cell.
    """
    total = int(counts.sum())
    share = counts.ravel() / max(total, 1)
    drawn = (
        np.random.default_rng(SEED).multinomial(total, share, RESAMPLES) if total else counts.ravel()[None]
    )
    return _estimates(formula(counts), [formula(drawn.reshape(-1, *counts.shape))])


def _estimates(sample: dict[str, np.ndarray], drawn: list[dict[str, np.ndarray]]) -> dict[str, Estimate]:
    estimates = {}
    for name, value in sample.items():
        with np.errstate(invalid="ignore"):
            low, high = np.percentile(np.concatenate([part[name] for part in drawn]), CENTRAL_68, axis=0)
        estimates[name] = Estimate(np.asarray(value), np.asarray(0.5 * (high - low)))
    return estimates
