from __future__ import annotations

import numpy as np
import pytest

from ojala.models.simulation.populations import stars
from ojala.models.simulation.wavelength_grid import FINE
from tests.models.simulation.small_library import atmospheres


def test_a_node_of_the_grid_gives_its_own_spectrum():
    grid = atmospheres()
    np.testing.assert_allclose(
        grid.spectrum(-2.5, grid.teff[4], 2.5), np.exp(grid.log_flux[0, 4, 1].astype(float)), rtol=1e-5
    )


def test_between_nodes_hotter_is_bluer():
    grid = atmospheres()
    blue, red = np.searchsorted(grid.wavelength, [4000.0, 8000.0])
    colour = [
        grid.spectrum(0.0, teff, 4.5)[blue] / grid.spectrum(0.0, teff, 4.5)[red]
        for teff in (4300, 4400, 4500)
    ]
    assert colour[0] < colour[1] < colour[2]


def test_disc_stars_are_those_of_lamost():
    drawn = stars.draw_parameters("disc", 20000, np.random.default_rng(1))
    assert np.median(drawn["teff"]) == pytest.approx(5574.0, abs=120.0)  # of LAMOST's 3,165 stars
    np.testing.assert_allclose(np.percentile(drawn["teff"], [16, 84]), [4780.0, 6183.0], atol=200.0)
    assert np.median(drawn["fe_h"]) == pytest.approx(-0.16, abs=0.06)
    assert (drawn["logg"] < 3.6).mean() == pytest.approx(0.11, abs=0.03)


def test_halo_stars_are_poor_in_metals_and_rich_in_alpha():
    drawn = stars.draw_parameters("halo", 20000, np.random.default_rng(1))
    assert -1.2 < np.median(drawn["fe_h"]) < -0.8
    assert drawn["fe_h"].min() >= -2.5
    assert drawn["fe_h"].max() <= 0.5
    poor, rich = drawn["fe_h"] < -1.0, drawn["fe_h"] > 0.0
    assert np.mean(drawn["alpha_fe"][poor]) > np.mean(drawn["alpha_fe"][rich]) + 0.25


def test_horizontal_branch_stars_are_hot_giants_and_subdwarfs_hotter():
    branch = stars.draw_parameters("horizontal branch", 4000, np.random.default_rng(1))
    assert (branch["teff"] > 6800.0).all()
    assert np.median(branch["logg"]) < 3.9
    subdwarf = stars.draw_parameters("subdwarf", 4000, np.random.default_rng(1))
    assert (subdwarf["teff"] >= 20000.0).all()
    assert (subdwarf["logg"] > 4.2).all()


def test_only_stars_from_atmospheres_have_parameters(small):
    known = np.isfinite(small.stars["teff"])
    assert known.sum() == 200
    for label in stars.LABELS:
        np.testing.assert_array_equal(np.isfinite(small.stars[label]), known)


def test_bright_stars_are_disc_stars_and_faint_ones_are_not(small):
    kind = small.stars["kind"]
    bright, faint = stars.population_weights(kind)
    assert bright.sum() == pytest.approx(1.0)
    disc, cool = kind == stars.KINDS.index("disc"), kind == stars.KINDS.index("M")
    assert bright[disc].sum() > 0.75 > 0.3 > faint[disc].sum()
    assert faint[cool].sum() > 3.0 * bright[cool].sum()


def test_a_cataclysmic_variable_shines_in_the_balmer_lines(small):
    grid = FINE.rest_wavelength(0.0)
    spectra = small.stars["fine"][small.stars["kind"] == stars.KINDS.index("cataclysmic")].astype(float)
    line = spectra[:, np.abs(grid / 6564.6 - 1.0) < 0.002].mean(axis=1)
    beside = spectra[:, np.abs(grid / 6700.0 - 1.0) < 0.005].mean(axis=1)
    assert (line > 1.02 * beside).all()


def test_stars_are_normalised_in_the_red(small):
    grid = FINE.rest_wavelength(0.0)
    level = small.stars["fine"][:, (grid > 7000.0) & (grid < 8000.0)].astype(float).mean(axis=1)
    np.testing.assert_allclose(level, 1.0, rtol=2e-3)


def test_the_infrared_tail_of_an_archetype_is_a_black_body(small):
    cool = small.stars["fine"][:, -1] > 0.3
    tails = small.stars["coarse"][cool]
    assert (np.diff(tails.astype(float), axis=1) <= 1e-3).all()
