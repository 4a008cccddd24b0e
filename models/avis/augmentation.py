"""Training batches of AVIS: augmented pairs with part of their patches masked.

Batches contain no labels. Each side of a pair is degraded first: more noise, another calibration, a missing
band or seeing, lost pixels, a rotated and shifted image. Then patches are masked, and some, masked or not,
are targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ojala.catalogs_schema.cutouts import SIZE
from ojala.models.avis.inputs import (
    N_PATCHES,
    PATCH,
    ImagePatches,
    brightness_features,
    patchify_images,
    scaled_pixels,
    to_patches,
)
from ojala.models.data import Images, Pairs, Spectra
from ojala.models.settings import checked
from ojala.models.spectral_tokenizer.masking import collate_targets, mask
from ojala.models.spectral_tokenizer.network import TokenizerConfig
from ojala.models.spectral_tokenizer.patches import PatchedSpectrum, Patches, collate, patchify

IMAGE_ERROR = 0.05
"""Error of asinh of a pixel's flux that is added in quadrature to the pixel's own."""

CENTRE = 24.0
"""Side of the central square whose patches stay visible with ``keep_centre`` [pixels]."""


@checked
@dataclass(frozen=True, slots=True)
class AugmentationSettings:
    """Settings of augmentation and masking.

    Attributes
    ----------
    spectrum_visible, image_visible : tuple of float
        Lower and upper limit of the fraction of visible patches; the fraction of a batch is uniform between.
    p_unmasked : float
        Fraction of the batches in which all patches are visible.
    target_fraction : float
        Fraction of the patches of each side that are targets.
    p_bottleneck : float
        Fraction of the pairs whose sides are reconstructed from their embeddings alone.
    keep_centre : bool
        Mask no patch of the image near the object.
    noise : float
        Scatter of the added noise over the own noise, for half of the spectra and images.
    tilt : float
        Scatter of ln(flux) of a spectrum's calibration at its ends.
    no_brightness, no_psf, no_band : float
        Probabilities that the spectrum's brightness, the seeing, a band is missing.
    move : int
        Largest shift of an image along each axis [pixels].
    off_centre, max_off_centre : float, int
        Fraction of the images that are shifted further, as cut-outs at the edge of their coadd are, and the
        largest shift along each axis [pixels]; what leaves on one side enters on the other.
    lost : float
        Fraction of the images with a lost rectangle of random size in one band, which may cover the object.
    """

    spectrum_visible: tuple[float, float] = (0.3, 0.7)
    image_visible: tuple[float, float] = (0.35, 0.75)
    p_unmasked: float = 0.1
    target_fraction: float = 0.25
    p_bottleneck: float = 0.4
    keep_centre: bool = True
    noise: float = 0.7
    tilt: float = 0.05
    no_brightness: float = 0.2
    no_psf: float = 0.1
    no_band: float = 0.05
    move: int = 3
    off_centre: float = 0.0
    max_off_centre: int = 24
    lost: float = 0.0


class Targets(NamedTuple):
    """Target patches of one side of N pairs: ``where`` (N, T, ...), ``flux`` and ``weight`` (N, T, P).

    ``where`` are wavelength codes or indices of patches; ``weight`` is the inverse of the flux's error, zero
    where a pixel is bad.
    """

    where: Tensor
    flux: Tensor
    weight: Tensor


class TrainingBatch(NamedTuple):
    """N pairs whose spectra have one length.

    Attributes
    ----------
    spectra, brightness : Patches, Tensor of shape (N, 2)
        Visible patches of the spectra, and their brightness features.
    images : ImagePatches
        Visible patches of the images.
    of_spectra, of_images : Targets
        Target patches.
    second_view : Patches or None
        Visible patches of a second, independent augmentation of the spectra, without their brightness.
    """

    spectra: Patches
    brightness: Tensor
    images: ImagePatches
    of_spectra: Targets
    of_images: Targets
    second_view: Patches | None = None

    def to(self, device: torch.device | str) -> TrainingBatch:
        """Copy to another device."""
        return TrainingBatch(
            self.spectra.to(device),
            self.brightness.to(device),
            self.images.to(device),
            Targets(*(part.to(device) for part in self.of_spectra)),
            Targets(*(part.to(device) for part in self.of_images)),
            None if self.second_view is None else self.second_view.to(device),
        )


def make_training_batch(
    pairs: Pairs,
    shape: TokenizerConfig,
    config: AugmentationSettings,
    rng: np.random.Generator,
    *,
    second_view: bool = False,
) -> TrainingBatch:
    """Augment and mask pairs, and choose the targets.

    Parameters
    ----------
    pairs : Pairs
        N pairs; those whose spectrum has no readable patch, or whose image has no usable pixel, are left out.
    shape : TokenizerConfig
        Shape of the spectrum's tower.
    config : AugmentationSettings
        Settings.
    rng : Generator
        Source of randomness.
    second_view : bool
        Make a second augmentation of the spectra.
    """
    spectra = _augmented(pairs.spectra, shape, config, rng)
    images = _degraded_images(pairs.images, config, rng)
    usable = images.ivar.max(axis=(1, 2, 3)) > 0.0
    rows = np.array([row for row, one in enumerate(spectra) if len(one.flux) and usable[row]])
    unmasked = rng.random() < config.p_unmasked
    fraction = 1.0 if unmasked else rng.uniform(*config.spectrum_visible)
    visible, target = mask([spectra[row] for row in rows], fraction, config.target_fraction, rng)
    brightness = brightness_features(visible)
    unknown = rng.random(len(rows)) < config.no_brightness
    if pairs.relative_flux is not None:
        unknown |= pairs.relative_flux[rows]
    brightness[torch.from_numpy(unknown)] = 0.0
    fraction = 1.0 if unmasked else rng.uniform(*config.image_visible)
    patches, of_images = _image_part(
        images.flux[rows], images.ivar[rows], images.psf_fwhm[rows], fraction, config, rng
    )
    return TrainingBatch(
        collate(visible, max(len(one.flux) for one in visible)),
        brightness,
        patches,
        Targets(*collate_targets(target)),
        of_images,
        _second_view(pairs.spectra, rows, shape, config, rng) if second_view else None,
    )


def _augmented(
    spectra: Spectra, shape: TokenizerConfig, config: AugmentationSettings, rng: np.random.Generator
) -> list[PatchedSpectrum]:
    """Augment spectra; returns their readable patches."""
    patched = patchify(_degraded_spectra(spectra, config, rng), shape.patch, shape.width)
    return [one.select(one.valid) for one in patched]


def _second_view(
    spectra: Spectra,
    rows: np.ndarray,
    shape: TokenizerConfig,
    config: AugmentationSettings,
    rng: np.random.Generator,
) -> Patches:
    augmented = _augmented(spectra, shape, config, rng)
    fraction = rng.uniform(*config.spectrum_visible)
    visible, _ = mask([augmented[row] for row in rows], fraction, config.target_fraction, rng)
    return collate(visible, max(len(one.flux) for one in visible))


def _degraded_spectra(spectra: Spectra, config: AugmentationSettings, rng: np.random.Generator) -> Spectra:
    """Add noise to spectra of one length and change their calibration."""
    n = len(spectra)
    flux, ivar = spectra.flux.reshape(n, -1), spectra.ivar.reshape(n, -1)
    amount = _amounts((n, 1), config.noise, rng)
    flux = flux + amount * _error(ivar) * rng.standard_normal(flux.shape, np.float32)
    x = np.linspace(-1.0, 1.0, flux.shape[1], dtype=np.float32)
    bend = rng.normal(0.0, config.tilt, (3, n, 1)).astype(np.float32)
    factor = np.exp(bend[0] + bend[1] * x + bend[2] * (2.0 * x**2 - 1.0))
    ivar = ivar / (1.0 + amount**2) / factor**2
    return Spectra(spectra.offsets, spectra.wavelength, (flux * factor).ravel(), ivar.ravel())


def _degraded_images(images: Images, config: AugmentationSettings, rng: np.random.Generator) -> Images:
    """Add noise to images, rotate, mirror and shift them, and drop bands, pixels or the seeing."""
    n, bands = images.psf_fwhm.shape
    amount = _amounts((n, bands, 1, 1), config.noise, rng)
    flux = images.flux + amount * _error(images.ivar) * rng.standard_normal(images.flux.shape, np.float32)
    ivar = images.ivar / (1.0 + amount**2)
    lost: np.ndarray = rng.random((n, bands)) < config.no_band
    lost[:, 1] = False
    ivar[lost] = 0.0
    turns, mirrored = rng.integers(4, size=(n,)), rng.random((n,)) < 0.5
    moves = rng.integers(-config.move, config.move + 1, (n, 2))
    far = rng.integers(-config.max_off_centre, config.max_off_centre + 1, (n, 2))
    far[rng.random(n) >= config.off_centre] = 0
    for plane in (flux, ivar):
        for row in range(n):
            turned = _rotated(plane[row], int(turns[row]), bool(mirrored[row]))
            plane[row] = np.roll(_shifted(turned, moves[row]), far[row], axis=(-2, -1))
    for row in np.flatnonzero(rng.random(n) < config.lost).tolist():
        (top, bottom), (left, right) = np.sort(rng.integers(0, SIZE + 1, (2, 2)), axis=1)
        ivar[row, rng.integers(bands), top:bottom, left:right] = 0.0
    psf = images.psf_fwhm.copy()
    psf[rng.random(n) < config.no_psf] = np.nan
    return Images(flux, ivar, psf)


def _amounts(shape: tuple[int, ...], scatter: float, rng: np.random.Generator) -> np.ndarray:
    """Added noise over the own noise: random for half of the rows, 0 for the others."""
    half = rng.random((shape[0], *(1 for _ in shape[1:]))) < 0.5
    return np.asarray(np.abs(rng.normal(0.0, scatter, shape)) * half, np.float32)


def _error(ivar: np.ndarray) -> np.ndarray:
    """Standard error; 0 where a pixel is bad."""
    good = ivar > 0.0
    return np.asarray(np.where(good, np.where(good, ivar, 1.0) ** -0.5, 0.0), np.float32)


def _rotated(plane: np.ndarray, turns: int, mirrored: bool) -> np.ndarray:
    rotated = np.rot90(plane, turns, axes=(-2, -1))
    return rotated[..., ::-1] if mirrored else rotated


def _shifted(plane: np.ndarray, move: np.ndarray) -> np.ndarray:
    """Shift a plane by whole pixels, filling with 0."""
    shifted = np.zeros_like(plane)
    (to_y, from_y), (to_x, from_x) = (
        (slice(max(by, 0), size + min(by, 0)), slice(max(-by, 0), size + min(-by, 0)))
        for by, size in zip(move.tolist(), plane.shape[-2:], strict=True)
    )
    shifted[..., to_y, to_x] = plane[..., from_y, from_x]
    return shifted


def _image_part(
    flux: np.ndarray,
    ivar: np.ndarray,
    psf_fwhm: np.ndarray,
    visible_fraction: float,
    config: AugmentationSettings,
    rng: np.random.Generator,
) -> tuple[ImagePatches, Targets]:
    images = Images(flux, ivar, psf_fwhm)
    patches, n = patchify_images(images), len(flux)
    order = rng.random((n, N_PATCHES))
    if config.keep_centre:
        order[:, _central_patches()] -= 1.0
    visible = np.argsort(order, axis=1)[:, : round(visible_fraction * N_PATCHES)]
    target = np.argsort(rng.random((n, N_PATCHES)), axis=1)[
        :, : max(1, round(config.target_fraction * N_PATCHES))
    ]
    value, error = (to_patches(plane) for plane in scaled_pixels(images))
    value, error = (np.take_along_axis(plane, target[..., None], axis=1) for plane in (value, error))
    weight = 1.0 / np.hypot(error / np.hypot(np.float32(1.0), value), np.float32(IMAGE_ERROR))
    targets_of_images = Targets(
        torch.from_numpy(target),
        torch.from_numpy(np.arcsinh(value)),
        torch.from_numpy(weight.astype(np.float32)),
    )
    return patches.select(torch.from_numpy(visible)), targets_of_images


def _central_patches() -> np.ndarray:
    """Indices of the patches within `CENTRE`."""
    side = int(np.sqrt(N_PATCHES))
    at = np.abs((np.arange(side) - (side - 1) / 2) * PATCH) < CENTRE / 2
    return np.flatnonzero(at[:, None] & at[None, :])
