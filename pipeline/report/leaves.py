"""What the leaves of a product say, read column by column and leaf by leaf."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from catalogs_schema.bands import BY_NAME, REFERENCE_BAND
from catalogs_schema.value_added import CLASSES, OJALA
from pipeline.report.truth import Truth
from pipeline.sky import Partition

AB_ZERO = 23.9
"""AB magnitude of a flux density of 1 uJy."""

_ANSWERS = ["object_id", "tile_id", "number", "ra", "dec", "class", *(f"p_{c.lower()}" for c in CLASSES)]
_REDSHIFTS = [
    "z",
    "z_err",
    "z_q02",
    "z_q16",
    "z_q84",
    "z_q98",
    "z_odds",
    "z_gal",
    "z_gal_err",
    "z_qso",
    "z_qso_err",
]


def answers_for(
    truth: Truth, catalogue: UPath, photometry: UPath, partitions: Iterable[Partition]
) -> pa.Table:
    """The catalogue's rows of the objects that a truth knows.

    Leaves are read one at a time and only where they hold such an object, so that memory is bounded by
    the truth and by one leaf.

    Parameters
    ----------
    truth : Truth
        Known objects.
    catalogue, photometry : UPath
        Roots of the product and of the photometry.
    partitions : iterable of Partition
        Partitions whose leaves are there.

    Returns
    -------
    pyarrow.Table
        Answers with their errors, flags, and ``i_mag``, the observed AB magnitude in iSDSS (null where
        the flux is missing or not positive).
    """
    known = truth.rows["object_id"].to_numpy()
    errors = [f"{label}_err" for label in truth.labels]
    columns = [*_ANSWERS, *_REDSHIFTS, *truth.labels, *errors, "n_bands", "flags"]
    flux = BY_NAME[REFERENCE_BAND].flux_column
    found = [_none_of(columns)]
    for partition in partitions:
        rows = _rows_of(catalogue / partition.leaf, columns, known)
        if rows is not None:
            measured = _rows_of(
                photometry / partition.leaf, ["object_id", flux], rows["object_id"].to_numpy()
            )
            found.append(rows.append_column("i_mag", _magnitudes(rows, measured, flux)))
    return pa.concat_tables(found, promote_options="permissive")


def _rows_of(leaf: UPath, columns: list[str], object_ids: np.ndarray) -> pa.Table | None:
    hit = np.isin(_read(leaf, ["object_id"])["object_id"].to_numpy(), object_ids)
    if not hit.any():
        return None
    return _read(leaf, columns).filter(pa.array(hit))


def _read(leaf: UPath, columns: list[str]) -> pa.Table:
    with leaf.open("rb") as file:
        return pq.ParquetFile(file).read(columns=columns)


def _magnitudes(rows: pa.Table, measured: pa.Table | None, flux: str) -> pa.Array:
    values = {}
    if measured is not None:
        values = dict(zip(measured["object_id"].to_pylist(), measured[flux].to_pylist(), strict=True))
    fluxes = [values.get(object_id) for object_id in rows["object_id"].to_pylist()]
    bright = [f if f is not None and np.isfinite(f) and f > 0 else None for f in fluxes]
    return pa.array([None if f is None else AB_ZERO - 2.5 * np.log10(f) for f in bright], pa.float64())


def _none_of(columns: list[str]) -> pa.Table:
    """A table without rows, so that there is something to join where no leaf knows an object."""
    schema = pa.schema([pa.field(name, OJALA[name].type) for name in columns])
    return schema.append(pa.field("i_mag", pa.float64())).empty_table()
