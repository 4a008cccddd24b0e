"""Wavelength grids, and rebinning of spectra by inverse variance."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ojala.models.data import Spectra


@dataclass(frozen=True, slots=True)
class Grid:
    """Grid of pixels, even in wavelength or in its logarithm.

    Attributes
    ----------
    name : str
        Name.
    first : float
        Blue edge of the first pixel [Angstrom].
    step : float
        Width of a pixel [Angstrom], or in ln(wavelength).
    size : int
        Number of pixels.
    logarithmic : bool
        Whether pixels are even in ln(wavelength).
    """

    name: str
    first: float
    step: float
    size: int
    logarithmic: bool

    @property
    def edges(self) -> np.ndarray:
        """Edges of the pixels [Angstrom], shape (size + 1,)."""
        steps = self.step * np.arange(self.size + 1)
        return np.asarray(self.first * np.exp(steps) if self.logarithmic else self.first + steps)

    @property
    def wavelength(self) -> np.ndarray:
        """Centres of the pixels [Angstrom], shape (size,)."""
        edges = self.edges
        return np.asarray(0.5 * (edges[1:] + edges[:-1]))


GRIDS: dict[str, Grid] = {
    grid.name: grid
    for grid in (
        Grid("desi", 3599.6, 0.8, 7781, logarithmic=False),
        Grid("log", 3600.0, 2.5e-4, 4032, logarithmic=True),
    )
}
"""Grids of models: the pixels of DESI's joined arms, and 75 km/s from 3600 to 9864 Angstrom."""


def rebin(spectra: Spectra, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Rebin spectra to a grid.

    A new pixel is the mean of overlapping old pixels, weighted by inverse variance and overlap; its inverse
    variance is the sum of these weights. Flux densities keep their unit.

    Parameters
    ----------
    spectra : Spectra
        N spectra; pixels without a finite flux or a positive, finite inverse variance are not used.
    grid : Grid
        Target grid.

    Returns
    -------
    flux, ivar : ndarray of float32, shape (N, grid.size)
        0 without overlapping usable pixels.
    """
    flux, ivar = np.zeros((2, len(spectra), grid.size), np.float32)
    for key, rows in _rows_by_grid(spectra).items():
        overlap = _overlap(key, grid)
        if overlap is None:
            continue
        pixels = (spectra.offsets[rows][:, None] + np.arange(overlap.shape[1])).ravel()
        old_flux, old_ivar = (a[pixels].reshape(len(rows), -1) for a in (spectra.flux, spectra.ivar))
        good = (old_ivar > 0.0) & np.isfinite(old_ivar) & np.isfinite(old_flux)
        old_ivar = np.where(good, old_ivar, np.float32(0.0))
        with np.errstate(over="ignore"):
            weighted = np.where(good, old_flux, np.float32(0.0)) * old_ivar
        weight, total = ((overlap @ torch.from_numpy(old.T.copy())).numpy().T for old in (old_ivar, weighted))
        ivar[rows] = weight
        flux[rows] = np.divide(total, weight, out=np.zeros_like(total), where=weight > 0.0)
    return flux, ivar


def _rows_by_grid(spectra: Spectra) -> dict[bytes, np.ndarray]:
    """Group rows by their wavelengths, as bytes."""
    groups: dict[bytes, list[int]] = {}
    for row, (wavelength, _, _) in enumerate(spectra):
        groups.setdefault(wavelength.tobytes(), []).append(row)
    return {key: np.array(rows) for key, rows in groups.items()}


@functools.lru_cache(maxsize=8)
def _overlap(key: bytes, grid: Grid) -> Tensor | None:
    """Fraction of each old pixel within each new one: sparse (grid.size, P); None without overlap.

    ``key`` holds the bytes of the old wavelengths in single precision.
    """
    wavelength = np.frombuffer(key, np.float32).astype(np.float64)
    if len(wavelength) < 2:
        return None
    gap = np.diff(wavelength)
    # A pixel ends half way to its neighbour; next to a gap, no farther than on its other side.
    half = 0.5 * np.minimum(np.append(gap, gap[-1]), np.insert(gap, 0, gap[0]))
    blue = wavelength - np.minimum(0.5 * np.insert(gap, 0, gap[0]), 1.5 * half)
    red = wavelength + np.minimum(0.5 * np.append(gap, gap[-1]), 1.5 * half)
    edges = grid.edges
    inside = (red > blue) & (red > edges[0]) & (blue < edges[-1])
    old = np.flatnonzero(inside)
    first = np.clip(np.searchsorted(edges, blue[old], side="right") - 1, 0, grid.size - 1)
    last = np.clip(np.searchsorted(edges, red[old], side="left") - 1, 0, grid.size - 1)
    count = last - first + 1
    old, new = np.repeat(old, count), np.repeat(first, count) + _ranges(count)
    share = np.minimum(red[old], edges[new + 1]) - np.maximum(blue[old], edges[new])
    share = np.clip(share / (red[old] - blue[old]), 0.0, 1.0)
    if not len(old):
        return None
    order = np.lexsort((old, new))
    rows = np.searchsorted(new[order], np.arange(grid.size + 1))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse", UserWarning)  # a beta format of torch
        return torch.sparse_csr_tensor(
            torch.from_numpy(rows),
            torch.from_numpy(old[order]),
            torch.from_numpy(share[order].astype(np.float32)),
            (grid.size, len(wavelength)),
        )


def _ranges(count: np.ndarray) -> np.ndarray:
    """Concatenate the ranges 0 .. count - 1."""
    return np.asarray(np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count))
