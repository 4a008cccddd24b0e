"""Conversion of fluxes and magnitudes to flux densities in microjansky.

Every converter takes values and errors of the same shape, with NaN for missing values, and returns ``(flux,
error)`` in uJy, with NaN where nothing was observed. Negative, infinite and implausible values are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import astropy.units as u
import numpy as np

FluxDensityKind = Literal["fnu", "flambda"]
"""Flux density per unit frequency or per unit wavelength."""

FAINTEST = 40.0
"""Magnitude [AB] from which on none is measured: 4e-7 uJy, 10 magnitudes below every survey. It takes in the
values 98, 99, 99.9, 99.99, 99.999, 999 and 9999 that stand for a magnitude that was not measured."""

BRIGHTEST = -30.0
"""Magnitude [AB] down to which there is one, brighter than the Sun; -99, -999 and -9999 stand for none."""

LARGEST_ERROR = 90.0
"""Error of a magnitude from which on, or from whose negative down, it stands for none, as 99 and -99 do."""

MISSING_FLUXES = (-99.0, -999.0, -9999.0, -99999.0)
"""Values of a flux, and of its error, that stand for one that was not measured, the largest first."""

LARGEST_FLUX = 1e37
"""Size from which on a flux in its own unit stands for none: INDEF of IRAF is 1.6e38, others write 1e99."""

AB_ZERO_UJY = 3631.0e6
"""Flux density of magnitude 0 in the AB system [uJy] (Oke & Gunn 1983, rounded as is usual)."""

NANOMAGGY_UJY = AB_ZERO_UJY * 1e-9
"""One nanomaggy [uJy]: the flux of AB magnitude 22.5."""

ARCHIVE_UNIT: dict[FluxDensityKind, str] = {
    "fnu": "1e-30 erg s-1 cm-2 Hz-1",
    "flambda": "1e-19 erg s-1 cm-2 Angstrom-1",
}
"""Units of the archive's tables FNuDualObj and FLambdaDualObj."""

FluxConverter = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""(value, error, uJy per unit of value) -> (flux, error)."""


def from_flux(flux: np.ndarray, error: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fluxes with their standard errors, both in the same unit of `scale` uJy; see `MISSING_FLUXES`."""
    return _measured(flux) * scale, _measured(error) * scale


def from_relative_error(
    flux: np.ndarray, relative: np.ndarray, scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The archive's fluxes with their relative errors, ``error = |flux * relative|``; 0 is missing."""
    flux = np.where(flux == 0.0, np.nan, _measured(flux)) * scale
    relative = _measured(relative)
    # An infinite flux with relative error 0 has no error that could be given.
    with np.errstate(invalid="ignore", over="ignore"):
        return flux, np.abs(flux * relative)


def from_magnitude(
    magnitude: np.ndarray, error: np.ndarray, scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """AB magnitudes and their errors; missing beyond `FAINTEST`, `BRIGHTEST` and `LARGEST_ERROR`.

    ``F = 3631e6 uJy * 10**(-0.4 m)`` and, to first order, ``dF = F * 0.4 ln(10) * dm``.
    """
    magnitude = np.where((magnitude < FAINTEST) & (magnitude > BRIGHTEST), magnitude, np.nan)
    error = np.where(np.abs(error) < LARGEST_ERROR, error, np.nan)
    with np.errstate(over="ignore", invalid="ignore"):
        flux = AB_ZERO_UJY * np.power(10.0, -0.4 * magnitude) * scale
        return flux, flux * (0.4 * np.log(10.0)) * error


def from_nanomaggies(
    flux: np.ndarray, inverse_variance: np.ndarray, scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Legacy Survey fluxes [nanomaggies] and inverse variances; inverse variance 0 is not observed."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        error = NANOMAGGY_UJY / np.sqrt(inverse_variance) * scale
    observed = inverse_variance != 0.0
    return np.where(observed, flux * NANOMAGGY_UJY * scale, np.nan), np.where(observed, error, np.nan)


def _measured(values: np.ndarray) -> np.ndarray:
    """Numbers without those that stand for a missing one."""
    low, high = values <= MISSING_FLUXES[0], values >= LARGEST_FLUX
    if not (low.any() or high.any()):  # as in nearly every batch
        return values
    missing = np.isin(values, MISSING_FLUXES) | (np.isfinite(values) & (np.abs(values) >= LARGEST_FLUX))
    return np.where(missing, np.nan, values)


def kind_of(unit: u.UnitBase) -> FluxDensityKind | None:
    """Whether a unit is one per frequency or per wavelength; None where it is neither, as a magnitude."""
    if not isinstance(unit, u.UnitBase):
        return None
    if unit.is_equivalent(u.Jy):
        return "fnu"
    if unit.is_equivalent(u.erg / u.s / u.cm**2 / u.AA):
        return "flambda"
    return None


def is_bare_cgs(unit: u.UnitBase) -> bool:
    """Whether a unit is ``erg/s/cm2/Hz`` or ``/A`` without a power of ten."""
    return any(
        unit.is_equivalent(plain) and np.isclose(unit.to(plain), 1.0)
        for plain in (u.erg / u.s / u.cm**2 / u.Hz, u.erg / u.s / u.cm**2 / u.AA)
    )


def microjansky_per(unit: u.UnitBase, pivot: float) -> float:
    """Microjansky in one `unit` of flux density at a pivot wavelength [Angstrom].

    The pivot wavelength is the one for which ``f_nu = f_lambda * pivot**2 / c`` holds exactly whatever
    the spectrum (Bessell & Murphy 2012, equation A.16).
    """
    return float(unit.to(u.uJy, equivalencies=u.spectral_density(pivot * u.AA)))
