"""What one step of training reads: pairs, changed and partly hidden, and what is asked of them.

No class, redshift or other label goes in: the lesson is made of pixels alone. Each side of a pair is
observed anew first, worse than it was: with more noise, a calibration of its own, a band or the seeing
missing, the image turned and moved. Then patches are hidden, and some, hidden or not, are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ojala.models.avis.inputs import (
    N_PATCHES,
    PATCH,
    ImagePatches,
    brightness_features,
    in_patches,
    measured,
    read_images,
)
from ojala.models.data import Images, Pairs, Spectra
from ojala.models.spectral_tokenizer.network import TokenizerConfig
from ojala.models.spectral_tokenizer.objective import show_and_ask, targets
from ojala.models.spectral_tokenizer.patches import Cut, Patches, cut, gather

IMAGE_ERROR = 0.05
"""So well at most shall asinh of a pixel's flux be met; added to its error in quadrature."""

CENTRE = 24.0
"""Pixels from the centre within which a patch is shown wherever the object shall be seen."""


@dataclass(frozen=True, slots=True)
class AvisLessonConfig:
    """What is shown, how it is changed, and what is asked.

    Attributes
    ----------
    spectrum_shown, image_shown : tuple of float
        Least and largest share of the patches that are shown; a lesson's share is even between them.
    whole : float
        Share of the lessons in which all patches are shown.
    asked : float
        Share of the patches of each side that are asked for.
    p_bottleneck : float
        Share of the pairs whose sides are reconstructed from their embeddings alone.
    keep_centre : bool
        Hide no patch of the image near the object.
    noise : float
        Half of the spectra and images get noise of their own: the scatter of its share of that which they
        have.
    tilt : float
        Scatter of ln(flux) of a spectrum's calibration at its ends.
    no_brightness, no_psf, no_band : float
        Chances that the spectrum's brightness, the seeing, a band is not known.
    move : int
        Pixels by which an image is moved at most, along each axis.
    """

    spectrum_shown: tuple[float, float] = (0.3, 0.7)
    image_shown: tuple[float, float] = (0.35, 0.75)
    whole: float = 0.1
    asked: float = 0.25
    p_bottleneck: float = 0.4
    keep_centre: bool = True
    noise: float = 0.7
    tilt: float = 0.05
    no_brightness: float = 0.2
    no_psf: float = 0.1
    no_band: float = 0.05
    move: int = 3


class Side(NamedTuple):
    """What is asked of one side of N pairs: ``where`` (N, T, ...), ``flux`` and ``weight`` (N, T, P).

    ``where`` are wavelength codes or places; ``weight`` is the inverse of the error to which the flux shall
    be met, zero where a pixel is bad.
    """

    where: Tensor
    flux: Tensor
    weight: Tensor


class AvisLesson(NamedTuple):
    """N pairs of one length of spectra.

    Attributes
    ----------
    spectra, brightness : Patches, Tensor of shape (N, 2)
        What is shown of the spectra.
    images : ImagePatches
        What is shown of the images.
    of_spectra, of_images : Side
        What is asked of them.
    again : Patches or None
        What is shown of the spectra at another look, without their brightness.
    """

    spectra: Patches
    brightness: Tensor
    images: ImagePatches
    of_spectra: Side
    of_images: Side
    again: Patches | None = None

    def to(self, device: torch.device | str) -> AvisLesson:
        """The same lesson on another device."""
        return AvisLesson(
            self.spectra.to(device),
            self.brightness.to(device),
            self.images.to(device),
            Side(*(part.to(device) for part in self.of_spectra)),
            Side(*(part.to(device) for part in self.of_images)),
            None if self.again is None else self.again.to(device),
        )


def make_avis_lesson(
    pairs: Pairs,
    shape: TokenizerConfig,
    config: AvisLessonConfig,
    rng: np.random.Generator,
    *,
    again: bool = False,
) -> AvisLesson:
    """Change, hide and ask.

    Parameters
    ----------
    pairs : Pairs
        N pairs; those whose spectrum has no readable patch, or whose image has no usable pixel, are left out.
    shape : TokenizerConfig
        Of the spectrum's tower.
    config : AvisLessonConfig
        How much is changed, shown and asked.
    rng : Generator
        Makes the choice.
    again : bool
        Whether the spectra are looked at a second time.
    """
    cuts = _cuts(pairs.spectra, shape, config, rng)
    images = _worse_images(pairs.images, config, rng)
    seen = images.ivar.max(axis=(1, 2, 3)) > 0.0
    rows = np.array([row for row, one in enumerate(cuts) if len(one.flux) and seen[row]])
    whole = rng.random() < config.whole
    share = 1.0 if whole else rng.uniform(*config.spectrum_shown)
    shown, asked = show_and_ask([cuts[row] for row in rows], share, config.asked, rng)
    brightness = brightness_features(shown)
    brightness[torch.from_numpy(rng.random(len(rows)) < config.no_brightness)] = 0.0
    share = 1.0 if whole else rng.uniform(*config.image_shown)
    patches, of_images = _image_part(
        images.flux[rows], images.ivar[rows], images.psf_fwhm[rows], share, config, rng
    )
    return AvisLesson(
        gather(shown, max(len(one.flux) for one in shown)),
        brightness,
        patches,
        Side(*targets(asked)),
        of_images,
        _another_look(pairs.spectra, rows, shape, config, rng) if again else None,
    )


def _cuts(
    spectra: Spectra, shape: TokenizerConfig, config: AvisLessonConfig, rng: np.random.Generator
) -> list[Cut]:
    """Spectra observed anew, their readable patches."""
    found = cut(_worse_spectra(spectra, config, rng), shape.patch, shape.width)
    return [one.kept(one.valid) for one in found]


