"""Vectorised template fitting: non-negative sums of templates by chi-square.

At each trial redshift the non-negative least squares of all objects are solved together by coordinate descent
(Franc, Hlavac & Navara 2005), started from the solution at the previous redshift, which is fast enough
for all objects and all sets of templates.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from tests.benchmarks.template_fitting.templates import TemplateGrid

SYSTEMATIC = 0.02
"""Fraction of each flux that is added to its error in quadrature."""

SWEEPS = 20
"""Passes over all templates at each trial redshift."""

BLOCK = 1000
"""Objects per block, to bound memory."""


@dataclass(frozen=True, slots=True)
class TemplateFit:
    """Best fits of N objects with one set of templates.

    Attributes
    ----------
    chi2 : ndarray, shape (N,)
        Chi-square of the best fit.
    z : ndarray, shape (N,)
        Redshift of the best fit.
    seconds : float
        Processor time of the fits, without preparation.
    """

    chi2: np.ndarray
    z: np.ndarray
    seconds: float


def fit_sums(flux: np.ndarray, error: np.ndarray, grid: TemplateGrid) -> TemplateFit:
    """Fit non-negative sums of all templates at each trial redshift, without a prior.

    Parameters
    ----------
    flux, error : ndarray, shape (N, 63)
        Flux densities and errors [uJy], NaN where missing.
    grid : TemplateGrid
        Template photometry.
    """
    started = time.process_time()
    chi2 = np.concatenate(
        [_scan(flux[i : i + BLOCK], error[i : i + BLOCK], grid) for i in range(0, len(flux), BLOCK)]
    )
    z = _minimum(chi2, grid.z)
    return TemplateFit(chi2.min(axis=1), z, time.process_time() - started)


def fit_single(flux: np.ndarray, error: np.ndarray, grid: TemplateGrid) -> TemplateFit:
    """Fit the best single template and redshift with a free amplitude; arguments as of `fit_sums`."""
    started = time.process_time()
    value, weight = weighted(flux, error)
    template = grid.flux.reshape(-1, flux.shape[1]).astype(np.float64)
    cross = np.maximum((value * weight) @ template.T, 0.0)
    own = np.maximum(weight @ (template**2).T, 1e-30)
    chi2 = (value**2 * weight).sum(axis=1)[:, None] - cross**2 / own
    best = chi2.argmin(axis=1)
    z = grid.z[best // grid.flux.shape[1]]
    return TemplateFit(chi2[np.arange(len(flux)), best], z, time.process_time() - started)


def weighted(flux: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fluxes and inverse variances with the systematic error, 0 where missing; float64."""
    known = np.isfinite(flux) & np.isfinite(error)
    value = np.where(known, flux, 0.0).astype(np.float64)
    variance = np.where(known, error, 1.0) ** 2 + (SYSTEMATIC * np.maximum(value, 0.0)) ** 2
    return value, np.where(known, 1.0 / variance, 0.0)


def _scan(flux: np.ndarray, error: np.ndarray, grid: TemplateGrid) -> np.ndarray:
    """Chi-square of the best sum at each trial redshift, shape (N, K)."""
    value, weight = weighted(flux, error)
    # Scaled to one unit of flux per object, so that single precision is enough.
    level = np.sqrt((value**2 * weight).sum(axis=1) / weight.sum(axis=1))
    value, weight = (value / level[:, None]).astype(np.float32), (weight * level[:, None] ** 2).T
    total = (value.T.astype(np.float64) ** 2 * weight).sum(axis=0)
    weight = weight.astype(np.float32)
    moment = value.T * weight
    k, t, _ = grid.flux.shape
    amount = np.zeros((t, len(value)), np.float32)
    chi2 = np.empty((k, len(value)))
    for i, templates in enumerate(grid.flux):
        templates = templates / np.maximum(templates.mean(axis=1, keepdims=True), 1e-30)
        gram = (templates[:, None] * templates[None]).reshape(t * t, -1) @ weight
        gram = gram.reshape(t, t, -1)
        target = templates @ moment
        slope = np.einsum("ijn,jn->in", gram, amount) - target
        own = np.maximum(gram[np.arange(t), np.arange(t)], 1e-30)
        for _ in range(SWEEPS):
            for j in range(t):
                change = np.maximum(-slope[j] / own[j], -amount[j])
                amount[j] += change
                slope += gram[j] * change
        # |m - f|^2 = f.f - 2 a.c + a.G.a with G.a = slope + c
        chi2[i] = total + (amount * (slope - target)).sum(axis=0, dtype=np.float64)
    return chi2.T


def _minimum(chi2: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Redshift of the smallest chi-square, by the parabola through its neighbours in ln(1 + z)."""
    n = np.arange(len(chi2))
    best = np.clip(chi2.argmin(axis=1), 1, len(z) - 2)
    below, at, above = (chi2[n, best + k] for k in (-1, 0, 1))
    bend = below - 2.0 * at + above
    offset = np.divide(0.5 * (below - above), bend, out=np.zeros_like(bend), where=bend > 0.0)
    place = np.log1p(z)
    return np.asarray(np.expm1(place[best] + np.clip(offset, -0.5, 0.5) * (place[1] - place[0])))
