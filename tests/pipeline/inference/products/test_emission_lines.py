import numpy as np
import pytest
from astropy import units as u
from astropy.cosmology import Planck18

from ojala.catalogs_schema.bands import BY_NAME
from ojala.pipeline.inference.products.emission_lines import (
    bpt_class,
    line_quantities,
    luminosity_distance,
    whan_class,
)

LINES = ("halpha", "hbeta", "oiii_5007", "nii_6584")


def galaxy(**changes):
    values = {
        "ew_halpha": 30.0, "ew_hbeta": 8.0, "ew_oiii_5007": 11.0, "ew_nii_6584": 6.0,
        "cont_halpha": 0.96, "cont_hbeta": 0.95, "z_gal": 0.1,
    }  # fmt: skip
    values |= {f"{name}_err": 0.1 * value for name, value in values.items()} | changes
    return {name: np.atleast_1d(np.asarray(value, float)) for name, value in values.items()}


def test_a_line_flux_is_ew_times_continuum_times_the_flux_of_the_reference_band():
    columns = line_quantities(galaxy(), np.array([100.0]), np.array([1.0]))
    f_lambda = (100.0 * u.uJy).to(
        u.erg / u.s / u.cm**2 / u.AA, u.spectral_density(BY_NAME["iSDSS"].pivot * u.AA)
    )
    expected = 30.0 * 0.96 * 1.1 * f_lambda.value
    assert columns["f_halpha"][0] == pytest.approx(expected, rel=1e-6)
    assert columns["f_halpha_err"][0] == pytest.approx(
        expected * np.sqrt(0.1**2 + 0.1**2 + 0.01**2), rel=1e-6
    )


def test_errors_follow_from_a_monte_carlo_of_the_inputs():
    rng = np.random.default_rng(1)
    base = galaxy(ew_halpha=60.0, ew_hbeta=12.0, ew_halpha_err=1.0, ew_hbeta_err=0.3,
                  cont_halpha_err=0.01, cont_hbeta_err=0.01, z_gal_err=0.002)  # fmt: skip
    n = 200_000
    drawn = {k: np.full(n, v[0]) for k, v in base.items()}
    for name in ("ew_halpha", "ew_hbeta", "cont_halpha", "cont_hbeta", "z_gal"):
        drawn[name] = drawn[name] + drawn[f"{name}_err"] * rng.standard_normal(n)
    expected = line_quantities(base, np.array([100.0]), np.array([0.001]))
    spread = line_quantities(drawn, np.full(n, 100.0), np.full(n, 0.001))
    for name in ("f_halpha", "ha_hb_ratio"):
        assert expected[f"{name}_err"][0] == pytest.approx(np.std(spread[name]), rel=0.05)
    # The error of the corrected luminosity takes its parts as independent.
    assert expected["log_l_halpha_corr_err"][0] == pytest.approx(np.std(spread["log_l_halpha_corr"]), rel=0.1)


def test_dust_is_corrected_by_the_balmer_decrement_and_only_above_case_b():
    equal = {"cont_halpha": 1.0, "cont_hbeta": 1.0}
    case_b = line_quantities(
        galaxy(ew_halpha=28.6, ew_hbeta=10.0, **equal), np.array([50.0]), np.array([1.0])
    )
    below = line_quantities(galaxy(ew_halpha=20.0, ew_hbeta=10.0, **equal), np.array([50.0]), np.array([1.0]))
    dusty = line_quantities(galaxy(ew_halpha=57.2, ew_hbeta=10.0, **equal), np.array([50.0]), np.array([1.0]))

    def plain(columns):
        distance = Planck18.luminosity_distance(0.1).to_value(u.cm)
        return np.log10(4 * np.pi * distance**2 * columns["f_halpha"][0])

    for columns in (case_b, below):
        assert columns["log_l_halpha_corr"][0] == pytest.approx(plain(columns), abs=1e-4)
    assert dusty["log_l_halpha_corr"][0] - plain(dusty) == pytest.approx(
        np.log10(2.0) * 3.326 / 1.272, abs=1e-4
    )
    assert dusty["log_sfr_halpha"][0] == pytest.approx(dusty["log_l_halpha_corr"][0] + np.log10(7.9e-42))


def test_without_both_lines_in_emission_there_is_no_luminosity():
    for changes in ({"ew_hbeta": -1.0}, {"ew_halpha": -2.0}):
        columns = line_quantities(galaxy(**changes), np.array([50.0]), np.array([1.0]))
        assert np.isnan(columns["log_l_halpha_corr"][0])
        assert np.isnan(columns["ha_hb_ratio"][0])


def test_without_the_reference_band_there_are_no_fluxes_but_classes():
    columns = line_quantities(galaxy(), np.array([np.nan]), np.array([np.nan]))
    assert np.isnan(columns["f_oiii_5007"][0])
    assert columns["bpt_class"][0] == "SF"


def test_distances_are_planck18s():
    z = np.array([0.002, 0.01, 0.5, 2.0, 5.0])
    distance, slope = luminosity_distance(z)
    assert distance == pytest.approx(Planck18.luminosity_distance(z).to_value(u.cm), rel=1e-4)
    step = 1e-3
    numeric = (luminosity_distance(z + step)[0] - luminosity_distance(z - step)[0]) / (2 * step)
    assert slope == pytest.approx(numeric, rel=2e-2)


@pytest.mark.parametrize(
    ("widths", "z", "expected"),
    [
        # log([NII]/Ha), log([OIII]/Hb) = -0.6, -0.2: below Kauffmann et al. (2003)
        ((40.0, 20.0, 12.6, 10.0), 0.1, "SF"),
        # -0.2, 0.2: between the two lines
        ((40.0, 12.0, 19.0, 25.2), 0.1, "COMPOSITE"),
        # 0.0, 0.8: above Kewley et al. (2001)
        ((20.0, 4.0, 25.2, 20.0), 0.1, "AGN"),
        ((40.0, 20.0, 12.6, 10.0), 0.4, "NONE"),
        ((40.0, 2.9, 12.6, 10.0), 0.1, "NONE"),
        ((9.0, 20.0, 12.6, 8.0), 0.1, "NONE"),
    ],
)
def test_bpt_classes(widths, z, expected):
    names = dict(zip(("ew_halpha", "ew_hbeta", "ew_oiii_5007", "ew_nii_6584"), widths, strict=True))
    errors = {f"{name}_err": 0.1 for name in names}
    assert bpt_class(galaxy(**names, **errors, z_gal=z))[0] == expected


@pytest.mark.parametrize(
    ("alpha", "nitrogen", "z", "expected"),
    [
        (20.0, 4.0, 0.1, "SF"),
        (20.0, 10.0, 0.1, "STRONG_AGN"),
        (5.0, 4.0, 0.1, "WEAK_AGN"),
        (2.0, 1.0, 0.1, "RETIRED"),
        (-1.0, 1.0, 0.1, "RETIRED"),
        (20.0, 0.0, 0.1, "SF"),
        (20.0, 4.0, 0.5, "NONE"),
        (np.nan, 4.0, 0.1, "NONE"),
    ],
)
def test_whan_classes(alpha, nitrogen, z, expected):
    with np.errstate(all="ignore"):
        assert whan_class(galaxy(ew_halpha=alpha, ew_nii_6584=nitrogen, z_gal=z))[0] == expected
