"""Measures of embeddings: redshifts of neighbours, clusters against classes, linear probes.

Labels are used here alone, not in the training.
"""

from __future__ import annotations

import numpy as np

from ojala.catalogs_schema.avis import UNCLUSTERED
from ojala.models.avis.atlas import REDSHIFT_NEIGHBOURS
from ojala.models.evaluation.metrics import class_measures, confusion, redshift_metrics, scatter_metrics
from ojala.models.quantities import CLASSES

Measures = dict[str, float]

MIN_OBJECTS = 10
"""Smallest number of objects for measures of redshifts."""

_PENALTY = 1e-3  # ridge penalty over the number of objects


def neighbour_redshifts(sample: np.ndarray, z: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Median redshift of the nearest neighbours in a sample.

    Parameters
    ----------
    sample, queries : ndarray, shape (S, W) and (N, W)
        Embeddings; if ``queries`` is ``sample`` itself, objects are not their own neighbours.
    z : ndarray, shape (S,)
        Redshifts of the sample, all finite.

    Returns
    -------
    ndarray, shape (N,)
        NaN where an embedding is not finite.
    """
    from sklearn.neighbors import NearestNeighbors

    known, itself = np.isfinite(queries).all(axis=1), queries is sample
    usable = np.isfinite(sample).all(axis=1)
    count = min(REDSHIFT_NEIGHBOURS, int(usable.sum()) - itself)
    search = NearestNeighbors(n_neighbors=count).fit(sample[usable])
    near = search.kneighbors(None if itself else queries[known], return_distance=False)
    redshift = np.full(len(queries), np.nan)
    redshift[known] = np.median(z[usable][near], axis=1)
    return redshift


def redshift_quality(z: np.ndarray, truth: np.ndarray, class_code: np.ndarray) -> Measures:
    """Compute redshift measures of galaxies and of quasars, ``galaxy_sigma_nmad`` and so on."""
    quality: Measures = {}
    for name in ("GALAXY", "QSO"):
        rows = class_code == CLASSES.index(name)
        if rows.sum() >= MIN_OBJECTS:
            measures = redshift_metrics(z[rows], truth[rows])
            quality |= {f"{name.lower()}_{measure}": value for measure, value in measures.items()}
    return quality


def cluster_quality(cluster: np.ndarray, class_code: np.ndarray) -> Measures:
    """Compare clusters with the classes.

    Returns
    -------
    dict of str to float
        ``clusters``, their number; ``unclustered``, the fraction of objects outside of clusters;
        ``adjusted_rand`` and ``purity`` (fraction of the most frequent class of each cluster) of the others;
        ``adjusted_rand_all`` with the unclustered objects as one more cluster.
    """
    from sklearn.metrics import adjusted_rand_score

    clustered = cluster != UNCLUSTERED
    names, index = np.unique(cluster[clustered], return_inverse=True)
    counts = np.zeros((len(names), len(CLASSES)))
    np.add.at(counts, (index, class_code[clustered]), 1.0)
    return {
        "n": float(len(cluster)),
        "clusters": float(len(names)),
        "unclustered": float(np.mean(~clustered)),
        "adjusted_rand": float(adjusted_rand_score(class_code[clustered], cluster[clustered])),
        "purity": float(counts.max(axis=1).sum() / max(1.0, counts.sum())) if len(names) else np.nan,
        "adjusted_rand_all": float(adjusted_rand_score(class_code, cluster)),
    }


def probe_class(sample: np.ndarray, sample_code: np.ndarray, queries: np.ndarray, code: np.ndarray) -> float:
    """Mean completeness over the classes of a linear classifier on a sample's embeddings."""
    from sklearn.linear_model import LogisticRegression

    scale = _Scale(sample)
    fitted = LogisticRegression(max_iter=500, class_weight="balanced").fit(scale(sample), sample_code)
    predicted = fitted.predict(scale(queries))
    return float(np.nanmean(class_measures(confusion(predicted, code))["completeness"]))


def probe_value(sample: np.ndarray, value: np.ndarray, queries: np.ndarray, truth: np.ndarray) -> Measures:
    """`scatter_metrics` of the predictions of a ridge regression on a sample's embeddings.

    Rows whose value or truth is not finite are left out.
    """
    scale, train, test = _Scale(sample), np.isfinite(value), np.isfinite(truth)
    x, y = scale(sample[train]), value[train].astype(np.float64)
    centre, middle = x.mean(axis=0), y.mean()
    square = (x - centre).T @ (x - centre) + _PENALTY * len(x) * np.eye(x.shape[1])
    slope = np.linalg.solve(square, (x - centre).T @ (y - middle))
    return scatter_metrics((scale(queries[test]) - centre) @ slope + middle, truth[test])


class _Scale:
    """Standardisation of embeddings by the mean and scatter of a sample."""

    def __init__(self, sample: np.ndarray) -> None:
        self._mean, self._std = sample.mean(axis=0), sample.std(axis=0) + 1e-9

    def __call__(self, embedding: np.ndarray) -> np.ndarray:
        return np.asarray((embedding - self._mean) / self._std, np.float64)
