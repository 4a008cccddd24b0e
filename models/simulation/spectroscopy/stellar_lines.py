"""Stellar absorption lines at the resolution of an instrument.

The library's model atmospheres are sampled every 20 Angstrom, without single lines. This module adds the
strongest lines: a spectrum is multiplied by the transmission of the lines at the instrument's resolution over
that at the library's, so that nothing changes at the library's resolution.

Equivalent widths come from a curve of growth in a layer of 0.9 Teff: Boltzmann's and Saha's equations, the
opacity of the negative hydrogen ion and, in hot stars, of hydrogen, electron pressures after Gray (2008, The
Observation and Analysis of Stellar Photospheres, ch. 9), Minnaert's interpolation between weak and saturated
lines. Equivalent widths of the Sun and of Arcturus agree to some 20 %, enough for a training set, not for
abundances.
"""

from __future__ import annotations

import numpy as np

from ojala.models.simulation.spectroscopy.instruments import Instrument
from ojala.models.simulation.spectroscopy.observing import add_lines
from ojala.models.simulation.spectroscopy.stellar_line_list import LINES_BY_SPECIES
from ojala.models.simulation.wavelength_grid import to_vacuum

BALMER: tuple[tuple[float, float], ...] = ((4102.9, 3.1), (4341.7, 2.9), (4862.7, 3.7), (6564.6, 4.0))
"""Vacuum wavelength [Angstrom] and equivalent width in the Sun [Angstrom] of H delta to H alpha; these go
with the square root of the number of absorbers, for their wings make them, up to `_WIDEST_BALMER`."""

HOTTEST = 11_000.0
"""Highest temperature [K] of stars with lines; hotter stars have few of these."""

LIBRARY_STEP = 20.0
"""Distance of the wavelengths at which model atmospheres are given [Angstrom]."""

# Number (12 for hydrogen), first and second ionisation energy [eV], log10 of the partition functions of the
# neutral and of the singly ionised atom near 5000 K (Asplund et al. 2009; NIST; Gray 2008, appendix D).
_ELEMENTS: dict[int, tuple[float, float, float, float, float]] = {
    11: (6.24, 5.139, 47.29, 0.31, 0.00),
    12: (7.60, 7.646, 15.04, 0.01, 0.31),
    13: (6.45, 5.986, 18.83, 0.77, 0.00),
    14: (7.51, 8.152, 16.35, 0.98, 0.76),
    20: (6.34, 6.113, 11.87, 0.07, 0.36),
    22: (4.95, 6.828, 13.58, 1.48, 1.75),
    24: (5.64, 6.767, 16.49, 1.02, 0.86),
    26: (7.50, 7.902, 16.19, 1.43, 1.63),
    28: (6.22, 7.640, 18.17, 1.48, 1.02),
    38: (2.87, 5.695, 11.03, 0.10, 0.34),
    56: (2.18, 5.212, 10.00, 0.36, 0.62),
}
_ALPHA = (12, 14, 20, 22)
_TABLE = np.array(
    [
        (species, *line)
        for species, text in LINES_BY_SPECIES.items()
        for line in np.array(text.split(), float).reshape(-1, 3)
    ]
)
_SPECIES, _AIR, _EXCITATION, _LOG_GF = _TABLE.T
_ATOM = np.array([_ELEMENTS[int(species)] for species in _SPECIES])
_IONISED = _SPECIES % 1.0 > 0.05
_OF_ALPHA = np.isin(_SPECIES.astype(int), _ALPHA)

WAVELENGTH: np.ndarray = np.concatenate([to_vacuum(_AIR), [line for line, _ in BALMER]])
"""Vacuum wavelengths of the lines [Angstrom], the Balmer lines last; shape (L,)."""

_SUN = (5777.0, 4.44, 0.0, 0.0)
_WIDEST_BALMER = 5.0
_FAINTEST = 0.003  # Angstrom
_STRENGTH = -11.0  # log10, from the equivalent widths of the Sun
_DAMPING = 0.04  # in the Sun
_DEEPEST, _DEEPEST_BALMER = 0.75, 0.6  # depth of a saturated line before the instrument
_MIN_TRANSMISSION = 0.08
_LIGHT = 2.99792458e5  # km/s
_LN10 = np.log(10.0)
_LOG_TAU = np.linspace(-3.0, 6.0, 91)
_LOG_DAMPING = np.linspace(-3.5, 0.0, 15)
_GRID = np.arange(3900.0, 9100.0, 4.0)  # on which transmission at the library's resolution is known
_TRIANGLE = np.maximum(1.0 - np.abs(_GRID - WAVELENGTH[:, None]) / LIBRARY_STEP, 0.0) / LIBRARY_STEP
_SMOOTH = np.maximum(1.0 - np.abs(_GRID - _GRID[:, None]) / LIBRARY_STEP, 0.0)
_SMOOTH /= _SMOOTH.sum(axis=0)


