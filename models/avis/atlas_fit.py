"""Making an atlas: clusters (HDBSCAN) and maps (PaCMAP) of a sample; needs the extra `atlas`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.metadata import version

import numpy as np

from ojala.catalogs_schema.avis import UNCLUSTERED
from ojala.catalogs_schema.errors import InputError
from ojala.models.avis.atlas import N_NEIGHBOURS, STEPS, Atlas, Sides, nearest, project, without_itself

SAMPLE = 20_000
"""Most objects of an atlas."""

LEAST = 100
"""Fewest."""

COMPONENTS = 16
"""Principal components of the embedding in which neighbours are sought."""

MIN_CLUSTER_FRACTION = 0.02
"""Share of the sample that a cluster has at least."""

MIN_SAMPLES = 20
"""Neighbours by which HDBSCAN tells how dense a place is."""

_NOTHING = 2e-4  # scatter along an axis that the rounding to half precision makes, ten times


def fit_atlas(
    embedding: np.ndarray,
    z: np.ndarray,
    *,
    weights_sha256: str,
    sides: Sides = "both",
    seed: int,
    about: Mapping[str, object],
) -> Atlas:
    """Fit an atlas; no labels take part, redshifts are only kept beside the objects.

    Parameters
    ----------
    embedding : ndarray, shape (S, EMBEDDING_SIZE)
        Joint embeddings of a sample, of length 1, all finite; `LEAST` to `SAMPLE` of them.
    z : ndarray, shape (S,)
        Redshifts; NaN where not known.
    weights_sha256 : str
        SHA-256 of the network's weights.
    sides : {"both", "spectrum", "image"}
        What was seen of the objects.
    seed : int
        Seed of the maps.
    about : mapping
        What the sample is.

    Raises
    ------
    InputError
        If the sample is too small or too large, or not finite.
    ModuleNotFoundError
        If pacmap or scikit-learn are not installed.
    """
    if not LEAST <= len(embedding) <= SAMPLE:
        raise InputError(f"an atlas needs {LEAST} to {SAMPLE:,} embeddings, there are {len(embedding):,}")
    if not np.isfinite(embedding).all():
        raise InputError("an atlas is made of objects with an embedding: leave the others out")
    # As they will be read back.
    embedding = embedding.astype(np.float16).astype(np.float32)
    mean, axes = principal_axes(embedding)
    points = project(embedding, mean, axes)
    map2, map3 = (map_of(points, dimensions, seed) for dimensions in (2, 3))
    cluster, prob = islands_of(map3)
    _, distance = nearest(points, points, N_NEIGHBOURS + 1)
    gap = without_itself(distance, distance)[:, N_NEIGHBOURS - 1]
    made_by = {name: version(name) for name in ("numpy", "pacmap", "scikit-learn")}
    return Atlas(
        embedding=embedding,
        cluster=cluster,
        cluster_prob=prob,
        map2=map2,
        map3=map3,
        z=z.astype(np.float32),
        gaps=np.quantile(gap, np.linspace(0.0, 1.0, STEPS)).astype(np.float32),
        mean=mean,
        axes=axes,
        weights_sha256=weights_sha256,
        sides=sides,
        about={**about, "objects": len(embedding), "seed": seed, "packages": made_by},
    )


def principal_axes(embedding: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (W,) and leading principal components (W, R) of embeddings, each over their scatter along it."""
    mean = embedding.mean(axis=0, dtype=np.float64)
    _, size, axes = np.linalg.svd(embedding - mean, full_matrices=False)
    scatter = size / np.sqrt(len(embedding))
    kept = np.flatnonzero(scatter[:COMPONENTS] > _NOTHING)
    return mean.astype(np.float32), (axes[kept].T / scatter[kept]).astype(np.float32)


def clusters_of(embedding: np.ndarray, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Cluster and strength of membership of each object, as an atlas of these embeddings has them."""
    return islands_of(map_of(project(embedding, *principal_axes(embedding)), 3, seed))


def islands_of(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Clusters on a map, by HDBSCAN; the largest is number 0.

    On the map, since in the components themselves, dense and sparse places differ too little: there most
    objects are in one cluster or in none.
    """
    from sklearn.cluster import HDBSCAN

    smallest = max(10, round(MIN_CLUSTER_FRACTION * len(places)))
    found = HDBSCAN(min_cluster_size=smallest, min_samples=min(MIN_SAMPLES, smallest), copy=True).fit(places)
    labels = np.asarray(found.labels_)
    names, sizes = np.unique(labels[labels >= 0], return_counts=True)
    number = {int(name): rank for rank, name in enumerate(names[np.argsort(-sizes, kind="stable")])}
    cluster = np.array([number.get(int(label), UNCLUSTERED) for label in labels], np.int32)
    return cluster, np.asarray(found.probabilities_, np.float32)


def map_of(embedding: np.ndarray, dimensions: int, seed: int) -> np.ndarray:
    """Places on a map by PaCMAP; float32, shape (S, dimensions)."""
    from pacmap import PaCMAP

    logging.getLogger("pacmap").setLevel(logging.ERROR)  # it warns that a seed was set
    found = PaCMAP(n_components=dimensions, random_state=seed).fit_transform(embedding, init="pca")
    return np.asarray(found, np.float32)
