"""Sums of Gaussians against GalSim, which draws the same profiles by another method."""

from __future__ import annotations

import numpy as np
import pytest

from ojala.models.simulation.imaging.light_profiles import MOFFAT_BETAS, Light, draw_light, moffat, sersic

PIXEL = 0.262


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("radius", [0.3, 1.0, 2.5])
def test_a_galaxy_seen_through_a_point_spread_function_is_as_galsim_draws_it(n, radius):
    galsim = pytest.importorskip("galsim")
    flux, fwhm, ratio, angle, beta = 100.0, 1.2, 0.5, 0.6, 3.0
    profile = {1: galsim.Exponential, 4: galsim.DeVaucouleurs}[n]
    round_radius = radius * np.sqrt(ratio)  # GalSim's shear keeps the area
    galaxy = profile(half_light_radius=round_radius, flux=flux).shear(q=ratio, beta=angle * galsim.radians)
    seen = galsim.Convolve(galaxy, galsim.Moffat(beta=beta, fwhm=fwhm)).shift(0.3 * PIXEL, -0.2 * PIXEL)
    expected = seen.drawImage(nx=64, ny=64, scale=PIXEL, method="no_pixel").array
    light = Light.ellipse(np.array([flux]), sersic(n), radius / PIXEL, ratio, angle, np.array([31.8, 31.3]))
    drawn = draw_light(light, [moffat(beta)], np.array([fwhm / PIXEL]), 64)[0]
    assert np.abs(drawn - expected).max() < 0.015 * expected.max()
    assert drawn.sum() == pytest.approx(expected.sum(), rel=0.01)


@pytest.mark.parametrize("beta", MOFFAT_BETAS)
def test_a_point_has_the_width_and_the_wings_of_a_moffat_profile(beta):
    fwhm = 4.6
    drawn = draw_light(
        Light.point(np.array([1.0]), np.array([32.0, 32.0])), [moffat(beta)], np.array([fwhm]), 65
    )
    scale = 0.5 * fwhm / np.sqrt(2.0 ** (1.0 / beta) - 1.0)
    peak = (beta - 1.0) / (np.pi * scale**2)
    radius = np.abs(np.arange(65) - 32)
    expected = peak * (1.0 + (radius / scale) ** 2) ** -beta
    np.testing.assert_allclose(drawn[0, 32], expected, atol=0.015 * peak)
    assert drawn.sum() == pytest.approx(1.0, rel=0.005)


def test_bands_have_their_own_flux_and_width():
    light = Light.point(np.array([1.0, 3.0]), np.array([32.0, 32.0]))
    narrow, wide = draw_light(light, [moffat(3.0)] * 2, np.array([3.0, 6.0]), 65)
    assert wide.sum() == pytest.approx(3.0 * narrow.sum(), rel=0.01)
    assert wide.max() == pytest.approx(0.75 * narrow.max(), rel=0.01)
