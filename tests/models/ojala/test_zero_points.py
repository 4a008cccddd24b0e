"""Zero points of a survey are found from bands that predict each other, and taken out before the network."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ojala.models.checkpoint import WeightsError
from ojala.models.ojala.checkpoint import load, save
from ojala.models.ojala.network import PRESETS, Ojala
from ojala.models.ojala.predictor import OjalaPredictor
from ojala.models.ojala.tokens import N_BANDS
from ojala.models.ojala.zero_points import ZeroPoints, fit_zero_points

FACTOR = np.exp(np.random.default_rng(1).normal(0.0, 0.05, N_BANDS)).astype(np.float32)
FACTOR /= np.exp(np.median(np.log(FACTOR)))


def photometry(rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fluxes of smooth spectra with 2 % noise, a fifth of them missing; errors and E(B-V)."""
    rng = np.random.default_rng(2)
    colour, brightness = rng.normal(0.0, 1.0, (rows, 1)), 10 ** rng.uniform(0.0, 2.0, (rows, 1))
    true = brightness * np.exp(colour * np.linspace(-1.0, 1.0, N_BANDS))
    flux = true * (1.0 + 0.02 * rng.standard_normal(true.shape))
    flux[rng.random(flux.shape) < 0.2] = np.nan
    return flux.astype(np.float32), (0.02 * true).astype(np.float32), np.zeros(rows, np.float32)


def by_straight_lines(flux, error, ebv) -> dict[str, np.ndarray]:
    """Logarithms of the fluxes as straight lines through all bands, as a network that knows the spectra."""
    x = np.linspace(-1.0, 1.0, N_BANDS)
    lines = [
        np.polyfit(x[there], np.log(row[there]), 1)
        for row, there in zip(flux, np.isfinite(flux), strict=True)
    ]
    predicted = np.exp(np.array([np.polyval(line, x) for line in lines]))
    return {"band_flux": predicted, "band_flux_err": 0.01 * predicted}


def test_factors_are_found_up_to_what_all_spectra_share():
    flux, error, ebv = photometry(400)
    found = np.log(
        fit_zero_points(by_straight_lines, flux * FACTOR, error * FACTOR, ebv).factor.numpy() / FACTOR
    )
    x = np.linspace(-1.0, 1.0, N_BANDS)
    assert np.std(found - np.polyval(np.polyfit(x, found, 1), x)) < 0.003


def test_a_band_that_few_objects_have_keeps_its_scale():
    flux, error, ebv = photometry(400)
    flux[:380, 7] = np.nan
    assert fit_zero_points(by_straight_lines, flux * FACTOR, error * FACTOR, ebv).factor[7] == 1.0


@pytest.fixture(scope="module")
def network() -> Ojala:
    torch.manual_seed(3)
    return Ojala(replace(PRESETS["base"], width=16, encoder=((2, 32),), decoder=((2, 32),), trunk=(32,)))


def test_fluxes_are_divided_by_the_zero_points_and_predicted_bands_have_them(network, tmp_path):
    for name, parts in (("plain", {}), ("adapted", {"zero_points": ZeroPoints(torch.from_numpy(FACTOR))})):
        save(tmp_path / name, network, name=name, version="1", training={}, **parts)
    plain, adapted = (OjalaPredictor.load(tmp_path / name, bands=True) for name in ("plain", "adapted"))
    flux, error, ebv = photometry(5)
    expected = plain.predict(flux, error, ebv)
    found = adapted.predict(flux * FACTOR, error * FACTOR, ebv)
    np.testing.assert_allclose(found["p_galaxy"], expected["p_galaxy"], rtol=1e-3)
    np.testing.assert_allclose(found["z_gal"], expected["z_gal"], rtol=1e-3)
    np.testing.assert_allclose(found["band_flux"], expected["band_flux"] * FACTOR, rtol=1e-3)


def test_zero_points_that_are_not_positive_are_refused(network, tmp_path):
    wrong = ZeroPoints(torch.zeros(N_BANDS))
    save(tmp_path / "w", network, name="w", version="1", training={}, zero_points=wrong)
    with pytest.raises(WeightsError, match="the zero points are not 63 positive numbers"):
        load(tmp_path / "w")
