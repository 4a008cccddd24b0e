"""Quasars after the parametric model of Temple, Hewett & Banerji (2021, MNRAS 508, 737).

A broken power law with hot dust, Balmer continuum and emission-line templates is reddened by the quasar
extinction curve and, when an object is drawn, absorbed by the intergalactic medium (Inoue et al. 2014) and
mixed with its host. The shape's parameters scatter about the published means; the widths of the broad
lines, the narrow lines, broad absorption and the black-hole mass are additions of this module.

Definition of a quasar: an active nucleus whose non-stellar continuum has at least a ninth of the light at
6000 A in the rest frame (`HOST_MAX`), so that broad lines show in a spectrum. Nuclei with a hidden continuum
(narrow lines alone) are galaxies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ojala.models.simulation.wavelength_grid import COARSE, FINE

Z_MAX = 5.0
"""Largest redshift that the library covers."""

BROAD_LINES = (1215.7, 1396.8, 1549.1, 1908.7, 2798.7, 4341.7, 4862.7, 5877.0, 6564.6)
"""Lines [Angstrom] whose profile in the template is stretched by a random factor."""

MASS_LINES = (4862.7, 2798.7, 1549.1)
"""Broad lines [Angstrom] whose widths give a black-hole mass: H beta, Mg II, C IV."""

MASS_CONTINUA = (5100.0, 3000.0, 1350.0)
"""Rest wavelengths [Angstrom] of the continuum luminosity that goes with each of `MASS_LINES`."""

# log10 of the mass [Msun] at FWHM = 1000 km/s and lambda L_lambda = 10^44 erg/s, and the exponent of the
# luminosity: Vestergaard & Peterson (2006) for H beta and C IV, Vestergaard & Osmer (2009) for Mg II.
_MASS_ZERO, _MASS_SLOPE = np.array([6.91, 6.86, 6.66]), np.array([0.50, 0.50, 0.53])
_MASS_Z = (0.7, 1.9)  # redshifts from which Mg II and C IV are used, as by Shen et al. (2011)

NARROW_LINES: tuple[tuple[float, str, float, float], ...] = (
    (5008.2, "oxygen III", 0.0, 0.0),
    (4960.3, "oxygen III", -0.474, 0.0),
    (4862.7, "hydrogen", -1.0, 0.12),
    (6564.6, "hydrogen", -0.48, 0.14),
    (4341.7, "hydrogen", -1.33, 0.12),
    (6585.3, "nitrogen", -0.55, 0.2),
    (6549.9, "nitrogen", -1.02, 0.2),
    (6718.3, "sulphur", -1.15, 0.18),
    (6732.7, "sulphur", -1.2, 0.18),
    (3728.5, "oxygen II", -0.75, 0.22),
    (3869.9, "neon", -1.0, 0.1),
    (6302.0, "oxygen I", -1.45, 0.2),
)
"""Vacuum wavelength [Angstrom], group and strength (mean and scatter of log10) of the narrow lines of an
active nucleus, relative to [O III] 5007; the lines of a group scatter together."""

NARROW_WAVELENGTH = np.array([wavelength for wavelength, _, _, _ in NARROW_LINES])
"""Vacuum wavelengths of `NARROW_LINES` [Angstrom]."""

_NARROW_GROUPS = sorted({group for _, group, _, _ in NARROW_LINES})
_NARROW_GROUP = np.array([_NARROW_GROUPS.index(group) for _, group, _, _ in NARROW_LINES])
_NARROW_MEAN = np.array([mean for _, _, mean, _ in NARROW_LINES])
_NARROW_SCATTER = np.array([scatter for _, _, _, scatter in NARROW_LINES])

_WINDOW = 0.05  # in ln(wavelength), either side of a broad line
_IGM_STEP = 0.02


@dataclass(frozen=True, slots=True)
class QuasarTemplates:
    """Data files of the model.

    Attributes
    ----------
    wavelength : ndarray, shape (P,)
        Wavelengths of the line templates [Angstrom].
    median_lines, strong_lines, blueshifted_lines : ndarray, shape (P,)
        Emission of average quasars, of those with strong lines and of those with blueshifted C IV, f_lambda
        in the unit of `continuum`.
    continuum : ndarray, shape (P,)
        Continuum of the line templates.
    extinction_wavelength, extinction : ndarray, shape (Q,)
        Quasar extinction curve ``E(lambda - V) / E(B - V)``.
    forest, damped : ndarray, shape (39, 4) and (39, 3)
        Line wavelength [Angstrom] and coefficients of the Lyman series of Inoue et al. (2014), Table 2,
        for the Lyman-alpha forest and damped systems.
    """

    wavelength: np.ndarray
    median_lines: np.ndarray
    continuum: np.ndarray
    strong_lines: np.ndarray
    blueshifted_lines: np.ndarray
    extinction_wavelength: np.ndarray
    extinction: np.ndarray
    forest: np.ndarray
    damped: np.ndarray


def simulate(templates: QuasarTemplates, n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Simulate ``n`` library quasars, without host, narrow lines and intergalactic absorption.

    The widths of all broad lines of a quasar scatter together by 0.2 dex and independently by 0.06 dex;
    their strengths together by 0.14 dex (2 % are weak-line quasars). 18 % are reddened by E(B-V) of 0.2
    on average, a ninth has broad absorption.

    Returns
    -------
    dict of str to ndarray
        ``fine`` (n, P) and ``coarse`` (n, Q): rest-frame f_lambda, float16, normalised to a mean of one
        at 5500-6500 A; ``fwhm`` (n, 3): width of the broad lines `MASS_LINES` [km/s]; ``levels`` (n, 3):
        f_lambda at `MASS_CONTINUA`, in the unit of ``fine``; ``strength`` (n,): log10 of the strength of
        the broad lines relative to the median quasar.
    """
    fine_grid, coarse_grid = FINE.rest_wavelength(Z_MAX), COARSE.rest_wavelength(Z_MAX)
    both = np.concatenate((fine_grid, coarse_grid))
    reference = (fine_grid > 5500.0) & (fine_grid < 6500.0)
    at_continua = [np.abs(fine_grid / line - 1.0) < 0.006 for line in MASS_CONTINUA]
    extinction = np.interp(both, templates.extinction_wavelength, templates.extinction)
    out: dict[str, np.ndarray] = {
        "fine": np.empty((n, len(fine_grid)), np.float16),
        "coarse": np.empty((n, len(coarse_grid)), np.float16),
        "fwhm": np.empty((n, len(MASS_LINES)), np.float32),
        "levels": np.empty((n, len(MASS_CONTINUA)), np.float32),
        "strength": np.empty(n, np.float32),
    }
    for i in range(n):
        lines, out["fwhm"][i], out["strength"][i] = _lines(templates, rng)
        flux = _continuum(both, rng) * (1.0 + np.interp(both, templates.wavelength, lines, 0.0, 0.0))
        ebv = rng.exponential(0.2) if rng.random() < 0.18 else rng.exponential(0.03)
        flux *= 10.0 ** (-0.4 * min(ebv, 1.0) * extinction)
        if rng.random() < 0.11:
            flux *= _broad_absorption(both, rng)
        flux /= flux[: len(fine_grid)][reference].mean()
        out["fine"][i], out["coarse"][i] = flux[: len(fine_grid)], flux[len(fine_grid) :]
        out["levels"][i] = [flux[: len(fine_grid)][near].mean() for near in at_continua]
    return out


