"""Quantities that follow from predictions: line fluxes, dust-corrected H alpha, BPT and WHAN classes.

Arrays in, arrays out; NaN where a quantity has no meaning. The formulae are those of the published OJALÁ
catalogue (arXiv:2604.00661) unless said otherwise.
"""

from __future__ import annotations

import functools

import numpy as np

from ojala.catalogs_schema.bands import BY_NAME, REFERENCE_BAND
from ojala.catalogs_schema.contract import NONE
from ojala.catalogs_schema.ojala import LINES, Z_MAX

CASE_B = 2.86
"""H alpha / H beta without dust: case B, 10^4 K (Osterbrock & Ferland 2006)."""

BALMER_EXPONENT = 3.326 / 1.272
"""k(H alpha) / (k(H beta) - k(H alpha)) of the dust correction."""

SFR_PER_L_HALPHA = 7.9e-42
"""Star-formation rate per H alpha luminosity [Msun/yr per erg/s] (Kennicutt 1998)."""

BPT_Z_MAX = 0.36
"""Redshift up to which [N II] and H alpha lie within the narrow bands."""

_CONTINUUM = {"hbeta": "hbeta", "oiii_5007": "hbeta", "halpha": "halpha", "nii_6584": "halpha"}
"""Line -> the continuum on which its equivalent width stands."""

_LIGHT = 2.99792458e5
"""Speed of light [km/s]."""

_F_LAMBDA_PER_UJY = 1e-29 * 1e13 * _LIGHT / BY_NAME[REFERENCE_BAND].pivot ** 2
"""Flux per wavelength in 1 uJy of the reference band [erg/s/cm2/Angstrom]."""

_H0, _OMEGA_M, _OMEGA_R = 67.66, 0.311067, 7.893e-5
"""Planck 2018 (A&A 641, A6, table 2, last column): Hubble constant [km/s/Mpc], matter with the massive
neutrino (0.06 eV), radiation with two massless ones."""

_CM_PER_MPC = 3.0856775814913673e24

Columns = dict[str, np.ndarray]


def line_quantities(predicted: Columns, reference: np.ndarray, reference_err: np.ndarray) -> Columns:
    """Fluxes, luminosity and classes of the emission lines.

    Parameters
    ----------
    predicted : dict of str to ndarray, shape (N,)
        ``ew_*``, ``cont_*`` and ``z_gal`` with their ``*_err``, as in the value-added catalogue.
    reference, reference_err : ndarray, shape (N,)
        Flux density in iSDSS and its error [uJy], corrected for Galactic extinction; NaN where it is
        missing or not positive.

    Returns
    -------
    dict of str to ndarray, shape (N,)
        ``f_*``, ``ha_hb_ratio``, ``log_l_halpha_corr``, ``log_sfr_halpha`` with their ``*_err``;
        ``bpt_class`` and ``whan_class``.
    """
    with np.errstate(all="ignore"):
        columns = _fluxes(predicted, reference, reference_err)
        columns |= _dust_corrected(columns, predicted["z_gal"], predicted["z_gal_err"])
        columns["bpt_class"] = bpt_class(predicted)
        columns["whan_class"] = whan_class(predicted)
    return columns


def reference_of(columns: Columns) -> np.ndarray:
    """The iSDSS flux density [uJy], corrected for Galactic extinction, on which line fluxes stand.

    Parameters
    ----------
    columns : dict of str to ndarray, shape (N,)
        ``f_halpha``, ``ew_halpha``, ``cont_halpha`` and ``z_gal`` of the value-added catalogue.
    """
    with np.errstate(all="ignore"):
        width = columns["ew_halpha"] * columns["cont_halpha"] * (1.0 + columns["z_gal"])
        return np.asarray(columns["f_halpha"] / (width * _F_LAMBDA_PER_UJY))


def _fluxes(predicted: Columns, reference: np.ndarray, reference_err: np.ndarray) -> Columns:
    """F = EW (1 + z) c f_lambda(i), with c the continuum relative to the i band [erg/s/cm2]."""
    level = reference * _F_LAMBDA_PER_UJY * (1.0 + predicted["z_gal"])
    columns: Columns = {}
    for line, _, _ in LINES:
        width, width_err = predicted[f"ew_{line}"], predicted[f"ew_{line}_err"]
        continuum = predicted[f"cont_{_CONTINUUM[line]}"]
        continuum_err = predicted[f"cont_{_CONTINUUM[line]}_err"]
        flux = width * continuum * level
        relative = np.hypot(continuum_err / continuum, reference_err / reference)
        columns[f"f_{line}"] = flux
        columns[f"f_{line}_err"] = np.hypot(width_err * continuum * level, flux * relative)
    return columns


