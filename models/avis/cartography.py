"""Making an atlas: clusters (HDBSCAN) and maps (PaCMAP) of a sample; needs the extra `atlas`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.metadata import version

import numpy as np

from catalogs_schema.avis import UNCLUSTERED
from models.avis.atlas import STEPS, VOTERS, Atlas, nearest, without_itself

SAMPLE = 20_000
"""Most objects of an atlas."""

LEAST = 100
"""Fewest."""

COMPONENTS = 16
"""Principal components of the embedding in which clusters are sought."""

SMALLEST = 0.005
"""Share of the sample that a cluster has at least."""


def fit_atlas(
    embedding: np.ndarray,
    z: np.ndarray,
    *,
    weights_sha256: str,
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
    seed : int
        Seed of the maps.
    about : mapping
        What the sample is.

    Raises
    ------
    ValueError
        If the sample is too small or too large, or not finite.
    ModuleNotFoundError
        If pacmap or scikit-learn are not installed.
    """
    if not LEAST <= len(embedding) <= SAMPLE:
        raise ValueError(f"an atlas needs {LEAST} to {SAMPLE:,} embeddings, there are {len(embedding):,}")
    if not np.isfinite(embedding).all():
        raise ValueError("an atlas is made of objects with an embedding: leave the others out")
    # As they will be read back.
    embedding = embedding.astype(np.float16).astype(np.float32)
    cluster, prob = clusters_of(embedding)
    _, distance = nearest(embedding, embedding, VOTERS + 1)
    gap = without_itself(distance, distance)[:, VOTERS - 1]
    made_by = {name: version(name) for name in ("numpy", "pacmap", "scikit-learn")}
    return Atlas(
        embedding=embedding,
        cluster=cluster,
        cluster_prob=prob,
        map2=map_of(embedding, 2, seed),
        map3=map_of(embedding, 3, seed),
        z=z.astype(np.float32),
        gaps=np.quantile(gap, np.linspace(0.0, 1.0, STEPS)).astype(np.float32),
        weights_sha256=weights_sha256,
        about={**about, "objects": len(embedding), "seed": seed, "packages": made_by},
    )


def clusters_of(embedding: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cluster and strength of membership of each object, by HDBSCAN; the largest cluster is number 0.

    Clusters are sought in the leading principal components: in all dimensions, distances are too much alike.
    """
    from sklearn.cluster import HDBSCAN

    centred = embedding - embedding.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    smallest = max(10, round(SMALLEST * len(embedding)))
    found = HDBSCAN(min_cluster_size=smallest, min_samples=VOTERS, copy=True).fit(
        centred @ axes[:COMPONENTS].T
    )
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
