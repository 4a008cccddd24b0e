"""AVIS from mock pairs to its card."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from ojala.catalogs_schema.errors import InputError
from ojala.flows.evaluation.avis import Samples, both_ways, embed, measure, photometry, redshifts, scaled
from ojala.flows.mocks import pairs as avis_pool
from ojala.flows.mocks.pairs import PairSky, StoredPairs, store_pairs
from ojala.flows.training import avis as training
from ojala.flows.training.avis import HeldOutCheck, on_the_fly, read_stages
from ojala.models import WEIGHTS_FOLDER
from ojala.models.avis import network
from ojala.models.avis.checkpoint import load
from ojala.models.avis.network import Avis
from ojala.models.avis.predictor import AvisPredictor
from ojala.models.avis.training import AvisTraining
from ojala.models.evaluation.card import card, card_record
from ojala.models.settings import from_mapping
from ojala.models.simulation.photometry.photometer import Photometer
from ojala.models.simulation.skies.photometric import MockSky
from tests.models.avis.pairs_of_kinds import SMALL
from tests.models.simulation.small_library import box_curves, libraries

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def sky() -> PairSky:
    return PairSky(MockSky(libraries(), Photometer(box_curves())))


@pytest.fixture
def pool(sky, tmp_path, monkeypatch):
    monkeypatch.setattr(avis_pool, "SHARD", 8)
    monkeypatch.setattr(avis_pool, "_BLOCK", 4)
    monkeypatch.setattr(avis_pool, "INSTRUMENT_CYCLE", ("DESI", "SDSS"))
    store_pairs(sky, tmp_path, 2, seed=1)
    return tmp_path


def test_pairs_are_two_views_of_the_same_objects(sky):
    """Bright objects are bright in both."""
    drawn = sky.draw(60, np.random.default_rng(1))
    of_spectrum = np.array([np.median(flux) for _, flux, _ in drawn.pairs.spectra])
    of_image = drawn.pairs.images.flux[:, 1].sum(axis=(1, 2))
    bright = drawn.images.flux[:, 1] > np.median(drawn.images.flux[:, 1])
    assert np.corrcoef(np.log(of_spectrum[bright]), np.log(np.maximum(of_image[bright], 1e-3)))[0, 1] > 0.7


def test_kept_pairs_are_those_that_were_drawn_to_three_digits(sky, pool):
    drawn = sky.draw(4, np.random.default_rng([1, 1, 0]), instrument="SDSS").pairs
    with np.load(pool / "pairs-00001.npz") as shard:
        images = {"image", "image_ivar", "psf_fwhm"}
        assert set(shard.files) == {"wavelength", "flux", "error", "relative_flux"} | images
        np.testing.assert_allclose(shard["flux"][:4].ravel(), drawn.spectra.flux, rtol=1e-3, atol=1e-4)
    kept = StoredPairs(pool)
    assert len(kept) == 16
    batch = kept.batch(0, 4, seed=3)
    assert len(batch) == 4
    assert (batch.images.ivar > 0.0).any()
    lost = batch.spectra.ivar == 0.0
    assert (batch.spectra.flux[lost] == 0.0).all()


def test_each_kept_pair_is_seen_once_before_any_is_seen_again(pool):
    kept = StoredPairs(pool)
    sums = [batch.images.flux.sum(axis=(1, 2, 3)) for batch in (kept.batch(k, 4, seed=3) for k in range(8))]
    first, second = np.concatenate(sums[:4]), np.concatenate(sums[4:])
    assert len(np.unique(first)) == 16
    np.testing.assert_array_equal(np.sort(first), np.sort(second))
    assert not np.array_equal(first, second)


def test_an_empty_pool_says_how_to_fill_it(tmp_path):
    with pytest.raises(InputError, match=r"fill it with python -m ojala\.flows\.mocks\.pairs"):
        StoredPairs(tmp_path)


def test_a_step_s_pairs_are_its_own(sky):
    draw = on_the_fly(sky, seed=1)
    one, same, other = (draw(step, 2).images.flux for step in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


SETTINGS = """
name = "small"
preset = "small"
minutes = 0.01
batch_size = 4

