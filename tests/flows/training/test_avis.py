"""AVIS from mock pairs to its card."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from ojala.flows.evaluation.avis import Samples, both_ways, embed, measure, photometry, redshifts, scaled
from ojala.flows.mocks import pairs as avis_pool
from ojala.flows.mocks.pairs import KeptPairs, PairSky, keep_pairs
from ojala.flows.training.avis import HeldOutCheck, on_the_fly
from ojala.models.avis import network
from ojala.models.avis.network import Avis
from ojala.models.avis.predictor import AvisPredictor
from ojala.models.avis.training import AvisTraining, train
from ojala.models.evaluation.card import card, card_record
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
    monkeypatch.setattr(avis_pool, "_DRAWN", 4)
    monkeypatch.setattr(avis_pool, "SEEN_BY", ("DESI", "SDSS"))
    keep_pairs(sky, tmp_path, 2, seed=1)
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
        assert set(shard.files) == {"wavelength", "flux", "error", "image", "image_ivar", "psf_fwhm"}
        np.testing.assert_allclose(shard["flux"][:4].ravel(), drawn.spectra.flux, rtol=1e-3, atol=1e-4)
    kept = KeptPairs(pool)
    assert len(kept) == 16
    batch = kept.batch(0, 4, seed=3)
    assert len(batch) == 4
    assert (batch.images.ivar > 0.0).any()
    lost = batch.spectra.ivar == 0.0
    assert (batch.spectra.flux[lost] == 0.0).all()


def test_each_kept_pair_is_seen_once_before_any_is_seen_again(pool):
    kept = KeptPairs(pool)
    sums = [batch.images.flux.sum(axis=(1, 2, 3)) for batch in (kept.batch(k, 4, seed=3) for k in range(8))]
    first, second = np.concatenate(sums[:4]), np.concatenate(sums[4:])
    assert len(np.unique(first)) == 16
    np.testing.assert_array_equal(np.sort(first), np.sort(second))
    assert not np.array_equal(first, second)


def test_an_empty_pool_says_how_to_fill_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"fill it with python -m ojala\.flows\.mocks\.pairs"):
        KeptPairs(tmp_path)


def test_a_step_s_pairs_are_its_own(sky):
    draw = on_the_fly(sky, seed=1)
    one, same, other = (draw(step, 2).images.flux for step in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_from_mock_pairs_to_the_card(sky, tmp_path, monkeypatch):
    monkeypatch.setitem(network.PRESETS, "small", SMALL)
    settings = AvisTraining(name="small", preset="small", minutes=0.01, batch_size=4)
    draw = on_the_fly(sky, seed=1)
    towers = train(settings, draw, HeldOutCheck(sky, 4), tmp_path / "towers")
    joint = dataclasses.replace(settings, objective="contrastive", start=str(towers), second_view=1.0)
    weights = train(joint, draw, HeldOutCheck(sky, 4), tmp_path / "joint")

    samples = Samples.drawn(sky, 120, 90)
    predictor = AvisPredictor.load(weights)
    there, here = (embed(predictor, one.pairs) for one in (samples.neighbours, samples.asked))
    rng = np.random.default_rng(1)
    magnitudes = [photometry(one, rng) for one in (samples.neighbours, samples.asked)]
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
