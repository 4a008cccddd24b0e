"""Wavelength lattices of the simulation, on which a redshift is a shift by whole pixels.

Every simulated spectrum is sampled at wavelengths ``exp(k * step)`` with integer ``k``. A source
at redshift ``z = exp(s * step) - 1`` then moves by exactly ``s`` pixels, and nothing is interpolated when
an object is drawn. Two lattices are used: `FINE` for the optical bands and `COARSE`, sixteen times
coarser, for W1 and W2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

LIGHT_SPEED = 2.99792458e18
"""Speed of light [Angstrom / s]."""

COARSE_PER_FINE = 16
"""Fine pixels in one coarse pixel."""


@dataclass(frozen=True, slots=True)
class Lattice:
    """Wavelengths ``exp(k * step)`` and the observed window.

    Attributes
    ----------
    step : float
        Spacing in ln(wavelength).
    blue, red : float
        Ends of the observed window [Angstrom].
    """

    step: float
    blue: float
    red: float

    @property
    def first(self) -> int:
        """Lattice index of the bluest observed pixel."""
        return math.floor(math.log(self.blue) / self.step)

    @property
    def size(self) -> int:
        """Number of observed pixels."""
        return math.ceil(math.log(self.red) / self.step) - self.first + 1

    @property
    def wavelength(self) -> np.ndarray:
        """Observed wavelengths [Angstrom], shape (size,)."""
        return np.asarray(np.exp((self.first + np.arange(self.size)) * self.step))

    def rest_first(self, z_max: float) -> int:
        """Lattice index of the first rest-frame pixel observed from redshift 0 to ``z_max``."""
        return self.first - self.shift(z_max) - 2

    def rest_wavelength(self, z_max: float) -> np.ndarray:
        """Rest-frame wavelengths [Angstrom] that a source at redshift 0 to ``z_max`` needs.

        Two pixels more than that at either end, for the radial velocities of stars.
        """
        first = self.rest_first(z_max)
        return np.asarray(np.exp(np.arange(first, self.first + self.size + 2) * self.step))

    def shift(self, z: float) -> int:
        """Whole number of pixels nearest to a redshift."""
        return round(math.log1p(z) / self.step)


FINE = Lattice(step=3e-4, blue=3180.0, red=11000.0)
"""Lattice of the J-PAS and Legacy Survey bands: 1 A at 3180 A, 3.3 A at 11000 A."""

COARSE = Lattice(step=3e-4 * COARSE_PER_FINE, blue=25900.0, red=55600.0)
"""Lattice of W1 and W2."""


def shifts(z: np.ndarray) -> np.ndarray:
    """Whole fine pixels nearest to the redshifts; int64, same shape."""
    return np.asarray(np.rint(np.log1p(z) / FINE.step), np.int64)


def redshifts(shift: np.ndarray) -> np.ndarray:
    """Redshifts of shifts by whole fine pixels; float64, same shape."""
    return np.asarray(np.expm1(shift * FINE.step))


def to_vacuum(air: np.ndarray) -> np.ndarray:
    """Convert wavelengths in air to vacuum [Angstrom]; those below 2000 A are vacuum already.

    Refractive index of Ciddor (1996), evaluated at the given wavelength, which is accurate to 1e-7.
    """
    squared = (1e4 / np.maximum(air, 2000.0)) ** 2
    index = 1.0 + 5.792105e-2 / (238.0185 - squared) + 1.67917e-3 / (57.362 - squared)
    return np.asarray(np.where(air > 2000.0, air * index, air))


def windows(
    library: np.ndarray, first: int, rows: np.ndarray, shift: np.ndarray, lattice: Lattice
) -> np.ndarray:
    """Cut the observed window out of redshifted library spectra.

    Parameters
    ----------
    library : ndarray of float16 or float32, shape (M, P)
        Rest-frame spectra on the lattice.
    first : int
        Lattice index of the library's first pixel.
    rows : ndarray of int, shape (N,)
        Library member of each object.
    shift : ndarray of int, shape (N,)
        Redshift of each object in pixels of this lattice.
    lattice : Lattice
        The lattice.

    Returns
    -------
    ndarray of float32, shape (N, lattice.size)
        The library value at the rest wavelength of each observed pixel.
    """
    start, size = lattice.first - shift - first, lattice.size
    if start.size and (start.min() < 0 or start.max() + size > library.shape[1]):
        raise ValueError(
            f"redshift shifts from {shift.min()} to {shift.max()} pixels leave a library of "
            f"{library.shape[1]} pixels that starts at lattice index {first}"
        )
    out = np.empty((len(rows), size), library.dtype)
    for i, (row, begin) in enumerate(zip(rows.tolist(), start.tolist(), strict=True)):
        out[i] = library[row, begin : begin + size]
    if out.dtype == np.float32:
        return out
    import torch  # imported here: libraries are also built without torch

    return torch.from_numpy(out).float().numpy()  # numpy widens half precision one number at a time
