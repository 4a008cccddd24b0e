"""Inputs of the network: patches of images, and brightness features of spectra.

The features of a pixel are ``asinh(f / max(1, e))`` and ``1 / hypot(1, e)`` with flux f and error e in units
of `UNIT`, about the noise of a typical image: fluxes stay absolute, which preserves magnitude and colour, and
a pixel of pure noise tends to (0, 0), the features of a bad pixel.
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
"""Unit of the pixels in g, r and z [uJy]."""

TYPICAL_FWHM = 1.2
"""Typical width of a point-spread function [arcsec]."""

_BANDS = len(CUTOUT_BANDS)
_SIDE = SIZE // PATCH
N_PATCHES = _SIDE**2
PATCH_PIXELS = _BANDS * PATCH**2
PATCH_FEATURES = 2 * PATCH_PIXELS
EXPOSURE_FEATURES = 3 * _BANDS


class ImagePatches(NamedTuple):
    """Patches of N images, S each.

    Attributes
    ----------
    pixels : Tensor, shape (N, S, 2 * 192)
        Features of the pixels: fluxes, then errors (see the module), bands outermost.
    place : Tensor of int64, shape (N, S)
        Position of the patch in the image, counted along rows.
    valid : Tensor of bool, shape (N, S)
        Patches that have a usable pixel.
    exposure : Tensor, shape (N, 9)
        By band: ln of the width of the point-spread function over `TYPICAL_FWHM` (0 where not known), 1 where
        it is known, 1 where the band has a usable pixel.
    """

    pixels: Tensor
    place: Tensor
    valid: Tensor
    exposure: Tensor

    def to(self, device: torch.device | str) -> ImagePatches:
        """Copy to another device."""
        return ImagePatches(*(part.to(device, non_blocking=True) for part in self))

    def select(self, chosen: Tensor) -> ImagePatches:
        """Select patches of each image by their indices (N, T)."""
        wide = chosen.unsqueeze(-1).expand(-1, -1, self.pixels.shape[-1])
        return self._replace(
            pixels=self.pixels.gather(1, wide),
            place=self.place.gather(1, chosen),
            valid=self.valid.gather(1, chosen),
        )


def scaled_pixels(images: Images) -> tuple[np.ndarray, np.ndarray]:
    """Flux and error of pixels over `UNIT`, (N, 3, 64, 64) each; 0 and infinity for bad pixels."""
    good = (images.ivar > 0.0) & np.isfinite(images.ivar) & np.isfinite(images.flux)
    error = np.where(
        good, np.where(good, images.ivar, np.float32(1.0)) ** np.float32(-0.5), np.float32(np.inf)
    )
    unit = UNIT[:, None, None]
    return np.where(good, images.flux, np.float32(0.0)) / unit, error / unit


def to_patches(pixels: np.ndarray) -> np.ndarray:
    """Split (N, 3, 64, 64) into patches (N, 64, 3 * 64): patches by rows, then bands, then pixels by rows."""
    n = len(pixels)
    blocks = pixels.reshape(n, _BANDS, _SIDE, PATCH, _SIDE, PATCH).transpose(0, 2, 4, 1, 3, 5)
    return np.ascontiguousarray(blocks).reshape(n, N_PATCHES, PATCH_PIXELS)


def patchify_images(images: Images) -> ImagePatches:
    """Split images into patches."""
    flux, error = scaled_pixels(images)
    scaled = np.arcsinh(flux / np.maximum(error, np.float32(1.0)))
    weight = 1.0 / np.hypot(np.float32(1.0), error)
    usable = np.isfinite(error)
    pixels = np.concatenate([to_patches(scaled), to_patches(weight)], axis=-1)
    place = np.broadcast_to(np.arange(N_PATCHES), pixels.shape[:2])
    known = np.isfinite(images.psf_fwhm) & (images.psf_fwhm > 0.0)
    width = np.log(np.where(known, images.psf_fwhm, TYPICAL_FWHM) / TYPICAL_FWHM)
    exposure = np.concatenate([width, known, usable.any(axis=(2, 3))], axis=1)
    return ImagePatches(
        torch.from_numpy(pixels),
        torch.from_numpy(place.copy()),
        torch.from_numpy(to_patches(usable).any(axis=-1)),
        torch.from_numpy(exposure.astype(np.float32)),
    )


LOG_BRIGHTNESS_RANGE = (-4.0, 5.0)
"""Bounds of log10 of the brightness [1e-17 erg/s/cm2/Angstrom]."""


def brightness_features(spectra: Sequence[PatchedSpectrum]) -> Tensor:
    """Compute log10 of the brightness and 1, or 0 and 0 where it is not known; float32, shape (N, 2)."""
    brightness = np.array([one.brightness for one in spectra], np.float64)
    known = np.isfinite(brightness) & (brightness > 0.0)
    log = np.log10(np.where(known, brightness, 1.0)).clip(*LOG_BRIGHTNESS_RANGE)
    return torch.from_numpy(np.stack([log, known], axis=1).astype(np.float32).reshape(-1, 2))
