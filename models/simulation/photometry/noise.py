"""Simulation of observed photometry: errors, calibration, apertures and missing bands.

An observation has a depth between that of miniJPAS and that of the first JPCam data, drawn per object and
with the scatter of tiles per band. Reported errors include the background and a floor for the calibration;
offsets of zero points and of apertures between surveys are in the fluxes but not in the errors.
"""

from __future__ import annotations

import numpy as np

from ojala.catalogs_schema.bands import MODEL_BANDS, System
from ojala.models.simulation.photometry.depths import DEEP, SHALLOW, TILE_SCATTER

MICROJANSKY_AT_ZERO = 3.631e9
"""Flux density of AB magnitude zero [uJy]."""

CALIBRATION_FLOOR = 0.012
"""Fractional error that is part of the reported errors."""

ZERO_POINT_JITTER = 0.015
"""Standard deviation of a band's zero point [mag], not part of the reported errors."""

APERTURE_OFFSET = {System.LEGACY: 0.03, System.WISE: 0.06}
"""Standard deviation of each survey's grey offset from J-PAS [mag], one per object."""

REPORTED_SCATTER = 0.10
"""Relative scatter of the reported about the true error."""

_IS = {system: np.array([band.system is system for band in MODEL_BANDS]) for system in System}
_NARROW = np.array([band.is_narrow for band in MODEL_BANDS])
_PIVOT = np.array([band.pivot for band in MODEL_BANDS])
_WIDE_JPAS = np.array([band.name in ("uJAVA", "J1007") for band in MODEL_BANDS])


def to_flux(magnitude: np.ndarray) -> np.ndarray:
    """AB magnitude -> flux density [uJy]."""
    return np.asarray(MICROJANSKY_AT_ZERO * 10.0 ** (-0.4 * magnitude))


def draw_depths(n: int, rng: np.random.Generator) -> np.ndarray:
    """5 sigma depths [AB mag] of ``n`` observations, shape (n, 63)."""
    shallow = rng.beta(1.0, 1.5, (n, 1))
    depth = (1.0 - shallow) * DEEP + shallow * SHALLOW
    return np.asarray(depth + rng.normal(0.0, 0.15, (n, 1)) + rng.normal(0.0, TILE_SCATTER, depth.shape))


def apply_zero_points(true: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Apply random offsets of zero points and apertures to flux densities.

    Parameters
    ----------
    true : ndarray, shape (N, 63)
        f_nu [uJy]; NaN where not known.
    rng : Generator
        Source of randomness.

    Returns
    -------
    ndarray of float32, shape (N, 63)
        f_nu [uJy]; NaN where ``true`` is.
    """
    offset = rng.standard_normal(true.shape, np.float32) * np.float32(ZERO_POINT_JITTER)
    for system, scatter in APERTURE_OFFSET.items():
        offset[:, _IS[system]] += rng.normal(0.0, scatter, (len(true), 1)).astype(np.float32)
    return np.asarray(true.astype(np.float32) * np.exp(np.float32(-0.4 * np.log(10.0)) * offset))


def add_noise(
    noiseless: np.ndarray, depth: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Add noise to flux densities, as from `apply_zero_points`, and draw reported errors.

    Parameters
    ----------
    noiseless : ndarray of float32, shape (N, 63)
        f_nu [uJy]; NaN where a band was not observed.
    depth : ndarray, shape (N, 63) or (63,)
        5 sigma depth of each band [AB mag].
    rng : Generator
        Source of randomness.

    Returns
    -------
    flux, error : ndarray of float32, shape (N, 63)
        Observed f_nu and reported standard error [uJy]; NaN where ``noiseless`` is.
    """
    background = (to_flux(depth) / 5.0).astype(np.float32)
    sigma = np.hypot(background, np.float32(CALIBRATION_FLOOR) * np.abs(noiseless))
    flux = noiseless + sigma * rng.standard_normal(noiseless.shape, np.float32)
    error = sigma * np.exp(np.float32(REPORTED_SCATTER) * rng.standard_normal(noiseless.shape, np.float32))
    return flux, np.where(np.isfinite(flux), error, np.float32(np.nan))


def observe(true: np.ndarray, depth: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Observe true flux densities: `apply_zero_points`, then `add_noise`.

    Parameters
    ----------
    true : ndarray, shape (N, 63)
        f_nu [uJy]; NaN where a band was not observed.
    depth : ndarray, shape (N, 63) or (63,)
        5 sigma depth of each band [AB mag].
    rng : Generator
        Source of randomness.

    Returns
    -------
    flux, error : ndarray of float32, shape (N, 63)
        Observed f_nu and reported standard error [uJy]; NaN where ``true`` is.
    """
    return add_noise(apply_zero_points(true, rng), depth, rng)


def draw_observed(n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the observed bands of objects: bool (n, 63), at least one each.

    Patterns, independent of each other: no Legacy photometry, single Legacy bands missing, no WISE, no
    uJAVA or J1007, random narrow bands missing, one contiguous block lost at the blue or red end (as for
    photometry from spectra), heavy drop-outs, broad bands only.
    """
    observed = np.ones((n, len(MODEL_BANDS)), bool)

    def draw(chance: float) -> np.ndarray:
        return np.asarray(rng.random(n) < chance)

    def drop(rows: np.ndarray, bands: np.ndarray) -> None:
        observed[np.ix_(rows, bands)] = False

    drop(draw(0.35), _IS[System.LEGACY])
    observed[:, _IS[System.LEGACY]] &= rng.random((n, 4)) > 0.12
    drop(draw(0.85), np.array([band.name == "ls_i" for band in MODEL_BANDS]))  # few fields have it
    drop(draw(0.40), _IS[System.WISE])
    for k in np.flatnonzero(_WIDE_JPAS):
        drop(draw(0.30), np.arange(len(MODEL_BANDS)) == k)
    some = draw(0.30)
    observed[some] &= (
        rng.random((some.sum(), len(MODEL_BANDS))) > rng.uniform(0.0, 0.4, (some.sum(), 1))
    ) | ~_NARROW
    blue, red = draw(0.25), draw(0.25)
    bluest, reddest = (
        rng.uniform(3700.0, 5500.0, (blue.sum(), 1)),
        rng.uniform(7500.0, 9400.0, (red.sum(), 1)),
    )
    observed[blue] &= bluest < _PIVOT
    observed[red] &= reddest > _PIVOT
    heavy = draw(0.05)
    observed[heavy] &= rng.random((heavy.sum(), len(MODEL_BANDS))) > rng.uniform(0.5, 0.9, (heavy.sum(), 1))
    drop(draw(0.02), _NARROW)
    empty = ~observed.any(axis=1)
    observed[empty] = True
    return observed
