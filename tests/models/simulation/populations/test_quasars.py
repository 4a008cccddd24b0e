from __future__ import annotations

import numpy as np
import pytest

from ojala.models.simulation.populations import quasars
from ojala.models.simulation.wavelength_grid import FINE
from tests.models.simulation.small_library import quasar_templates


def test_quasars_are_finite_positive_and_normalised(small):
    grid = FINE.rest_wavelength(quasars.Z_MAX)
    fine = small.quasars["fine"].astype(float)
    assert np.isfinite(fine).all()
    assert (fine >= 0.0).all()
    np.testing.assert_allclose(fine[:, (grid > 5500.0) & (grid < 6500.0)].mean(axis=1), 1.0, rtol=2e-3)


def test_quasars_are_blue_and_no_two_are_alike(small):
    grid = FINE.rest_wavelength(quasars.Z_MAX)
    blue, red = (np.abs(grid - line).argmin() for line in (2500.0, 6200.0))
    colour = small.quasars["fine"][:, blue].astype(float) / small.quasars["fine"][:, red]
    assert np.median(colour) > 2.0
    assert np.std(np.log10(colour)) > 0.05


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.7])
def test_stretching_a_line_changes_its_width_and_keeps_its_flux(factor):
    wavelength = np.geomspace(2500.0, 3100.0, 4000)
    sigma = 0.008
    u = np.log(wavelength / 2798.7)
    line = np.exp(-0.5 * (u / sigma) ** 2)
    wide = quasars._stretch(wavelength, line, {2798.7: factor})
    width = np.sqrt(np.sum(wide * u**2) / np.sum(wide))
    assert np.trapezoid(wide, u) == pytest.approx(np.trapezoid(line, u), rel=0.02)
    assert width == pytest.approx(factor * sigma, rel=0.08)


def test_the_forest_takes_the_light_below_lyman_alpha():
    igm = quasars.igm_transmission(quasar_templates())
    assert igm.shape[1] == FINE.size
    assert (igm <= 1.0).all()
    assert (igm >= 0.0).all()
    z = 3.0
    row = igm[quasars.igm_row(np.array([z]))[0]]
    lyman_alpha = 1215.67 * (1.0 + z)
    below = np.abs(FINE.wavelength - 0.97 * lyman_alpha).argmin()
    assert (row[FINE.wavelength > lyman_alpha + 2.0] == 1.0).all()
    # Mean Lyman-alpha transmission at z = 2.9: 0.69 +- 0.04 (Faucher-Giguere et al. 2008).
    assert row[below] == pytest.approx(0.69, abs=0.05)
    assert quasars.igm_row(np.array([0.0, 9.0])).tolist() == [0, len(igm) - 1]


def test_broad_absorption_lies_blueward_of_its_lines():
    wavelength = np.geomspace(1000.0, 3000.0, 5000)
    transmission = quasars._broad_absorption(wavelength, np.random.default_rng(3))
    deepest = wavelength[(wavelength > 1400.0) & (wavelength < 1560.0)][
        transmission[(wavelength > 1400.0) & (wavelength < 1560.0)].argmin()
    ]
    assert 1440.0 < deepest < 1545.0
    assert transmission.min() < 0.9


def test_the_width_of_a_gaussian_line_is_measured():
    wavelength = np.geomspace(4400.0, 5400.0, 6000)
    sigma = 2000.0 / 2.99792458e5
    line = np.exp(-0.5 * (np.log(wavelength / 4862.7) / sigma) ** 2)
    assert quasars.fwhm_of(wavelength, line, 4862.7) == pytest.approx(2.3548 * 2000.0, rel=0.01)


def test_widths_go_together_and_span_those_of_real_quasars(small):
    fwhm = np.log10(small.quasars["fwhm"])
    assert np.corrcoef(fwhm.T).min() > 0.5
    assert np.std(fwhm[:, 0]) == pytest.approx(0.2, abs=0.07)


def test_black_hole_masses_are_those_of_the_published_formulae():
    fwhm = np.array([[5000.0, 1.0, 1.0], [1.0, 4000.0, 1.0], [1.0, 1.0, 6000.0]])
    luminosity = np.array([[1e44, 1.0, 1.0], [1.0, 1e46, 1.0], [1.0, 1.0, 1e46]])
    mass = quasars.log_black_hole_mass(fwhm, luminosity, np.array([0.4, 1.2, 2.5]))
    expected = [6.91 + 2 * np.log10(5.0), 6.86 + 2 * np.log10(4.0) + 1.0, 6.66 + 2 * np.log10(6.0) + 1.06]
    np.testing.assert_allclose(mass, expected, atol=1e-6)


def test_narrow_lines_are_weaker_beside_brighter_nuclei_and_keep_their_ratios():
    rng = np.random.default_rng(4)
    faint = quasars.draw_narrow_lines(np.ones(4000), np.full(4000, 43.0), rng)
    bright = quasars.draw_narrow_lines(np.ones(4000), np.full(4000, 46.0), rng)
    oiii = int(np.abs(quasars.NARROW_WAVELENGTH - 5008.2).argmin())
    assert np.median(faint[:, oiii]) > 3.0 * np.median(bright[:, oiii])
    np.testing.assert_allclose(faint[:, oiii + 1] / faint[:, oiii], 1 / 2.98, rtol=0.01)
    hbeta = int(np.abs(quasars.NARROW_WAVELENGTH - 4862.7).argmin())
    assert np.median(faint[:, oiii] / faint[:, hbeta]) == pytest.approx(10.0, rel=0.1)
