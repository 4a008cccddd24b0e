from __future__ import annotations

import numpy as np

from models.synthesis import stars
from models.synthesis.grid import FINE
from tests.models.synthesis.small_library import atmospheres


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


def test_parameters_are_those_of_field_stars():
    drawn = stars.draw_parameters(20000, np.random.default_rng(1))
    assert 5000.0 < np.median(drawn["teff"]) < 5700.0
    assert drawn["teff"].min() >= 3500.0
    assert -0.8 < np.median(drawn["fe_h"]) < -0.4
    assert drawn["fe_h"].min() >= -2.5
    assert drawn["fe_h"].max() <= 0.5
    giants = drawn["logg"] < 3.5
    assert 0.08 < giants.mean() < 0.16
    poor, rich = drawn["fe_h"] < -1.0, drawn["fe_h"] > 0.0
    assert np.mean(drawn["alpha_fe"][poor]) > np.mean(drawn["alpha_fe"][rich]) + 0.25


def test_only_stars_from_atmospheres_have_parameters(small):
    known = np.isfinite(small.stars["teff"])
    assert known.sum() == 200
    for label in stars.LABELS:
        np.testing.assert_array_equal(np.isfinite(small.stars[label]), known)
    np.testing.assert_allclose(small.stars["weight"].sum(), 1.0)


def test_stars_are_normalised_in_the_red(small):
    grid = FINE.rest_wavelength(0.0)
    level = small.stars["fine"][:, (grid > 7000.0) & (grid < 8000.0)].astype(float).mean(axis=1)
    np.testing.assert_allclose(level, 1.0, rtol=2e-3)


def test_the_infrared_tail_of_an_archetype_is_a_black_body(small):
    cool = small.stars["fine"][:, -1] > 0.3
    tails = small.stars["coarse"][cool]
    assert (np.diff(tails.astype(float), axis=1) <= 1e-3).all()
