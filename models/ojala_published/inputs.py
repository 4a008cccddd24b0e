"""Inputs of the published OJALÁ from photometry: f_lambda relative to iSDSS and AB magnitudes.

The authors' script reads ratios and magnitudes from a table of their own. The step from fluxes to that table
is not published; what is open in it are the `OPTIONS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ojala.catalogs_schema.bands import BY_NAME, JPAS_BANDS, MODEL_BANDS, REFERENCE_BAND

NARROW = tuple(f"J{nm:04d}" for nm in (378, *range(390, 911, 10)))
"""Names of the 54 narrow bands."""

INPUTS = (*NARROW, "MAG_i", "MAG_G", "MAG_R", "MAG_Z", "MAG_W1", "MAG_W2")
"""Inputs in the order of their slots: f_lambda relative to iSDSS of the narrow bands, then AB magnitudes."""

AB_ZERO_UJY = 3631.0e6
"""Flux density of AB magnitude 0 [uJy]."""

C_ANGSTROM = 2.99792458e18
"""Speed of light [Angstrom/s]."""

F_LAMBDA_UNIT = 1e-19
"""Unit of the published iSDSS flux [erg/s/cm2/Angstrom]."""

MAX_EBV = 5.0
"""Galactic E(B-V) [mag] beyond which no correction is made."""

OPTIONS: Mapping[str, tuple[str, ...]] = {
    "extinction": ("keep", "correct"),
    "mag_i": ("aperture", "kron"),
    "wavelengths": ("pivot", "archive"),
}
"""Options that only the authors' files can settle, each with its default first.

``extinction``: leave Galactic extinction in the fluxes, or correct all of them for E(B-V). ``mag_i``:
aperture of the iSDSS magnitude, that of the narrow bands or Kron's. ``wavelengths``: convert f_nu to f_lambda
by the pivot wavelengths, or by those of the archive's Filter table.
"""

_ARCHIVE = (
    3497, 3782, 3904, 3996, 4110, 4203, 4303, 4403, 4503, 4603, 4701, 4799, 4902, 5002, 5097, 5202, 5296,
    5389, 5498, 5596, 5701, 5803, 5917, 6010, 6107, 6206, 6309, 6408, 6506, 6607, 6710, 6812, 6912, 7007,
    7119, 7207, 7307, 7414, 7502, 7602, 7719, 7811, 7907, 8009, 8124, 8226, 8329, 8429, 8523, 8620, 8716,
    8810, 8912, 9000, 9107, 9316, 7725,
)  # fmt: skip
ARCHIVE_WAVELENGTHS = dict(zip((band.name for band in JPAS_BANDS), map(float, _ARCHIVE), strict=True))
"""Wavelengths of the archive's Filter table (miniJPAS) [Angstrom]."""

_BAND = {
    "MAG_i": REFERENCE_BAND,
    "MAG_G": "ls_g",
    "MAG_R": "ls_r",
    "MAG_Z": "ls_z",
    "MAG_W1": "W1",
    "MAG_W2": "W2",
}
_COLUMN = [MODEL_BANDS.index(BY_NAME[_BAND.get(name, name)]) for name in INPUTS]
_REFERENCE = MODEL_BANDS.index(BY_NAME[REFERENCE_BAND])
_NARROW = len(NARROW)


@dataclass(frozen=True, slots=True)
class PublishedInputs:
    """Photometry as the published catalogue starts from it, N objects.

    Attributes
    ----------
    flux : ndarray of float32, shape (N, 63)
        Flux densities f_nu [uJy] in the order of `MODEL_BANDS`; NaN where null. Errors are not read.
    kron : ndarray of float32, shape (N,)
        Kron flux density in iSDSS [uJy]; NaN where null.
    ebv : ndarray of float32, shape (N,)
        Galactic E(B-V) [mag]; NaN where null.
    """

    flux: np.ndarray
    kron: np.ndarray
    ebv: np.ndarray

    @property
    def ebv_known(self) -> np.ndarray:
        """Rows whose E(B-V) is plausible, shape (N,)."""
        return np.asarray((self.ebv >= 0) & (self.ebv <= MAX_EBV))

    def script_columns(self, options: Mapping[str, str] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Columns of the authors' table.

        The fluxes of the narrow bands are divided by the iSDSS flux of the same aperture; where that is
        missing, by the Kron flux, since ratios without their magnitude are stored so.

        Parameters
        ----------
        options : mapping of str to str, optional
            Choices among `OPTIONS`.

        Returns
        -------
        values : ndarray of float64, shape (N, 60)
            `INPUTS`; NaN where missing. Magnitudes of fluxes that are not positive are missing.
        kron : ndarray of float64, shape (N,)
            Kron flux density f_lambda in iSDSS [1e-19 erg/s/cm2/Angstrom]; NaN where missing.
        """
        chosen = {name: values[0] for name, values in OPTIONS.items()} | dict(options or {})
        flux, kron = self.flux.astype(np.float64), self.kron.astype(np.float64)
        flux[~np.isfinite(flux)] = np.nan
        kron[~np.isfinite(kron)] = np.nan
        if chosen["extinction"] == "correct":
            dust = 0.4 * np.where(self.ebv_known, self.ebv, 0.0).astype(np.float64)
            flux *= 10.0 ** (dust[:, None] * np.array([band.k_x for band in MODEL_BANDS]))
            kron *= 10.0 ** (dust * BY_NAME[REFERENCE_BAND].k_x)
        pivot = {name: BY_NAME[name].pivot for name in (*NARROW, REFERENCE_BAND)}
        wavelength = ARCHIVE_WAVELENGTHS if chosen["wavelengths"] == "archive" else pivot
        per_reference = np.array([(wavelength[REFERENCE_BAND] / wavelength[name]) ** 2 for name in NARROW])
        values = flux[:, _COLUMN]
        aperture = flux[:, _REFERENCE]
        with np.errstate(all="ignore"):
            divisor = np.where(np.isnan(aperture), kron, aperture)
            values[:, :_NARROW] *= per_reference / np.where(divisor == 0.0, np.nan, divisor)[:, None]
            if chosen["mag_i"] == "kron":
                values[:, _NARROW] = kron
            broad = values[:, _NARROW:]
            values[:, _NARROW:] = -2.5 * np.log10(np.where(broad > 0, broad, np.nan) / AB_ZERO_UJY)
        return values, kron * f_lambda_per_ujy(wavelength[REFERENCE_BAND])


def f_lambda_per_ujy(wavelength: float) -> float:
    """f_lambda [1e-19 erg/s/cm2/Angstrom] of 1 uJy at a wavelength [Angstrom]."""
    return 1e-29 * C_ANGSTROM / wavelength**2 / F_LAMBDA_UNIT


def as_read(values: np.ndarray) -> np.ndarray:
    """Inputs as the published script reads them: in single precision, NaN where that is not finite."""
    with np.errstate(over="ignore"):
        narrow = np.asarray(values).astype(np.float32)
    return np.where(np.isfinite(narrow), narrow, np.float32(np.nan))
