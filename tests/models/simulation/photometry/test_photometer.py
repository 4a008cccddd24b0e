from __future__ import annotations

import numpy as np
import pytest

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.models.simulation.photometry.photometer import Photometer
from ojala.models.simulation.wavelength_grid import COARSE, FINE, LIGHT_SPEED
from tests.models.simulation.small_library import box_curves

NAMES = [band.name for band in MODEL_BANDS]


def flat_fnu(wavelength: np.ndarray, microjansky: float = 5.0) -> np.ndarray:
    return microjansky * 1e-29 * LIGHT_SPEED / wavelength**2


def test_a_source_of_constant_fnu_has_it_in_every_band(photometer):
    seen = photometer.continuum(
        flat_fnu(FINE.wavelength)[None].astype(np.float32),
        flat_fnu(COARSE.wavelength)[None].astype(np.float32),
    )
    np.testing.assert_allclose(seen, 5.0, rtol=1e-5)
    wavelength = np.geomspace(3000.0, 60000.0, 40000)
    flux, coverage = photometer.observe(wavelength, flat_fnu(wavelength))
    np.testing.assert_allclose(flux, 5.0, rtol=1e-6)
    np.testing.assert_allclose(coverage, 1.0)


def test_both_ways_through_the_bands_agree_on_a_steep_spectrum(photometer):
    wavelength = np.geomspace(3000.0, 60000.0, 60000)
    flux = 1e-17 * (wavelength / 7000.0) ** -2.5
    on_lattice = [np.interp(g.wavelength, wavelength, flux)[None].astype(np.float32) for g in (FINE, COARSE)]
    np.testing.assert_allclose(
        photometer.continuum(*on_lattice)[0], photometer.observe(wavelength, flux)[0], rtol=2e-3
    )


def test_a_line_adds_its_flux_over_the_width_of_its_band(photometer):
    band = NAMES.index("J0660")
    pivot, width = MODEL_BANDS[band].pivot, MODEL_BANDS[band].fwhm
    seen = photometer.lines(np.array([[pivot]]), np.array([[1e-15]]))[0]
    expected = 1e-15 / width * pivot**2 / LIGHT_SPEED * 1e29  # mean f_lambda of a box, as f_nu in uJy
    assert seen[band] == pytest.approx(expected, rel=0.02)
    lit = {NAMES[i] for i in np.flatnonzero(seen > 1e-3 * expected)}
    assert lit <= {"J0650", "J0660", "J0670", "iSDSS", "ls_r"}


def test_a_line_outside_the_window_adds_nothing(photometer):
    assert not photometer.lines(np.array([[2500.0, 12000.0]]), np.ones((1, 2))).any()


def test_a_line_is_the_same_as_a_narrow_gaussian_in_the_spectrum(photometer):
    wavelength = np.geomspace(3100.0, 11100.0, 200000)
    centre, sigma = 6070.0, 6070.0 * 5e-4
    gaussian = 1e-15 * np.exp(-0.5 * ((wavelength - centre) / sigma) ** 2) / (sigma * np.sqrt(2.0 * np.pi))
    direct, _ = photometer.observe(wavelength, gaussian)
    band = NAMES.index("J0610")
    fast = photometer.lines(np.array([[centre]]), np.array([[1e-15]]))[0]
    assert fast[band] == pytest.approx(direct[band], rel=0.05)
    assert fast[NAMES.index("ls_r")] == pytest.approx(direct[NAMES.index("ls_r")], rel=0.01)


def test_bands_that_a_spectrum_does_not_cover_are_missing(photometer):
    wavelength = np.arange(3800.0, 9200.0, 1.0)
    flux, coverage = photometer.observe(wavelength, np.ones_like(wavelength))
    missing = {NAMES[i] for i in np.flatnonzero(np.isnan(flux))}
    assert {"uJAVA", "J0378", "J1007", "ls_z", "W1", "W2"} <= missing
    assert not missing & {"J0400", "J0660", "J0900", "iSDSS", "ls_g", "ls_r"}
    assert coverage[NAMES.index("uJAVA")] == 0.0


def test_a_gap_loses_the_narrow_band_and_is_bridged_in_the_wide_one(photometer):
    wavelength = np.arange(3800.0, 9200.0, 1.0)
    outside = (wavelength < 7580.0) | (wavelength > 7680.0)  # the telluric A band
    flux, _ = photometer.observe(wavelength, flat_fnu(wavelength), outside)
    assert np.isnan(flux[NAMES.index("J0760")])
    assert flux[NAMES.index("iSDSS")] == pytest.approx(5.0, rel=1e-3)


def test_a_spectrum_without_pixels_has_no_flux(photometer):
    wavelength = np.arange(3800.0, 9200.0, 1.0)
    flux, coverage = photometer.observe(wavelength, np.full_like(wavelength, np.nan))
    assert np.isnan(flux).all()
    assert not coverage.any()


def test_a_missing_curve_is_named():
    curves = dict(box_curves())
    del curves["J0660"]
    with pytest.raises(ValueError, match="J0660"):
        Photometer(curves)


def test_a_curve_in_the_wrong_unit_is_refused():
    curves = dict(box_curves())
    wavelength, transmission = curves["W1"]
    curves["W1"] = (wavelength / 1e4, transmission)
    with pytest.raises(ValueError, match="W1"):
        Photometer(curves)
