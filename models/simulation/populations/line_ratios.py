"""Observed ratios of emission lines, drawn jointly for a given strength of H alpha.

A mixture of four normal distributions, fitted to 25,000 of DESI's bright galaxies at 0.06 < z < 0.30
(H alpha beyond 4 sigma, the others beyond 1 to 2.5). The fractions of star-forming
galaxies, composites and active nuclei are those of the sample.
"""

from __future__ import annotations

import numpy as np

NAMES = ("log_ew_halpha", "nii_halpha", "oiii_hbeta", "sii_halpha", "oii_hbeta")
"""Dimensions: log10 of EW(H alpha) [Angstrom] and of ratios of equivalent widths ([N II] 6584, [O III] 5007,
the sums of [S II] 6716, 6731 and of [O II] 3726, 3729)."""

_SHARE = np.array((0.290, 0.128, 0.185, 0.397))
_MEAN = np.array(
    (
        (1.553, -0.501, -0.311, -0.471, 0.419),
        (1.123, -0.242, 0.120, -0.367, 0.684),
        (1.566, -0.756, 0.136, -0.443, 0.574),
        (1.288, -0.376, -0.428, -0.517, 0.362),
    )
)
# Lower triangles, row by row.
_COVARIANCE = (
    (
        0.034,
        -0.002,
        0.010,
        0.010,
        -0.015,
        0.051,
        -0.006,
        -0.002,
        0.006,
        0.006,
        -0.010,
        -0.008,
        0.021,
        0.007,
        0.025,
    ),
    (
        0.121,
        -0.040,
        0.051,
        0.003,
        0.043,
        0.169,
        -0.029,
        0.028,
        0.040,
        0.045,
        -0.029,
        0.008,
        0.027,
        0.036,
        0.121,
    ),
    (
        0.077,
        -0.027,
        0.038,
        0.028,
        -0.029,
        0.039,
        -0.027,
        0.016,
        -0.015,
        0.017,
        -0.026,
        0.007,
        -0.004,
        0.009,
        0.032,
    ),
    (
        0.041,
        -0.007,
        0.010,
        -0.013,
        0.006,
        0.046,
        -0.004,
        0.003,
        0.009,
        0.014,
        -0.015,
        0.004,
        0.023,
        0.010,
        0.051,
    ),
)
_RANGE = (0.8, 2.5)  # log10 EW(H alpha) in which the mixture is used; beyond, the value at its end
_LOWEST, _HIGHEST = np.array((-1.9, -1.2, -1.3, -0.6)), np.array((0.5, 1.1, 0.3, 1.4))


def _matrix(lower: tuple[float, ...]) -> np.ndarray:
    out = np.zeros((len(NAMES), len(NAMES)))
    out[np.tril_indices(len(NAMES))] = lower
    return out + np.tril(out, -1).T


_FULL = np.array([_matrix(lower) for lower in _COVARIANCE])
_VARIANCE = _FULL[:, 0, 0]
_SLOPE = _FULL[:, 1:, 0] / _VARIANCE[:, None]
_CHOLESKY = np.linalg.cholesky(_FULL[:, 1:, 1:] - _SLOPE[:, :, None] * _FULL[:, 0, None, 1:])


def draw_ratios(ew_halpha: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw the ratios of galaxies with given equivalent widths of H alpha.

    Parameters
    ----------
    ew_halpha : ndarray, shape (N,)
        [Angstrom].
    rng : Generator
        Source of randomness.

    Returns
    -------
    ndarray of float64, shape (N, 4)
        log10 of the ratios ``NAMES[1:]``.
    """
    x = np.clip(np.log10(np.maximum(ew_halpha, 1e-3)), *_RANGE)[:, None]
    chance = _SHARE / np.sqrt(_VARIANCE) * np.exp(-0.5 * (x - _MEAN[:, 0]) ** 2 / _VARIANCE)
    cumulative = np.cumsum(chance, axis=1)
    which = (rng.random(len(x))[:, None] * cumulative[:, -1:] > cumulative).sum(axis=1)
    mean = _MEAN[which, 1:] + _SLOPE[which] * (x - _MEAN[which, :1])
    noise = np.einsum("nij,nj->ni", _CHOLESKY[which], rng.standard_normal((len(x), 4)))
    return np.asarray(np.clip(mean + noise, _LOWEST, _HIGHEST))
