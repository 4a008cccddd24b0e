"""Quasars after the parametric model of Temple, Hewett & Banerji (2021, MNRAS 508, 737).

A broken power law with hot dust, Balmer continuum and emission-line templates is reddened by the quasar
extinction curve and, when an object is drawn, absorbed by the intergalactic medium (Inoue et al. 2014) and
mixed with its host. The shape's parameters scatter about the published means; the widths of the broad
lines, narrow-line strength and broad absorption are additions of this module.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.synthesis.grid import COARSE, FINE

Z_MAX = 5.0
"""Largest redshift that the library covers."""

BROAD_LINES = (1215.7, 1396.8, 1549.1, 1908.7, 2798.7, 4341.7, 4862.7, 5877.0, 6564.6)
"""Lines [Angstrom] whose profile in the template is stretched to vary their width."""

_IGM_STEP = 0.02


@dataclass(frozen=True, slots=True)
class QuasarTemplates:
    """The data files of the model.

    Attributes
    ----------
    wavelength : ndarray, shape (P,)
        Of the line templates [Angstrom].
    median_lines, strong_lines, blueshifted_lines, narrow_lines : ndarray, shape (P,)
        Emission of average quasars, of those with strong lines, of those with blueshifted C IV, and of
        the narrow-line region, f_lambda in the unit of `continuum`.
    continuum : ndarray, shape (P,)
        The continuum to which the line templates refer.
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
    narrow_lines: np.ndarray
    extinction_wavelength: np.ndarray
    extinction: np.ndarray
    forest: np.ndarray
    damped: np.ndarray


def simulate(templates: QuasarTemplates, n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Make ``n`` library quasars, without host and without intergalactic absorption.

    Returns
    -------
    dict of str to ndarray
        ``fine`` (n, P) and ``coarse`` (n, Q): rest-frame f_lambda, float16, normalised to a mean of one
        at 5500-6500 A.
    """
    fine_grid, coarse_grid = FINE.rest_wavelength(Z_MAX), COARSE.rest_wavelength(Z_MAX)
    both = np.concatenate((fine_grid, coarse_grid))
    reference = (fine_grid > 5500.0) & (fine_grid < 6500.0)
    extinction = np.interp(both, templates.extinction_wavelength, templates.extinction)
    fine = np.empty((n, len(fine_grid)), np.float16)
    coarse = np.empty((n, len(coarse_grid)), np.float16)
    for i in range(n):
        flux = _continuum(both, rng) * (
            1.0 + np.interp(both, templates.wavelength, _lines(templates, rng), 0.0, 0.0)
        )
        ebv = rng.exponential(0.15) if rng.random() < 0.10 else rng.exponential(0.02)
        flux *= 10.0 ** (-0.4 * min(ebv, 0.6) * extinction)
        if rng.random() < 0.10:
            flux *= _broad_absorption(both, rng)
        flux /= flux[: len(fine_grid)][reference].mean()
        fine[i], coarse[i] = flux[: len(fine_grid)], flux[len(fine_grid) :]
    return {"fine": fine, "coarse": coarse}


def _continuum(wavelength: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """f_lambda of accretion disc, hot dust and Balmer continuum; one at 3880 A before the latter two.

    Slopes of f_nu ~ nu^a: -0.349 below 3880 A, 0.593 above, one less below 1200 A (Temple+21, Table 2).
    """
    blue, red = rng.normal(-0.349, 0.22), rng.normal(0.45, 0.25)
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


def _lines(t: QuasarTemplates, rng: np.random.Generator) -> np.ndarray:
    """Line emission relative to the continuum on the templates' wavelengths, with scattered profile."""
    kind = np.clip(rng.normal(0.0, 0.6), -1.5, 1.5)
    other = t.strong_lines if kind > 0 else t.blueshifted_lines
    broad = ((1.0 - abs(kind)) * t.median_lines + abs(kind) * other) / t.continuum
    broad = _stretch(t.wavelength, broad, 10 ** rng.normal(-0.05, 0.15))
    narrow = t.narrow_lines / t.continuum * 10 ** rng.normal(0.2, 0.4)
    return np.asarray(np.maximum(broad * 10 ** rng.normal(0.0, 0.13) + narrow, -0.9))


def _stretch(wavelength: np.ndarray, lines: np.ndarray, factor: float) -> np.ndarray:
    """Make the broad lines ``factor`` times as wide with the same flux.

    Within 5 % of each line's wavelength the profile above the chord through the window's ends is
    stretched about the line's centre; the rest (Fe II, blends) stays.
    """
    out = lines.copy()
    x = np.log(wavelength)
    for line in BROAD_LINES:
        near = np.abs(x - np.log(line)) < 0.05
        if near.sum() < 5:
            continue
        u, profile = x[near] - np.log(line), lines[near]
        chord = np.interp(u, (u[0], u[-1]), (profile[0], profile[-1]))
        excess = profile - chord
        taper = np.clip((0.05 - np.abs(u)) / 0.01, 0.0, 1.0)
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
