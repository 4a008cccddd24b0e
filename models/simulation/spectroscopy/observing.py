"""Observation with a spectrograph: optics, lines, noise, lost pixels."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import numpy as np

from ojala.models.simulation.spectroscopy.instruments import Instrument
from ojala.models.simulation.wavelength_grid import FINE

if TYPE_CHECKING:
    from torch import Tensor

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(5)


def response_matrix(instrument: Instrument) -> Tensor:
    """Matrix from the lattice to the pixels of an instrument: sparse (P, FINE.size).

    A pixel is a mean over the line spread function of the spectrum, with cubic interpolation between lattice
    points.
    """
    import torch

    position = np.log(instrument.wavelength) / FINE.step - FINE.first
    sigma = instrument.sigma / instrument.wavelength / FINE.step
    rows, columns, values = [], [], []
    for node, weight in zip(_NODES, _WEIGHTS / _WEIGHTS.sum(), strict=True):
        at = position + sigma * node
        low = np.floor(at).astype(np.int64)
        t = at - low
        cubic = (
            -t * (t - 1.0) * (t - 2.0) / 6.0,
            (t + 1.0) * (t - 1.0) * (t - 2.0) / 2.0,
            -(t + 1.0) * t * (t - 2.0) / 2.0,
            (t + 1.0) * t * (t - 1.0) / 6.0,
        )
        for step, value in enumerate(cubic):
            rows.append(np.arange(len(at)))
            columns.append(np.clip(low - 1 + step, 0, FINE.size - 1))
            values.append(weight * value)
    index = torch.from_numpy(np.stack([np.concatenate(rows), np.concatenate(columns)]))
    weights = torch.from_numpy(np.concatenate(values)).float()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse", UserWarning)  # a beta format of torch
        shape = (len(position), FINE.size)
        return torch.sparse_coo_tensor(index, weights, shape).coalesce().to_sparse_csr()


def add_lines(
    seen: np.ndarray, centre: np.ndarray, flux: np.ndarray, width: np.ndarray, instrument: Instrument
) -> None:
    """Add emission lines to spectra as Gaussians, in place.

    Parameters
    ----------
    seen : ndarray of float32, shape (N, P)
        Spectra on the instrument's pixels.
    centre, flux : ndarray, shape (N, L)
        Observed wavelength [Angstrom] and flux of each line [unit of ``seen`` times Angstrom]; lines of less
        than 0.1 % of the spectrum are left out.
    width : ndarray, shape (N, L) or (N, 1)
        Velocity dispersion [km/s], to which the instrument's line spread function is added.
    instrument : Instrument
        The instrument.
    """
    grid = instrument.wavelength
    pixel = np.searchsorted(grid, centre).clip(1, len(grid) - 1)
    step = grid[pixel] - grid[pixel - 1]
    sigma = np.hypot(instrument.sigma[pixel], centre * (width / 2.99792458e5))
    sigma = np.hypot(sigma, np.minimum(step, instrument.sigma[pixel]) / np.sqrt(12.0))  # a pixel's own width
    peak = flux / (np.sqrt(2.0 * np.pi) * sigma)
    seen_at = np.take_along_axis(seen, pixel, axis=1)
    visible = (peak > 1e-3 * seen_at) & (peak > 0.0) & (np.abs(grid[pixel] - centre) < 5.0 * sigma + 3.0)
    reach = np.ceil(4.5 * sigma / step).astype(np.int64)
    flat = seen.reshape(-1)
    for low, high in ((0, 6), (6, 12), (12, 24), (24, 96), (96, 384)):
        which = np.nonzero(visible & (reach > low) & (reach <= high))
        if not len(which[0]):
            continue
        at = pixel[which][:, None] + np.arange(-high, high + 1)
        inside = (at >= 0) & (at < len(grid))
        at = at.clip(0, len(grid) - 1)
        profile = np.exp(-0.5 * ((grid[at] - centre[which][:, None]) / sigma[which][:, None]) ** 2)
        profile *= peak[which][:, None] * inside
        np.add.at(flat, which[0][:, None] * len(grid) + at, profile.astype(np.float32))


def expose(
    truth: np.ndarray,
    bright_time: np.ndarray,
    instrument: Instrument,
    signal_to_noise: tuple[float, float] | None,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Observe spectra once.

    Parameters
    ----------
    truth : ndarray of float32, shape (N, P)
        Spectra without noise [1e-17 erg/s/cm2/A].
    bright_time : ndarray of bool, shape (N,)
        Spectra observed in bright time.
    instrument, signal_to_noise, rng
        As in `ojala.models.simulation.skies.spectroscopic.SpectraSky.observe`.

    Returns
    -------
    flux, ivar : ndarray of float32, shape (N, P)
        Calibration errors are in the flux; the inverse variance is 0 where a pixel was lost.
    """
    n, size = truth.shape
    dark = (instrument.noise**2).astype(np.float32)
    own = (instrument.quiet**2 / instrument.sky).astype(np.float32)
    sigma = np.sqrt(dark + own * np.maximum(truth, 0.0))
    if signal_to_noise is None:
        depth = np.exp(rng.normal(0.0, 0.25, n)) * np.where(bright_time, instrument.bright_time, 1.0)
    else:
        wanted = np.exp(rng.uniform(math.log(signal_to_noise[0]), math.log(signal_to_noise[1]), n))
        depth = np.maximum(np.median(truth / sigma, axis=1), 1e-3) / wanted
    sigma *= depth[:, None].astype(np.float32)
    noise = rng.standard_normal((n, size), np.float32)
    noise *= sigma
    noise += truth
    response = _response(n, instrument, rng)
    noise *= response
    sigma *= response
    ivar = sigma
    np.multiply(sigma, sigma, out=ivar)
    np.divide(np.float32(1.0), ivar, out=ivar)
    _lose_pixels(ivar, rng)
    return noise, ivar


def _response(n: int, instrument: Instrument, rng: np.random.Generator) -> np.ndarray:
    """Draw smooth calibration errors and the scale of relative fluxes; float32 (N, P)."""
    x = np.linspace(0.0, 1.0, len(instrument.wavelength))
    waves = np.cos(np.pi * np.arange(1, 6)[:, None] * x).astype(np.float32)
    weight = rng.normal(0.0, instrument.calibration / np.sqrt(2.5), (n, 5)) / np.array([1, 1, 1.5, 2, 2])
    level = rng.normal(0.0, 1.0 if instrument.relative else instrument.calibration, (n, 1))
    return np.asarray((1.0 + weight.astype(np.float32) @ waves) * np.exp(level.astype(np.float32)))


def _lose_pixels(ivar: np.ndarray, rng: np.random.Generator) -> None:
    """Mask runs of up to five pixels in place, for cosmic rays and bad columns: 0.1 % of all."""
    n, size = ivar.shape
    runs = rng.poisson(size / 3000.0, n)
    row = np.repeat(np.arange(n), runs)
    begin, length = rng.integers(0, size, len(row)), rng.integers(1, 6, len(row))
    for k in range(5):
        hit = length > k
        ivar[row[hit], np.minimum(begin[hit] + k, size - 1)] = 0.0
