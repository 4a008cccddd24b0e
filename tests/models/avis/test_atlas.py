"""An atlas places every object on its own, by its neighbours in the sample."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ojala.models.avis.atlas import REDSHIFT_NEIGHBOURS, drop_self, nearest, read_atlas, write_atlas
from ojala.models.checkpoint import WeightsError
from tests.helpers.avis_survey import toy_atlas

pytestmark = pytest.mark.processor


def others(n: int, seed: int = 2) -> np.ndarray:
    """Embeddings near those of the sample, but not of it."""
    rng = np.random.default_rng(seed)
    sample = toy_atlas("w").embedding
    made = sample[rng.integers(0, len(sample), n)] + 0.03 * rng.standard_normal((n, sample.shape[1]))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def test_an_objects_place_does_not_depend_on_what_comes_with_it():
    atlas, wanted = toy_atlas("w"), others(300)
    together = atlas.place(wanted)
    mixed = np.concatenate([others(70, seed=3), wanted[::-1]])
    for name, values in atlas.place(mixed).items():
        np.testing.assert_array_equal(values[70:][::-1], together[name], err_msg=name)
    alone = [atlas.place(wanted[i : i + 1]) for i in range(5)]
    for name, values in together.items():
        np.testing.assert_array_equal(np.concatenate([one[name] for one in alone]), values[:5], err_msg=name)


def test_the_sample_lands_on_itself():
    atlas = toy_atlas("w")
    found = atlas.place(atlas.embedding)
    np.testing.assert_array_equal(found["cluster"], atlas.cluster)
    np.testing.assert_allclose(found["cluster_prob"], atlas.cluster_prob, atol=1e-5)
    np.testing.assert_allclose(np.stack([found["map_x"], found["map_y"]], axis=1), atlas.map2, atol=1e-5)
    places = np.stack([found[f"map3_{axis}"] for axis in "xyz"], axis=1)
    np.testing.assert_allclose(places, atlas.map3, atol=1e-5)


def test_an_objects_own_redshift_does_not_tell_its_redshift():
    atlas = toy_atlas("w")
    z = atlas.z.copy()
    z[0] = 4.0
    found = replace(atlas, z=z).place(atlas.embedding)
    assert found["z_nn"][0] == pytest.approx(0.5, abs=0.05)
    np.testing.assert_allclose(found["z_nn"][:57], 0.5 + atlas.cluster[:57], atol=0.05)


def test_the_redshift_is_the_median_of_those_that_are_known():
    atlas, wanted = toy_atlas("w"), others(20)
    known = np.arange(len(atlas)) % 3 == 0
    found = replace(atlas, z=np.where(known, atlas.z, np.nan).astype(np.float32)).place(wanted)
    for i, one in enumerate(wanted):
        distance = np.linalg.norm(atlas.embedding[known].astype(float) - one, axis=1)
        order = np.argsort(distance)
        first = 1 if distance[order[0]] < 0.1 * distance[order[1]] else 0
        z = atlas.z[known][order[first : first + REDSHIFT_NEIGHBOURS]]
        assert found["z_nn"][i] == pytest.approx(np.median(z), abs=1e-5)
    few = np.where(np.arange(len(atlas)) < 4, atlas.z, np.nan).astype(np.float32)
    assert np.isnan(replace(atlas, z=few).place(wanted)["z_nn"]).all()


def test_objects_far_from_the_sample_are_novel_and_rank_by_their_distance():
    atlas = toy_atlas("w")
    centre = atlas.embedding[:56:2].mean(axis=0)
    away = np.random.default_rng(5).standard_normal(len(centre))
    path = np.stack([centre + step * away for step in (0.0, 0.05, 0.1, 0.3, 3.0)])
    path /= np.linalg.norm(path, axis=1, keepdims=True)
    novelty = atlas.place(path.astype(np.float32))["novelty"]
    assert (np.diff(novelty) >= 0.0).all()
    assert novelty[0] < 0.6 < novelty[-1]


def test_without_an_embedding_there_is_no_place():
    atlas = toy_atlas("w")
    wanted = others(3)
    wanted[1] = np.nan
    found = atlas.place(wanted)
    assert found.pop("cluster")[1] == -1
    assert all(np.isnan(values[1]) and np.isfinite(values[[0, 2]]).all() for values in found.values())


def test_a_place_between_islands_of_the_map_is_on_one_of_them():
    atlas = toy_atlas("w")
    middle = atlas.embedding[:57].mean(axis=0, keepdims=True)
    found = atlas.place(middle / np.linalg.norm(middle))
    distance = np.hypot(found["map_x"] - atlas.map2[:, 0], found["map_y"] - atlas.map2[:, 1])
    assert distance.min() < 1.0
    assert min(abs(found["map_x"][0] - 0.0), abs(found["map_x"][0] - 10.0)) < 3.5


def test_neighbours_are_the_nearest():
    rng = np.random.default_rng(1)
    sample, wanted = (rng.standard_normal((n, 128)).astype(np.float32) for n in (500, 30))
    sample, wanted = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (sample, wanted))
    near, distance = nearest(sample, wanted, 7)
    exact = np.linalg.norm(sample[None].astype(float) - wanted[:, None], axis=2)
    np.testing.assert_array_equal(near, np.argsort(exact, axis=1)[:, :7])
    np.testing.assert_allclose(distance, np.sort(exact, axis=1)[:, :7], rtol=1e-6)


def test_an_object_is_left_out_of_its_own_neighbours():
    values = np.array([[1, 2, 3], [1, 2, 3]])
    distance = np.array([[0.001, 0.5, 0.6], [0.4, 0.5, 0.6]])
    np.testing.assert_array_equal(drop_self(values, distance), [[2, 3], [1, 2]])


def test_an_atlas_comes_back_from_its_file(tmp_path):
    atlas = toy_atlas("a" * 64)
    path = tmp_path / "atlas.safetensors"
    write_atlas(path, replace(atlas, about={"run": "r"}))
    found = read_atlas(path, "a" * 64)
    for name in ("embedding", "cluster", "cluster_prob", "map2", "map3", "z", "gaps"):
        np.testing.assert_array_equal(getattr(found, name), getattr(atlas, name))
    assert found.about == {"run": "r"}
    assert len(found.sha256) == 64
    with pytest.raises(
        WeightsError, match=r"is an atlas of the weights aaaaaaaaaaaa\.\.\., the run's are bbb"
    ):
        read_atlas(path, "b" * 64)


def test_what_is_no_atlas_is_refused(tmp_path):
    path = tmp_path / "atlas.safetensors"
    write_atlas(path, replace(toy_atlas("w"), map2=np.zeros((60, 3), np.float32)))
    with pytest.raises(WeightsError, match="not those of an atlas"):
        read_atlas(path)
    path.write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        read_atlas(path)