def _continuum(wavelength: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """f_lambda of accretion disc, hot dust and Balmer continuum; one at 3880 A before the latter two.

    Slopes of f_nu ~ nu^a: -0.349 below 3880 A, 0.593 above, one less below 1200 A (Temple+21, Table 2).
    """
    blue, red = rng.normal(-0.349, 0.22), rng.normal(0.38, 0.28)
    f_nu = np.where(wavelength < 3880.0, (3880.0 / wavelength) ** blue, (3880.0 / wavelength) ** red)
    f_nu = np.where(wavelength < 1200.0, f_nu * (wavelength / 1200.0) ** rng.normal(1.0, 0.3), f_nu)
    f_lambda = f_nu * (3880.0 / wavelength) ** 2
    at_two_micron = (3880.0 / 2e4) ** (2.0 + red)
    temperature = rng.normal(1243.6, 80.0)
    dust = wavelength**-5.0 / np.expm1(np.minimum(1.4387769e8 / (wavelength * temperature), 500.0))
    dust_at_two_micron = 2e4**-5.0 / np.expm1(1.4387769e8 / (2e4 * temperature))
    strength = 3.961 * 10 ** rng.normal(0.0, 0.18)
    f_lambda += strength * at_two_micron * dust / dust_at_two_micron
    return np.asarray(f_lambda + max(rng.normal(0.03, 0.04), 0.0) * _balmer_continuum(wavelength))


def _balmer_continuum(wavelength: np.ndarray) -> np.ndarray:
    """Partially optically thick Balmer continuum of Grandi (1982), 15000 K, edge depth 1; one at 3000 A."""

    def emitted(at: np.ndarray) -> np.ndarray:
        depth = 1.0 - np.exp(-((at / 3646.0) ** 3))
        return np.asarray(depth * at**-5.0 / np.expm1(1.4387769e8 / (at * 15000.0)))

    edge = 1.0 / (1.0 + np.exp(np.clip((wavelength - 3646.0) / 25.0, -60.0, 60.0)))  # broad-line velocities
    return np.asarray(emitted(wavelength) * edge / emitted(np.array(3000.0)))


def _lines(t: QuasarTemplates, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """Broad-line emission of one quasar.

    Returns
    -------
    emission : ndarray
        Relative to the continuum, on the templates' wavelengths.
    fwhm : ndarray, shape (3,)
        Width of `MASS_LINES` [km/s].
    strength : float
        log10 of the strength of the lines relative to the median quasar.
    """
    kind = np.clip(rng.normal(0.0, 0.6), -1.5, 1.5)
    other = t.strong_lines if kind > 0 else t.blueshifted_lines
    broad = ((1.0 - abs(kind)) * t.median_lines + abs(kind) * other) / t.continuum
    common = rng.normal(0.04, 0.19) + (rng.random() < 0.04) * rng.uniform(0.2, 0.4)
    width = {line: 10 ** np.clip(common + rng.normal(0.0, 0.06), -0.55, 0.6) for line in BROAD_LINES}
    width[4862.7] *= 1.2  # the template's H beta is narrower than that of most quasars
    fwhm = [fwhm_of(t.wavelength, broad, line) * width[line] for line in MASS_LINES]
    broad = _stretch(t.wavelength, broad, width)
    halpha = np.exp(-0.5 * (np.log(t.wavelength / 6564.6) / 0.02) ** 4)
    broad = broad * (1.0 + (10 ** rng.normal(-0.2, 0.1) - 1.0) * halpha)
    strength = rng.normal(0.03, 0.14) if rng.random() > 0.02 else rng.normal(-0.9, 0.25)
    return np.maximum(broad * 10**strength, -0.9), np.array(fwhm), strength + 0.12 * kind


def fwhm_of(wavelength: np.ndarray, lines: np.ndarray, line: float) -> float:
    """Full width at half maximum of a broad line above the chord through its window's ends [km/s]."""
    x = np.log(wavelength / line)
    near = np.abs(x) < _WINDOW
    u, profile = x[near], lines[near]
    fine_u = np.linspace(u[0], u[-1], 4001)
    excess = np.interp(fine_u, u, profile - np.interp(u, (u[0], u[-1]), (profile[0], profile[-1])))
    core = np.abs(fine_u) < 0.015
    peak = np.flatnonzero(core)[excess[core].argmax()]
    below = np.flatnonzero(excess < 0.5 * excess[peak])
    left, right = below[below < peak], below[below > peak]
    if not (len(left) and len(right)):
        return float("nan")
    return float((fine_u[right[0]] - fine_u[left[-1]]) * 2.99792458e5)


def _stretch(wavelength: np.ndarray, lines: np.ndarray, factors: Mapping[float, float]) -> np.ndarray:
    """Stretch the profiles of broad lines, conserving flux.

    Within 5 % of each line's wavelength the profile above the chord through the window's ends is
    stretched about the line's centre by its factor; the rest (Fe II, blends) stays.
    """
    out = lines.copy()
    x = np.log(wavelength)
    for line, factor in factors.items():
        near = np.abs(x - np.log(line)) < _WINDOW
        if near.sum() < 5:
            continue
        u, profile = x[near] - np.log(line), lines[near]
        chord = np.interp(u, (u[0], u[-1]), (profile[0], profile[-1]))
        excess = profile - chord
        taper = np.clip((_WINDOW - np.abs(u)) / 0.01, 0.0, 1.0)
        wide = np.interp(u / factor, u, excess, 0.0, 0.0) / factor
        out[near] = chord + (1.0 - taper) * excess + taper * wide
    return out


def _broad_absorption(wavelength: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Transmission of broad absorption blueward of N V, Si IV and C IV, in one of eight also of Mg II."""
    lines = [1240.0, 1397.0, 1549.0] + ([2798.0] if rng.random() < 0.12 else [])
    velocity, width, depth = rng.uniform(0.01, 0.06), rng.uniform(0.004, 0.02), rng.uniform(0.3, 1.0)
    transmission = np.ones(len(wavelength))
    for line in lines:
        offset = np.log(wavelength / line) + velocity
        own = depth * rng.uniform(0.5, 1.0)
        transmission *= 1.0 - own * np.exp(-0.5 * np.abs(offset / width) ** 3)
    return transmission


HOST_MAX = 0.9
"""log10 of the brightest host relative to its quasar at 6000 A in the rest frame."""


def draw_narrow_lines(level: np.ndarray, log_l5100: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Luminosities of the narrow lines of active nuclei.

    The equivalent width of [O III] 5007 over the nucleus' own continuum has a median of 20 A at
    lambda L_lambda(5100) = 10^44 erg/s, falls as L^-0.2 and scatters by 0.4 dex (Shen et al. 2011).

    Parameters
    ----------
    level : ndarray, shape (N,)
        Continuum of the nucleus at 5100 A, any unit per Angstrom.
    log_l5100 : ndarray, shape (N,)
        log10 of lambda L_lambda(5100 A) [erg/s].
    rng : Generator
        Source of randomness.

    Returns
    -------
    ndarray of float64, shape (N, len(NARROW_LINES))
        In the unit of ``level`` times Angstrom.
    """
    n = len(level)
    width = 20.0 * 10 ** (-0.2 * np.clip(log_l5100 - 44.0, -1.5, 2.5) + rng.normal(0.0, 0.4, n))
    scatter = rng.standard_normal((n, len(_NARROW_GROUPS)))[:, _NARROW_GROUP] * _NARROW_SCATTER
    return np.asarray((width * level)[:, None] * 10.0 ** (_NARROW_MEAN + scatter))


def log_black_hole_mass(fwhm: np.ndarray, luminosity: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Virial black-hole mass from one spectrum, log10 [Msun].

    H beta with L(5100 A) below z = 0.7, Mg II with L(3000 A) below 1.9, C IV with L(1350 A) above:
    Vestergaard & Peterson (2006, equations 5 and 7) and Vestergaard & Osmer (2009, equation 1).

    Parameters
    ----------
    fwhm : ndarray, shape (N, 3)
        Widths of `MASS_LINES` [km/s].
    luminosity : ndarray, shape (N, 3)
        lambda L_lambda at `MASS_CONTINUA` [erg/s].
    z : ndarray, shape (N,)
        Redshift.
    """
    every = _MASS_ZERO + 2.0 * np.log10(fwhm / 1000.0) + _MASS_SLOPE * (np.log10(luminosity) - 44.0)
    return np.asarray(every[np.arange(len(z)), np.digitize(z, _MASS_Z)])


def igm_transmission(templates: QuasarTemplates) -> np.ndarray:
    """Mean intergalactic transmission at the observed pixels of `FINE`, by redshift.

    Inoue et al. (2014), equations 20-29.

    Returns
    -------
    ndarray of float32, shape (ceil(Z_MAX / 0.02) + 1, FINE.size)
        Row k is for a source at z = 0.02 k; see `igm_row`.
    """
    z = np.arange(0.0, Z_MAX + _IGM_STEP, _IGM_STEP)
    wavelength = FINE.wavelength
    depth = np.zeros((len(z), len(wavelength)))
    for line, a1, a2, a3 in templates.forest:
        x = wavelength / line
        tau = np.where(x < 2.2, a1 * x**1.2, np.where(x < 5.7, a2 * x**3.7, a3 * x**5.5))
        depth += np.where((x > 1.0) & (x < 1.0 + z[:, None]), tau, 0.0)
    for line, a1, a2 in templates.damped:
        x = wavelength / line
        depth += np.where((x > 1.0) & (x < 1.0 + z[:, None]), np.where(x < 3.0, a1 * x**2, a2 * x**3), 0.0)
    x = wavelength / 911.8
    below = (x > 1.0) & (x < 1.0 + z[:, None])
    depth += np.where(
        below, np.maximum(_forest_continuum(x, z[:, None]) + _damped_continuum(x, z[:, None]), 0.0), 0.0
    )
    return np.exp(-depth).astype(np.float32)


def igm_row(z: np.ndarray) -> np.ndarray:
    """Row of `igm_transmission` for each redshift; int64, same shape."""
    return np.clip(np.rint(z / _IGM_STEP), 0, round(Z_MAX / _IGM_STEP)).astype(np.int64)


def _forest_continuum(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Lyman-continuum depth of the forest (equations 25-27); x = observed wavelength / 911.8 A."""
    low = 0.325 * (x**1.2 - (1 + z) ** -0.9 * x**2.1)
    middle = np.where(
        x < 2.2,
        2.55e-2 * (1 + z) ** 1.6 * x**2.1 + 0.325 * x**1.2 - 0.250 * x**2.1,
        2.55e-2 * ((1 + z) ** 1.6 * x**2.1 - x**3.7),
    )
    high = np.where(
        x < 2.2,
        5.22e-4 * (1 + z) ** 3.4 * x**2.1 + 0.325 * x**1.2 - 3.14e-2 * x**2.1,
        np.where(
            x < 5.7,
            5.22e-4 * (1 + z) ** 3.4 * x**2.1 + 0.218 * x**2.1 - 2.55e-2 * x**3.7,
            5.22e-4 * ((1 + z) ** 3.4 * x**2.1 - x**5.5),
        ),
    )
    return np.where(z < 1.2, low, np.where(z < 4.7, middle, high))


def _damped_continuum(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Lyman-continuum depth of damped systems (equations 28-29); x = observed wavelength / 911.8 A."""
    low = 0.211 * (1 + z) ** 2 - 7.66e-2 * (1 + z) ** 2.3 * x**-0.3 - 0.135 * x**2
    high = np.where(
        x < 3.0,
        0.634 + 4.70e-2 * (1 + z) ** 3 - 1.78e-2 * (1 + z) ** 3.3 * x**-0.3 - 0.135 * x**2 - 0.291 * x**-0.3,
        4.70e-2 * (1 + z) ** 3 - 1.78e-2 * (1 + z) ** 3.3 * x**-0.3 - 2.92e-2 * x**3,
    )
    return np.where(z < 2.0, low, high)
