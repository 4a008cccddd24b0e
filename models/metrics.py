"""How good answers are: the measures that photometric-redshift and classification papers use."""

from __future__ import annotations

import numpy as np

from models.quantities import CLASSES, SCALARS

NMAD = 1.4826
"""Median absolute deviation -> standard deviation of a Gaussian."""


def redshift_metrics(z: np.ndarray, z_true: np.ndarray) -> dict[str, float]:
    """Measures of dz = (z - z_true) / (1 + z_true) over the rows where both are finite.

    Returns
    -------
    dict
        ``n``; ``sigma_nmad`` = 1.4826 median|dz - median dz| (most papers); ``sigma_nmad_uncentred`` =
        1.4826 median|dz| (the published OJALA and SpecPT); ``bias`` = median dz; ``outliers_15`` and
        ``outliers_03``, the fractions with |dz| beyond 0.15 and 0.03. NaN where no row is left.
    """
    dz = (z - z_true) / (1.0 + z_true)
    dz = dz[np.isfinite(dz)]
    if len(dz) == 0:
        names = ("sigma_nmad", "sigma_nmad_uncentred", "bias", "outliers_15", "outliers_03")
        return {"n": 0.0} | dict.fromkeys(names, np.nan)
    return {
        "n": float(len(dz)),
        "sigma_nmad": float(NMAD * np.median(np.abs(dz - np.median(dz)))),
        "sigma_nmad_uncentred": float(NMAD * np.median(np.abs(dz))),
        "bias": float(np.median(dz)),
        "outliers_15": float(np.mean(np.abs(dz) > 0.15)),
        "outliers_03": float(np.mean(np.abs(dz) > 0.03)),
    }


def confusion(class_code: np.ndarray, class_true: np.ndarray) -> np.ndarray:
    """Counts (true class, given class), shape (3, 3), over the rows whose true class is known (not -1)."""
    known = class_true >= 0
    n = len(CLASSES)
    counts = np.bincount(class_true[known].astype(int) * n + class_code[known].astype(int), minlength=n * n)
    return counts.reshape(n, n)


def class_metrics(class_code: np.ndarray, class_true: np.ndarray) -> dict[str, float]:
    """F1 of each class (``f1_galaxy`` ...), its mean by true counts (``f1_weighted``), ``accuracy``."""
    counts = confusion(class_code, class_true)
    support = counts.sum(axis=1)
    with np.errstate(invalid="ignore"):
        f1 = 2.0 * counts.diagonal() / (support + counts.sum(axis=0))
        weighted = float(np.sum(np.where(support > 0, f1 * support, 0.0)) / support.sum())
        accuracy = float(counts.diagonal().sum() / counts.sum())
    by_class = {f"f1_{name.lower()}": float(value) for name, value in zip(CLASSES, f1, strict=True)}
    return by_class | {"f1_weighted": weighted, "accuracy": accuracy}


def scatter_metrics(value: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """``n``, ``bias`` (median), ``nmad`` and ``std`` of value - truth, ``r2`` and ``range_ratio``.

    The range ratio (16th to 84th percentile of the answers over that of the truth) and R2 show an answer
    that has collapsed to the mean, which a small scatter hides.
    """
    both = np.isfinite(value) & np.isfinite(truth)
    value, truth = value[both].astype(np.float64), truth[both].astype(np.float64)
    if len(truth) < 2:
        return {"n": float(len(truth))} | dict.fromkeys(("bias", "nmad", "std", "r2", "range_ratio"), np.nan)
    difference = value - truth
    low, high = np.percentile(truth, [16, 84])
    got_low, got_high = np.percentile(value, [16, 84])
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "n": float(len(truth)),
            "bias": float(np.median(difference)),
            "nmad": float(NMAD * np.median(np.abs(difference - np.median(difference)))),
            "std": float(difference.std()),
            "r2": float(1.0 - np.mean(difference**2) / truth.var()),
            "range_ratio": float((got_high - got_low) / (high - low)),
        }


MAGNITUDE_BINS: tuple[tuple[float, float], ...] = (
    (0.0, 19.0),
    (19.0, 20.0),
    (20.0, 21.0),
    (21.0, 22.0),
    (22.0, 99.0),
)
"""Bins of the measured iSDSS magnitude for which `catalogue_metrics` reports."""


def catalogue_metrics(
    answers: dict[str, np.ndarray],
    class_true: np.ndarray,
    labels: dict[str, np.ndarray],
    magnitude: np.ndarray,
) -> dict[str, dict[str, float]]:
    """All measures of a predictor's answers, by name of the sample.

    Parameters
    ----------
    answers : dict
        As from `models.predictor.OjalaPredictor.predict`.
    class_true, labels
        As in `models.batch.LabelledPhotometry`.
    magnitude : ndarray, shape (N,)
        AB magnitude in iSDSS, by which rows are binned; NaN rows are in no bin.

    Returns
    -------
    dict of dict
        ``class``, ``z_gal``, ``z_qso`` over all rows and per magnitude bin (``z_gal 20-21``); each scalar
        over the rows with a label, Teff as log10. Redshifts are those under the true class, so that they
        are not mixed with errors of classification.
    """
    samples = {"": np.ones(len(class_true), dtype=bool)}
    samples |= {f" {low:g}-{high:g}": (magnitude >= low) & (magnitude < high) for low, high in MAGNITUDE_BINS}
    found: dict[str, dict[str, float]] = {}
    for suffix, rows in samples.items():
        if not rows.any():
            continue
        found[f"class{suffix}"] = class_metrics(answers["class_code"][rows], class_true[rows])
        for name in ("z_gal", "z_qso"):
            if name in labels:
                found[f"{name}{suffix}"] = redshift_metrics(answers[name][rows], labels[name][rows])
    for quantity in SCALARS:
        if quantity.name in labels:
            value, truth = answers[quantity.name], labels[quantity.name]
            if quantity.name == "teff":
                value, truth = np.log10(value), np.log10(truth)
            found[quantity.name] = scatter_metrics(value, truth) | {
                "within_err": _within(
                    answers[quantity.name], answers[f"{quantity.name}_err"], labels[quantity.name]
                )
            }
    return found


def _within(value: np.ndarray, error: np.ndarray, truth: np.ndarray) -> float:
    """Fraction of the truths within one error of the value; 0.683 where errors are right."""
    pull = np.abs(value - truth) / error
    pull = pull[np.isfinite(pull)]
    return float(np.mean(pull <= 1.0)) if len(pull) else float("nan")
