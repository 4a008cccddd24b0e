"""Conversion of a file's rows to the photometry contract: numbers checked, fluxes in uJy, spatial index."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from ojala.catalogs_schema.contract import NONE
from ojala.catalogs_schema.photometry import KEY_SHIFT, MORPH_TYPES, PHOTOMETRY
from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.formats.table import SourceColumn
from ojala.pipeline.ingest.jpas import parsing
from ojala.pipeline.ingest.jpas.column_mapping import ColumnMapping, TableMapping
from ojala.pipeline.storage.healpix import spatial_index

_INT32 = 2**31 - 1


class _FirstError:
    """Context manager that keeps the error of the first row, whatever the order of the columns."""

    def __init__(self) -> None:
        self.first: SourceError | None = None

    def __enter__(self) -> _FirstError:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, SourceError):
            return False
        if self.first is None or (error.row or 0) < (self.first.row or 0):
            self.first = error
        return True


def convert_photometry(
    batch: pa.RecordBatch, mapping: TableMapping, names: Mapping[str, SourceColumn]
) -> pa.Table:
    """Convert rows of a file to the photometry contract.

    Parameters
    ----------
    batch : pyarrow.RecordBatch
        The columns ``mapping.read``.
    mapping : TableMapping
        Mapping of the file's columns.
    names : mapping of str to SourceColumn
        The file's columns, for messages.

    Returns
    -------
    pyarrow.Table
        The same rows in the same order, in the columns of the contract `PHOTOMETRY`.

    Raises
    ------
    SourceError
        With the first faulty row of the batch, counted from 1.
    """
    errors = _FirstError()
    columns: dict[str, pa.Array] = {"morph_type": pa.array([NONE] * batch.num_rows)}
    key: dict[str, np.ndarray] = {}
    for name in ("tile_id", "number"):
        with errors:
            key[name] = parsing.whole_numbers(
                batch[name], names[name].name, low=0, high=_INT32, required=True
            ).astype(np.int64)
    sky: list[np.ndarray] = []
    limits = zip(mapping.position, mapping.to_degrees, (0.0, -90.0), (360.0, 90.0), strict=True)
    for name, scale, low, high in limits:
        with errors:
            sky.append(parsing.angles(batch[name], names[name].name, low=low, high=high, scale=scale))
    if "ebv" in mapping.read:
        with errors:
            found = _in_single(parsing.numbers(batch["ebv"], names["ebv"].name))
            columns["ebv"] = pa.array(found, from_pandas=True)
    if mapping.morph_type is not None:
        with errors:
            words = parsing.words(batch[mapping.morph_type], names[mapping.morph_type].name, MORPH_TYPES)
            columns["morph_type"] = words.fill_null(NONE)
    for name in ("flags", "mask_flags"):
        if name in mapping.read:
            with errors:
                columns[name] = _flags(batch[name], names[name].name, mapping)
    for column in mapping.columns:
        with errors:
            columns |= _fluxes(batch, column, names)
    if mapping.published is not None:
        with errors:
            fluxes = mapping.published.fluxes(batch, names)
            columns |= {name: pa.array(_in_single(flux), from_pandas=True) for name, flux in fluxes.items()}
    if errors.first is not None:
        raise errors.first

    columns["tile_id"] = pa.array(key["tile_id"], pa.int32())
    columns["number"] = pa.array(key["number"], pa.int32())
    columns["object_id"] = pa.array(key["tile_id"] << KEY_SHIFT | key["number"])
    columns["ra"], columns["dec"] = pa.array(sky[0]), pa.array(sky[1])
    columns["_healpix_29"] = pa.array(spatial_index(sky[0], sky[1]))
    schema = PHOTOMETRY.schema()
    return pa.Table.from_arrays(
        [columns.get(field.name, pa.nulls(batch.num_rows, field.type)) for field in schema], schema=schema
    )


def _flags(values: pa.Array, column: str, mapping: TableMapping) -> pa.Array:
    """Flags of the detection band, from flags of each filter or of the object."""
    chosen = pa.array(parsing.pick(values, column, len(mapping.filters), mapping.detection))
    found = parsing.whole_numbers(chosen, column, low=-_INT32 - 1, high=_INT32)
    return pa.array(found, pa.int32(), from_pandas=True)


def _fluxes(
    batch: pa.RecordBatch, mapping: ColumnMapping, names: Mapping[str, SourceColumn]
) -> dict[str, pa.Array]:
    value = _matrix(batch, mapping.value, mapping, names)
    error = np.full_like(value, np.nan)
    if mapping.error is not None:
        error = _matrix(batch, mapping.error, mapping, names)
    flux, sigma = map(_in_single, mapping.convert(value, error, np.asarray(mapping.scale)))
    columns = {}
    for slot, band in enumerate(mapping.bands):
        if band is not None:
            columns[band.flux_column] = pa.array(flux[:, slot], from_pandas=True)
            columns[band.error_column] = pa.array(sigma[:, slot], from_pandas=True)
    return columns


def _matrix(
    batch: pa.RecordBatch, name: str, mapping: ColumnMapping, names: Mapping[str, SourceColumn]
) -> np.ndarray:
    if mapping.is_array:
        return parsing.arrays(batch[name], names[name].name, len(mapping.bands))
    return parsing.numbers(batch[name], names[name].name)[:, np.newaxis]


def _in_single(values: np.ndarray) -> np.ndarray:
    """Numbers in single precision; NaN where a finite one is too large for it, which none measures."""
    with np.errstate(over="ignore"):
        found = values.astype(np.float32)
    infinite = np.isinf(found)
    if infinite.any():
        found[infinite & np.isfinite(values)] = np.nan
    return found