def _another_look(
    spectra: Spectra,
    rows: np.ndarray,
    shape: TokenizerConfig,
    config: AvisLessonConfig,
    rng: np.random.Generator,
) -> Patches:
    cuts = _cuts(spectra, shape, config, rng)
    share = rng.uniform(*config.spectrum_shown)
    shown, _ = show_and_ask([cuts[row] for row in rows], share, config.asked, rng)
    return gather(shown, max(len(one.flux) for one in shown))


def _worse_spectra(spectra: Spectra, config: AvisLessonConfig, rng: np.random.Generator) -> Spectra:
    """Spectra with more noise and another calibration; all have one length."""
    n = len(spectra)
    flux, ivar = spectra.flux.reshape(n, -1), spectra.ivar.reshape(n, -1)
    amount = _amounts((n, 1), config.noise, rng)
    flux = flux + amount * _error(ivar) * rng.standard_normal(flux.shape, np.float32)
    x = np.linspace(-1.0, 1.0, flux.shape[1], dtype=np.float32)
    bend = rng.normal(0.0, config.tilt, (3, n, 1)).astype(np.float32)
    factor = np.exp(bend[0] + bend[1] * x + bend[2] * (2.0 * x**2 - 1.0))
    ivar = ivar / (1.0 + amount**2) / factor**2
    return Spectra(spectra.offsets, spectra.wavelength, (flux * factor).ravel(), ivar.ravel())


def _worse_images(images: Images, config: AvisLessonConfig, rng: np.random.Generator) -> Images:
    """Images with more noise, turned, moved, and without a band or the seeing."""
    n, bands = images.psf_fwhm.shape
    amount = _amounts((n, bands, 1, 1), config.noise, rng)
    flux = images.flux + amount * _error(images.ivar) * rng.standard_normal(images.flux.shape, np.float32)
    ivar = images.ivar / (1.0 + amount**2)
    lost: np.ndarray = rng.random((n, bands)) < config.no_band
    lost[:, 1] = False
    ivar[lost] = 0.0
    turns, mirrored = rng.integers(4, size=(n,)), rng.random((n,)) < 0.5
    moves = rng.integers(-config.move, config.move + 1, (n, 2))
    for plane in (flux, ivar):
        for row in range(n):
            plane[row] = _moved(_turned(plane[row], int(turns[row]), bool(mirrored[row])), moves[row])
    psf = images.psf_fwhm.copy()
    psf[rng.random(n) < config.no_psf] = np.nan
    return Images(flux, ivar, psf)


def _amounts(shape: tuple[int, ...], scatter: float, rng: np.random.Generator) -> np.ndarray:
    """Noise to add, as a share of that which is there: to half of the rows, none to the others."""
    half = rng.random((shape[0], *(1 for _ in shape[1:]))) < 0.5
    return np.asarray(np.abs(rng.normal(0.0, scatter, shape)) * half, np.float32)


def _error(ivar: np.ndarray) -> np.ndarray:
    """Standard error; 0 where a pixel is bad."""
    good = ivar > 0.0
    return np.asarray(np.where(good, np.where(good, ivar, 1.0) ** -0.5, 0.0), np.float32)


def _turned(plane: np.ndarray, turns: int, mirrored: bool) -> np.ndarray:
    turned = np.rot90(plane, turns, axes=(-2, -1))
    return turned[..., ::-1] if mirrored else turned


def _moved(plane: np.ndarray, move: np.ndarray) -> np.ndarray:
    """The plane moved; 0 where nothing moves in."""
    moved = np.zeros_like(plane)
    (to_y, from_y), (to_x, from_x) = (
        (slice(max(by, 0), size + min(by, 0)), slice(max(-by, 0), size + min(-by, 0)))
        for by, size in zip(move.tolist(), plane.shape[-2:], strict=True)
    )
    moved[..., to_y, to_x] = plane[..., from_y, from_x]
    return moved


def _image_part(
    flux: np.ndarray,
    ivar: np.ndarray,
    psf_fwhm: np.ndarray,
    share: float,
    config: AvisLessonConfig,
    rng: np.random.Generator,
) -> tuple[ImagePatches, Side]:
    images = Images(flux, ivar, psf_fwhm)
    patches, n = read_images(images), len(flux)
    order = rng.random((n, N_PATCHES))
    if config.keep_centre:
        order[:, _near_centre()] -= 1.0
    shown = np.argsort(order, axis=1)[:, : round(share * N_PATCHES)]
    asked = np.argsort(rng.random((n, N_PATCHES)), axis=1)[:, : max(1, round(config.asked * N_PATCHES))]
    value, error = (in_patches(plane) for plane in measured(images))
    value, error = (np.take_along_axis(plane, asked[..., None], axis=1) for plane in (value, error))
    weight = 1.0 / np.hypot(error / np.hypot(np.float32(1.0), value), np.float32(IMAGE_ERROR))
    side = Side(
        torch.from_numpy(asked),
        torch.from_numpy(np.arcsinh(value)),
        torch.from_numpy(weight.astype(np.float32)),
    )
    return patches.kept(torch.from_numpy(shown)), side


def _near_centre() -> np.ndarray:
    """Places of the patches about the centre."""
    side = int(np.sqrt(N_PATCHES))
    at = np.abs((np.arange(side) - (side - 1) / 2) * PATCH) < CENTRE / 2
    return np.flatnonzero(at[:, None] & at[None, :])
