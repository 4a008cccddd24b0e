"""Spectra cut into patches of pixels, as the network reads them.

A spectrum is divided by a brightness of its own, then cut into patches of equal numbers of pixels on the
wavelengths that it came with; nothing is resampled. The brightness is the median flux or the median error of
the usable pixels, whichever is larger: where there is signal this is the published division by the median,
and a spectrum whose median is zero or negative is measured in units of its noise.

A pixel is read as ``asinh(f / hypot(1, e))`` and ``e / hypot(1, e)`` with f and e its flux and error over the
brightness: flux and error as published where the error is small, while a pixel that is all noise fades to
(0, 1), which is also what a bad pixel is: one of infinite error.
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
"""Shortest and longest period of the wavelength code [Angstrom]; shorter ones average to nothing in a patch,
longer ones tell no two optical or near-infrared wavelengths apart."""

MAX_FLUX = 12.0
"""Bound of a pixel's asinh: 80,000 times the brightness."""

SLOT_STEP = 16
"""Spectra are batched by their number of readable patches, rounded up to a multiple of this."""

USUAL_SLOTS = 128
"""Patches of a DESI spectrum; longer spectra come in smaller batches, as attention grows with the square."""

_GRIDS_KEPT = 64


@dataclass(frozen=True, slots=True, eq=False)
class PatchedSpectrum:
    """One spectrum in S patches of P pixels; the last one is filled up with bad pixels.

    Attributes
    ----------
    flux, error : ndarray of float32, shape (S, P)
        Over the brightness; error is infinite and flux zero where a pixel is bad.
    code : ndarray of float32, shape (S, C)
        Wavelength code of each patch, see `wavelength_code`.
    brightness : float
        What flux and error were divided by [unit of the flux]; NaN where no pixel is usable.
    n_pixels : int
        Usable pixels.
    signal_to_noise : float
        Median flux over error of the usable pixels, NaN where there is none.
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
        """Patches of which at least half of the pixels are usable; bool, shape (S,)."""
        return np.asarray(2 * np.isfinite(self.error).sum(axis=1) >= self.error.shape[1])

    def kept(self, patches: np.ndarray) -> PatchedSpectrum:
        """The same spectrum with some of its patches, still over the brightness of the whole."""
        return replace(self, flux=self.flux[patches], error=self.error[patches], code=self.code[patches])

    def dimmed(self, factor: float) -> PatchedSpectrum:
        """The same spectrum over a brightness that is larger by a factor."""
        flux, error = self.flux / np.float32(factor), self.error / np.float32(factor)
        return replace(self, flux=flux, error=error, brightness=self.brightness * factor)

    def own_brightness(self) -> float:
        """Brightness of these patches' usable pixels, of which there must be some, over that of the whole."""
        usable = np.isfinite(self.error)
        return _brightness(self.flux[usable], self.error[usable])


class Patches(NamedTuple):
    """Patches of N spectra, padded to S each.

    Attributes
    ----------
    pixels : Tensor, shape (N, S, 2 P)
        What is read of the pixels: fluxes, then errors (see the module).
    code : Tensor, shape (N, S, C)
        Wavelength code.
    valid : Tensor of bool, shape (N, S)
        Which patches are read at all.
    """

    pixels: Tensor
    code: Tensor
    valid: Tensor

    def to(self, device: torch.device | str) -> Patches:
        """The same patches on another device."""
        return Patches(*(part.to(device, non_blocking=True) for part in self))


def patchify(spectra: Spectra, size: int, code_width: int) -> list[PatchedSpectrum]:
    """Cut each spectrum into patches of ``size`` pixels, with wavelength codes of ``code_width`` numbers."""
    return [_patchify(*spectrum, size, code_width) for spectrum in spectra]