[[stages]]
objective = "towers"

[[stages]]
objective = "contrastive"
second_view = 1.0
"""


def test_the_settings_that_are_shipped_are_those_of_the_bundled_weights():
    *stages, last = read_stages(Path(__file__).parents[3] / "flows" / "training" / "configs" / "avis.toml")
    trained = load(WEIGHTS_FOLDER / "avis-base.safetensors")[1].training
    for stage in (last, *reversed(stages)):
        start = trained["config"]["start"]
        assert dataclasses.replace(stage, start=start) == from_mapping(AvisTraining, trained["config"])
        trained = trained.get("before")


@pytest.mark.parametrize(
    ("wrong", "message"), [("epochs = 3\n[[stages]]\n", "unknown settings: epochs"), ("", "no table")]
)
def test_wrong_settings_are_named_with_their_file(tmp_path, wrong, message):
    (tmp_path / "avis.toml").write_text(wrong)
    with pytest.raises(InputError, match=rf"avis\.toml: .*{message}"):
        read_stages(tmp_path / "avis.toml")


def test_a_batch_that_does_not_divide_a_shard_is_refused(pool):
    with pytest.raises(InputError, match="batch_size must divide the 8 pairs"):
        StoredPairs(pool).batch(0, 3, seed=1)


def test_from_mock_pairs_to_the_card(sky, tmp_path, monkeypatch):
    monkeypatch.setitem(network.PRESETS, "small", SMALL)
    monkeypatch.setattr(training, "PairSky", lambda mock: sky)
    monkeypatch.setattr(training, "load_sky", lambda path: None)
    monkeypatch.setattr(training, "HELD_OUT", 4)
    (tmp_path / "avis.toml").write_text(SETTINGS)
    out = tmp_path / "out"
    weights = training.train_from(tmp_path / "avis.toml", library=tmp_path / "none.npz", folder=out)
    assert weights.with_suffix(".md").exists()
    assert "![Learning curve]" in weights.with_suffix(".md").read_text()
    assert load(weights)[1].training["before"]["config"]["objective"] == "towers"

    samples = Samples.drawn(sky, 120, 90)
    predictor = AvisPredictor.load(weights)
    there, here = (embed(predictor, one.pairs) for one in (samples.neighbours, samples.queries))
    rng = np.random.default_rng(1)
    magnitudes = [photometry(one, rng) for one in (samples.neighbours, samples.queries)]
    np.testing.assert_allclose(scaled(*magnitudes)[0].std(axis=0), 1.0, atol=1e-3)
    pairs = {
        "joint": measure(samples, there["joint"], here["joint"]),
        "PCA of g, r, z": measure(samples, *magnitudes),
    }
    names = ("clusters", "unclustered", "adjusted_rand", "adjusted_rand_all", "purity")
    grouped = dict.fromkeys((*names, "trustworthiness_2", "trustworthiness_3"), 0.5)
    report = {
        "pairs": pairs,
        "unscaled": {"joint, not scaled": redshifts(samples, there["joint"], here["joint"])},
        "clusters": {"joint": grouped},
        "retrieval": both_ways(here),
        "real": {"DESI, mock neighbours": pairs["joint"]},
        "tried": {"contrastive, joint": pairs["joint"] | grouped},
    }
    record = card_record(weights, {"command": "python -m this", "measures": report})
    text = card(record, "## Limits\n* **All pairs are simulated.**\n")
    assert "**All pairs are simulated.**" in text
    assert "| joint |" in text
    assert f"{pairs['joint']['galaxy_sigma_nmad']:.4f}" in text
    assert "none: each tower alone" in text
    assert "learned temperature); contrast of two views of a spectrum |" in text


def test_random_weights_find_nothing(sky):
    """The check would be worth nothing if it said otherwise."""
    torch.manual_seed(1)
    found = HeldOutCheck(sky, 60)(Avis(SMALL))
    assert found["n"] == 60.0
    assert found["median_rank"] > 8.0
