"""A photometry table as the arrays that models read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ojala.catalogs_schema.bands import MODEL_BANDS, REFERENCE_BAND
from ojala.models.data import MAX_EBV, valid_bands

_REFERENCE = [band.name for band in MODEL_BANDS].index(REFERENCE_BAND)
_REFERENCE_K = MODEL_BANDS[_REFERENCE].k_x


@dataclass(frozen=True, slots=True)
class Photometry:
    """Photometry of N objects.

    Attributes
    ----------
    flux, error : ndarray of float32, shape (N, 63)
        As measured [uJy], in the order of `MODEL_BANDS`; NaN where null.
    ebv : ndarray of float32, shape (N,)
        Galactic E(B-V) [mag]; NaN where null.
    usable : ndarray of bool, shape (N, 63)
        Whether a model may read the band: see `ojala.models.data.valid_bands`.
    """

    flux: np.ndarray
    error: np.ndarray
    ebv: np.ndarray
    usable: np.ndarray

    @property
    def rejected(self) -> np.ndarray:
        """Rows with a band that was given but cannot be used, shape (N,)."""
        given = ~np.isnan(self.flux) | ~np.isnan(self.error)
        return np.asarray((given & ~self.usable).any(axis=1))

    @property
    def ebv_known(self) -> np.ndarray:
        """Rows whose E(B-V) is plausible, shape (N,)."""
        return np.asarray((self.ebv >= 0) & (self.ebv <= MAX_EBV))

    def reference(self) -> tuple[np.ndarray, np.ndarray]:
        """Flux density and error in iSDSS corrected for Galactic extinction, shape (N,) [uJy].

        NaN where it is not usable or not positive.
        """
        flux, error = self.flux[:, _REFERENCE], self.error[:, _REFERENCE]
        known = np.where(self.ebv_known, self.ebv, 0.0)
        correction = 10.0 ** (0.4 * _REFERENCE_K * known)
        good = self.usable[:, _REFERENCE] & (flux > 0)
        return np.where(good, flux * correction, np.nan), np.where(good, error * correction, np.nan)


def read_photometry(table: pa.Table) -> Photometry:
    """The arrays of a table that keeps the photometry contract.

    Parameters
    ----------
    table : pyarrow.Table
        N rows; columns that models do not read are left alone.
    """
    flux = _matrix(table, [band.flux_column for band in MODEL_BANDS])
    error = _matrix(table, [band.error_column for band in MODEL_BANDS])
    return Photometry(flux, error, _matrix(table, ["ebv"])[:, 0], valid_bands(flux, error))


def _matrix(table: pa.Table, names: list[str]) -> np.ndarray:
    """Columns of float32 side by side, shape (N, columns); null becomes NaN."""
    batches = table.select(names).to_batches()
    parts = [np.asarray(batch.to_tensor(null_to_nan=True, row_major=True)) for batch in batches]
    return np.concatenate([np.empty((0, len(names)), np.float32), *parts])
