from __future__ import annotations

import numpy as np
import pytest

from ojala.models.data import Spectra
from ojala.models.specpt.wavelength_grid import GRIDS, rebin

pytestmark = pytest.mark.processor

DESI, LOG = GRIDS["desi"], GRIDS["log"]


def one(wavelength: np.ndarray, flux: np.ndarray, ivar: np.ndarray) -> Spectra:
    return Spectra.from_arrays([(wavelength, flux, ivar)])


def sdss_grid() -> np.ndarray:
    return 10.0 ** np.arange(3.5563, 4.0170, 1e-4)


def test_a_spectrum_on_the_grid_stays_as_it_is():
    rng = np.random.default_rng(1)
    flux, ivar = rng.normal(1.0, 0.3, DESI.size), rng.uniform(0.1, 5.0, DESI.size)
    again, weight = rebin(one(DESI.wavelength, flux, ivar), DESI)
    # Wavelengths come in single precision: a thousandth of a pixel may be the neighbour's.
    np.testing.assert_allclose(again[0], flux, atol=0.03)
    np.testing.assert_allclose(weight[0], ivar, atol=0.01)


def test_desi_s_grid_has_the_wavelengths_of_its_pixels():
    np.testing.assert_allclose(DESI.wavelength[[0, 1, -1]], (3600.0, 3600.8, 9824.0), atol=1e-9)


@pytest.mark.parametrize("wavelength", [DESI.wavelength, sdss_grid()], ids=["DESI", "SDSS"])
def test_a_line_keeps_its_place_and_its_flux(wavelength):
    line = np.exp(-0.5 * ((wavelength - 6500.3) / 3.0) ** 2)
    flux, ivar = rebin(one(wavelength, line, np.ones_like(wavelength)), LOG)
    width = np.diff(LOG.edges)
    assert (flux[0] * LOG.wavelength * width).sum() / (flux[0] * width).sum() == pytest.approx(
        6500.3, abs=0.1
    )
    assert (flux[0] * width).sum() == pytest.approx(3.0 * np.sqrt(2.0 * np.pi), rel=0.01)
    inside = (LOG.edges[:-1] > wavelength[0]) & (LOG.edges[1:] < wavelength[-1])
    assert (ivar[0][inside] > 0.0).all()


def test_noise_of_rebinned_pixels_is_what_their_inverse_variance_says():
    """Up to the correlation of neighbours that share a pixel, which makes the mean somewhat quieter."""
    rng = np.random.default_rng(2)
    sigma = rng.uniform(0.5, 3.0, (60, DESI.size)).astype(np.float32)
    noise = sigma * rng.standard_normal(sigma.shape, np.float32)
    offsets = np.arange(61) * DESI.size
    wavelength = np.tile(DESI.wavelength.astype(np.float32), 60)
    flux, ivar = rebin(Spectra(offsets, wavelength, noise.ravel(), (sigma**-2).ravel()), LOG)
    scatter = (flux * np.sqrt(ivar))[ivar > 0.0].std()
    assert 0.75 < scatter < 1.0


def test_pixels_without_weight_and_numbers_that_are_none_are_not_read():
    wavelength, flux = DESI.wavelength, np.ones(DESI.size)
    ivar = np.ones(DESI.size)
    flux[1000:1010], ivar[2000:2010], ivar[3000], ivar[4000] = np.nan, 0.0, -1.0, np.inf
    again, weight = rebin(one(wavelength, flux, ivar), LOG)
    assert np.isfinite(again).all()
    assert np.isfinite(weight).all()
    near = np.searchsorted(LOG.edges, wavelength[2005]) - 1
    assert weight[0, near] == 0.0
    np.testing.assert_allclose(again[weight > 0.0], 1.0, rtol=1e-5)


def test_what_lies_outside_of_the_grid_is_left_out():
    infrared = np.linspace(15100.0, 17000.0, 500)
    flux, ivar = rebin(one(infrared, np.ones(500), np.ones(500)), LOG)
    assert not flux.any()
    assert not ivar.any()


def test_spectra_of_different_instruments_come_back_in_their_order():
    grids = [DESI.wavelength, sdss_grid(), DESI.wavelength, np.empty(0), np.array([5000.0])]
    spectra = Spectra.from_arrays(
        [(w, np.full(len(w), k + 1.0), np.ones(len(w))) for k, w in enumerate(grids)]
    )
    flux, ivar = rebin(spectra, LOG)
    for k in range(3):
        np.testing.assert_allclose(flux[k][ivar[k] > 0.0], k + 1.0, rtol=1e-5)
    assert not ivar[3:].any()
