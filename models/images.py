"""Images as models read them: one object each, the same bands and pixels for all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Images:
    """N images in g, r and z of 64 x 64 pixels of 0.262 arcsec (see `catalogs_schema.cutouts`).

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