def equivalent_widths(
    teff: np.ndarray, logg: np.ndarray, fe_h: np.ndarray, alpha_fe: np.ndarray
) -> np.ndarray:
    """Compute equivalent widths of the lines of N stars.

    Parameters
    ----------
    teff, logg, fe_h, alpha_fe : ndarray, shape (N,)
        [K], log10 of [cm / s2], dex, dex. Stars without a known temperature have no lines.

    Returns
    -------
    ndarray of float32, shape (N, L)
        [Angstrom], at rest, of the lines `WAVELENGTH`.
    """
    known = np.flatnonzero(np.isfinite(teff) & (teff < HOTTEST))
    found = np.zeros((len(teff), len(WAVELENGTH)), np.float32)
    if not len(known):
        return found
    parameters = [np.asarray(values, float)[known, None] for values in (teff, logg, fe_h, alpha_fe)]
    temperature, gravity, *_ = parameters
    log_tau, hydrogen = _absorbers(*parameters)
    _, hydrogen_of_sun = _absorbers(*(np.full((1, 1), value) for value in _SUN))
    micro = np.clip(1.0 + 0.5e-3 * (temperature - 5500.0), 0.8, 3.0) + 0.25 * np.maximum(4.0 - gravity, 0.0)
    speed = np.hypot(micro, 1.25 * np.sqrt(temperature / 5777.0))  # km/s, thermal motion of iron
    damping = np.log10(_DAMPING) + 0.5 * (gravity - 4.44)
    growth = _curve_of_growth(log_tau - np.log10(speed / 1.6), damping)
    widths = to_vacuum(_AIR) * speed / _LIGHT * growth
    balmer = np.array([width for _, width in BALMER]) * 10.0 ** (0.5 * (hydrogen - hydrogen_of_sun))
    both = np.concatenate([widths, np.minimum(balmer, _WIDEST_BALMER)], axis=1)
    found[known] = np.where(both > _FAINTEST, both, 0.0)
    return found


def draw_widths(
    teff: np.ndarray, logg: np.ndarray, fe_h: np.ndarray, alpha_fe: np.ndarray, *, rng: np.random.Generator
) -> np.ndarray:
    """Draw `equivalent_widths` with model errors: 12 % per star, 15 % per line."""
    widths = equivalent_widths(teff, logg, fe_h, alpha_fe)
    wrong = rng.normal(0.0, 0.12, (len(widths), 1)) + rng.normal(0.0, 0.15, widths.shape)
    return np.asarray(widths * np.exp(wrong), np.float32)


