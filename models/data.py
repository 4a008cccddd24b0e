"""Input of the models: spectra, images, pairs of both, and labelled objects for training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

ABSURD_FLUX = 1e9
"""A flux density beyond this [uJy] (AB magnitude 1.4) is not a measurement."""

LEAST_ERROR = 1e-9
"""An error below this [uJy] (AB magnitude 46.4) belongs to no measurement, but to a magnitude of 99.9."""

CALIBRATION_FLOOR = 0.003
"""No band is calibrated better than this fraction of its flux; smaller errors are raised to it."""

MAX_EBV = 5.0
"""Galactic E(B-V) [mag] beyond which the dust map is not believed and no correction is made."""

_Array = TypeVar("_Array", np.ndarray, "Tensor")


def valid_bands(flux: _Array, error: _Array) -> _Array:
    """Which entries are measurements: flux below 1e9 uJy in size, finite error from 1e-9 uJy on; none is NaN.

    Takes arrays as well as tensors, so that reading photometry needs no torch.
    """
    return (abs(flux) < ABSURD_FLUX) & (error >= LEAST_ERROR) & (error < math.inf)


@dataclass(frozen=True, slots=True)
class Spectra:
    """N spectra with P pixels in total.

    Attributes
    ----------
    offsets : ndarray of int64, shape (N + 1,)
        Spectrum i has the pixels from ``offsets[i]`` to ``offsets[i + 1]``.
    wavelength, flux, ivar : ndarray of float32, shape (P,)
        Vacuum wavelength [Angstrom], flux density f_lambda [1e-17 erg/s/cm2/Angstrom, or any scale] and its
        inverse variance; zero where the pixel must not be used.
    """

    offsets: np.ndarray
    wavelength: np.ndarray
    flux: np.ndarray
    ivar: np.ndarray

    @classmethod
    def from_arrays(cls, spectra: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Spectra:
        """Join the wavelength, flux and inverse variance of each spectrum."""
        sizes = [len(wavelength) for wavelength, _, _ in spectra]
        parts = [
            np.concatenate([one[k] for one in spectra], dtype=np.float32)
            if spectra
            else np.empty(0, np.float32)
            for k in range(3)
        ]
        return cls(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), *parts)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for begin, end in zip(self.offsets[:-1].tolist(), self.offsets[1:].tolist(), strict=True):
            yield self.wavelength[begin:end], self.flux[begin:end], self.ivar[begin:end]

    @property
    def sizes(self) -> np.ndarray:
        """Pixels of each spectrum; int64, shape (N,)."""
        return np.diff(self.offsets)

    def rows(self, begin: int, end: int) -> Spectra:
        """Spectra ``begin`` to ``end``, without copying."""
        pixels = slice(self.offsets[begin], self.offsets[end])
        offsets = self.offsets[begin : end + 1] - self.offsets[begin]
        return Spectra(offsets, self.wavelength[pixels], self.flux[pixels], self.ivar[pixels])


@dataclass(frozen=True, slots=True)
class LabelledPhotometry:
    """Photometry and labels of N objects.

    Attributes
    ----------
    flux, error : ndarray of float32, shape (N, 63)
        Flux densities f_nu and their standard errors [uJy] in the order of
        `ojala.catalogs_schema.bands.MODEL_BANDS`; NaN where a band was not observed.
    ebv : ndarray of float32, shape (N,)
        Galactic E(B-V) [mag], for which the fluxes are not corrected; NaN where not known.
    class_code : ndarray of int64, shape (N,)
        Index into `ojala.models.quantities.CLASSES`, -1 where not known.
    labels : dict of str to ndarray of float32, shape (N,)
        One entry per quantity other than the class, physical units as in `ojala.models.quantities`;
        NaN where not known or without meaning for the object's class.
    noiseless, noiseless_error : ndarray of float32, shape (N, 63), or None
        Noiseless flux densities of all bands, also of those not observed, and their standard errors (0 for
        simulated objects) [uJy]; NaN where not known, None if not known for any object.
    """

    flux: np.ndarray
    error: np.ndarray
    ebv: np.ndarray
    class_code: np.ndarray
    labels: dict[str, np.ndarray]
    noiseless: np.ndarray | None = None
    noiseless_error: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.flux)

    def rows(self, chosen: slice | np.ndarray) -> LabelledPhotometry:
        """Select rows."""
        return LabelledPhotometry(
            self.flux[chosen],
            self.error[chosen],
            self.ebv[chosen],
            self.class_code[chosen],
            {name: values[chosen] for name, values in self.labels.items()},
            None if self.noiseless is None else self.noiseless[chosen],
            None if self.noiseless_error is None else self.noiseless_error[chosen],
        )


class Sky(Protocol):
    """A source of labelled photometry."""

    def draw(self, n: int, rng: np.random.Generator) -> LabelledPhotometry:
        """Photometry and labels of n objects; the generator alone decides which."""


@dataclass(frozen=True, slots=True)
class LabelledSpectra:
    """Observed spectra and labels of N objects.

    Attributes
    ----------
    spectra : Spectra
        The spectra.
    class_code : ndarray of int64, shape (N,)
        Index into `ojala.models.quantities.CLASSES`, -1 where not known.
    labels : dict of str to ndarray of float32, shape (N,)
        ``z`` (of stars: radial velocity over the speed of light) and others, physical units as in
        `ojala.models.quantities`; NaN where not known or without meaning for the object's class.
    member : ndarray of int64, shape (N,)
        Row in the library of the object's class.
    """

    spectra: Spectra
    class_code: np.ndarray
    labels: dict[str, np.ndarray]
    member: np.ndarray

    def __len__(self) -> int:
        return len(self.spectra)

    @classmethod
    def joined(cls, parts: Sequence[LabelledSpectra]) -> LabelledSpectra:
        """Concatenate parts with the same labels."""
        sizes = np.concatenate([part.spectra.sizes for part in parts])
        pixels = (
            np.concatenate([getattr(part.spectra, name) for part in parts])
            for name in ("wavelength", "flux", "ivar")
        )
        return cls(
            Spectra(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), *pixels),
            np.concatenate([part.class_code for part in parts]),
            {name: np.concatenate([part.labels[name] for part in parts]) for name in parts[0].labels},
            np.concatenate([part.member for part in parts]),
        )


@dataclass(frozen=True, slots=True)
class Images:
    """N images in g, r and z of 64 x 64 pixels of 0.262 arcsec (see `ojala.catalogs_schema.cutouts`).

    Attributes
    ----------
    flux : ndarray of float32, shape (N, 3, 64, 64)
        Flux density f_nu of each pixel [uJy], sky subtracted; rows from south to north, columns from east to
        west; 0 where not measured.
    ivar : ndarray of float32, shape (N, 3, 64, 64)
        Inverse variance of the sky's noise [1/uJy2], without the noise of the sources; 0 where the pixel must
        not be used.
    psf_fwhm : ndarray of float32, shape (N, 3)
        Full width at half maximum of the point-spread function [arcsec]; NaN where not known.
    """

    flux: np.ndarray
    ivar: np.ndarray
    psf_fwhm: np.ndarray

    def __len__(self) -> int:
        return len(self.flux)

    def rows(self, begin: int, end: int) -> Images:
        """Images ``begin`` to ``end``, without copying."""
        part = slice(begin, end)
        return Images(self.flux[part], self.ivar[part], self.psf_fwhm[part])


@dataclass(frozen=True, slots=True)
class Pairs:
    """N objects with a spectrum and an image each.

    Attributes
    ----------
    spectra : Spectra
        N spectra; without usable pixels for an object that was not observed.
    images : Images
        N images in the same order; without usable pixels for an object that was not observed.
    relative_flux : ndarray of bool, shape (N,), or None
        Whether the flux of a spectrum has an arbitrary scale; None if that of no spectrum has.
    """

    spectra: Spectra
    images: Images
    relative_flux: np.ndarray | None = None

    def __post_init__(self) -> None:
        if len(self.spectra) != len(self.images):
            raise ValueError(f"{len(self.spectra)} spectra, but {len(self.images)} images")

    def __len__(self) -> int:
        return len(self.spectra)

    def rows(self, begin: int, end: int) -> Pairs:
        """Objects ``begin`` to ``end``, without copying."""
        relative = None if self.relative_flux is None else self.relative_flux[begin:end]
        return Pairs(self.spectra.rows(begin, end), self.images.rows(begin, end), relative)
