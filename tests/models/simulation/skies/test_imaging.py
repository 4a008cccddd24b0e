from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ojala.models.quantities import CLASSES
from ojala.models.simulation.photometry.photometer import Photometer
from ojala.models.simulation.skies import imaging as image_module
from ojala.models.simulation.skies.imaging import DEPTH, SEEING, ImageSky, MockImages
from ojala.models.simulation.skies.photometric import MockSky
from ojala.models.simulation.skies.spectroscopic import Objects, SpectraSky

PIXEL = 0.262
GALAXY, STAR, QSO = (CLASSES.index(name) for name in ("GALAXY", "STAR", "QSO"))
Y, X = np.indices((64, 64)) - 31.5
EDGE = np.hypot(X, Y) > 26.0


@pytest.fixture(scope="module")
def objects(sky: MockSky) -> Objects:
    return SpectraSky(sky.population).draw_objects(240, np.random.default_rng(1))


@pytest.fixture(scope="module")
def image_sky(photometer: Photometer) -> ImageSky:
    return ImageSky(photometer)


@pytest.fixture(scope="module")
def alone(image_sky: ImageSky, objects: Objects) -> MockImages:
    """Images without neighbours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_module, "NEIGHBOUR_DENSITY", 0.0)
        return image_sky.observe(objects, np.random.default_rng(2))


def in_aperture(drawn: MockImages, radius: float) -> np.ndarray:
    """Flux within a radius [arcsec] in each band."""
    return drawn.images.flux[:, :, np.hypot(X, Y) < radius / PIXEL].sum(axis=-1)


def test_the_flux_of_a_point_in_an_aperture_is_that_of_its_spectrum(objects, alone):
    """Star by star and band by band, where the noise of the aperture is small."""
    star = objects.class_code == STAR
    measured, true = in_aperture(alone, 6.0)[star], alone.flux[star]
    bright = (true > 100.0) & (alone.images.ivar[star, :, 0, 0] > 0.0)
    assert bright.sum() > 20
    np.testing.assert_allclose(measured[bright] / true[bright], 1.0, atol=0.06)


def test_total_fluxes_agree_with_the_magnitude_before_reddening(objects, alone):
    """The magnitude is that of the continuum about 6420 A; dust of the Galaxy only dims it."""
    magnitude = 23.9 - 2.5 * np.log10(alone.flux[:, 1])
    dimmed = (magnitude - objects.magnitude)[objects.class_code == STAR]
    assert dimmed.min() > -0.1
    assert np.median(dimmed) == pytest.approx(0.05, abs=0.06)


def test_fluxes_are_of_the_whole_galaxy_not_of_what_is_in_the_fibre(objects, image_sky):
    whole = replace(objects, fibre_share=np.ones_like(objects.fibre_share))
    galaxy = objects.class_code == GALAXY
    ratio = image_sky.total_flux(objects) / image_sky.total_flux(whole)
    np.testing.assert_allclose(ratio[galaxy], 1.0 / objects.fibre_share[galaxy, None].repeat(3, 1), rtol=1e-5)
    assert (objects.fibre_share[galaxy] < 0.9).all()
    assert (objects.fibre_share[~galaxy] == 1.0).all()


def half_light(image: np.ndarray) -> float:
    """Radius [pixel] that holds half of the light within 10 pixels."""
    radius, light = np.hypot(X, Y).ravel(), image.ravel()
    order = np.argsort(radius)
    inside = np.cumsum(light[order])
    within = radius[order] < 10.0
    return float(np.interp(0.5 * inside[within][-1], inside[within], radius[order][within]))


def test_a_star_is_as_wide_as_the_point_spread_function(objects, alone):
    """The area above half of the peak, which noise does not touch in bright stars."""
    bright = np.flatnonzero((objects.class_code == STAR) & (alone.flux[:, 1] > 300.0))
    assert len(bright) > 8
    for i in bright:
        image = alone.images.flux[i, 1]
        peak = image.max()
        width = 2.0 * np.sqrt((image > 0.5 * peak).sum() / np.pi) * PIXEL
        assert width == pytest.approx(alone.images.psf_fwhm[i, 1], rel=0.15)


def test_galaxies_are_wider_than_stars_the_larger_the_more(objects, alone):
    bright = alone.flux[:, 1] > 30.0
    star = np.flatnonzero((objects.class_code == STAR) & bright)
    galaxy = np.flatnonzero((objects.class_code == GALAXY) & bright & (alone.half_light_radius < 3.0))
    width = {i: half_light(alone.images.flux[i, 1]) * PIXEL for i in np.r_[star, galaxy]}
    of_galaxies = np.array([width[i] for i in galaxy])
    assert np.median(of_galaxies) > 1.2 * np.median([width[i] for i in star])
    order = np.argsort(alone.half_light_radius[galaxy])
    small, large = order[: len(order) // 2], order[len(order) // 2 :]
    assert np.median(of_galaxies[large]) > 1.1 * np.median(of_galaxies[small])


def test_noise_is_as_the_inverse_variance_says(alone):
    """Away from faint objects, where there is only sky."""
    seen = alone.images.ivar[:, :, 0, 0] > 0.0
    faint = (alone.flux < 5.0) & seen & (alone.half_light_radius < 1.0)[:, None]
    assert faint.sum() > 20
    pull = (alone.images.flux * np.sqrt(alone.images.ivar))[faint][:, EDGE]
    assert pull.std() == pytest.approx(1.0, abs=0.02)
    assert pull.mean() == pytest.approx(0.0, abs=0.03)


def test_a_point_of_the_depth_is_found_at_five_sigma(alone):
    """The error of a flux that is fitted with the point-spread function p: sigma / sqrt(sum p^2)."""
    mixture = image_module.moffat(3.0)
    sigma = alone.images.ivar[:, :, 0, 0].astype(float)
    for k in range(3):
        seen = sigma[:, k] > 0.0
        area = image_module.noise_pixels(mixture) * (alone.images.psf_fwhm[seen, k] / PIXEL) ** 2
        limit = 23.9 - 2.5 * np.log10(5.0 * np.sqrt(area / sigma[seen, k]))
        assert np.median(limit) == pytest.approx(DEPTH[k], abs=0.1)
        assert np.median(alone.images.psf_fwhm[:, k]) == pytest.approx(SEEING[k], rel=0.03)


def test_quasars_lie_on_their_hosts(objects, alone):
    """Only nearby ones have hosts that are seen; the nucleus keeps its share."""
    quasar = objects.class_code == QSO
    hosted = quasar & np.isfinite(objects.host_log_mass)
    assert hosted.any()
    assert (objects.z[hosted] < 1.3).all()
    assert (alone.half_light_radius[hosted] > 0.0).all()
    assert (alone.half_light_radius[quasar & ~hosted] == 0.0).all()
    share = objects.host_share[hosted]
    assert ((share > 0.0) & (share <= 1.0)).all()
    assert (objects.host_share[~hosted] == 0.0).all()
    assert ((objects.host_log_mass[hosted] > 7.0) & (objects.host_log_mass[hosted] < 13.0)).all()


def test_neighbours_add_light_near_some_objects(image_sky, objects, alone):
    crowded = image_sky.observe(objects, np.random.default_rng(2))
    found = crowded.images.flux.clip(0.0)[:, 1, EDGE].max(axis=-1)
    assert (found > 2.0 * alone.images.flux[:, 1, EDGE].max(axis=-1)).mean() > 0.05


def test_a_band_that_was_not_observed_has_no_flux_and_no_weight(alone):
    lost = alone.images.ivar[:, :, 0, 0] == 0.0
    assert 0.0 < lost.mean() < 0.08
    assert not lost[:, 1].any()
    assert (alone.images.flux[lost] == 0.0).all()
    assert np.isfinite(alone.images.flux).all()


def test_the_same_seed_gives_the_same_images(image_sky, sky):
    objects = SpectraSky(sky.population).draw_objects(12, np.random.default_rng(1))
    one, two = (image_sky.observe(objects, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(one.images.flux, two.images.flux)
    np.testing.assert_array_equal(one.images.ivar, two.images.ivar)
    other = image_sky.observe(objects, np.random.default_rng(8))
    assert (other.images.flux != one.images.flux).mean() > 0.9