def _dust_corrected(fluxes: Columns, z: np.ndarray, z_err: np.ndarray) -> Columns:
    """H alpha luminosity corrected by the Balmer decrement, where both lines are in emission."""
    alpha, beta = fluxes["f_halpha"], fluxes["f_hbeta"]
    emits = (alpha > 0) & (beta > 0)
    alpha, beta = np.where(emits, alpha, np.nan), np.where(emits, beta, np.nan)
    relative_alpha, relative_beta = fluxes["f_halpha_err"] / alpha, fluxes["f_hbeta_err"] / beta
    ratio = alpha / beta
    dusty = ratio > CASE_B
    corrected = alpha * (np.where(dusty, ratio, CASE_B) / CASE_B) ** BALMER_EXPONENT
    distance, slope = luminosity_distance(z)
    luminosity = np.log10(4 * np.pi * distance**2 * corrected)
    exponent = np.where(dusty, BALMER_EXPONENT, 0.0)
    error = np.sqrt(
        ((1 + exponent) * relative_alpha) ** 2
        + (exponent * relative_beta) ** 2
        + (2 * slope / distance * z_err) ** 2
    ) / np.log(10)
    return {
        "ha_hb_ratio": ratio,
        "ha_hb_ratio_err": ratio * np.hypot(relative_alpha, relative_beta),
        "log_l_halpha_corr": luminosity,
        "log_l_halpha_corr_err": error,
        "log_sfr_halpha": luminosity + np.log10(SFR_PER_L_HALPHA),
        "log_sfr_halpha_err": error,
    }


def luminosity_distance(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Luminosity distance and its derivative with redshift [cm], Planck 2018 cosmology.

    Interpolated in a table of 4,000 redshifts. Beyond z = 0.002 they are those of `astropy.cosmology`, whose
    import takes each worker more than a second, within 1e-4.
    """
    grid, distance, slope = _distance_table()
    return np.interp(z, grid, distance), np.interp(z, grid, slope)


@functools.cache
def _distance_table() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    grid = np.expm1(np.linspace(0.0, np.log1p(Z_MAX), 4000))
    stretch = 1.0 + grid
    dark_energy = 1.0 - _OMEGA_M - _OMEGA_R
    inverse = 1.0 / np.sqrt(_OMEGA_M * stretch**3 + _OMEGA_R * stretch**4 + dark_energy)
    comoving = np.cumsum(np.diff(grid, prepend=0.0) * (inverse + np.roll(inverse, 1)) / 2)
    distance = stretch * comoving * _LIGHT / _H0 * _CM_PER_MPC
    return grid, distance, np.gradient(distance, grid)


def bpt_class(predicted: Columns) -> np.ndarray:
    """Class in the [N II] BPT diagram from equivalent widths; the continua cancel.

    Selected are galaxies with z < 0.36 whose four lines have EW > 3 Angstrom and EW above its error, and in
    each pair one line with EW > 10 Angstrom. Below the line of Kauffmann et al. (2003) is SF, above that of
    Kewley et al. (2001) AGN, between them COMPOSITE.
    """
    widths = {line: predicted[f"ew_{line}"] for line, _, _ in LINES}
    selected = predicted["z_gal"] < BPT_Z_MAX
    for line, width in widths.items():
        selected &= (width > 3.0) & (width > predicted[f"ew_{line}_err"])
    for pair in (("halpha", "nii_6584"), ("hbeta", "oiii_5007")):
        selected &= np.maximum(widths[pair[0]], widths[pair[1]]) > 10.0
    x = np.log10(widths["nii_6584"] / widths["halpha"])
    y = np.log10(widths["oiii_5007"] / widths["hbeta"])
    star_forming = (x < 0.05) & (y < 0.61 / (x - 0.05) + 1.3)
    agn = (x >= 0.47) | (y > 0.61 / (x - 0.47) + 1.19)
    names = np.select([~selected, star_forming, agn], [NONE, "SF", "AGN"], default="COMPOSITE")
    return np.asarray(names, dtype=object)


def whan_class(predicted: Columns) -> np.ndarray:
    """Class in the WHAN diagram (Cid Fernandes et al. 2011) from EW(H alpha) and [N II] / H alpha.

    RETIRED up to EW(H alpha) = 3 Angstrom; beyond it SF for log([N II] / H alpha) < -0.4, else WEAK_AGN up to
    6 Angstrom and STRONG_AGN above. Only where H alpha lies within the narrow bands (z < 0.36).
    """
    alpha, nitrogen = predicted["ew_halpha"], predicted["ew_nii_6584"]
    selected = (predicted["z_gal"] < BPT_Z_MAX) & np.isfinite(alpha)
    x = np.log10(np.where(nitrogen > 0, nitrogen, np.nan) / alpha)
    names = np.select(
        [~selected, alpha <= 3.0, np.isnan(x), x < -0.4, alpha <= 6.0],
        [NONE, "RETIRED", "SF", "SF", "WEAK_AGN"],
        default="STRONG_AGN",
    )
    return np.asarray(names, dtype=object)
