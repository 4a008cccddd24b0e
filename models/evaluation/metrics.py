"""Measures of redshifts, classes and probabilities, as in papers on photometric redshifts and classification.

Formulae reduce the last axis: of a sample, shape (N,), or of all its bootstrap resamples, shape (R, N); see
`ojala.models.evaluation.bootstrap`. `redshift_metrics`, `scatter_metrics` and `class_metrics` leave out rows
without a prediction or a truth, and count the others.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from ojala.models.quantities import CLASSES, SCALARS

NMAD = 1.4826
"""Median absolute deviation -> standard deviation of a Gaussian."""

IQR = 1.349
"""Interquartile range of a Gaussian over its standard deviation."""

CENTRAL_68 = (15.87, 84.13)
"""Percentiles of one standard deviation about the median of a Gaussian."""

CONFIDENCE_BINS = 10
"""Bins of probability, of equal width, for `calibration_error`."""

Measures = dict[str, np.ndarray]
Formula = Callable[[np.ndarray, np.ndarray], Measures]


def redshift_measures(z: np.ndarray, z_true: np.ndarray) -> Measures:
    """Measures of dz = (z - z_true) / (1 + z_true); all rows finite.

    Returns
    -------
    dict of str to ndarray, shape (...)
        ``sigma_nmad`` = 1.4826 median|dz - median dz| (most papers); ``sigma_nmad_uncentred`` =
        1.4826 median|dz| (the published OJALA and SpecPT); ``sigma68``, half the range of dz from the 16 %
        to the 84 % percentile (PAUS); ``bias`` = median dz; ``outliers_15`` and ``outliers_03``, the
        fractions with |dz| beyond 0.15 and 0.03; ``sigma_iqr``, the interquartile range of dz over 1.349,
        and ``outliers_iqr``, the fraction with |dz| > max(0.06, 3 sigma_iqr), both as in qp; ``r2`` and
        ``range_ratio``, see `scatter_measures`.
    """
    dz = (z - z_true) / (1.0 + z_true)
    low, lower, bias, upper, high = np.percentile(
        dz, [CENTRAL_68[0], 25.0, 50.0, 75.0, CENTRAL_68[1]], axis=-1
    )
    sigma_iqr = (upper - lower) / IQR
    size = np.abs(dz)
    return {
        "sigma_nmad": NMAD * np.median(np.abs(dz - bias[..., None]), axis=-1),
        "sigma_nmad_uncentred": NMAD * np.median(size, axis=-1),
        "sigma_iqr": sigma_iqr,
        "sigma68": 0.5 * (high - low),
        "bias": bias,
        "outliers_15": np.mean(size > 0.15, axis=-1),
        "outliers_03": np.mean(size > 0.03, axis=-1),
        "outliers_iqr": np.mean(size > np.maximum(0.06, 3.0 * sigma_iqr)[..., None], axis=-1),
        **_spread(z, z_true),
    }


def scatter_measures(value: np.ndarray, truth: np.ndarray) -> Measures:
    """``bias`` (median), ``nmad`` and ``std`` of value - truth, ``r2`` and ``range_ratio``; all rows finite.

    The range ratio (16th to 84th percentile range of the predictions over that of the truth) and R2 reveal
    predictions that have collapsed to the mean.
    """
    difference = value - truth
    bias = np.median(difference, axis=-1)
    return {
        "bias": bias,
        "nmad": NMAD * np.median(np.abs(difference - bias[..., None]), axis=-1),
        "std": difference.std(axis=-1),
        **_spread(value, truth),
    }


def _spread(value: np.ndarray, truth: np.ndarray) -> Measures:
    low, high = np.percentile(truth, CENTRAL_68, axis=-1)
    value_low, value_high = np.percentile(value, CENTRAL_68, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "r2": 1.0 - np.mean((value - truth) ** 2, axis=-1) / truth.var(axis=-1),
            "range_ratio": (value_high - value_low) / (high - low),
        }


def confusion(code: np.ndarray, true: np.ndarray, classes: int = len(CLASSES)) -> np.ndarray:
    """Count objects by true and predicted class, shape (classes, classes + 1).

    Parameters
    ----------
    code, true : ndarray of int, shape (N,)
        Predicted and true class codes. Negative predictions are counted in the last column, rows with a
        negative truth are left out.
    classes : int
        Number of classes.
    """
    known = true >= 0
    predicted = np.where(code[known] >= 0, code[known], classes).astype(np.int64)
    counts = np.bincount(
        true[known].astype(np.int64) * (classes + 1) + predicted, minlength=classes * (classes + 1)
    )
    return counts.reshape(classes, classes + 1)


def class_measures(counts: np.ndarray) -> Measures:
    """Measures of confusion matrices (..., C, C + 1), as from `confusion`.

    Returns
    -------
    dict of str to ndarray
        ``completeness`` (recall), ``purity`` (precision) and ``f1``, shape (..., C); ``f1_weighted``, their
        mean weighted by the true counts, and ``accuracy``, shape (...). A missing prediction lowers
        completeness alone. NaN for 0 / 0.
    """
    square = counts[..., :-1]
    correct = np.diagonal(square, axis1=-2, axis2=-1).astype(np.float64)
    support, predicted = counts.sum(axis=-1), square.sum(axis=-2)
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = 2.0 * correct / (support + predicted)
        total = support.sum(axis=-1)
        return {
            "completeness": correct / support,
            "purity": correct / predicted,
            "f1": f1,
            "f1_weighted": np.where(support > 0, f1 * support, 0.0).sum(axis=-1) / total,
            "accuracy": correct.sum(axis=-1) / total,
        }


def ks_distance(counts: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Kolmogorov-Smirnov distance of binned numbers in 0 to 1 from uniform, at the bins' edges.

    Parameters
    ----------
    counts : ndarray, shape (..., K)
        Numbers per bin.
    edges : ndarray, shape (K + 1,)
        Edges of the bins, from 0 to 1.
    """
    total = counts.sum(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        cumulative = counts.cumsum(axis=-1) / total
    return np.asarray(np.abs(cumulative - edges[1:]).max(axis=-1))


def pit_and_crps(pdf: np.ndarray, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probability integral transform and continuous ranked probability score of binned PDFs.

    The density is constant within a bin, so both are exact (Gneiting & Raftery 2007, eq. 20).

    Parameters
    ----------
    pdf : ndarray, shape (N, B)
        Probability of each bin; rows are normalised here.
    position : ndarray, shape (N,)
        Truth, in bins from the lower end.

    Returns
    -------
    pit, crps : ndarray, shape (N,)
        The cumulative probability at the truth, and the integral of (F - H)^2 in bins.
    """
    pdf = pdf / pdf.sum(axis=1, keepdims=True)
    n, bins = pdf.shape
    cumulative = np.concatenate([np.zeros((n, 1)), pdf.cumsum(axis=1)], axis=1)
    inside = np.clip(position, 0.0, bins)
    cell = np.minimum(inside.astype(np.int64), bins - 1)
    row, part = np.arange(n), inside - cell
    pit = cumulative[row, cell] + part * pdf[row, cell]
    below, above = cumulative[:, :-1], cumulative[:, 1:]
    before = (below**2 + below * above + above**2) / 3.0
    low, high = 1.0 - below, 1.0 - above
    after = (low**2 + low * high + high**2) / 3.0
    step = np.arange(bins)
    crps = np.where(step < cell[:, None], before, np.where(step > cell[:, None], after, 0.0)).sum(axis=1)
    low, high = cumulative[row, cell], cumulative[row, cell + 1]
    crps += part * (low**2 + low * pit + pit**2) / 3.0
    crps += (1.0 - part) * ((1.0 - pit) ** 2 + (1.0 - pit) * (1.0 - high) + (1.0 - high) ** 2) / 3.0
    return pit, crps + np.abs(position - inside)


def cde_losses(density: np.ndarray, grid: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Compute the conditional density estimation loss of each object; the mean is the CDE loss.

    Integral of f^2 by the trapezoidal rule less 2 f at the point of the grid that is nearest to the truth
    (Izbicki & Lee 2017, arXiv:1704.08095), as in qp's ``CDELossMetric``.

    Parameters
    ----------
    density : ndarray, shape (N, B)
        Densities f at the points of the grid.
    grid : ndarray, shape (B,)
        Increasing points.
    truth : ndarray, shape (N,)
        True values.
    """
    above = np.searchsorted(grid, truth).clip(1, len(grid) - 1)
    nearest = above - (truth - grid[above - 1] <= grid[above] - truth)
    at_truth = density[np.arange(len(truth)), nearest]
    return np.asarray(np.trapezoid(density**2, x=grid, axis=1) - 2.0 * at_truth)


def uniformity(pit: np.ndarray) -> tuple[float, float, float]:
    """Kolmogorov-Smirnov, Cramer-von Mises and Anderson-Darling statistics of a PIT (N,) against uniform.

    The last is the two-sample statistic of the PIT and as many equidistant numbers from 0 to 1, without PITs
    that rounding made larger than 1, as in qp's ``PIT``. NaN for fewer than two objects.
    """
    from scipy import stats  # takes a second to import

    inside = pit[(pit >= 0.0) & (pit <= 1.0)]
    ks = stats.kstest(pit, stats.uniform.cdf).statistic
    if len(inside) < 2:
        return float(ks), np.nan, np.nan
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "p-value (capped|floored)")
        uniform = np.linspace(0.0, 1.0, len(inside))
        ad = stats.anderson_ksamp([inside, uniform], variant="midrank").statistic
    cvm = stats.cramervonmises(pit, stats.uniform.cdf).statistic
    return float(ks), float(cvm), float(ad)


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Expected calibration error: mean |frequency - probability| over bins of probability, weighted by rows.

    Guo et al. (2017), eq. 3, with `CONFIDENCE_BINS` bins.

    Parameters
    ----------
    confidence : ndarray, shape (..., N)
        Probability of the predicted class.
    right : ndarray of bool, shape (..., N)
        Whether the predicted class is true.
    """
    cell, gap = confidence_bin(confidence), right - confidence
    total = sum(np.abs(np.where(cell == k, gap, 0.0).sum(axis=-1)) for k in range(CONFIDENCE_BINS))
    return np.asarray(total / confidence.shape[-1])


def confidence_bin(confidence: np.ndarray) -> np.ndarray:
    """Bin number of probabilities, 0 to `CONFIDENCE_BINS` - 1; same shape."""
    return np.minimum((confidence * CONFIDENCE_BINS).astype(np.int64), CONFIDENCE_BINS - 1)


def area_under_curve(score: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Probability that a positive row has a higher score than another one, ties counted half.

    Parameters
    ----------
    score : ndarray, shape (..., N)
        Finite scores.
    positive : ndarray of bool, shape (..., N)
        Rows that should have high scores. The result is NaN if all or none are positive.
    """
    if score.ndim > 1:
        return np.array([area_under_curve(s, p) for s, p in zip(score, positive, strict=True)])
    from scipy import stats  # late: 0.3 s that drivers need not spend

    pairs = positive.sum() * (~positive).sum()
    return np.asarray(
        stats.mannwhitneyu(score[positive], score[~positive]).statistic / pairs if pairs else np.nan
    )


def redshift_metrics(z: np.ndarray, z_true: np.ndarray) -> dict[str, float]:
    """`redshift_measures` of the rows where both are finite, and their number ``n``; NaN where none is."""
    return _metrics(redshift_measures, z, z_true)


def scatter_metrics(value: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """`scatter_measures` of the rows where both are finite, and their number ``n``; NaN where none is."""
    return _metrics(scatter_measures, value, truth)


def _metrics(formula: Formula, value: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    both = np.isfinite(value) & np.isfinite(truth)
    n = int(both.sum())
    if n == 0:
        return {"n": 0.0} | dict.fromkeys(formula(np.ones(1), np.ones(1)), np.nan)
    measures = formula(value[both].astype(np.float64), truth[both].astype(np.float64))
    return {"n": float(n)} | {name: float(number) for name, number in measures.items()}


def class_metrics(class_code: np.ndarray, class_true: np.ndarray) -> dict[str, float]:
    """F1 of each class (``f1_galaxy`` ...), its mean by true counts (``f1_weighted``), ``accuracy``."""
    measures = class_measures(confusion(class_code, class_true))
    by_class = {f"f1_{name.lower()}": float(f1) for name, f1 in zip(CLASSES, measures["f1"], strict=True)}
    return by_class | {name: float(measures[name]) for name in ("f1_weighted", "accuracy")}


def within(value: np.ndarray, error: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Fraction of truths within one error of the value, 0.683 for Gaussian errors; all rows finite."""
    return np.asarray(np.mean(np.abs(value - truth) <= error, axis=-1))


MAGNITUDE_BINS: tuple[tuple[float, float], ...] = (
    (0.0, 19.0),
    (19.0, 20.0),
    (20.0, 21.0),
    (21.0, 22.0),
    (22.0, 99.0),
)
"""Bins of the measured iSDSS magnitude for which `catalogue_metrics` reports."""


def catalogue_metrics(
    predictions: dict[str, np.ndarray],
    class_true: np.ndarray,
    labels: dict[str, np.ndarray],
    magnitude: np.ndarray,
) -> dict[str, dict[str, float]]:
    """Compute all measures of predictions, by name of the sample.

    Parameters
    ----------
    predictions : dict
        As from `ojala.models.ojala.predictor.OjalaPredictor.predict`.
    class_true, labels
        As in `ojala.models.data.LabelledPhotometry`.
    magnitude : ndarray, shape (N,)
        AB magnitude in iSDSS, by which rows are binned; NaN rows are in no bin.

    Returns
    -------
    dict of dict
        ``class``, ``z_gal``, ``z_qso`` over all rows and per magnitude bin (``z_gal 20-21``); each scalar
        over the rows with a label, Teff as log10. Redshifts are those under the true class, to separate them
        from errors of classification.
    """
    samples = {"": np.ones(len(class_true), dtype=bool)}
    samples |= {f" {low:g}-{high:g}": (magnitude >= low) & (magnitude < high) for low, high in MAGNITUDE_BINS}
    measures: dict[str, dict[str, float]] = {}
    for suffix, rows in samples.items():
        if not rows.any():
            continue
        measures[f"class{suffix}"] = class_metrics(predictions["class_code"][rows], class_true[rows])
        for name in ("z_gal", "z_qso"):
            if name in labels:
                measures[f"{name}{suffix}"] = redshift_metrics(predictions[name][rows], labels[name][rows])
    for quantity in SCALARS:
        if quantity.name in labels:
            value, truth = predictions[quantity.name], labels[quantity.name]
            if quantity.name == "teff":
                value, truth = np.log10(value), np.log10(truth)
            columns = (predictions[quantity.name], predictions[f"{quantity.name}_err"], labels[quantity.name])
            known = np.isfinite(columns).all(axis=0)
            share = within(*(column[known] for column in columns)) if known.any() else np.nan
            measures[quantity.name] = scatter_metrics(value, truth) | {"within_err": float(share)}
    return measures
