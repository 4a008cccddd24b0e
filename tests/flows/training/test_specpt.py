from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from ojala.flows.evaluation import specpt
from ojala.flows.training import specpt_galaxies
from ojala.flows.training.specpt import specpt_spectra, train_from, training_spectra
from ojala.models.evaluation.card import card, card_record
from ojala.models.simulation.populations.population import Population
from ojala.models.simulation.skies.spectroscopic import SpectraSky
from ojala.models.specpt.checkpoint import load, save
from ojala.models.specpt.network import SpecPT
from ojala.models.specpt.predictor import SpecPTPredictor
from ojala.pipeline.ingest.surveys.spectrum import Spectrum
from tests.models.simulation.small_library import libraries
from tests.models.specpt.small_network import SMALL

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def sky() -> SpectraSky:
    return SpectraSky(Population(libraries()))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("specpt") / "small.safetensors"
    held_out = {"bgs": {"softplus sigma_nmad": 0.01, "softplus outliers_15": 0.02}}
    config = {"reconstruction": 0.1, "device": "cpu", "batch_size": 4, "learning_rate": 1e-3, "seed": 1}
    training = {"draws": 8, "seconds": 60.0, "threads": 1, "held_out": held_out, "config": config}
    save(path, SpecPT(SMALL), name="small", version="1", training=training)
    return path


def test_spectra_to_learn_from_are_desi_s_with_some_of_sdss(sky):
    drawn = training_spectra(sky, 40, np.random.default_rng(1))
    assert len(drawn) == 40
    assert set(drawn.spectra.sizes) == {7781, 4608}
    assert (drawn.labels["z"] > 0.6).any()
    assert (drawn.class_code == 0).all()


def test_a_report_on_mock_spectra_fills_the_card(sky, weights):
    predictor = SpecPTPredictor.load(weights, batch_size=8)
    report = specpt.on_mock_spectra(predictor, sky, 12)
    assert set(report) == {"bgs", "elg"}
    assert all(np.isfinite(row["sigma_nmad"]) and row["rows"] == 12 for row in report.values())
    text = card(card_record(weights, {"command": "a command", "measures": report}))
    assert "| bgs | 12 |" in text
    assert "0.0006, 0.20 % beyond 0.15" in text


def test_a_reconstruction_that_repeats_the_noise_is_found_out(sky):
    """What is compared: an answer that is the observed spectrum itself, and one that is the true one."""
    rng = np.random.default_rng(3)
    objects = sky.draw_objects(6, rng, targets="bgs")
    drawn = sky.observe(objects, specpt.INSTRUMENTS["DESI"], rng)
    truth = sky.noiseless(objects, specpt.INSTRUMENTS["DESI"])
    median = np.ones(6, np.float32)
    kept = specpt.STORED_GRID
    observed, _ = specpt.rebin(drawn.spectra, kept)
    exact = specpt.rebin(dataclasses.replace(drawn.spectra, flux=truth.ravel()), kept)[0]
    for made, share in ((observed, 1.0), (exact, 0.0)):
        found = specpt.at_sky_lines(drawn.spectra, truth, {"reconstruction": made, "flux_median": median})
        for place in ("at sky lines", "elsewhere"):
            assert found[f"noise reconstructed {place}"] == pytest.approx(share, abs=0.02)


def test_held_out_spectra_are_of_held_out_members(sky):
    drawn = specpt_spectra(sky, 30, np.random.default_rng(4), "bgs", held_out=True)
    assert np.isin(drawn.member, sky.population.members(held_out=True).galaxies.rows).all()


def test_a_wrong_setting_is_said_with_its_file(tmp_path):
    settings = tmp_path / "specpt.toml"
    settings.write_text('name = "x"\nepochs = 3\n')
    with pytest.raises(ValueError, match=r"specpt\.toml: unknown settings: epochs"):
        train_from(settings, library=tmp_path / "none.npz", folder=tmp_path)


def test_the_classifier_of_galaxies_is_fitted_and_cross_validated(sky, weights, monkeypatch):
    monkeypatch.setattr(specpt_galaxies, "DRAWS", (("bgs", "SDSS", 4), ("all", "SDSS", 16)))
    network, _ = load(weights)
    mocks = specpt_galaxies.mock_sample(network, sky, rounds=1)
    assert mocks.features.shape == (20, 32)
    assert set(mocks.kind) <= {"mock GALAXY", "mock STAR", "mock QSO"}
    bright = np.linspace(4000.0, 9000.0, 3000)
    star = Spectrum("a", "SDSS", bright, bright, np.ones(3000), 0.0, 0.0, "STAR", z=0.0, trusted=True)
    sample = specpt_galaxies.joined([specpt_galaxies.real_sample(network, [star] * 5), mocks])
    assert sample.weight[sample.kind == "real STAR"].sum() == pytest.approx(0.15)
    report = specpt_galaxies.cross_validated(sample)
    assert report["SDSS STAR"]["rows"] == 5
    assert sum(row["rows"] for row in report.values()) == 25
    p = specpt_galaxies.probabilities(specpt_galaxies.fit(sample), sample.features)
    assert p[sample.is_galaxy].mean() > p[~sample.is_galaxy].mean()
