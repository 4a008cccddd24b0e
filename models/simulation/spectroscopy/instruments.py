"""Spectrographs: wavelengths, line spread functions and noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from ojala.models.simulation.spectroscopy.night_sky import DESI_LEVEL, SDSS_LEVEL, noise_shape

_FWHM = 2.3548  # of a Gaussian, in standard deviations
_GALAH_WINDOWS = ((4713.0, 4903.0), (5648.0, 5873.0), (6478.0, 6737.0), (7585.0, 7887.0))


@dataclass(frozen=True, eq=False)
class Instrument:
    """A spectrograph in a typical exposure.

    Attributes
    ----------
    name : str
        Survey.
    wavelength : ndarray of float64, shape (P,)
        Vacuum wavelength of each pixel [Angstrom], increasing; gaps are left out.
    sigma : ndarray, shape (P,)
        Standard deviation of the line spread function [Angstrom].
    noise : ndarray, shape (P,)
        Standard deviation without an object [1e-17 erg/s/cm2/A] of a typical exposure in dark time.
    quiet : ndarray, shape (P,)
        The same without sky lines, for the photon noise of objects.
    sky : float
        Flux density of an object [1e-17 erg/s/cm2/A] that doubles the variance ``quiet`` squared.
    bright_time : float
        Factor of the noise in exposures of bright objects.
    calibration : float
        Standard deviation of smooth relative errors of flux calibration.
    relative : bool
        Whether fluxes have an arbitrary scale.
    """

    name: str
    wavelength: np.ndarray
    sigma: np.ndarray
    noise: np.ndarray
    quiet: np.ndarray
    sky: float
    bright_time: float
    calibration: float
    relative: bool = False


def _desi() -> Instrument:
    """DESI's coadds, arms joined: 7,781 pixels of 0.8 A; R from 2000 in the blue to 5000 in the red."""
    wavelength = np.round(3600.0 + 0.8 * np.arange(7781), 1)
    arms = (
        (3600.0, 5800.0, 2000.0, 3200.0),
        (5760.0, 7620.0, 3200.0, 4600.0),
        (7520.0, 9824.0, 4000.0, 5100.0),
    )
    power = np.zeros(len(wavelength))
    for blue, red, first, last in arms:  # where two overlap, the blue arm's
        inside = (wavelength >= blue) & (power == 0.0)
        power[inside] = np.interp(wavelength[inside], (blue, red), (first, last))
        power[wavelength > red] = 0.0
    return _exposed("DESI", wavelength, power, DESI_LEVEL, 0.24, 1.5, bright_time=2.4, calibration=0.02)


def _exposed(
    name: str,
    wavelength: np.ndarray,
    power: np.ndarray,
    level: tuple[tuple[float, float], ...],
    noise: float,
    sky: float,
    *,
    calibration: float,
    bright_time: float = 1.0,
    relative: bool = False,
) -> Instrument:
    """Make an instrument of resolving power ``power`` with the noise of ``level`` and of the night sky."""
    sigma = wavelength / power / _FWHM
    at, value = np.array(level).T
    quiet = noise * np.exp(np.interp(wavelength, at, np.log(value)))
    return Instrument(
        name=name,
        wavelength=wavelength,
        sigma=sigma,
        noise=noise * noise_shape(wavelength, sigma, level),
        quiet=quiet,
        sky=sky,
        bright_time=bright_time,
        calibration=calibration,
        relative=relative,
    )


def _log_grid(blue: float, red: float, step: float = 1e-4) -> np.ndarray:
    """Pixels even in log10(wavelength), by default as SDSS and LAMOST have them."""
    first, last = round(np.log10(blue) / step), round(np.log10(red) / step)
    return np.asarray(10.0 ** (step * np.arange(first, last + 1)))


def _instruments() -> dict[str, Instrument]:
    sdss, lamost = _log_grid(3600.0, 10400.0), _log_grid(3700.0, 9100.0)
    galah = np.concatenate([np.linspace(*ends, 2048) for ends in _GALAH_WINDOWS])
    made = (
        _desi(),
        _exposed(
            "SDSS",
            sdss,
            np.interp(sdss, (3600.0, 6000.0, 6001.0, 10400.0), (1500.0, 2000.0, 1900.0, 2600.0)),
            SDSS_LEVEL,
            0.6,
            2.0,
            calibration=0.04,
        ),
        _exposed(
            "LAMOST",
            lamost,
            np.full(len(lamost), 1800.0),
            SDSS_LEVEL,
            4.0,
            6.0,
            calibration=0.2,
            relative=True,
        ),
        _exposed(
            "GALAH",
            galah,
            np.full(len(galah), 28000.0),
            SDSS_LEVEL,
            4.0,
            20.0,
            calibration=0.2,
            relative=True,
        ),
    )
    return {instrument.name: instrument for instrument in made}


INSTRUMENTS: Mapping[str, Instrument] = MappingProxyType(_instruments())
"""DESI; SDSS and BOSS; LAMOST at low resolution; the four windows of GALAH.

GALAH's windows have 2,048 pixels each of 0.09 to 0.15 A, two of the instrument's own in one, and its
resolving power of 28000. The library's spectra have pixels of 3e-4 in ln(wavelength) and a resolving power of
at most 2000 (stars from model atmospheres: some 300), which no instrument sharpens. Emission lines of
galaxies, narrow lines and the strongest absorption lines of stars with parameters
(`ojala.models.simulation.spectroscopy.stellar_lines`) alone have each instrument's resolution. LAMOST's and
GALAH's fluxes are relative, with errors of calibration of 20 %."""
