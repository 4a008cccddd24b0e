from __future__ import annotations

import numpy as np
import pytest
from astropy.cosmology import Planck18

from ojala.models.simulation.populations import galaxies
from ojala.models.simulation.wavelength_grid import FINE

AT = {name: k for k, (name, _, _) in enumerate(galaxies.LINES)}


def test_histories_are_physical():
    drawn = galaxies.draw_histories(5000, np.random.default_rng(1))
    assert all(np.isfinite(values).all() for values in drawn.values())
    assert (drawn["age"] < 13.5).all()
    assert (drawn["burst_age"] < drawn["age"]).all()
    assert (drawn["recent_age"] < drawn["age"]).all()
    assert (drawn["metallicity"] > 0.02).all()
    assert (drawn["metallicity"] < 2.6).all()
    population = drawn["family"] == 0
    assert population.mean() == pytest.approx(0.86, abs=0.02)
    old = Planck18.age(drawn["z"]).to_value("Gyr")
    assert (drawn["age"] < old)[population].all()


def test_massive_galaxies_are_metal_rich_and_have_ended_their_star_formation():
    drawn = galaxies.draw_histories(20000, np.random.default_rng(1))
    population = (drawn["family"] == 0) & (drawn["z"] < 0.4)
    massive = population & (drawn["log_mass"] > 11.0)
    light = population & (drawn["log_mass"] > 8.8) & (drawn["log_mass"] < 9.6)
    assert min(massive.sum(), light.sum()) > 200
    assert np.median(drawn["metallicity"][massive]) > 2.5 * np.median(drawn["metallicity"][light])
    declined = drawn["age"] / drawn["tau"] > 5.0
    assert declined[massive].mean() > 0.85 > 0.5 > declined[light].mean()


def test_dust_rises_with_mass_among_star_forming_galaxies():
    drawn = galaxies.draw_histories(20000, np.random.default_rng(1))
    forming = (drawn["family"] == 0) & (drawn["age"] / drawn["tau"] < 2.0)
    light, massive = forming & (drawn["log_mass"] < 9.3), forming & (drawn["log_mass"] > 10.3)
    assert np.median(drawn["av"][massive]) > 2.0 * np.median(drawn["av"][light])


def test_equivalent_widths_are_line_over_continuum():
    grid = FINE.rest_wavelength(galaxies.Z_MAX)
    fine = (2.0 * (grid / 6564.6) ** -1.0)[None]
    levels = galaxies.line_levels(fine)
    np.testing.assert_allclose(
        levels[0], [2.0 * 6564.6 / line for line in (6564.6, 4862.7, 5008.2, 3728.5)], rtol=1e-3
    )
    lines = np.zeros((1, len(galaxies.LINES)))
    lines[0, AT["H  1  6562.80A"]] = 30.0
    lines[0, AT["N  2  6583.45A"]] = 10.0
    ew = galaxies.equivalent_widths(lines, levels)
    assert ew["ew_halpha"][0] == pytest.approx(15.0, rel=1e-3)
    assert ew["ew_nii_6584"][0] == pytest.approx(5.0, rel=1e-3)
    assert ew["ew_hbeta"][0] == 0.0


def test_absorption_below_a_line_does_not_widen_its_equivalent_width():
    grid = FINE.rest_wavelength(galaxies.Z_MAX)
    smooth = np.ones((1, len(grid)))
    absorbed = smooth - 0.5 * np.exp(-0.5 * ((grid - 4862.7) / 6.0) ** 2)
    np.testing.assert_allclose(galaxies.line_levels(absorbed), galaxies.line_levels(smooth), rtol=1e-3)


def test_lines_scatter_and_quiescent_galaxies_get_weak_liners():
    n = 4000
    lines, levels = np.full((n, len(galaxies.LINES)), 1e-6), np.ones((n, 4))
    drawn = galaxies.scatter_lines(lines, levels, np.full(n, -13.0), np.random.default_rng(2))
    ew = galaxies.equivalent_widths(drawn, levels)
    assert (ew["ew_halpha"] > 0.01).mean() == pytest.approx(0.5, abs=0.04)
    liner = ew["ew_halpha"] > 0.01
    assert 0.4 < np.median(ew["ew_halpha"][liner]) < 1.2
    assert np.median(ew["ew_nii_6584"][liner] / ew["ew_halpha"][liner]) > 1.0

    lines = np.full((n, len(galaxies.LINES)), 10.0)
    drawn = galaxies.scatter_lines(lines, levels, np.full(n, -10.0), np.random.default_rng(3))
    assert np.std(np.log10(drawn[:, AT["O  2  3726.03A"]])) > 0.12
    assert np.median(np.log10(drawn[:, 0])) == pytest.approx(np.log10(10.0 * 0.75), abs=0.02)
    ratio = drawn[:, AT["O  3  5006.84A"]] / drawn[:, AT["O  3  4958.91A"]]
    assert np.median(ratio) == pytest.approx(1.0, rel=1e-6)  # lines of a group stay together


def test_lines_that_make_up_the_labels_stand_at_their_vacuum_wavelengths():
    wavelength = dict(zip([name for name, _, _ in galaxies.LINES], galaxies.LINE_WAVELENGTH, strict=True))
    for name, vacuum in (
        ("H  1  6562.80A", 6564.61),
        ("O  3  5006.84A", 5008.24),
        ("N  2  6583.45A", 6585.27),
    ):
        assert wavelength[name] == pytest.approx(vacuum, abs=0.1)


def test_simulated_galaxies_have_the_right_mass_to_light():
    pytest.importorskip("bagpipes", reason="bagpipes is in the extra 'training'")
    made = galaxies.simulate(12, np.random.default_rng(5))
    grid = FINE.rest_wavelength(galaxies.Z_MAX)
    assert np.isfinite(made["fine"]).all()
    reference = (grid > 5500.0) & (grid < 6500.0)
    np.testing.assert_allclose(made["fine"][:, reference].astype(float).mean(axis=1), 1.0, rtol=0.02)
    # An old population has L_lambda of about 10^29.1 erg/s/A per solar mass at 6000 A, a young one more.
    assert (made["log_l"] > 28.8).all()
    assert (made["log_l"] < 31.8).all()
    assert (made["log_ssfr"] >= galaxies.LOWEST_SSFR).all()
