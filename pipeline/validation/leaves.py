"""What the leaves of a product say, read column by column and leaf by leaf."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from catalogs_schema.bands import BY_NAME, REFERENCE_BAND
from catalogs_schema.value_added import CLASSES, OJALA, OJALA_VECTORS
from pipeline.sky import Partition
from pipeline.validation.truth import LUMINOSITY, Truth

AB_ZERO = 23.9
"""AB magnitude of a flux density of 1 uJy."""

_ANSWERS = ["object_id", "tile_id", "number", "ra", "dec", "class", *(f"p_{c.lower()}" for c in CLASSES)]
_DIAGRAMS = ["bpt_class", "whan_class"]
_NOVELTY = "novelty"
_LUMINOSITY = [LUMINOSITY, f"{LUMINOSITY}_err", "f_halpha"]
_REDSHIFTS = [
    "z",
    "z_err",
    "z_q02",
    "z_q16",
    "z_q50",
    "z_q84",
    "z_q98",
    "z_odds",
    "z_gal",
    "z_gal_err",
    "z_qso",
    "z_qso_err",
]


def answers_for(
    truth: Truth, catalogue: UPath, photometry: UPath | None, partitions: Iterable[Partition]
) -> pa.Table:
    """The catalogue's rows of the objects that a truth knows.

    Leaves are read one at a time and only where they hold such an object, so that memory is bounded by
    the truth and by one leaf.

    Parameters
    ----------
    truth : Truth
        Known objects.
    catalogue : UPath
        Root of the product.
    photometry : UPath or None
        Root of the photometry; None where the truth has the magnitudes.
    partitions : iterable of Partition
        Partitions whose leaves are there.

    Returns
    -------
    pyarrow.Table
        Answers with their errors, flags, and ``i_mag``, the observed AB magnitude in iSDSS (null where
        the flux is missing or not positive). Columns that an older catalogue does not have are null.
    """
    known = truth.rows["object_id"].to_numpy()
    errors = [f"{label}_err" for label in truth.labels]
    columns = [*_ANSWERS, *_REDSHIFTS, *_DIAGRAMS, *truth.labels, *errors, "n_bands", "flags"]
    if _NOVELTY in OJALA.names:
        columns.append(_NOVELTY)
    columns += [name for name in _LUMINOSITY if name not in columns]
    flux = BY_NAME[REFERENCE_BAND].flux_column
    found = [_none_of(columns)]
    for partition in partitions:
        rows = _rows_of(catalogue / partition.leaf, columns, known)
        if rows is None:
            continue
        magnitudes = pa.nulls(rows.num_rows, pa.float64())
        if photometry is not None:
            own = rows["object_id"].to_numpy()
            measured = _rows_of(photometry / partition.leaf, ["object_id", flux], own)
            magnitudes = _magnitudes(own, measured, flux)
        found.append(rows.append_column("i_mag", magnitudes))
    return pa.concat_tables(found, promote_options="permissive")


def pdfs_for(rows: pa.Table, vectors: UPath, partitions: Iterable[Partition]) -> np.ndarray:
    """The redshift PDFs of some rows of the catalogue.

    Parameters
    ----------
    rows : pyarrow.Table
        N rows with ``object_id``.
    vectors : UPath
        Root of the vectors' catalogue.
    partitions : iterable of Partition
        Partitions whose leaves are there.

    Returns
    -------
    ndarray of float32, shape (N, B)
        Zero where there is none.
    """
    wanted = rows["object_id"].to_numpy()
    width = OJALA_VECTORS["z_pdf"].type.list_size
    found = np.zeros((len(wanted), width), np.float32)
    order = np.argsort(wanted)
    for partition in partitions:
        part = _rows_of(vectors / partition.leaf, ["object_id", "z_pdf"], wanted)
        if part is not None:
            place = order[np.searchsorted(wanted[order], part["object_id"].to_numpy())]
            flat = part["z_pdf"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            found[place] = flat.reshape(-1, width)
    return found


def _rows_of(leaf: UPath, columns: list[str], object_ids: np.ndarray) -> pa.Table | None:
    with leaf.open("rb") as file:
        parquet = pq.ParquetFile(file)
        hit = np.isin(parquet.read(columns=["object_id"])["object_id"].to_numpy(), object_ids)
        if not hit.any():
            return None
        there = [name for name in columns if name in parquet.schema_arrow.names]
        return parquet.read(columns=there).filter(pa.array(hit))


def _magnitudes(object_ids: np.ndarray, measured: pa.Table | None, flux: str) -> pa.Array:
    """AB magnitude of each object, null where its flux is missing or not positive."""
    values = np.full(len(object_ids), np.nan)
    if measured is not None:
        order = np.argsort(object_ids)
        place = order[np.searchsorted(object_ids[order], measured["object_id"].to_numpy())]
        values[place] = measured[flux].to_numpy(zero_copy_only=False)
    bright = values > 0
    magnitudes = AB_ZERO - 2.5 * np.log10(np.where(bright, values, 1.0))
    return pa.array(magnitudes, mask=~bright)


def _none_of(columns: list[str]) -> pa.Table:
    """A table without rows, so that there is something to join where no leaf knows an object."""
    schema = pa.schema([pa.field(name, OJALA[name].type) for name in columns])
    return schema.append(pa.field("i_mag", pa.float64())).empty_table()
