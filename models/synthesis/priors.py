"""What is drawn how often: magnitudes, redshifts, reddening and kinds of galaxies.

The shapes follow surveys to i = 22.5 loosely and keep a floor everywhere: a prior that is too sharp would
be learnt as if it were a measurement.
"""

from __future__ import annotations

import numpy as np

from models.synthesis import galaxies

_NATURAL = 0.05  # share of galaxies drawn evenly from the library, for its extreme emitters

# EW(H alpha) [A] of DESI bright galaxies at 0.06 < z < 0.30 (108,459) by rank; the 22 % without a positive
# measurement stand at zero.
_EW_RANK = np.concatenate((np.linspace(0.0, 0.95, 20), [0.98, 0.993, 0.999, 1.0]))
_EW_QUANTILES = np.concatenate(
    (
        [0, 0, 0, 0, 0, 0.19, 0.53, 0.97, 1.79, 3.5, 6.17, 9.13],  # to 55 %
        [11.9, 14.71, 17.7, 21.08, 24.9, 29.77, 36.58, 48.68, 66.1, 92.8, 179.3, 400.0],
    )
)

# The same galaxies' log10([O III] 5007 / H beta), mean and scatter, against EW(H alpha) [A]; both lines at
# 3 sigma or more. Weaker emitters keep the library's ratios.
_RATIO_EW = np.array([6.0, 8.0, 12.5, 17.5, 25.0, 37.0, 57.0, 92.0, 180.0])
_RATIO_MEAN = np.array([-0.20, -0.24, -0.33, -0.36, -0.33, -0.27, -0.11, 0.09, 0.41])
_RATIO_SCATTER = np.array([0.36, 0.36, 0.31, 0.30, 0.31, 0.33, 0.32, 0.27, 0.20])


def galaxy_weights(lines: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Chance of each library galaxy, so that emission lines are as strong and as excited as observed.

    95 % follow the equivalent widths of H alpha and the ratios [O III] / H beta of DESI's bright galaxies,
    5 % are drawn evenly from the library.

    Parameters
    ----------
    lines, levels : ndarray, shape (M, len(galaxies.LINES)) and (M, 3)
        Line luminosities and continua of the library.

    Returns
    -------
    ndarray of float64, shape (M,)
        Sums to one.
    """
    ew = galaxies.equivalent_widths(lines, levels)
    strength = ew["ew_halpha"]
    edges = np.unique(_EW_QUANTILES)[1:-1]
    quantiles = np.interp(np.linspace(0.0, 1.0, 5001), _EW_RANK, _EW_QUANTILES)
    share = np.bincount(np.digitize(quantiles, edges), minlength=len(edges) + 1) / len(quantiles)
    cell = np.digitize(strength, edges)
    wanted = _excitation(strength, ew["ew_oiii_5007"], ew["ew_hbeta"], cell)
    for k in range(len(share)):
        inside = cell == k
        if inside.any():
            wanted[inside] *= share[k] / wanted[inside].sum()
    return np.asarray((1.0 - _NATURAL) * wanted / wanted.sum() + _NATURAL / len(strength))


def _excitation(strength: np.ndarray, oiii: np.ndarray, hbeta: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Weights that give each cell of H alpha strength the observed ratios [O III] / H beta; shape (M,)."""
    weight = np.ones(len(strength))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.nan_to_num(np.log10(oiii / hbeta), nan=0.0, posinf=1.2, neginf=-1.2)
    bins = np.digitize(ratio, np.linspace(-1.2, 1.2, 13))
    for k in np.unique(cell):
        inside = np.flatnonzero(cell == k)
        typical = np.median(strength[inside])
        if typical < _RATIO_EW[0]:
            continue
        mean = np.interp(typical, _RATIO_EW, _RATIO_MEAN)
        scatter = np.interp(typical, _RATIO_EW, _RATIO_SCATTER)
        natural = np.bincount(bins[inside], minlength=14)[bins[inside]] / len(inside)
        weight[inside] = np.exp(-0.5 * ((ratio[inside] - mean) / scatter) ** 2) / np.maximum(natural, 0.02)
    return weight


def draw_magnitudes(n: int, rng: np.random.Generator, i_range: tuple[float, float]) -> np.ndarray:
    """Draw iSDSS magnitudes: three quarters with counts ~ 10^(0.2 i), the rest uniform."""
    low, high = i_range
    rising = np.log10(10 ** (0.2 * low) + rng.random(n) * (10 ** (0.2 * high) - 10 ** (0.2 * low))) / 0.2
    return np.where(rng.random(n) < 0.25, rng.uniform(low, high, n), rising)


def draw_galaxy_redshifts(magnitude: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """70 % ~ z^2 exp(-(z/z0)^1.5) with z0 rising with magnitude, 18 % uniform to 1.28, 12 % low."""
    n = len(magnitude)
    z0 = 0.07 + 0.055 * np.maximum(magnitude - 16.0, 0.0) ** 1.1
    z = z0 * rng.gamma(2.0, 1.0, n) ** (1.0 / 1.5)
    choice = rng.random(n)
    z = np.where(choice < 0.18, rng.uniform(0.005, 1.28, n), z)
    z = np.where(choice > 0.88, 10.0 ** rng.uniform(np.log10(0.004), np.log10(0.15), n), z)
    return np.where((z > 1.28) | (z < 0.002), rng.uniform(0.01, 1.28, n), z)


def draw_quasar_redshifts(n: int, rng: np.random.Generator) -> np.ndarray:
    """65 % about z = 1.6 (gamma distribution), 35 % uniform; 0.05 to 4.98."""
    z = np.where(rng.random(n) < 0.65, rng.gamma(4.5, 0.37, n), rng.uniform(0.05, 4.98, n))
    return np.where((z < 0.05) | (z > 4.98), rng.uniform(0.05, 4.98, n), z)


def draw_reddening(n: int, rng: np.random.Generator, *, is_star: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Galactic E(B-V) of the line of sight [mag] and the share of it in front of the object.

    A star may lie within the dust: its share is 0.3 to 1. Elsewhere the share scatters by 5 %, the error
    of the maps.
    """
    ebv = np.minimum(0.004 + rng.exponential(0.03, n), 0.4)
    behind = np.where(is_star, rng.uniform(0.3, 1.0, n), rng.normal(1.0, 0.05, n))
    return ebv, behind