def _patchify(
    wavelength: np.ndarray, flux: np.ndarray, ivar: np.ndarray, size: int, code_width: int
) -> PatchedSpectrum:
    good = (ivar > 0.0) & np.isfinite(ivar) & np.isfinite(flux) & (wavelength > 0.0) & np.isfinite(wavelength)
    n_pixels = int(good.sum())
    error = np.full(len(flux), np.inf, np.float32)
    error[good] = ivar[good] ** -0.5
    brightness = signal_to_noise = middle = math.nan
    flux = np.where(good, flux, np.float32(0.0))
    if n_pixels:
        middle = float(np.median(flux[good]))
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
        middle > 0.0,
    )


def _brightness(flux: np.ndarray, error: np.ndarray) -> float:
    return max(float(np.median(flux)), float(np.median(error)))


@functools.lru_cache(maxsize=_GRIDS_KEPT)
def _code_of_grid(grid: bytes, size: int, code_width: int) -> np.ndarray:
    """Code of a grid's patches; kept, since the spectra of many instruments share one grid."""
    return wavelength_code(np.frombuffer(grid, np.float32), size, code_width)


def wavelength_code(wavelength: np.ndarray, size: int, width: int) -> np.ndarray:
    """Mean over each patch of the sines and cosines of its pixels' wavelengths.

    The periods are logarithmically spaced over `PERIODS`. Besides where a patch lies, the code says how far
    it reaches: short periods average out over a wide patch.

    Parameters
    ----------
    wavelength : ndarray, shape (P,)
        [Angstrom]
    size : int
        Pixels in a patch.
    width : int
        Numbers in a code, even.

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


def gather(cuts: Iterable[PatchedSpectrum], slots: int) -> Patches:
    """Patches of spectra that have no more than ``slots`` each, as a batch."""
    cuts = list(cuts)
    size, width = cuts[0].flux.shape[1], cuts[0].code.shape[1]
    pixels = np.zeros((len(cuts), slots, 2 * size), np.float32)
    code = np.zeros((len(cuts), slots, width), np.float32)
    valid = np.zeros((len(cuts), slots), bool)
    for row, one in enumerate(cuts):
        n = len(one.flux)
        pixels[row, :n] = _read(one)
        code[row, :n] = one.code
        valid[row, :n] = one.valid
    return Patches(torch.from_numpy(pixels), torch.from_numpy(code), torch.from_numpy(valid))


def in_batches(
    cuts: list[PatchedSpectrum], batch_size: int, device: torch.device | str
) -> Iterator[tuple[np.ndarray, Patches]]:
    """Rows with readable patches, and these patches, in padded batches of one size for each length.

    Parameters
    ----------
    cuts : list of PatchedSpectrum
        Spectra of any lengths.
    batch_size : int
        Rows of a batch of spectra of up to `USUAL_SLOTS` patches; the last batch of each length is filled up
        with repetitions of its first spectrum.
    device
        Where the patches are wanted.
    """
    lengths = defaultdict(list)
    for row, one in enumerate(cuts):
        if readable := int(one.valid.sum()):
            lengths[SLOT_STEP * -(-readable // SLOT_STEP)].append(row)
    for slots, rows in lengths.items():
        size = max(1, min(batch_size, batch_size * USUAL_SLOTS**2 // slots**2))
        for begin in range(0, len(rows), size):
            chosen = rows[begin : begin + size]
            filled = [cuts[row].kept(cuts[row].valid) for row in chosen]
            filled += filled[:1] * (size - len(filled))
            yield np.array(chosen), gather(filled, slots).to(device)


def _read(one: PatchedSpectrum) -> np.ndarray:
    """What the network sees of each patch, shape (S, 2 P)."""
    with np.errstate(invalid="ignore", over="ignore"):
        total = np.hypot(np.float32(1.0), one.error)
        flux = np.arcsinh(one.flux / total).clip(-MAX_FLUX, MAX_FLUX)
        error = np.where(np.isfinite(total), one.error / total, np.float32(1.0))
    return np.concatenate([flux, error], axis=1)
