"""Predictions of a product for given objects, read column by column and leaf by leaf."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from upath import UPath

from ojala.catalogs_schema.bands import BY_NAME, REFERENCE_BAND
from ojala.catalogs_schema.contract import Contract
from ojala.catalogs_schema.ojala import CLASSES, OJALA, OJALA_VECTORS, PDF_COLUMNS
from ojala.catalogs_schema.redshift_pdfs import RedshiftPdfs
from ojala.pipeline.inference.adapters.base import ModelAdapter
from ojala.pipeline.inference.products.table import with_common_names
from ojala.pipeline.quality.validation.truth import LUMINOSITY, Pdfs, Truth
from ojala.pipeline.storage.hats import CatalogueError, rows_of
from ojala.pipeline.storage.healpix import Partition
from ojala.pipeline.storage.progress import counted

AB_ZERO = 23.9
"""AB magnitude of a flux density of 1 uJy."""

_CLASSES = ["object_id", "tile_id", "number", "ra", "dec", "class", *(f"p_{c.lower()}" for c in CLASSES)]
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


def predictions_for(
    truth: Truth,
    catalogue: UPath,
    photometry: UPath | None,
    partitions: Iterable[Partition],
    names: Mapping[str, str] | None = None,
) -> pa.Table:
    """Read the rows of a catalogue for the objects of a truth file.

    Leaves are read one at a time and only where they hold such an object, so that memory is bounded by
    the truth and by one leaf.

    Parameters
    ----------
    truth : Truth
        True values of some objects.
    catalogue : UPath
        Root of the product.
    photometry : UPath or None
        Root of the photometry; None where the truth has the magnitudes.
    partitions : iterable of Partition
        Partitions to read.
    names : mapping of str to str, optional
        `Contract.column_names` of the product.

    Returns
    -------
    pyarrow.Table
        Predictions with their errors, flags, and ``i_mag``, the observed AB magnitude in iSDSS (null where
        the flux is missing or not positive). Columns that an older catalogue does not have are null.
    """
    wanted = truth.rows["object_id"].to_numpy()
    errors = [f"{label}_err" for label in truth.labels]
    columns = [*_CLASSES, *_REDSHIFTS, *_DIAGRAMS, *truth.labels, *errors, "n_bands", "flags"]
    if _NOVELTY in OJALA.names:
        columns.append(_NOVELTY)
    columns += [name for name in _LUMINOSITY if name not in columns]
    flux = BY_NAME[REFERENCE_BAND].flux_column
    names = names or {}
    stored = {*columns, *(names.get(name, name) for name in columns)}  # contract 1 has the common names
    parts = [_empty(columns)]
    for partition in counted(partitions, "partitions read"):
        rows = rows_of(catalogue / partition.leaf, wanted, stored)
        if rows is None:
            continue
        rows = with_common_names(rows, names)
        magnitudes = pa.nulls(rows.num_rows, pa.float64())
        if photometry is not None:
            own = rows["object_id"].to_numpy()
            measured = rows_of(photometry / partition.leaf, own, ["object_id", flux])
            magnitudes = _magnitudes(own, measured, flux)
        parts.append(rows.append_column("i_mag", magnitudes))
    return pa.concat_tables(parts, promote_options="permissive")


def pdf_product(adapter: ModelAdapter[Any]) -> Contract | None:
    """Contract of the product of a model that has redshift PDFs; None if there is none."""
    columns = set(PDF_COLUMNS.values())
    return next((one for one in adapter.extended if columns <= set(one.names)), None)


def pdfs_for(rows: pa.Table, product: UPath, partitions: Iterable[Partition]) -> Pdfs | None:
    """Read the redshift PDFs of some rows of the catalogue; None where a product of contract 1 has none.

    Parameters
    ----------
    rows : pyarrow.Table
        N rows with ``object_id``.
    product : UPath
        Root of the product with the PDFs, see `pdf_product`.
    partitions : iterable of Partition
        Partitions to read.

    Returns
    -------
    dict of str to RedshiftPdfs
        By class, N rows each.
    """
    wanted = rows["object_id"].to_numpy()
    columns = [part for name in PDF_COLUMNS.values() for part in (name, f"{name}_bin")]
    parts = [
        part
        for partition in counted(partitions, "partitions with PDFs read")
        if (part := rows_of(product / partition.leaf, wanted, ["object_id", *columns])) is not None
    ]
    if any(not set(columns) <= set(part.column_names) for part in parts):
        return None
    table = pa.concat_tables([OJALA_VECTORS.schema().empty_table().select(["object_id", *columns]), *parts])
    there = table["object_id"].to_numpy()
    order = np.argsort(there)
    index = np.searchsorted(there, wanted, sorter=order).clip(0, max(0, len(there) - 1))
    if not len(there) or (there[order[index]] != wanted).any():
        raise CatalogueError(f"{product}: rows of the catalogue are missing: verify it with `ojala verify`")
    return {
        objects: RedshiftPdfs.from_table(table, name).take(order[index])
        for objects, name in PDF_COLUMNS.items()
    }


def _magnitudes(object_ids: np.ndarray, measured: pa.Table | None, flux: str) -> pa.Array:
    """AB magnitude of each object, null where its flux is missing or not positive."""
    values = np.full(len(object_ids), np.nan)
    if measured is not None and flux in measured.column_names:
        order = np.argsort(object_ids)
        place = order[np.searchsorted(object_ids[order], measured["object_id"].to_numpy())]
        values[place] = measured[flux].to_numpy(zero_copy_only=False)
    magnitudes = ab_magnitude(values)
    return pa.array(magnitudes, mask=np.isnan(magnitudes))


def ab_magnitude(flux: np.ndarray) -> np.ndarray:
    """AB magnitudes of flux densities [uJy], NaN where these are missing or not positive."""
    bright = flux > 0
    return np.where(bright, AB_ZERO - 2.5 * np.log10(np.where(bright, flux, 1.0)), np.nan)


def _empty(columns: list[str]) -> pa.Table:
    """Table without rows, the result where no leaf has a wanted object."""
    schema = pa.schema([pa.field(name, OJALA[OJALA.name_of(name)].type) for name in columns])
    return schema.append(pa.field("i_mag", pa.float64())).empty_table()
