"""Random errors of model spectra: smooth deviations in the rest frame.

Population synthesis, model atmospheres and composite quasars differ from real objects by one to a few per
cent, in features that stay at their rest wavelength (abundance ratios, line lists, flux calibration of the
stellar libraries). A network that is trained on exact models alone takes such a feature for a redshift. Each
draw therefore multiplies its spectrum by a random smooth function of rest wavelength, as the template error
function of EAZY (Brammer et al. 2008) widens the errors of a fit.
"""

from __future__ import annotations

import functools

import numpy as np

from ojala.models.simulation.wavelength_grid import FINE, windows

FIELDS = 256
"""Independent deviations in the bank; a draw combines two of them."""

_SCALES = (
    (0.010, 0.6),
    (0.030, 0.6),
    (0.150, 0.55),
)  # correlation length in ln(wavelength), share of the amplitude
_MEDIAN_STRENGTH = 0.012
_WORSE_BLUEWARD, _WORSE_REDWARD = 3600.0, 8400.0


class ModelErrors:
    """A bank of random relative deviations on the rest-frame lattice.

    Parameters
    ----------
    z_max : float
        Largest redshift to cover.
    """

    def __init__(self, z_max: float) -> None:
        self._first = FINE.rest_first(z_max)
        self._bank = _bank(z_max)

    def apply(self, fine: np.ndarray, shift: np.ndarray, rng: np.random.Generator) -> None:
        """Multiply observed windows, in place, by deviations fixed in the rest frame.

        Parameters
        ----------
        fine : ndarray of float32, shape (N, FINE.size)
            Spectra on the observed window.
        shift : ndarray of int, shape (N,)
            Redshift of each in pixels.
        rng : Generator
            Source of randomness; the strength of the deviations is lognormal about one per cent.
        """
        n = len(fine)
        strength = np.exp(rng.normal(0.0, 0.5, n)).astype(np.float32)
        angle = rng.uniform(0.0, 2.0 * np.pi, n)
        for part in (np.cos(angle), np.sin(angle)):
            deviation = windows(self._bank, self._first, rng.integers(0, FIELDS, n), shift, FINE)
            deviation *= (strength * part.astype(np.float32))[:, None]
            deviation += np.float32(1.0)
            fine *= deviation


@functools.cache
def _bank(z_max: float) -> np.ndarray:
    """Make the bank of deviations, with a fixed seed; float32 (FIELDS, P)."""
    rng = np.random.default_rng(81)
    wavelength = FINE.rest_wavelength(z_max)
    bank = np.zeros((FIELDS, len(wavelength)))
    for length, share in _SCALES:
        bank += share * _smooth_noise(FIELDS, len(wavelength), length / FINE.step, rng)
    envelope = 1.0 + 2.0 * np.clip(np.log(_WORSE_BLUEWARD / wavelength) / 0.3, 0.0, 1.0)
    envelope += np.clip(np.log(wavelength / _WORSE_REDWARD) / 0.1, 0.0, 1.0)
    out = (_MEDIAN_STRENGTH * envelope * bank).astype(np.float32)
    out.flags.writeable = False
    return out


def _smooth_noise(rows: int, size: int, length: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian random functions of unit variance, correlated over ``length`` pixels; shape (rows, size)."""
    padded = size + int(8 * length)
    frequency = np.fft.rfftfreq(padded)
    response = np.exp(-2.0 * (np.pi * frequency * length) ** 2)
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal((rows, padded))) * response, padded)[:, :size]
    return np.asarray(noise / np.sqrt(np.sum(response**2) * 2.0 / padded))
