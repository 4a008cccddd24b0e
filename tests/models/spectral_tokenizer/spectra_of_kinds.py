"""Plausible spectra of several instruments, made of arithmetic alone."""

import numpy as np

from ojala.models.data import Spectra

GRIDS = {
    "DESI": np.linspace(3600.0, 9824.0, 1945),
    "SDSS": np.geomspace(3650.0, 10300.0, 1150),
    "APOGEE": np.geomspace(15140.0, 16960.0, 800),
}


def one_spectrum(grid: np.ndarray, rng: np.random.Generator, level: float = 20.0):
    """A power law with a line, and its noise."""
    flux = (grid / 6000.0) ** rng.uniform(-2.0, 1.0)
    centre = rng.uniform(grid[0], grid[-1])
    flux += rng.uniform(0.5, 3.0) * np.exp(-0.5 * ((grid - centre) / 15.0) ** 2)
    error = 0.1 * level
    flux = level * flux + error * rng.standard_normal(len(grid))
    return grid, flux, np.full(len(grid), error**-2)


def mixed_spectra(n: int, seed: int = 1) -> list:
    rng = np.random.default_rng(seed)
    return [one_spectrum(list(GRIDS.values())[k % 3], rng, 10.0 ** rng.uniform(-1, 3)) for k in range(n)]


def as_spectra(spectra: list) -> Spectra:
    return Spectra.from_arrays(spectra)
