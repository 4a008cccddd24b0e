"""Spectra as models read them: each on its own wavelengths, all in flat arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Spectra:
    """N spectra with P pixels in all.

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
    def of(cls, spectra: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Spectra:
        """From wavelength, flux and inverse variance of each."""
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
