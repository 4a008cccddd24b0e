"""Fit of an atlas: clusters (HDBSCAN) and maps (PaCMAP) of a sample; needs the extra `atlas`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.metadata import version

import numpy as np

from ojala.catalogs_schema.avis import UNCLUSTERED
from ojala.catalogs_schema.errors import InputError
from ojala.models.avis.atlas import N_NEIGHBOURS, N_QUANTILES, Atlas, Sides, drop_self, nearest, project

MAX_OBJECTS = 20_000
"""Largest number of objects of an atlas."""

MIN_OBJECTS = 100
"""Smallest number of objects of an atlas."""

COMPONENTS = 32
"""Number of principal components for distances."""

MIN_CLUSTER_FRACTION = 0.02
"""Smallest cluster, as a fraction of the sample."""

MIN_SAMPLES = 20
"""Parameter ``min_samples`` of HDBSCAN: neighbours for the density."""

_MIN_SCATTER = 2e-4  # ten times the scatter that rounding to half precision makes along an axis


def fit_atlas(
    embedding: np.ndarray,
    z: np.ndarray,
    *,
    weights_sha256: str,
    sides: Sides = "both",
    seed: int,
    about: Mapping[str, object],
) -> Atlas:
    """Fit an atlas, without labels; redshifts are stored, not fitted.

    Parameters
    ----------
    embedding : ndarray, shape (S, EMBEDDING_SIZE)
        Joint embeddings of a sample, of length 1, all finite; `MIN_OBJECTS` to `MAX_OBJECTS` of them.
    z : ndarray, shape (S,)
        Redshifts; NaN where not known.
    weights_sha256 : str
        SHA-256 of the network's weights.
    sides : {"both", "spectrum", "image"}
        Observed sides of the objects.
    seed : int
        Seed of the maps.
    about : mapping
        Description of the sample.

    Raises
    ------
    InputError
        The sample is too small, too large or not finite.
    ModuleNotFoundError
        pacmap or scikit-learn is not installed.
    """
    if not MIN_OBJECTS <= len(embedding) <= MAX_OBJECTS:
        raise InputError(
            f"an atlas needs {MIN_OBJECTS} to {MAX_OBJECTS:,} embeddings, there are {len(embedding):,}"
        )
    if not np.isfinite(embedding).all():
        raise InputError("an atlas is made of objects with an embedding: leave the others out")
    # As stored.
    embedding = embedding.astype(np.float16).astype(np.float32)
    mean, axes = principal_axes(embedding)
    points = project(embedding, mean, axes)
    map2, map3 = (fit_map(points, dimensions, seed) for dimensions in (2, 3))
    cluster, prob = clusters_on_map(map3)
    _, distance = nearest(points, points, N_NEIGHBOURS + 1)
    gap = drop_self(distance, distance)[:, N_NEIGHBOURS - 1]
    packages = {name: version(name) for name in ("numpy", "pacmap", "scikit-learn")}
    return Atlas(
        embedding=embedding,
        cluster=cluster,
        cluster_prob=prob,
        map2=map2,
        map3=map3,
        z=z.astype(np.float32),
        gaps=np.quantile(gap, np.linspace(0.0, 1.0, N_QUANTILES)).astype(np.float32),
        mean=mean,
        axes=axes,
        weights_sha256=weights_sha256,
        sides=sides,
        about={**about, "objects": len(embedding), "seed": seed, "packages": packages},
    )


def principal_axes(embedding: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the mean (W,) and leading principal components (W, R) of embeddings, scaled to unit scatter."""
    mean = embedding.mean(axis=0, dtype=np.float64)
    _, size, axes = np.linalg.svd(embedding - mean, full_matrices=False)
    scatter = size / np.sqrt(len(embedding))
    kept = np.flatnonzero(scatter[:COMPONENTS] > _MIN_SCATTER)
    return mean.astype(np.float32), (axes[kept].T / scatter[kept]).astype(np.float32)


def fit_clusters(embedding: np.ndarray, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Fit clusters and memberships of embeddings as `fit_atlas` does."""
    return clusters_on_map(fit_map(project(embedding, *principal_axes(embedding)), 3, seed))


def clusters_on_map(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cluster points of a map by HDBSCAN; the largest cluster is number 0.

    In the principal components themselves the density varies too little: most objects would be in one cluster
    or in none.
    """
    from sklearn.cluster import HDBSCAN

    smallest = max(10, round(MIN_CLUSTER_FRACTION * len(points)))
    fit = HDBSCAN(min_cluster_size=smallest, min_samples=min(MIN_SAMPLES, smallest), copy=True).fit(points)
    labels = np.asarray(fit.labels_)
    names, sizes = np.unique(labels[labels >= 0], return_counts=True)
    number = {int(name): rank for rank, name in enumerate(names[np.argsort(-sizes, kind="stable")])}
    cluster = np.array([number.get(int(label), UNCLUSTERED) for label in labels], np.int32)
    return cluster, np.asarray(fit.probabilities_, np.float32)


def fit_map(embedding: np.ndarray, dimensions: int, seed: int) -> np.ndarray:
    """Fit a map by PaCMAP; coordinates float32, shape (S, dimensions)."""
    from pacmap import PaCMAP

    logging.getLogger("pacmap").setLevel(logging.ERROR)  # it warns that a seed was set
    points = PaCMAP(n_components=dimensions, random_state=seed).fit_transform(embedding, init="pca")
    return np.asarray(points, np.float32)
