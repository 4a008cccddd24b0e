"""Priors: magnitudes, redshifts, reddening, classes and kinds of galaxies.

The shapes follow surveys to i = 22.5 loosely, with a floor everywhere, so that the network does not learn the
prior instead of the data.
"""

from __future__ import annotations

import numpy as np


def emission_weight(z: np.ndarray, ew_halpha: np.ndarray) -> np.ndarray:
    """Compute weights of library galaxies by the strength of their lines; shape (M,).

    The main sequence gives galaxies at z < 0.35 stronger H alpha than DESI's bright galaxies have; beyond
    30 A their weight is (EW / 30 A)^-0.8.
    """
    return np.where((z < 0.35) & (ew_halpha > 30.0), (np.maximum(ew_halpha, 30.0) / 30.0) ** -0.8, 1.0)


def draw_magnitudes(n: int, rng: np.random.Generator, i_range: tuple[float, float]) -> np.ndarray:
    """Draw iSDSS magnitudes: three quarters with counts ~ 10^(0.2 i), the rest uniform."""
    low, high = i_range
    rising = np.log10(10 ** (0.2 * low) + rng.random(n) * (10 ** (0.2 * high) - 10 ** (0.2 * low))) / 0.2
    return np.where(rng.random(n) < 0.25, rng.uniform(low, high, n), rising)


# Median redshift of galaxies by i magnitude, after DESI's bright galaxies and COSMOS.
_MEDIAN_Z = (
    (14.0, 16.0, 17.0, 18.0, 19.0, 20.0, 21.0, 22.0, 23.0),
    (0.03, 0.06, 0.10, 0.16, 0.25, 0.36, 0.48, 0.60, 0.70),
)


def draw_galaxy_redshifts(magnitude: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw galaxy redshifts: 70 % ~ z^2 exp(-(z/z0)^1.5) by magnitude, 20 % uniform to 1.28, 10 % low.

    The last two are a floor for redshifts that are rare at a magnitude.
    """
    n = len(magnitude)
    z = np.interp(magnitude, *_MEDIAN_Z) / 1.412 * rng.gamma(2.0, 1.0, n) ** (1.0 / 1.5)
    choice = rng.random(n)
    z = np.where(choice < 0.20, rng.uniform(0.005, 1.28, n), z)
    z = np.where(choice > 0.90, 10.0 ** rng.uniform(np.log10(0.004), np.log10(0.15), n), z)
    return np.where((z > 1.28) | (z < 0.002), rng.uniform(0.01, 1.28, n), z)


def draw_classes(
    magnitude: np.ndarray, shares: tuple[float, float, float], rng: np.random.Generator
) -> np.ndarray:
    """Draw classes: galaxies, stars and quasars have about the given shares between i = 15 and 22.8.

    Relative to galaxies, stars become rarer by a factor 10^0.2 a magnitude, from 15 to 23; quasars rise by
    10^0.2 a magnitude to i = 19.5 and fall by 10^0.15 from 20.5. This is what counts at high latitude do,
    at about three quarters of the slopes. The factors do not depend on ``shares``, so that probabilities
    learnt with one mix are carried to another by the ratio of the shares.

    Returns
    -------
    ndarray of int64, shape (N,)
        Index into `CLASSES`: 0 galaxy, 1 star, 2 quasar.
    """
    star = 0.95 * 10.0 ** (-0.2 * (np.clip(magnitude, 15.0, 23.0) - 20.0))
    quasar = 1.4 * 10.0 ** (
        0.2 * (np.clip(magnitude, 15.0, 19.5) - 19.5) - 0.15 * (np.clip(magnitude, 20.5, 23.0) - 20.5)
    )
    cumulative = np.cumsum(
        np.stack((shares[0] + 0.0 * star, shares[1] * star, shares[2] * quasar), axis=1), axis=1
    )
    return np.asarray((rng.random(len(magnitude))[:, None] * cumulative[:, -1:] > cumulative).sum(axis=1))


def draw_quasar_redshifts(magnitude: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw quasar redshifts: 70 % gamma with a mean of 0.7 at i = 15, 1.6 at 19, 1.8 from 21; 18 % uniform.

    12 % are between 0.05 and 0.7: nuclei of nearby galaxies. All are within 0.05 to 4.98.
    """
    n = len(magnitude)
    mean = np.interp(magnitude, (15.0, 17.0, 19.0, 21.0), (0.7, 1.2, 1.6, 1.8))
    z = np.where(rng.random(n) < 0.8, mean / 3.5 * rng.gamma(3.5, 1.0, n), rng.uniform(0.05, 4.98, n))
    z = np.where(rng.random(n) < 0.12, rng.uniform(0.05, 0.7, n), z)
    return np.where((z < 0.05) | (z > 4.98), rng.uniform(0.05, 4.98, n), z)


def draw_reddening(n: int, rng: np.random.Generator, *, is_star: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draw Galactic E(B-V) of lines of sight [mag] and the fraction in front of the objects.

    A star may be within the dust, with a fraction of 0.3 to 1. For other objects the fraction scatters by 5
    %, the error of the maps.
    """
    ebv = np.minimum(0.004 + rng.exponential(0.03, n), 0.4)
    behind = np.where(is_star, rng.uniform(0.3, 1.0, n), rng.normal(1.0, 0.05, n))
    return ebv, behind
