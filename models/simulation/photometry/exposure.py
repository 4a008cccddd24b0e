"""Synthetic photometry of observed spectra at their own and at nearby redshifts.

A spectrum is resampled to the lattice of the simulation once. Its fluxes in all bands are then one matrix
product, and another redshift is a shift by whole pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ojala.catalogs_schema.bands import MODEL_BANDS, NARROW_BANDS
from ojala.models.simulation.photometry.photometer import MIN_COVERAGE, Photometer
from ojala.models.simulation.wavelength_grid import COARSE, FINE

FLUX_UNIT = 1e-17
"""Unit of observed spectra [erg/s/cm2/A]."""

_BRIDGED = 0.1 * NARROW_BANDS[0].fwhm  # gaps in a spectrum that count as covered [Angstrom] ..
_WIDE = np.array([not band.is_narrow and band.fwhm > 1000.0 for band in MODEL_BANDS])
_BRIDGED_WIDE = 0.1 * min(
    band.fwhm for band, wide in zip(MODEL_BANDS, _WIDE, strict=True) if wide
)  # .. by these
_EDGES = np.exp((FINE.first + np.arange(FINE.size + 1) - 0.5) * FINE.step)
_ROWS = 512  # lattice pixels per block of the response


@dataclass(frozen=True, slots=True)
class Exposure:
    """N spectra on the lattice.

    Attributes
    ----------
    fine : ndarray of float32, shape (N, FINE.size)
        f_lambda [1e-17 erg/s/cm2/A], 0 where not observed.
    variance : ndarray of float32, shape (N, FINE.size)
        Variance per pixel, such that sums over pixels have the variance of the spectrum.
    valid : ndarray of bool, shape (N, FINE.size)
        Pixels that the spectrum covers.
    valid_wide : ndarray of bool, shape (N, FINE.size)
        The same for wide bands, for which a masked telluric band is no gap.
    """

    fine: np.ndarray
    variance: np.ndarray
    valid: np.ndarray
    valid_wide: np.ndarray

    def shifted(self, pixels: int) -> Exposure:
        """Shift the spectra by whole pixels: other wavelengths, same fluxes."""
        arrays = (self.fine, self.variance, self.valid, self.valid_wide)
        return Exposure(*(_shift(array, pixels) for array in arrays))


def expose(spectra: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Exposure:
    """Resample spectra to the lattice, conserving flux.

    Gaps narrower than a tenth of a band, narrow or wide, are bridged linearly, as in `Photometer.observe`.

    Parameters
    ----------
    spectra : list of (ndarray, ndarray, ndarray)
        Wavelength [Angstrom], f_lambda [1e-17 erg/s/cm2/A] and inverse variance (0 for unusable pixels) of
        each.
    """
    exposure = Exposure(
        *(np.zeros((len(spectra), FINE.size), kind) for kind in (np.float32, np.float32, bool, bool))
    )
    for k, (wavelength, flux, ivar) in enumerate(spectra):
        usable = ivar > 0.0
        if usable.sum() > 1:
            parts = _on_lattice(
                wavelength[usable].astype(np.float64), flux[usable], ivar[usable].astype(np.float64)
            )
            exposure.fine[k], exposure.variance[k], exposure.valid[k], exposure.valid_wide[k] = parts
    return exposure


def _on_lattice(
    wavelength: np.ndarray, flux: np.ndarray, ivar: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    gap = np.diff(wavelength)
    integral = np.concatenate([[0.0], np.cumsum(0.5 * (flux[1:] + flux[:-1]) * gap)])
    mean = np.diff(np.interp(_EDGES, wavelength, integral)) / np.diff(_EDGES)
    after = np.searchsorted(wavelength, FINE.wavelength)
    within = (after > 0) & (after < len(wavelength))
    near = np.clip(after, 1, len(wavelength) - 1)
    coarsest = 3.0 * float(np.median(gap))
    seen, valid_wide = (within & (gap[near - 1] < max(b, coarsest)) for b in (_BRIDGED, _BRIDGED_WIDE))
    # Pixels are independent: the mean over a stretch has the variance density of its pixels over its length.
    density = np.gradient(wavelength) / ivar
    variance = density[near] / np.diff(_EDGES)
    return np.where(valid_wide, mean, 0.0), np.where(valid_wide, variance, 0.0), seen, valid_wide


def _shift(array: np.ndarray, pixels: int) -> np.ndarray:
    moved = np.zeros_like(array)
    if pixels >= 0:
        moved[:, pixels:] = array[:, : array.shape[1] - pixels]
    else:
        moved[:, :pixels] = array[:, -pixels:]
    return moved


class Camera:
    """Synthetic photometer: the survey's bands as a matrix over the lattice.

    Parameters
    ----------
    photometer : Photometer
        The bands.
    """

    def __init__(self, photometer: Photometer) -> None:
        nothing = np.zeros((_ROWS, COARSE.size), np.float32)
        unit = np.zeros((_ROWS, FINE.size), np.float32)
        blocks = []
        for first in range(0, FINE.size, _ROWS):
            count = min(_ROWS, FINE.size - first)
            unit[:] = 0.0
            unit[np.arange(count), first + np.arange(count)] = FLUX_UNIT
            blocks.append(photometer.continuum(unit[:count], nothing[:count]))
        self._response = np.concatenate(blocks)  # (FINE.size, 63) [uJy]; zero in W1 and W2
        self._weight = self._response / np.maximum(self._response.sum(axis=0), 1e-30)
        inverse_square = (FINE.wavelength**-2.0)[:, None].astype(np.float32)
        self._flat = self._response * inverse_square

    def synthesise_photometry(self, exposure: Exposure) -> tuple[np.ndarray, np.ndarray]:
        """Compute flux densities and their errors from the noise of the spectra.

        Parameters
        ----------
        exposure : Exposure
            N spectra.

        Returns
        -------
        flux, error : ndarray of float32, shape (N, 63)
            f_nu [uJy] in the order of `MODEL_BANDS`; NaN where less than `MIN_COVERAGE` of a band is covered.
        """
        flux = np.empty((len(exposure.fine), len(MODEL_BANDS)), np.float32)
        error = np.empty_like(flux)
        for bands, covered_pixels in ((_WIDE, exposure.valid_wide), (~_WIDE, exposure.valid)):
            seen = covered_pixels.astype(np.float32)
            response, flat = self._response[:, bands], self._flat[:, bands]
            covered = seen @ self._weight[:, bands] >= MIN_COVERAGE
            with np.errstate(divide="ignore", invalid="ignore"):
                scale = np.where(covered, flat.sum(axis=0) / (seen @ flat), np.float32(np.nan))
            flux[:, bands] = ((exposure.fine * seen) @ response) * scale
            error[:, bands] = np.sqrt((exposure.variance * seen) @ response**2) * scale
        return flux, error
