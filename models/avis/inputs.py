"""Images cut into patches of pixels, as the network reads them.

A pixel is read as ``asinh(f / max(1, e))`` and ``1 / hypot(1, e)`` with f and e its flux and error in units
of `UNIT`, about the noise of a usual image: fluxes stay absolute, so that magnitude and colour are there to
be read, and a pixel that is all noise fades to (0, 0), which is also what a bad pixel is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ojala.catalogs_schema.cutouts import CUTOUT_BANDS, SIZE
from ojala.models.data import Images
from ojala.models.spectral_tokenizer.patches import PatchedSpectrum

PATCH = 8
"""Pixels along a side of a patch."""

UNIT = np.array([0.010, 0.023, 0.057], np.float32)
"""Flux in g, r and z in which pixels are measured [uJy]."""

FWHM = 1.2
"""Width of a usual point-spread function [arcsec]."""

_BANDS = len(CUTOUT_BANDS)
_SIDE = SIZE // PATCH
N_PATCHES = _SIDE**2
PATCH_PIXELS = _BANDS * PATCH**2
NUMBERS = 2 * PATCH_PIXELS
EXPOSURE = 3 * _BANDS


class ImagePatches(NamedTuple):
    """Patches of N images, S each.

    Attributes
    ----------
    pixels : Tensor, shape (N, S, 2 * 192)
        What is read of the pixels: fluxes, then errors (see the module), bands outermost.
    place : Tensor of int64, shape (N, S)
        Where in the image the patch lies, counted along rows.
    valid : Tensor of bool, shape (N, S)
        Patches that have a usable pixel.
    exposure : Tensor, shape (N, 9)
        By band: ln of the point-spread function's width over `FWHM` (0 where not known), whether it is
        known, whether the band has a usable pixel.
    """

    pixels: Tensor
    place: Tensor
    valid: Tensor
    exposure: Tensor

    def to(self, device: torch.device | str) -> ImagePatches:
        """The same patches on another device."""
        return ImagePatches(*(part.to(device, non_blocking=True) for part in self))

    def kept(self, chosen: Tensor) -> ImagePatches:
        """Only some patches of each image: their indices (N, T)."""
        wide = chosen.unsqueeze(-1).expand(-1, -1, self.pixels.shape[-1])
        return self._replace(
            pixels=self.pixels.gather(1, wide),
            place=self.place.gather(1, chosen),
            valid=self.valid.gather(1, chosen),
        )


def measured(images: Images) -> tuple[np.ndarray, np.ndarray]:
    """Flux and error of each pixel over `UNIT`, (N, 3, 64, 64) both; 0 and infinity where it is bad."""
    good = (images.ivar > 0.0) & np.isfinite(images.ivar) & np.isfinite(images.flux)
    error = np.where(
        good, np.where(good, images.ivar, np.float32(1.0)) ** np.float32(-0.5), np.float32(np.inf)
    )
    unit = UNIT[:, None, None]
    return np.where(good, images.flux, np.float32(0.0)) / unit, error / unit


def in_patches(pixels: np.ndarray) -> np.ndarray:
    """(N, 3, 64, 64) -> (N, 64, 3 * 64): patches along rows, then bands, then pixels along rows."""
    n = len(pixels)
    blocks = pixels.reshape(n, _BANDS, _SIDE, PATCH, _SIDE, PATCH).transpose(0, 2, 4, 1, 3, 5)
    return np.ascontiguousarray(blocks).reshape(n, N_PATCHES, PATCH_PIXELS)


def read_images(images: Images) -> ImagePatches:
    """All patches of images."""
    flux, error = measured(images)
    seen = np.arcsinh(flux / np.maximum(error, np.float32(1.0)))
    weight = 1.0 / np.hypot(np.float32(1.0), error)
    usable = np.isfinite(error)
    pixels = np.concatenate([in_patches(seen), in_patches(weight)], axis=-1)
    place = np.broadcast_to(np.arange(N_PATCHES), pixels.shape[:2])
    known = np.isfinite(images.psf_fwhm) & (images.psf_fwhm > 0.0)
    width = np.log(np.where(known, images.psf_fwhm, FWHM) / FWHM)
    exposure = np.concatenate([width, known, usable.any(axis=(2, 3))], axis=1)
    return ImagePatches(
        torch.from_numpy(pixels),
        torch.from_numpy(place.copy()),
        torch.from_numpy(in_patches(usable).any(axis=-1)),
        torch.from_numpy(exposure.astype(np.float32)),
    )


RANGE = (-4.0, 5.0)
"""Bounds of log10 of the brightness [1e-17 erg/s/cm2/Angstrom]."""


def brightness_features(cuts: Sequence[PatchedSpectrum]) -> Tensor:
    """log10 of the brightness, and whether it is known (0 and 0 where not); float32, shape (N, 2)."""
    brightness = np.array([one.brightness for one in cuts], np.float64)
    known = np.isfinite(brightness) & (brightness > 0.0)
    log = np.log10(np.where(known, brightness, 1.0)).clip(*RANGE)
    return torch.from_numpy(np.stack([log, known], axis=1).astype(np.float32).reshape(-1, 2))
