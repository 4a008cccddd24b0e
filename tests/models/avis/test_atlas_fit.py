"""Clusters and maps of a sample, fitted without labels."""

from __future__ import annotations

import numpy as np
import pytest

from ojala.catalogs_schema.avis import EMBEDDING_SIZE
from ojala.models.avis.atlas_fit import fit_atlas, fit_clusters

pytestmark = [pytest.mark.integration, pytest.mark.processor]


def three_kinds(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of three kinds of objects, the first as frequent as the others together, and their kinds."""
    rng = np.random.default_rng(seed)
    centre, along = np.random.default_rng(9).standard_normal((2, 3, EMBEDDING_SIZE))
    kind = np.array([0, 0, 1, 2])[np.arange(n) % 4]
    made = centre[kind] + 0.2 * rng.standard_normal((n, 3)) @ along
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32), kind


def test_clusters_are_the_kinds_the_largest_first():
    embedding, kind = three_kinds(400, seed=1)
    cluster, prob = fit_clusters(embedding)
    inside = cluster >= 0
    assert inside.mean() > 0.9
    counts = np.array([np.bincount(kind[cluster == number], minlength=3) for number in range(3)])
    assert counts.sum() == inside.sum()
    np.testing.assert_array_equal(np.argsort(counts[0])[-1:], [0])
    assert counts.max(axis=1).sum() > 0.97 * counts.sum()
    assert (np.diff(counts.sum(axis=1)) <= 0).all()
    assert ((prob >= 0.0) & (prob <= 1.0)).all()
    assert (prob[~inside] == 0.0).all()


def test_an_atlas_places_others_with_their_kind():
    pytest.importorskip("pacmap", reason="maps need the extra atlas")
    embedding, kind = three_kinds(200, seed=1)
    z = np.where(np.arange(200) % 3 > 0, 0.1 + kind, np.nan)
    atlas = fit_atlas(embedding, z, weights_sha256="w", seed=1, about={"run": "r"})
    assert atlas.about["objects"] == 200
    assert (np.diff(atlas.gaps) >= 0.0).all()
    other, its_kind = three_kinds(60, seed=2)
    found = atlas.place(other)
    np.testing.assert_allclose(found["z_nn"], 0.1 + its_kind, atol=1e-5)
    centres = np.stack([np.median(atlas.map2[kind == k], axis=0) for k in range(3)])
    place = np.stack([found["map_x"], found["map_y"]], axis=1)
    nearest = np.linalg.norm(place[:, None] - centres, axis=2).argmin(axis=1)
    np.testing.assert_array_equal(nearest, its_kind)


def test_what_is_no_sample_is_refused():
    embedding, _ = three_kinds(120, seed=1)
    with pytest.raises(ValueError, match="needs 100 to 20,000 embeddings, there are 99"):
        fit_atlas(embedding[:99], np.zeros(99), weights_sha256="w", seed=1, about={})
    embedding[3] = np.nan
    with pytest.raises(ValueError, match="leave the others out"):
        fit_atlas(embedding, np.zeros(120), weights_sha256="w", seed=1, about={})