def draw_broadening(teff: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw velocity dispersions of turbulence and rotation [km/s], 2 to 6 km/s below 6200 K, else more."""
    rotation = rng.lognormal(np.log(20.0), 0.6, len(teff)) * np.clip((teff - 6200.0) / 1500.0, 0.0, 1.0)
    return np.asarray(np.hypot(rng.uniform(2.0, 6.0, len(teff)), np.nan_to_num(rotation)), np.float32)


def transmission(
    widths: np.ndarray, velocity: np.ndarray, broadening: np.ndarray, instrument: Instrument
) -> np.ndarray:
    """Compute the factor that adds lines to spectra of library stars for an instrument.

    Parameters
    ----------
    widths : ndarray, shape (N, L)
        Equivalent widths [Angstrom] of the lines `WAVELENGTH`.
    velocity : ndarray, shape (N,)
        Radial velocity over the speed of light.
    broadening : ndarray, shape (N,)
        Velocity dispersion of rotation and turbulence [km/s].
    instrument : Instrument
        The instrument.

    Returns
    -------
    ndarray of float32, shape (N, P)
        1 without lines.
    """
    shift = 1.0 + velocity[:, None]
    deepest = np.where(np.arange(len(WAVELENGTH)) < len(_AIR), _DEEPEST, _DEEPEST_BALMER)
    saturated = widths / (np.sqrt(2.0 * np.pi) * deepest * WAVELENGTH) * _LIGHT
    depth = np.zeros((len(widths), len(instrument.wavelength)), np.float32)
    width = np.hypot(broadening[:, None], saturated)
    add_lines(depth, WAVELENGTH * shift, widths * shift, width, instrument)
    sharp = np.maximum(1.0 - depth, _MIN_TRANSMISSION)
    smooth = _at_library_resolution(widths)
    for row, (one, moved) in enumerate(zip(smooth, shift[:, 0], strict=True)):
        sharp[row] /= np.interp(instrument.wavelength / moved, _GRID, one, left=1.0, right=1.0)
    return np.asarray(sharp, np.float32)


def _at_library_resolution(widths: np.ndarray) -> np.ndarray:
    """Transmission at the library's resolution, the divisor of `transmission`; (N, G) on `_GRID`.

    Balmer lines are as wide as the smoothing: division by the smoothed lines alone would leave a tenth of
    their depth.
    """
    found = np.maximum(1.0 - widths @ _TRIANGLE, _MIN_TRANSMISSION)
    for _ in range(3):
        lines = widths / np.array([np.interp(WAVELENGTH, _GRID, row) for row in found])
        found = np.maximum(found * ((1.0 / found) @ _SMOOTH - lines @ _TRIANGLE), _MIN_TRANSMISSION)
    return np.asarray(found)


def _absorbers(
    teff: np.ndarray, logg: np.ndarray, fe_h: np.ndarray, alpha_fe: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """log10 of the optical depth in the centre of each line (N, L'), and of hydrogen's second level (N, 1).

    Over the continuous opacity; that of hydrogen has no zero point. All arguments (N, 1).
    """
    temperature = 0.9 * teff
    theta, log_t = 5040.0 / temperature, np.log10(temperature)
    log_pe = 0.6 + 6.5e-4 * (np.minimum(teff, 9000.0) - _SUN[0]) + (logg - _SUN[1] + fe_h) / 3.0
    negative_ion = log_pe + 0.754 * theta - 2.5 * log_t
    # Hydrogen itself absorbs as much as the ion at 8000 K, on the main sequence.
    opacity = np.logaddexp(negative_ion * _LN10, (-6.67 + 12.09 * (0.7 - theta)) * _LN10) / _LN10
    number, first, second, neutral, ion = _ATOM.T
    log_first = 2.5 * log_t - theta * first + ion - neutral - 0.176 - log_pe
    log_second = 2.5 * log_t - theta * second - ion - 0.176 - log_pe
    total = np.log1p(10.0**log_first * (1.0 + 10.0**log_second)) / _LN10
    share = np.where(_IONISED, log_first - total, -total)
    abundance = number + fe_h + np.where(_OF_ALPHA, alpha_fe, 0.0)
    populated = abundance + share - theta * _EXCITATION - np.where(_IONISED, ion, neutral)
    log_tau = _STRENGTH + populated + _LOG_GF + np.log10(_AIR) - opacity
    return log_tau, -10.199 * theta - opacity


def _growth_table() -> np.ndarray:
    """Equivalent width in Doppler widths, by log10 of damping and of central optical depth."""
    v = np.concatenate([np.linspace(0.0, 6.0, 241), np.geomspace(6.05, 2000.0, 240)])
    wing = 10.0 ** _LOG_DAMPING[:, None, None] / (np.sqrt(np.pi) * (v**2 + 1.5))
    tau = 10.0 ** _LOG_TAU[:, None] * (np.exp(-(v**2)) + wing)
    return np.asarray(2.0 * np.trapezoid(0.85 * tau / (0.85 + tau), v, axis=-1))


_GROWTH = _growth_table()


def _curve_of_growth(log_tau: np.ndarray, log_damping: np.ndarray) -> np.ndarray:
    """Equivalent widths in Doppler widths: bilinear in `_growth_table`; (N, L') and (N, 1)."""
    x = np.clip((log_tau - _LOG_TAU[0]) / (_LOG_TAU[1] - _LOG_TAU[0]), 0.0, len(_LOG_TAU) - 1.001)
    y = (log_damping - _LOG_DAMPING[0]) / (_LOG_DAMPING[1] - _LOG_DAMPING[0])
    y = np.clip(y, 0.0, len(_LOG_DAMPING) - 1.001)
    i, j = x.astype(int), y.astype(int)
    u, w = x - i, y - j
    low = _GROWTH[j, i] * (1.0 - u) + _GROWTH[j, i + 1] * u
    high = _GROWTH[j + 1, i] * (1.0 - u) + _GROWTH[j + 1, i + 1] * u
    linear = 10.0 ** np.minimum(log_tau - _LOG_TAU[0], 0.0)  # below the table lines are weak
    return np.asarray((low * (1.0 - w) + high * w) * linear)
