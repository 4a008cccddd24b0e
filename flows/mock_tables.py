"""Drawn photometry as tables: the photometry contract's columns, and the truth by the same key."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from catalogs_schema.bands import BANDS, MODEL_BANDS
from models.batch import LabelledPhotometry
from models.quantities import CLASSES

_DIGITS = 4
_COLUMN = {band.name: i for i, band in enumerate(MODEL_BANDS)}


def photometry_table(drawn: LabelledPhotometry, ra: np.ndarray, dec: np.ndarray, tile_id: int) -> pa.Table:
    """Photometry as `ojala ingest` reads it, to four significant digits.

    Parameters
    ----------
    drawn : LabelledPhotometry
        N objects.
    ra, dec : ndarray, shape (N,)
        Their positions [deg].
    tile_id : int
        Tile of all of them; they are numbered from 1.
    """
    n = len(drawn)
    columns: dict[str, pa.Array] = {**_key(n, tile_id), "ra": pa.array(ra), "dec": pa.array(dec)}
    columns["ebv"] = _rounded(drawn.ebv)
    columns["flags"] = columns["mask_flags"] = pa.array(np.zeros(n, np.int32))
    nothing = np.full(n, np.nan, np.float32)
    for band in BANDS:
        at = _COLUMN.get(band.name)
        flux, error = (nothing, nothing) if at is None else (drawn.flux[:, at], drawn.error[:, at])
        columns[band.flux_column], columns[band.error_column] = _rounded(flux), _rounded(error)
    return pa.table(columns)


def truth_table(drawn: LabelledPhotometry, tile_id: int) -> pa.Table:
    """Class, redshift (null for stars) and labels, by the key of `photometry_table`."""
    z = np.where(np.isfinite(drawn.labels["z_gal"]), drawn.labels["z_gal"], drawn.labels["z_qso"])
    return pa.table(
        {
            **_key(len(drawn), tile_id),
            "class": pa.array([CLASSES[code] for code in drawn.class_code]),
            "z": pa.array(z, mask=np.isnan(z)),
            **{name: _rounded(values) for name, values in drawn.labels.items()},
        }
    )


def _rounded(values: np.ndarray) -> pa.Array:
    """Float32 to four significant digits, null where NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        place = 10.0 ** (_DIGITS - 1 - np.floor(np.log10(np.abs(values.astype(np.float64)))))
        short = np.where(np.isfinite(place), np.round(values * place) / place, values)
    return pa.array(short.astype(np.float32), mask=np.isnan(values))


def _key(n: int, tile_id: int) -> dict[str, pa.Array]:
    return {
        "tile_id": pa.array(np.full(n, tile_id, np.int32)),
        "number": pa.array(np.arange(1, n + 1, dtype=np.int32)),
    }
