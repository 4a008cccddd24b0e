"""Pairs: what spectroscopy and imaging show of the same objects."""

from __future__ import annotations

from dataclasses import dataclass

from models.images import Images
from models.spectra import Spectra


@dataclass(frozen=True, slots=True)
class Pairs:
    """N objects with a spectrum and an image each.

    Attributes
    ----------
    spectra : Spectra
        N spectra; one without a usable pixel has not been observed.
    images : Images
        N images in the same order; one without a usable pixel has not been observed.
    """

    spectra: Spectra
    images: Images

    def __post_init__(self) -> None:
        if len(self.spectra) != len(self.images):
            raise ValueError(f"{len(self.spectra)} spectra, but {len(self.images)} images")

    def __len__(self) -> int:
        return len(self.spectra)

    def rows(self, begin: int, end: int) -> Pairs:
        """Objects ``begin`` to ``end``, without copying."""
        return Pairs(self.spectra.rows(begin, end), self.images.rows(begin, end))
