"""Inputs of the network: spectra in patches of pixels, without resampling.

A spectrum is divided by its brightness and split into patches of equal numbers of pixels. The brightness is
the median flux or the median error of the usable pixels, whichever is larger: for spectra with signal the
published division by the median, for others the noise.

The features of a pixel are ``asinh(f / hypot(1, e))`` and ``e / hypot(1, e)`` with flux f and error e over
the brightness: flux and error as published for small errors, while a pixel of pure noise tends to (0, 1), the
features of a bad pixel, whose error is infinite.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ojala.models.data import Spectra

PERIODS = (2.0, 2e5)
"""Shortest and longest period of the wavelength code [Angstrom]; shorter ones average out in a patch, longer
ones do not separate optical and near-infrared wavelengths."""

MAX_FLUX = 12.0
"""Bound of the asinh of a pixel: 80,000 times the brightness."""

SLOT_STEP = 16
"""Spectra are batched by their number of readable patches, rounded up to a multiple of this."""

TYPICAL_SLOTS = 128
"""Patches of a DESI spectrum; longer spectra have smaller batches, since attention is quadratic."""

_CACHED_GRIDS = 64


@dataclass(frozen=True, slots=True, eq=False)
class PatchedSpectrum:
    """One spectrum in S patches of P pixels; the last patch is padded with bad pixels.

    Attributes
    ----------
    flux, error : ndarray of float32, shape (S, P)
        In units of the brightness; infinite error and zero flux for bad pixels.
    code : ndarray of float32, shape (S, C)
        Wavelength code of each patch, see `wavelength_code`.
    brightness : float
        Unit of flux and error [unit of the spectrum]; NaN without usable pixels.
    n_pixels : int
        Number of usable pixels.
    signal_to_noise : float
        Median flux over error of the usable pixels; NaN without any.
    positive : bool
        Whether the median flux is positive.
    """

    flux: np.ndarray
    error: np.ndarray
    code: np.ndarray
    brightness: float
    n_pixels: int
    signal_to_noise: float
    positive: bool

    @property
    def valid(self) -> np.ndarray:
        """Patches with at least half of the pixels usable; bool, shape (S,)."""
        return np.asarray(2 * np.isfinite(self.error).sum(axis=1) >= self.error.shape[1])

    def select(self, patches: np.ndarray) -> PatchedSpectrum:
        """Select patches, without a change of the brightness."""
        return replace(self, flux=self.flux[patches], error=self.error[patches], code=self.code[patches])

    def rescaled(self, factor: float) -> PatchedSpectrum:
        """Multiply the brightness by a factor."""
        flux, error = self.flux / np.float32(factor), self.error / np.float32(factor)
        return replace(self, flux=flux, error=error, brightness=self.brightness * factor)

    def relative_brightness(self) -> float:
        """Brightness of the usable pixels, of which there must be some, over ``brightness``."""
        usable = np.isfinite(self.error)
        return _brightness(self.flux[usable], self.error[usable])


class Patches(NamedTuple):
    """Patches of N spectra, padded to S each.

    Attributes
    ----------
    pixels : Tensor, shape (N, S, 2 P)
        Features of the pixels: fluxes, then errors (see the module).
    code : Tensor, shape (N, S, C)
        Wavelength code.
    valid : Tensor of bool, shape (N, S)
        Patches that are not padding.
    """

    pixels: Tensor
    code: Tensor
    valid: Tensor

    def to(self, device: torch.device | str) -> Patches:
        """Copy to another device."""
        return Patches(*(part.to(device, non_blocking=True) for part in self))


def patchify(spectra: Spectra, size: int, code_width: int) -> list[PatchedSpectrum]:
    """Split spectra into patches of ``size`` pixels, with wavelength codes of length ``code_width``."""
    return [_patchify(*spectrum, size, code_width) for spectrum in spectra]


def _patchify(
    wavelength: np.ndarray, flux: np.ndarray, ivar: np.ndarray, size: int, code_width: int
) -> PatchedSpectrum:
    good = (ivar > 0.0) & np.isfinite(ivar) & np.isfinite(flux) & (wavelength > 0.0) & np.isfinite(wavelength)
    n_pixels = int(good.sum())
    error = np.full(len(flux), np.inf, np.float32)
    error[good] = ivar[good] ** -0.5
    brightness = signal_to_noise = median = math.nan
    flux = np.where(good, flux, np.float32(0.0))
    if n_pixels:
        median = float(np.median(flux[good]))
        brightness = _brightness(flux[good], error[good])
        signal_to_noise = float(np.median(flux[good] / error[good]))
        flux, error = flux / np.float32(brightness), error / np.float32(brightness)
    missing = -len(flux) % size
    return PatchedSpectrum(
        np.pad(flux, (0, missing)).reshape(-1, size),
        np.pad(error, (0, missing), constant_values=np.inf).reshape(-1, size),
        _code_of_grid(np.asarray(wavelength, np.float32).tobytes(), size, code_width),
        brightness,
        n_pixels,
        signal_to_noise,
        median > 0.0,
    )


def _brightness(flux: np.ndarray, error: np.ndarray) -> float:
    return max(float(np.median(flux)), float(np.median(error)))


@functools.lru_cache(maxsize=_CACHED_GRIDS)
def _code_of_grid(grid: bytes, size: int, code_width: int) -> np.ndarray:
    """Wavelength code of the patches of a grid, cached: spectra of one instrument share a grid."""
    return wavelength_code(np.frombuffer(grid, np.float32), size, code_width)


def wavelength_code(wavelength: np.ndarray, size: int, width: int) -> np.ndarray:
    """Mean over each patch of the sines and cosines of its pixels' wavelengths.

    The periods are logarithmically spaced over `PERIODS`. The code contains position and width of a patch:
    short periods average out over a wide one.

    Parameters
    ----------
    wavelength : ndarray, shape (P,)
        [Angstrom]
    size : int
        Pixels in a patch.
    width : int
        Length of a code, even.

    Returns
    -------
    ndarray of float32, shape (ceil(P / size), width)
    """
    starts = np.arange(0, len(wavelength), size)
    if not len(starts):
        return np.empty((0, width), np.float32)
    turns = wavelength.astype(np.float64)[:, None] / np.geomspace(*PERIODS, width // 2)
    phase = (2.0 * np.pi * (turns % 1.0)).astype(np.float32)
    waves = np.concatenate([np.sin(phase), np.cos(phase)], axis=1)
    counts = np.diff(np.append(starts, len(wavelength)))
    mean = np.add.reduceat(waves, starts, axis=0) / counts[:, None]
    return np.asarray(np.nan_to_num(mean), np.float32)


def collate(spectra: Iterable[PatchedSpectrum], slots: int) -> Patches:
    """Collate spectra of at most ``slots`` patches into a padded batch."""
    spectra = list(spectra)
    n, size, width = len(spectra), spectra[0].flux.shape[1], spectra[0].code.shape[1]
    pixels = np.zeros((n, slots, 2 * size), np.float32)
    code = np.zeros((n, slots, width), np.float32)
    valid = np.zeros((n, slots), bool)
    for row, one in enumerate(spectra):
        own = slice(len(one.flux))
        pixels[row, own] = _pixel_features(one)
        code[row, own] = one.code
        valid[row, own] = one.valid
    return Patches(torch.from_numpy(pixels), torch.from_numpy(code), torch.from_numpy(valid))


def batches_by_length(
    spectra: list[PatchedSpectrum], batch_size: int, device: torch.device | str
) -> Iterator[tuple[np.ndarray, Patches]]:
    """Iterate over rows with readable patches, in padded batches of one size per length.

    Parameters
    ----------
    spectra : list of PatchedSpectrum
        Spectra of any lengths.
    batch_size : int
        Rows of a batch of spectra of up to `TYPICAL_SLOTS` patches; the last batch of each length is padded
        with copies of its first spectrum.
    device
        Device of the patches.
    """
    lengths = defaultdict(list)
    for row, one in enumerate(spectra):
        if readable := int(one.valid.sum()):
            lengths[SLOT_STEP * -(-readable // SLOT_STEP)].append(row)
    for slots, rows in lengths.items():
        size = max(1, min(batch_size, batch_size * TYPICAL_SLOTS**2 // slots**2))
        for begin in range(0, len(rows), size):
            chosen = rows[begin : begin + size]
            filled = [spectra[row].select(spectra[row].valid) for row in chosen]
            filled += filled[:1] * (size - len(filled))
            yield np.array(chosen), collate(filled, slots).to(device)


def _pixel_features(one: PatchedSpectrum) -> np.ndarray:
    """Features of the pixels of each patch, shape (S, 2 P)."""
    with np.errstate(invalid="ignore", over="ignore"):
        total = np.hypot(np.float32(1.0), one.error)
        flux = np.arcsinh(one.flux / total).clip(-MAX_FLUX, MAX_FLUX)
        error = np.where(np.isfinite(total), one.error / total, np.float32(1.0))
    return np.concatenate([flux, error], axis=1)
