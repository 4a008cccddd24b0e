"""Synthetic photometry of spectra in the survey's bands."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.catalogs_schema.errors import InputError
from ojala.models.simulation.wavelength_grid import COARSE, FINE, LIGHT_SPEED, Lattice

LINE_SIGMA = 5e-4
"""Standard deviation of narrow emission lines in ln(wavelength), 150 km/s."""

MIN_COVERAGE = 0.95
"""Fraction of a band's energy-weighted curve that a spectrum must cover."""

_BLOCK_PIXELS = 200  # pixels per block of the curve matrix
_BRIDGED = 0.1  # of a band's width: gaps in a spectrum that are interpolated
_COARSE_BANDS = ("W1", "W2")
_MICROJANSKY = 1e29  # uJy in one erg/s/cm2/Hz

Curves = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Band name -> (wavelength [Angstrom], transmission of a photon counter)."""


class Photometer:
    """Flux densities of spectra in the 63 bands of `MODEL_BANDS`.

    The flux density of a band is the photon-weighted mean
    ``int f_lambda T lambda dlambda / int T (c / lambda) dlambda`` (Bessell & Murphy 2012, eq. A11), so a
    source of constant f_nu has that f_nu in every band.

    Parameters
    ----------
    curves : mapping of str to (ndarray, ndarray)
        Transmission curve of each band: wavelength [Angstrom], increasing, and transmission.

    Raises
    ------
    InputError
        A band of `MODEL_BANDS` has no curve, or its curve is not positive anywhere on its lattice.
    """

    def __init__(self, curves: Curves) -> None:
        missing = [band.name for band in MODEL_BANDS if band.name not in curves]
        if missing:
            raise InputError(f"no transmission curve for the bands {missing}; found {sorted(curves)}")
        self.curves = {band.name: curves[band.name] for band in MODEL_BANDS}
        names = [band.name for band in MODEL_BANDS]
        self._fine_columns = np.array([i for i, name in enumerate(names) if name not in _COARSE_BANDS])
        self._coarse_columns = np.array([i for i, name in enumerate(names) if name in _COARSE_BANDS])
        fine = self._matrix(FINE, self._fine_columns)
        self._blocks = _nonzero_blocks(fine, self._fine_columns)
        self._coarse = self._matrix(COARSE, self._coarse_columns)
        self._lines = self._line_matrix(fine)
        self._sampled = [_sampled(*curve) for curve in self.curves.values()]

    def _matrix(self, lattice: Lattice, columns: np.ndarray) -> np.ndarray:
        """Curve matrix (lattice.size, len(columns)): f_lambda on the lattice @ matrix = f_nu [uJy]."""
        wavelength = lattice.wavelength
        matrix = np.empty((lattice.size, len(columns)))
        for out, column in zip(matrix.T, columns, strict=True):
            name = MODEL_BANDS[column].name
            curve = np.interp(wavelength, *self.curves[name], left=0.0, right=0.0)
            if not curve.sum() > 0.0:
                raise InputError(
                    f"the curve of {name} is zero from {lattice.blue:g} to {lattice.red:g} A: in Angstrom?"
                )
            out[:] = curve * wavelength**2 / (LIGHT_SPEED * curve.sum())
        return (matrix * _MICROJANSKY).astype(np.float32)

    def _line_matrix(self, fine: np.ndarray) -> np.ndarray:
        """Flux density [uJy] of a line of unit flux [erg/s/cm2] at each fine pixel, (size + 1, 63).

        The last row, of zeros, stands for lines outside the window.
        """
        per_pixel = fine / (FINE.wavelength * FINE.step)[:, None]
        reach = int(4 * LINE_SIGMA / FINE.step) + 1
        kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * FINE.step / LINE_SIGMA) ** 2)
        matrix = np.zeros((FINE.size + 1, len(MODEL_BANDS)), np.float32)
        for k, column in enumerate(self._fine_columns):
            matrix[:-1, column] = np.convolve(per_pixel[:, k], kernel / kernel.sum(), mode="same")
        return matrix

    def continuum(self, fine: np.ndarray, coarse: np.ndarray) -> np.ndarray:
        """Compute flux densities of spectra on the observed windows of the two lattices.

        Parameters
        ----------
        fine : ndarray of float32, shape (N, FINE.size)
            f_lambda at ``FINE.wavelength`` [erg/s/cm2/A].
        coarse : ndarray of float32, shape (N, COARSE.size)
            f_lambda at ``COARSE.wavelength`` [erg/s/cm2/A].

        Returns
        -------
        ndarray of float32, shape (N, 63)
            f_nu [uJy].
        """
        out = np.zeros((len(fine), len(MODEL_BANDS)), np.float32)
        for pixels, columns, matrix in self._blocks:
            out[:, columns] += fine[:, pixels] @ matrix
        out[:, self._coarse_columns] = coarse @ self._coarse
        return out

    def lines(self, wavelength: np.ndarray, flux: np.ndarray) -> np.ndarray:
        """Compute flux densities of narrow emission lines, Gaussians of 150 km/s.

        A line is a row of the curve matrix smoothed with its profile. All lines have the same width, which
        matters at the edges of bands only.

        Parameters
        ----------
        wavelength : ndarray, shape (N, L)
            Observed wavelengths [Angstrom].
        flux : ndarray, shape (N, L)
            Line fluxes [erg/s/cm2].

        Returns
        -------
        ndarray of float32, shape (N, 63)
            Sum over the lines, f_nu [uJy].
        """
        pixel = np.rint(np.log(wavelength) / FINE.step).astype(np.int64) - FINE.first
        pixel[(pixel < 0) | (pixel >= FINE.size)] = FINE.size
        seen = self._lines[pixel]  # (N, L, 63)
        return np.asarray((flux.astype(np.float32)[:, None] @ seen)[:, 0])

    def observe(
        self, wavelength: np.ndarray, flux: np.ndarray, valid: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compute flux densities of one spectrum on its own wavelengths.

        Parameters
        ----------
        wavelength : ndarray, shape (P,)
            Increasing wavelengths [Angstrom].
        flux : ndarray, shape (P,)
            f_lambda [erg/s/cm2/A].
        valid : ndarray of bool, shape (P,), optional
            Usable pixels; by default all finite ones. Gaps narrower than a tenth of a band's
            width count as covered and are bridged linearly.

        Returns
        -------
        fluxes : ndarray of float64, shape (63,)
            f_nu [uJy]; NaN where less than `MIN_COVERAGE` of the band is covered.
        coverage : ndarray of float64, shape (63,)
            Covered share of each band, weighted by transmission times wavelength.
        """
        usable = np.isfinite(flux) & np.isfinite(wavelength)
        if valid is not None:
            usable &= valid
        fluxes = np.full(len(MODEL_BANDS), np.nan)
        coverage = np.zeros(len(MODEL_BANDS))
        if usable.sum() < 2:
            return fluxes, coverage
        good_wavelength, good_flux = wavelength[usable], flux[usable]
        gap = np.diff(good_wavelength)
        typical = 3.0 * np.median(gap)
        for i, (band, (samples, weight, per_nu)) in enumerate(zip(MODEL_BANDS, self._sampled, strict=True)):
            after = np.searchsorted(good_wavelength, samples)
            within = (after > 0) & (after < len(good_wavelength))
            bridged = max(_BRIDGED * band.fwhm, typical)
            seen = within & (gap[np.clip(after - 1, 0, len(gap) - 1)] < bridged)
            coverage[i] = weight[seen].sum() / weight.sum()
            if coverage[i] >= MIN_COVERAGE:
                sampled = np.interp(samples, good_wavelength, good_flux)
                top = (sampled * weight)[within].sum()
                fluxes[i] = top / per_nu[within].sum() * _MICROJANSKY
        return fluxes, coverage


def _sampled(grid: np.ndarray, curve: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A curve in even steps: wavelength [Angstrom], weight of f_lambda, and weight of a constant f_nu."""
    samples = np.linspace(grid[0], grid[-1], max(len(grid), 600))
    weight = np.interp(samples, grid, curve) * samples
    return samples, weight, weight * LIGHT_SPEED / samples**2


def _nonzero_blocks(matrix: np.ndarray, columns: np.ndarray) -> list[tuple[slice, np.ndarray, np.ndarray]]:
    """Split a curve matrix into blocks: pixels, columns with a response, and the submatrix."""
    parts = []
    for begin in range(0, len(matrix), _BLOCK_PIXELS):
        pixels = slice(begin, min(begin + _BLOCK_PIXELS, len(matrix)))
        lit = np.flatnonzero(matrix[pixels].any(axis=0))
        if len(lit):
            parts.append((pixels, columns[lit], np.ascontiguousarray(matrix[pixels][:, lit])))
    return parts
