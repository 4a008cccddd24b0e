"""Morphology of galaxies by mass, type and redshift: sizes, bulges and discs, inclinations.

Sizes follow the relations of van der Wel et al. (2014, ApJ 788, 28) between mass and half-light radius: at
5e10 Msun, 8.9 kpc (1+z)^-0.75 with a slope of 0.22 and a scatter of 0.16 dex for star-forming galaxies,
5.6 kpc (1+z)^-1.48 with 0.75 and 0.12 dex for quiescent ones, whose relation flattens below 2e10 Msun. Bulge
fractions, their colours and ellipticities are choices of this module.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from astropy.cosmology import Planck18
from scipy.special import gammainc, gammaincinv

QUIESCENT_SSFR, TYPE_WIDTH = -10.9, 0.25
"""log10 of the specific star-formation rate [1/yr] at which `quiescence` is one half, and the width of the
transition."""

MIN_AXIS_RATIO = 0.2
"""Axis ratio of edge-on discs."""

_PIVOT_MASS = np.log10(5e10)
_FLAT_MASS, _FLAT_SLOPE = 10.3, 0.2  # of quiescent galaxies
_REDDER = (0.25, 0.2)  # bulges than discs in g - r and r - z [mag]
_DISTANCE_Z = np.geomspace(1e-3, 6.0, 2000)


@dataclass(frozen=True, slots=True)
class Shapes:
    """Shapes of N galaxies: a de Vaucouleurs bulge in an exponential disc, with the same angle.

    Attributes
    ----------
    half_light_radius : ndarray, shape (N,)
        Semi-major axis of the ellipse that holds half the light in r [arcsec].
    bulge_share : ndarray, shape (N, 3)
        Share of the bulge in the light of g, r and z.
    bulge_radius, disc_radius : ndarray, shape (N,)
        Half-light radii of the two [arcsec].
    bulge_axis_ratio, disc_axis_ratio : ndarray, shape (N,)
        Minor over major axis.
    angle : ndarray, shape (N,)
        Angle of the major axis from the rows of the image [rad].
    """

    half_light_radius: np.ndarray
    bulge_share: np.ndarray
    bulge_radius: np.ndarray
    disc_radius: np.ndarray
    bulge_axis_ratio: np.ndarray
    disc_axis_ratio: np.ndarray
    angle: np.ndarray


def draw_shapes(
    log_mass: np.ndarray, log_ssfr: np.ndarray, z: np.ndarray, rng: np.random.Generator
) -> Shapes:
    """Draw the shapes of N galaxies from log10 of mass [Msun] and of specific star-formation rate [1/yr]."""
    n = len(z)
    early = quiescence(log_ssfr)
    radius = 10.0 ** draw_log_size(log_mass, early, z, rng) / kpc_per_arcsec(z)
    mean = 0.06 + 0.62 * early + 0.08 * np.clip(log_mass - 10.5, -1.0, 1.0)
    bulge = np.clip(mean + rng.normal(0.0, 0.13, n), 0.0, 0.95)
    fading = (1.0 - 0.6 * early)[:, None]
    redder = np.maximum(rng.normal(_REDDER, (0.1, 0.08), (n, 2)), 0.0) * fading
    of_disc = np.interp(bulge, *_composite_radius())
    # A random inclination i: q^2 = cos^2 i (1 - q0^2) + q0^2 (Hubble 1926).
    disc_ratio = np.sqrt(rng.random(n) ** 2 * (1.0 - MIN_AXIS_RATIO**2) + MIN_AXIS_RATIO**2)
    bulge_ratio = np.clip(rng.normal(0.78, 0.13, n), 0.35, 1.0)
    # The "disc" of a quiescent galaxy is its envelope, hardly flatter than its bulge.
    disc_ratio = disc_ratio + (bulge_ratio - disc_ratio) * early
    disc_radius = radius / of_disc
    return Shapes(
        half_light_radius=radius,
        bulge_share=_in_bands(bulge, redder),
        bulge_radius=disc_radius * _radius_ratio(bulge),
        disc_radius=disc_radius,
        bulge_axis_ratio=bulge_ratio,
        disc_axis_ratio=disc_ratio,
        angle=rng.uniform(0.0, np.pi, n),
    )


def quiescence(log_ssfr: np.ndarray) -> np.ndarray:
    """Smooth transition from 0 for star-forming to 1 for quiescent galaxies."""
    return np.asarray(1.0 / (1.0 + np.exp((log_ssfr - QUIESCENT_SSFR) / TYPE_WIDTH)))


def draw_log_size(
    log_mass: np.ndarray, early: np.ndarray, z: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """log10 of half-light radii [kpc] from the relations above, shape (N,)."""
    late_size = np.log10(8.9) - 0.75 * np.log10(1.0 + z) + 0.22 * (log_mass - _PIVOT_MASS)
    steep = np.maximum(log_mass, _FLAT_MASS) - _PIVOT_MASS
    flat = np.minimum(log_mass - _FLAT_MASS, 0.0)
    early_size = np.log10(5.6) - 1.48 * np.log10(1.0 + z) + 0.75 * steep + _FLAT_SLOPE * flat
    scatter = 0.16 + (0.12 - 0.16) * early
    return np.asarray(late_size + (early_size - late_size) * early + scatter * rng.standard_normal(len(z)))


def kpc_per_arcsec(z: np.ndarray) -> np.ndarray:
    """Proper size of an arcsecond at redshifts from 0.001 to 6 (Planck 2018), shape (N,)."""
    return np.asarray(np.interp(z, _DISTANCE_Z, _kpc_per_arcsec()))


@functools.cache
def _kpc_per_arcsec() -> np.ndarray:
    return np.asarray(Planck18.kpc_proper_per_arcmin(_DISTANCE_Z).to_value("kpc / arcmin") / 60.0)


def _radius_ratio(bulge: np.ndarray) -> np.ndarray:
    """Half-light radius of the bulge over that of the disc: small in spirals, near one in ellipticals."""
    return np.asarray(0.25 + 0.6 * bulge)


@functools.cache
def _composite_radius() -> tuple[np.ndarray, np.ndarray]:
    """The bulge's share of the light, and the half-light radius of the whole over that of the disc."""
    shares, radii = np.linspace(0.0, 0.95, 96), np.geomspace(0.05, 2.0, 800)
    found = []
    for share in shares:
        inside = share * _light_within(radii / _radius_ratio(share), 4) + (1.0 - share) * _light_within(
            radii, 1
        )
        found.append(np.interp(0.5, inside, radii))
    return shares, np.array(found)


def _light_within(radius: np.ndarray, n: int) -> np.ndarray:
    """Share of the light of a Sersic profile within a radius in units of the half-light radius."""
    return np.asarray(gammainc(2 * n, gammaincinv(2 * n, 0.5) * radius ** (1.0 / n)))


def _in_bands(bulge: np.ndarray, redder: np.ndarray) -> np.ndarray:
    """The bulge's share in g, r and z, from that in r and from how much redder it is than the disc [mag]."""
    contrast = np.stack([-redder[:, 0], np.zeros(len(bulge)), redder[:, 1]], axis=1)
    bright = bulge[:, None] * 10.0 ** (0.4 * contrast)
    return np.asarray(bright / (bright + 1.0 - bulge[:, None]))
