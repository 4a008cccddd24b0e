from __future__ import annotations

import numpy as np
import pytest
from scipy.special import gammainc, gammaincinv

from ojala.models.simulation.imaging.morphology import Shapes, draw_shapes, kpc_per_arcsec

N = 4000
FORMING, QUIET = -9.5, -12.0


def shapes(log_mass: float, log_ssfr: float, z: float) -> Shapes:
    full = np.full(N, 1.0)
    return draw_shapes(log_mass * full, log_ssfr * full, z * full, np.random.default_rng(1))


def median_kpc(drawn: Shapes, z: float) -> float:
    return float(np.median(drawn.half_light_radius) * kpc_per_arcsec(np.array([z]))[0])


@pytest.mark.parametrize(
    ("log_mass", "log_ssfr", "z", "published"),
    [  # log10 of kpc: van der Wel et al. (2014), table 1, at z = 0.25, 0.75 and 1.25
        (np.log10(5e10), FORMING, 0.25, 0.86),
        (np.log10(5e10), FORMING, 0.75, 0.78),
        (np.log10(5e10), FORMING, 1.25, 0.70),
        (np.log10(5e10), QUIET, 0.25, 0.60),
        (np.log10(5e10), QUIET, 0.75, 0.42),
        (np.log10(5e10), QUIET, 1.25, 0.22),
    ],
)
def test_sizes_are_those_of_the_published_relation(log_mass, log_ssfr, z, published):
    assert np.log10(median_kpc(shapes(log_mass, log_ssfr, z), z)) == pytest.approx(published, abs=0.06)


def test_size_grows_with_mass_faster_in_quiescent_galaxies():
    growth = [
        median_kpc(shapes(11.2, ssfr, 0.3), 0.3) / median_kpc(shapes(10.5, ssfr, 0.3), 0.3)
        for ssfr in (FORMING, QUIET)
    ]
    assert growth[0] == pytest.approx(10.0 ** (0.22 * 0.7), rel=0.05)
    assert growth[1] == pytest.approx(10.0 ** (0.75 * 0.7), rel=0.05)


def test_quiescent_galaxies_have_bulges_and_are_rounder():
    forming, quiet = shapes(10.8, FORMING, 0.3), shapes(10.8, QUIET, 0.3)
    assert np.median(forming.bulge_share[:, 1]) < 0.2
    assert np.median(quiet.bulge_share[:, 1]) > 0.6
    assert np.median(quiet.disc_axis_ratio) > np.median(forming.disc_axis_ratio) + 0.1
    assert forming.disc_axis_ratio.min() >= 0.2


def test_a_bulge_is_redder_than_its_disc():
    share = shapes(10.8, FORMING, 0.3).bulge_share
    held = share[:, 1] > 0.0
    assert (np.diff(share[held], axis=1) >= 0.0).all()
    assert np.mean(share[held, 2] - share[held, 0]) > 0.02


def test_bulge_and_disc_together_have_half_their_light_within_the_half_light_radius():
    drawn = shapes(10.8, -10.9, 0.3)

    def within(radius: np.ndarray, n: int) -> np.ndarray:
        return gammainc(2 * n, gammaincinv(2 * n, 0.5) * radius ** (1.0 / n))

    bulge = drawn.bulge_share[:, 1]
    inside = bulge * within(drawn.half_light_radius / drawn.bulge_radius, 4)
    inside += (1.0 - bulge) * within(drawn.half_light_radius / drawn.disc_radius, 1)
    np.testing.assert_allclose(inside, 0.5, atol=0.005)
