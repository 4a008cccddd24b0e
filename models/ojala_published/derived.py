"""Derived columns of the published catalogue: line fluxes, H alpha luminosity and star-formation rate.

Formulae and constants are those of the authors' script (arXiv:2604.00661) of commit a92c88a, which the
published catalogue fits; those of `OJALÁ`'s own catalogue are in
`ojala.pipeline.inference.products.emission_lines`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from astropy import units as u
from astropy.cosmology import Planck18

LINES = {
    "HALPHA": ("HALPHA_CONT", "HALPHA_6562_EW"),
    "HBETA": ("HBETA_CONT", "HBETA_4861_EW"),
    "OIII5007": ("HBETA_CONT", "OIII_5007_EW"),
    "NII6584": ("HALPHA_CONT", "NII_6584_EW"),
}
"""Continuum and equivalent width of each line, in the published order."""

CASE_B = 2.86
"""H alpha / H beta without dust."""

BALMER_EXPONENT = 3.326 / 1.272
"""Exponent of the dust correction."""

SFR_PER_L_HALPHA = 7.9e-42
"""Star-formation rate per H alpha luminosity [Msun/yr per erg/s] (Kennicutt 1998)."""

Z_STEP = 1e-4
"""Step of the numerical derivative of the luminosity distance."""

Columns = dict[str, np.ndarray]


def derived_columns(
    predicted: Mapping[str, np.ndarray], kron: np.ndarray, *, revised: bool = False
) -> Columns:
    """Twelve columns of the published catalogue, in its order, float64.

    Parameters
    ----------
    predicted : mapping of str to ndarray, shape (N,)
        The published columns ``*_CONT``, ``*_EW`` and ``Z_GAL`` with their ``_ERR``; values that are not
        finite count as 0.
    kron : ndarray, shape (N,)
        Kron flux density f_lambda in iSDSS [1e-19 erg/s/cm2/Angstrom]; counts as 0 where not finite.
    revised : bool
        Take ``L_HALPHA_CORR`` and ``LOGSFR_HA`` from the other stored version of the script (commit 8987be9).

    Returns
    -------
    dict of str to ndarray, shape (N,)
        ``FLUX_*`` and ``FLUX_*_ERR`` [erg/s/cm2], ``HA_HB_RATIO``, ``L_HALPHA_CORR`` [erg/s], ``LOGSFR_HA``
        [log10 Msun/yr] and ``LOGSFR_HA_ERR``.
    """
    with np.errstate(all="ignore"):
        needed = {name for pair in LINES.values() for name in pair} | {"Z_GAL"}
        of = {part: _finite(predicted[part]) for name in needed for part in (name, f"{name}_ERR")}
        level = _finite(kron)
        one_plus_z = 1.0 + np.maximum(of["Z_GAL"], 0.0)
        columns: Columns = {}
        relative: Columns = {}
        for line, (continuum, width) in LINES.items():
            flux = of[continuum] * of[width] * one_plus_z * level * 1e-19
            relative[line] = _ratio(of, continuum) ** 2 + _ratio(of, width) ** 2
            dz = _finite(of["Z_GAL_ERR"] / one_plus_z)
            columns |= {
                f"FLUX_{line}": flux,
                f"FLUX_{line}_ERR": np.abs(flux) * np.sqrt(relative[line] + dz**2),
            }
        ratio = columns["FLUX_HALPHA"] / columns["FLUX_HBETA"]
        columns["HA_HB_RATIO"] = np.where(np.isfinite(ratio), ratio, np.nan)
        make = _luminosity_revised if revised else _luminosity
        return columns | make(of, columns, relative)


def _luminosity(of: Columns, columns: Columns, relative: Columns) -> Columns:
    """H alpha luminosity and star-formation rate of commit a92c88a."""
    flux, ratio, z = columns["FLUX_HALPHA"], columns["HA_HB_RATIO"], of["Z_GAL"]
    defined = (ratio > 0) & (z >= 0)
    emits = defined & (flux > 0)
    distance, slope = _distance(np.where(defined, z, np.nan))
    dust = (np.maximum(ratio, CASE_B) / CASE_B) ** BALMER_EXPONENT
    luminosity = np.where(emits, 4.0 * np.pi * distance**2 * flux * dust, np.nan)
    error = np.sqrt(_line_error(ratio, relative, BALMER_EXPONENT) + (2.0 * slope * of["Z_GAL_ERR"]) ** 2)
    return {
        "L_HALPHA_CORR": luminosity,
        "LOGSFR_HA": np.log10(SFR_PER_L_HALPHA * luminosity),
        "LOGSFR_HA_ERR": np.where(defined, error / np.log(10.0), np.nan),
    }


def _luminosity_revised(of: Columns, columns: Columns, relative: Columns) -> Columns:
    """The same of commit 8987be9, which is defined everywhere."""
    flux, z = columns["FLUX_HALPHA"], np.maximum(of["Z_GAL"], 0.0)
    ratio, exponent = _finite(columns["HA_HB_RATIO"]), 2.36
    distance, slope = _distance(z)
    dust = np.where(flux > 0, (np.maximum(ratio, CASE_B) / CASE_B) ** exponent, 1.0)
    luminosity = 4.0 * np.pi * distance**2 * flux * dust
    error = _line_error(ratio, relative, exponent) + ((1.0 / (1.0 + z) + 2.0 * slope) * of["Z_GAL_ERR"]) ** 2
    return {
        "L_HALPHA_CORR": luminosity,
        "LOGSFR_HA": np.log10(SFR_PER_L_HALPHA * np.where(luminosity > 0, luminosity, np.nan)),
        "LOGSFR_HA_ERR": np.sqrt(error) / np.log(10.0),
    }


def _line_error(ratio: np.ndarray, relative: Columns, exponent: float) -> np.ndarray:
    """Squared relative error of the dust-corrected H alpha flux."""
    dusty = (1.0 + exponent) ** 2 * relative["HALPHA"] + exponent**2 * relative["HBETA"]
    return np.where(ratio > CASE_B, dusty, relative["HALPHA"])


def _distance(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Luminosity distance [cm] and its logarithmic derivative, 0 where not finite; Planck 2018."""
    distance = np.full(len(z), np.nan)
    further = distance.copy()
    known = np.isfinite(z)
    if known.any():
        both = np.concatenate([z[known], z[known] + Z_STEP])
        distance[known], further[known] = np.split(Planck18.luminosity_distance(both).to_value(u.cm), 2)
    return distance, _finite((further - distance) / (Z_STEP * distance))


def _ratio(of: Columns, name: str) -> np.ndarray:
    return _finite(of[f"{name}_ERR"] / of[name])


def _finite(values: np.ndarray) -> np.ndarray:
    """In double precision, 0 where not finite."""
    wide = np.asarray(values, np.float64)
    return np.where(np.isfinite(wide), wide, 0.0)
