"""Mock images in g, r and z of the objects of the mock spectra.

The fluxes of an image are those of the object's spectrum (`ojala.models.simulation.skies.spectroscopic`) in
the bands; the shape of a galaxy follows from its mass, type and redshift; stars and quasars are points,
quasars with hosts. Point-spread function, depth, noise and chance neighbours are independent, so that image
and spectrum share the object alone.

Depths are those of the Legacy Survey's ninth data release; neighbours have about its counts of galaxies and
stars. Not simulated: noise correlated between pixels, saturation, spikes and artefacts, spiral arms, mergers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.catalogs_schema.cutouts import CUTOUT_BANDS, PIXEL_SCALE, SIZE
from ojala.models.data import Images
from ojala.models.quantities import CLASSES
from ojala.models.simulation.imaging.light_profiles import (
    MOFFAT_BETAS,
    Light,
    Mixture,
    draw_light,
    moffat,
    sersic,
)
from ojala.models.simulation.imaging.morphology import Shapes, draw_shapes
from ojala.models.simulation.photometry.noise import to_flux
from ojala.models.simulation.photometry.photometer import Photometer
from ojala.models.simulation.skies.spectroscopic import LINE_WAVELENGTH, Objects
from ojala.models.simulation.wavelength_grid import COARSE

SEEING = (1.3, 1.2, 1.1)
"""Median full width at half maximum of the point-spread function in g, r and z [arcsec]."""

SEEING_SCATTER = 0.10
"""Scatter of ln(width) between images."""

DEPTH = (24.7, 23.9, 23.0)
"""Median magnitude (AB) of a point source of 5 sigma in g, r and z."""

DEPTH_SCATTER = 0.25
"""Scatter of the depth between images [mag]."""

SKY_BRIGHTNESS = (22.0, 20.9, 18.9)
"""Brightness of the night sky [mag/arcsec2], for the photon noise of sources."""

MISSING = 0.03
"""Probability that a band was not observed; r always is."""

NEIGHBOUR_DENSITY = 0.0045
"""Mean number of other sources per square arcsecond, r from 17 to 24."""

_COLUMNS = [[band.name for band in MODEL_BANDS].index(band.name) for band in CUTOUT_BANDS]
_GALAXY, _QSO = CLASSES.index("GALAXY"), CLASSES.index("QSO")
_BLOCK = 64
_N_BANDS = len(CUTOUT_BANDS)
_REACH = SIZE / 2 + 4  # pixels from the centre within which neighbours lie, along an axis


@dataclass(frozen=True, slots=True)
class MockImages:
    """Images of N objects with total fluxes and shapes.

    Attributes
    ----------
    images : Images
        The images.
    flux : ndarray of float32, shape (N, 3)
        Total flux density of the object in g, r and z [uJy].
    half_light_radius : ndarray of float32, shape (N,)
        Half-light radius of a galaxy or host [arcsec], before the point-spread function; 0 of points.
    bulge_share : ndarray of float32, shape (N,)
        Fraction of the bulge in the light of that galaxy in r; NaN of points.
    """

    images: Images
    flux: np.ndarray
    half_light_radius: np.ndarray
    bulge_share: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, slots=True)
class _Exposures:
    """Exposures of N objects: arrays (N, 3), and three profiles each."""

    psf: list[list[Mixture]]
    fwhm: np.ndarray  # pixel
    sigma: np.ndarray  # uJy in a pixel, of the sky
    observed: np.ndarray


class ImageSky:
    """Sampler of images of the objects of a mock sky.

    Parameters
    ----------
    photometer : Photometer
        Bands.
    """

    def __init__(self, photometer: Photometer) -> None:
        self._photometer = photometer

    def observe(self, objects: Objects, rng: np.random.Generator) -> MockImages:
        """Draw one image of each object.

        Parameters
        ----------
        objects : Objects
            N objects, as from `SpectraSky.draw_objects`.
        rng : Generator
            Source of randomness: shapes, exposures, neighbours and noise.
        """
        n = len(objects)
        flux = self.total_flux(objects)
        at, shapes = _shapes(objects, rng)
        exposures = _expose(n, rng)
        centre = (SIZE - 1) / 2 + rng.uniform(-0.5, 0.5, (n, 2))
        of_galaxy = np.full(n, -1)
        of_galaxy[at] = np.arange(len(at))
        pixels = np.empty((n, _N_BANDS, SIZE, SIZE), np.float32)
        for i in range(n):
            parts = _neighbours(rng)
            parts += _source(objects, i, flux[i], shapes, int(of_galaxy[i]), centre[i])
            pixels[i] = draw_light(Light.concatenate(parts), exposures.psf[i], exposures.fwhm[i], SIZE)
        ivar = _add_noise(pixels, exposures, rng)
        radius, bulge = np.zeros(n, np.float32), np.full(n, np.nan, np.float32)
        radius[at], bulge[at] = shapes.half_light_radius, shapes.bulge_share[:, 1]
        images = Images(pixels, ivar, (exposures.fwhm * PIXEL_SCALE).astype(np.float32))
        return MockImages(images, flux, radius, bulge)

    def total_flux(self, objects: Objects) -> np.ndarray:
        """Flux densities of whole objects in g, r and z [uJy]; float32, shape (N, 3)."""
        flux = np.empty((len(objects), _N_BANDS), np.float32)
        infrared = np.zeros((_BLOCK, COARSE.size), np.float32)
        for begin in range(0, len(objects), _BLOCK):
            rows = slice(begin, begin + _BLOCK)
            continuum = objects.continuum[rows] * np.float32(1e-17)
            seen = self._photometer.continuum(continuum, infrared[: len(continuum)])
            wavelength = LINE_WAVELENGTH * (1.0 + objects.z[rows, None])
            seen += self._photometer.lines(wavelength, objects.line_flux[rows] * 1e-17)
            flux[rows] = seen[:, _COLUMNS] / objects.fibre_share[rows, None]
        return flux


def _shapes(objects: Objects, rng: np.random.Generator) -> tuple[np.ndarray, Shapes]:
    """Select objects that are galaxies or have a host, and draw their shapes."""
    galaxy = objects.class_code == _GALAXY
    log_mass = np.where(galaxy, objects.labels["log_mass"], objects.host_log_mass)
    log_ssfr = np.where(galaxy, objects.labels["log_sfr"] - objects.labels["log_mass"], objects.host_log_ssfr)
    at = np.flatnonzero(galaxy | ((objects.class_code == _QSO) & np.isfinite(objects.host_log_mass)))
    return at, draw_shapes(
        log_mass[at].astype(np.float64), log_ssfr[at].astype(np.float64), objects.z[at], rng
    )


def _source(
    objects: Objects, i: int, flux: np.ndarray, shapes: Shapes, galaxy: int, centre: np.ndarray
) -> list[Light]:
    """Light of an object: a point, a galaxy, or a point on a galaxy."""
    if galaxy < 0:
        return [Light.point(flux, centre)]
    if objects.class_code[i] == _GALAXY:
        return _galaxy(flux, shapes, galaxy, centre)
    host = objects.host_share[i]
    return [Light.point(flux * (1.0 - host), centre), *_galaxy(flux * host, shapes, galaxy, centre)]


def _galaxy(flux: np.ndarray, shapes: Shapes, k: int, centre: np.ndarray) -> list[Light]:
    bulge, angle = shapes.bulge_share[k], float(shapes.angle[k])
    disc_radius, bulge_radius = shapes.disc_radius[k] / PIXEL_SCALE, shapes.bulge_radius[k] / PIXEL_SCALE
    disc_ratio, bulge_ratio = float(shapes.disc_axis_ratio[k]), float(shapes.bulge_axis_ratio[k])
    parts = [Light.ellipse(flux * (1.0 - bulge), sersic(1), disc_radius, disc_ratio, angle, centre)]
    if bulge[1] > 0.0:
        parts.append(Light.ellipse(flux * bulge, sersic(4), bulge_radius, bulge_ratio, angle, centre))
    return parts


def _neighbours(rng: np.random.Generator) -> list[Light]:
    """Draw chance neighbours: a fifth stars, else small discs, with the colours of faint galaxies."""
    side = 2.0 * _REACH
    parts = []
    for _ in range(rng.poisson(NEIGHBOUR_DENSITY * (side * PIXEL_SCALE) ** 2)):
        slope = 0.4
        low, high = 10.0 ** (slope * 17.0), 10.0 ** (slope * 24.0)
        r = np.log10(low + rng.random() * (high - low)) / slope
        g, z = r + np.clip(rng.normal(0.8, 0.4), 0.0, 1.9), r - np.clip(rng.normal(0.6, 0.35), -0.2, 1.8)
        flux = to_flux(np.array([g, r, z]))
        centre = (SIZE - 1) / 2 + rng.uniform(-_REACH, _REACH, 2)
        if rng.random() < 0.2:
            parts.append(Light.point(flux, centre))
            continue
        radius = 10.0 ** (-0.25 - 0.10 * (r - 22.0) + rng.normal(0.0, 0.2)) / PIXEL_SCALE
        ratio, angle = rng.uniform(0.25, 1.0), rng.uniform(0.0, np.pi)
        parts.append(Light.ellipse(flux, sersic(1), radius, ratio, angle, centre))
    return parts


def _expose(n: int, rng: np.random.Generator) -> _Exposures:
    """Draw point-spread functions, depths and missing bands of N images."""
    shape = (n, _N_BANDS)
    fwhm = np.array(SEEING) * np.exp(SEEING_SCATTER * rng.standard_normal(shape)) / PIXEL_SCALE
    beta = rng.integers(len(MOFFAT_BETAS), size=shape)
    psf = [[moffat(MOFFAT_BETAS[k]) for k in row] for row in beta.tolist()]
    faint = to_flux(np.array(DEPTH) + DEPTH_SCATTER * rng.standard_normal(shape)) / 5.0
    spread = np.array([[noise_pixels(m) for m in row] for row in psf]) * fwhm**2
    observed = rng.random(shape) >= MISSING
    observed[:, 1] = True
    return _Exposures(psf, fwhm, faint / np.sqrt(spread), observed)


def noise_pixels(mixture: Mixture) -> float:
    """Effective noise area of a point source, 1 / sum p^2, in squared widths."""
    widths = mixture.variance[:, None] + mixture.variance
    overlap = mixture.amplitude[:, None] * mixture.amplitude / (2.0 * np.pi * widths)
    return float(1.0 / overlap.sum())


def _add_noise(pixels: np.ndarray, exposures: _Exposures, rng: np.random.Generator) -> np.ndarray:
    """Add noise of sky and sources in place; returns the inverse variance of the sky noise."""
    sky = to_flux(np.array(SKY_BRIGHTNESS)) * PIXEL_SCALE**2
    sigma = exposures.sigma.astype(np.float32)[..., None, None]
    for i in range(len(pixels)):
        scale = np.sqrt(1.0 + pixels[i] / sky.astype(np.float32)[:, None, None]) * sigma[i]
        pixels[i] += scale * rng.standard_normal(scale.shape, np.float32)
    pixels[~exposures.observed] = 0.0
    ivar = np.where(exposures.observed[..., None, None], sigma**-2, np.float32(0.0))
    return np.broadcast_to(ivar, pixels.shape)
