"""Real stars calibrate the tokenizer, each measured by a calibration that has not seen it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ojala.flows.mocks.stellar_corrections import FOLDS
from ojala.flows.mocks.stellar_libraries import read_library
from ojala.flows.training import calibrate_stars
from ojala.flows.training.calibrate_stars import LamostStars, StarFeatures, out_of_fold
from ojala.models.quantities import CLASSES
from ojala.models.simulation.populations.population import Population
from ojala.models.simulation.skies.spectroscopic import INSTRUMENTS, SpectraSky
from ojala.models.spectral_tokenizer.checkpoint import load, save
from ojala.models.spectral_tokenizer.heads import STELLAR, TokenizerWithHeads
from ojala.models.spectral_tokenizer.network import TokenizerConfig
from tests.flows.mocks.library_stars import write_library
from tests.models.simulation.small_library import libraries

SMALL = TokenizerConfig(width=32, heads=2, encoder=1, decoder=1, patch=64)


@pytest.fixture(scope="module")
def sky():
    return SpectraSky(Population(libraries()))


@pytest.mark.integration
def test_weights_are_calibrated_and_say_by_what(tmp_path, monkeypatch, sky):
    for name, value in (("DRAWS", 1), ("MOCKS", 12), ("HELD_OUT", 6)):
        monkeypatch.setattr(calibrate_stars, name, value)
    seen_by = {name: INSTRUMENTS[name] for name in ("SDSS", "LAMOST")}
    monkeypatch.setattr(calibrate_stars, "INSTRUMENTS", seen_by)
    monkeypatch.setattr(calibrate_stars, "instruments", lambda: list(seen_by.values()))
    torch.manual_seed(1)
    model = TokenizerWithHeads(SMALL)
    save(tmp_path / "before", model, name="t", version="0.1", training={"draws": 3})
    stars = {"MILES": read_library(write_library(tmp_path / "stars.parquet", 30))}
    grid = INSTRUMENTS["LAMOST"].wavelength
    lamost = LamostStars(
        [(grid, np.ones(len(grid)), np.full(len(grid), 400.0))] * 5,
        np.tile([5000.0, 4.5, -0.5], (5, 1)),
        np.arange(5) % FOLDS,
    )
    report = calibrate_stars.calibrate_stars(tmp_path / "before", sky, stars, lamost, tmp_path / "after")
    tuned, info = load(tmp_path / "after")
    assert info.stellar_calibration is not None
    assert info.error_scales is not None
    assert info.training["draws"] == 3
    assert info.training["stars"]["stars"] == {"MILES": 29, "LAMOST": 5}
    assert report["after"]["MILES, SDSS"]["teff_n"] == 29
    assert set(report["after"]) == set(report["before"])
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tuned.state_dict()[name], tensor, rtol=0.0, atol=0.0)


def test_a_star_is_measured_by_the_calibration_without_its_fold():
    n = 4 * 300
    rng = torch.Generator().manual_seed(2)
    fold = np.arange(n) % FOLDS
    target = torch.randn(n, len(STELLAR), generator=rng)
    target[:, 0] *= 0.1
    # A feature that names the star's fold: by its own fold the label of fold 1 would be known.
    found = torch.from_numpy((fold == 1)[:, None] * np.ones((n, 2), np.float32))
    target[fold == 1, 2] = 5.0
    stars = StarFeatures(
        found, torch.zeros(n, 3, 2), target, fold, torch.ones(n), torch.ones(n, dtype=torch.bool)
    )
    fe_h = out_of_fold(stars, [stars.calibration(without=k) for k in range(FOLDS)])[:, 2, 0]
    assert (fe_h[fold == 1] < 1.0).all()
    assert stars.calibration().apply(stars.own, found, stars.coarse)[fold == 1, 2, 0].mean() > 2.0


@pytest.mark.integration
def test_mock_stars_for_the_fit_lack_pixels_as_real_ones_do(sky):
    instrument = INSTRUMENTS["LAMOST"]
    drawn = calibrate_stars.mock_stars(sky, instrument, 40, np.random.default_rng(3))
    assert (drawn.class_code == CLASSES.index("STAR")).all()
    red = [(ivar[wavelength > 7500.0] > 0.0).any() for wavelength, _, ivar in drawn.spectra]
    assert 4 < sum(red) < 36
