"""Corrections of the fluxes of model atmospheres by real stars.

The Castelli & Kurucz (2004) fluxes of cool stars are 5 to 16 % too faint at 4000 to 4500 A and off by some
per cent in the molecular bands, which makes real stars look hotter than they are. The logarithm of observed
over model flux of the MILES stars (Sanchez-Blazquez et al. 2006; parameters of Cenarro et al. 2007) is a
polynomial in temperature, gravity and metallicity at each wavelength; ``stellar_corrections.csv`` holds its
coefficients, made by `ojala.flows.mocks.stellar_corrections`.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

TABLE = Path(__file__).with_suffix(".csv")
"""Centres of the wavelength bins [Angstrom, vacuum] and the coefficients of `TERMS`, a row per bin."""

TERMS = ("1", "t", "t2", "t3", "t4", "m", "m2", "tm", "t2m", "g", "g2", "tg", "t2g", "mg")
"""Products of t = 5040 K / Teff - 0.9, m = [Fe/H] and g = log g - 4, by the name of their column."""

_TEFF, _LOGG, _FE_H = (3700.0, 12000.0), (0.0, 5.0), (-2.5, 0.5)  # where there are stars to fit
_UNCORRECTED_TEFF = 20000.0
_RED_END = 8400.0  # the correction is held bluewards of the table, and ends here redwards


def design(teff: np.ndarray, logg: np.ndarray, fe_h: np.ndarray) -> np.ndarray:
    """Values of `TERMS` for N stars, (N, len(TERMS)); parameters beyond the fitted range take its edge."""
    t = 5040.0 / np.clip(teff, *_TEFF) - 0.9
    g, m = np.clip(logg, *_LOGG) - 4.0, np.clip(fe_h, *_FE_H)
    return np.stack(
        [t**0, t, t**2, t**3, t**4, m, m**2, t * m, t**2 * m, g, g**2, t * g, t**2 * g, m * g], axis=-1
    )


def correction(wavelength: np.ndarray, teff: float, logg: float, fe_h: float) -> np.ndarray:
    """Factor by which to multiply a model flux.

    Parameters
    ----------
    wavelength : ndarray, shape (P,)
        [Angstrom], vacuum.
    teff, logg, fe_h : float
        [K], dex, dex.

    Returns
    -------
    ndarray of float64, shape (P,)
        One redwards of 8400 A, and for stars above 20,000 K.
    """
    at, coefficients = _table()
    log_ratio = coefficients @ design(np.array(teff), np.array(logg), np.array(fe_h))
    fading = np.interp(teff, (_TEFF[1], _UNCORRECTED_TEFF), (1.0, 0.0))
    return np.asarray(
        np.exp(fading * np.interp(wavelength, np.append(at, _RED_END), np.append(log_ratio, 0.0)))
    )


@functools.cache
def _table() -> tuple[np.ndarray, np.ndarray]:
    rows = np.genfromtxt(TABLE, delimiter=",", names=True, comments="#")
    return rows["wavelength"], np.stack([rows[f"c_{term}"] for term in TERMS], axis=-1)
