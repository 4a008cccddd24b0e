"""Fluxes in microjansky from magnitudes, from the archive's flux tables and from nanomaggies."""

import astropy.units as u
import numpy as np
import pytest

from ojala.pipeline.ingest.jpas import flux_units
from ojala.pipeline.storage.units import parse_unit

ONE = np.ones(1)
NOTHING = np.array([np.nan])


def test_ab_magnitude_23_9_is_a_microjansky():
    flux, error = flux_units.from_magnitude(np.array([23.9]), np.array([0.1]), ONE)
    assert flux == pytest.approx(1.0, rel=1e-4)  # 3631 Jy is a rounded 10**(48.6 / -2.5) erg/s/cm2/Hz
    assert error / flux == pytest.approx(0.1 * np.log(10) / 2.5)


@pytest.mark.parametrize("value", [99, 99.9, 99.99, 99.999, 98, 999, 9999, 50, -99, -9999, 1e30, np.inf])
def test_a_magnitude_or_an_error_that_none_measures_is_missing(value):
    assert np.isnan(flux_units.from_magnitude(np.array([value]), np.array([0.1]), ONE)).all()
    if abs(value) > 90:
        flux, error = flux_units.from_magnitude(np.array([20.0]), np.array([value]), ONE)
        assert flux == pytest.approx(36.31)
        assert np.isnan(error)


@pytest.mark.parametrize("value", [-99.0, -999.0, -9999.0, 1.6e38, 1e99, -1e99])
def test_a_flux_or_an_error_that_stands_for_none_is_missing(value):
    flux, error = flux_units.from_flux(np.array([value, 5.0, -98.5]), np.array([0.5, value, 2.0]), ONE)
    np.testing.assert_array_equal(flux, [np.nan, 5.0, -98.5])
    np.testing.assert_array_equal(error, [0.5, np.nan, 2.0])
    assert np.isnan(flux_units.from_relative_error(np.array([value]), np.array([0.1]), ONE)).all()


def test_flux_zero_is_missing_in_the_archives_tables():
    assert np.isnan(flux_units.from_relative_error(np.zeros(1), np.array([0.1]), ONE)).all()


def test_error_of_a_negative_flux_is_positive():
    flux, error = flux_units.from_relative_error(np.array([-20.0, -20.0]), np.array([0.5, -0.5]), ONE)
    assert flux.tolist() == [-20.0, -20.0]
    assert error.tolist() == [10.0, 10.0]


def test_nanomaggy_is_magnitude_22_5():
    flux, error = flux_units.from_nanomaggies(ONE, np.array([4.0]), ONE)
    assert flux == pytest.approx(flux_units.from_magnitude(np.array([22.5]), NOTHING, ONE)[0])
    assert error == pytest.approx(3.631 / 2)


def test_inverse_variance_zero_is_not_observed():
    assert np.isnan(flux_units.from_nanomaggies(ONE, np.zeros(1), ONE)).all()


@pytest.mark.parametrize(
    ("text", "family", "ujy"),
    [
        ("1e-30 erg/s/cm2/Hz", "fnu", 0.1),
        ("10**-30 erg s-1 cm-2 Hz-1", "fnu", 0.1),
        ("uJy", "fnu", 1.0),
        ("nJy", "fnu", 1e-3),
        # f_nu = f_lambda * lambda**2 / c, at 5000 A
        ("1E-19 erg/s/cm2/A", "flambda", 1e-19 * 5000**2 / 2.99792458e18 / 1e-29),
        ("1e-19 erg s-1 cm-2 A-1", "flambda", 1e-19 * 5000**2 / 2.99792458e18 / 1e-29),
        ("1e-19 erg / (s cm2 Angstrom)", "flambda", 1e-19 * 5000**2 / 2.99792458e18 / 1e-29),
    ],
)
def test_units_are_read_as_archives_spell_them(text, family, ujy):
    unit = parse_unit(text)
    assert flux_units.kind_of(unit) == family
    assert flux_units.microjansky_per(unit, 5000.0) == pytest.approx(ujy)


def test_a_unit_that_is_no_flux_density_belongs_to_no_family():
    assert flux_units.kind_of(u.mag) is None
    assert parse_unit("  ") is None
    with pytest.raises(ValueError, match="furlong"):
        parse_unit("furlong")


def test_bare_cgs_units_are_told_from_scaled_ones():
    assert flux_units.is_bare_cgs(parse_unit("erg/s/cm2/A"))
    assert flux_units.is_bare_cgs(parse_unit("erg/s/cm2/Hz"))
    assert not flux_units.is_bare_cgs(parse_unit("1e-19 erg/s/cm2/A"))
