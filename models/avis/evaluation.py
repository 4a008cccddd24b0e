"""How much of what an object is can be read from its embedding.

No measure here had a part in the training: labels are only compared with what lies together.
"""

from __future__ import annotations

import numpy as np

from ojala.catalogs_schema.avis import UNCLUSTERED
from ojala.models.avis.atlas import NEIGHBOURS
from ojala.models.evaluation.metrics import class_measures, confusion, redshift_metrics, scatter_metrics
from ojala.models.quantities import CLASSES

Measures = dict[str, float]

FEWEST = 10
"""Objects from which on redshifts are judged."""

_PENALTY = 1e-3  # of a linear probe, over the number of objects


def neighbour_redshifts(sample: np.ndarray, z: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Median redshift of the nearest neighbours in a sample.

    Parameters
    ----------
    sample, wanted : ndarray, shape (S, W) and (N, W)
        Embeddings; where ``wanted`` is ``sample`` itself, an object is not its own neighbour.
    z : ndarray, shape (S,)
        Redshifts of the sample, all finite.

    Returns
    -------
    ndarray, shape (N,)
        NaN where an embedding is not finite.
    """
    from sklearn.neighbors import NearestNeighbors

    known, itself = np.isfinite(wanted).all(axis=1), wanted is sample
    usable = np.isfinite(sample).all(axis=1)
    count = min(NEIGHBOURS, int(usable.sum()) - itself)
    search = NearestNeighbors(n_neighbors=count).fit(sample[usable])
    near = search.kneighbors(None if itself else wanted[known], return_distance=False)
    found = np.full(len(wanted), np.nan)
    found[known] = np.median(z[usable][near], axis=1)
    return found


def redshift_quality(z: np.ndarray, truth: np.ndarray, class_code: np.ndarray) -> Measures:
    """Measures of redshifts, of galaxies and of quasars apart: ``galaxy_sigma_nmad`` and so on."""
    found: Measures = {}
    for name in ("GALAXY", "QSO"):
        rows = class_code == CLASSES.index(name)
        if rows.sum() >= FEWEST:
            measures = redshift_metrics(z[rows], truth[rows])
            found |= {f"{name.lower()}_{measure}": value for measure, value in measures.items()}
    return found


def cluster_quality(cluster: np.ndarray, class_code: np.ndarray) -> Measures:
    """How clusters that were found without labels meet the classes.

    Returns
    -------
    dict of str to float
        ``clusters``, their number; ``unclustered``, the share of the objects that are in none;
        ``adjusted_rand`` and ``purity`` (share of the class that is most frequent in the object's cluster) of
        the others; ``adjusted_rand_all`` with the objects in none as one more cluster.
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


def probe_class(sample: np.ndarray, sample_code: np.ndarray, wanted: np.ndarray, code: np.ndarray) -> float:
    """Mean over the classes of the share that a linear classifier on a sample's embeddings recognises."""
    from sklearn.linear_model import LogisticRegression

    scale = _Scale(sample)
    fitted = LogisticRegression(max_iter=500, class_weight="balanced").fit(scale(sample), sample_code)
    answer = fitted.predict(scale(wanted))
    return float(np.nanmean(class_measures(confusion(answer, code))["completeness"]))


def probe_value(sample: np.ndarray, value: np.ndarray, wanted: np.ndarray, truth: np.ndarray) -> Measures:
    """`scatter_metrics` of a number that a ridge regression on a sample's embeddings answers.

    Rows whose value or truth is not finite are left out.
    """
    scale, learn, asked = _Scale(sample), np.isfinite(value), np.isfinite(truth)
    x, y = scale(sample[learn]), value[learn].astype(np.float64)
    centre, middle = x.mean(axis=0), y.mean()
    square = (x - centre).T @ (x - centre) + _PENALTY * len(x) * np.eye(x.shape[1])
    slope = np.linalg.solve(square, (x - centre).T @ (y - middle))
    return scatter_metrics((scale(wanted[asked]) - centre) @ slope + middle, truth[asked])


class _Scale:
    """Brings embeddings to a scatter of 1, as a sample has it."""

    def __init__(self, sample: np.ndarray) -> None:
        self._mean, self._std = sample.mean(axis=0), sample.std(axis=0) + 1e-9

    def __call__(self, embedding: np.ndarray) -> np.ndarray:
        return np.asarray((embedding - self._mean) / self._std, np.float64)
