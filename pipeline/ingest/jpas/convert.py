"""Rows of a file as photometry: numbers checked, fluxes brought to microjansky, positions indexed."""

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


class _Faults:
    """Keeps the fault of the first row, so that it does not matter which column is looked at first."""

    def __init__(self) -> None:
        self.first: SourceError | None = None

    def __enter__(self) -> _Faults:
        return self

    def __exit__(self, kind: object, fault: BaseException | None, trace: object) -> bool:
        if not isinstance(fault, SourceError):
            return False
        if self.first is None or (fault.row or 0) < (self.first.row or 0):
            self.first = fault
        return True


def photometry(batch: pa.RecordBatch, layout: TableMapping, names: Mapping[str, SourceColumn]) -> pa.Table:
    """Rows of a file as photometry.

    Parameters
    ----------
    batch : pyarrow.RecordBatch
        The columns ``layout.read``.
    layout : Layout
        What they mean.
    names : mapping of str to SourceColumn
        The file's columns, for messages.

    Returns
    -------
    pyarrow.Table
        The same rows in the same order, in the columns of the contract `PHOTOMETRY`.

    Raises
    ------
    SourceError
        With the first row of the batch, counted from 1, that is not understood.
    """
    faults = _Faults()
    columns: dict[str, pa.Array] = {"morph_type": pa.array([NONE] * batch.num_rows)}
    key: dict[str, np.ndarray] = {}
    for name in ("tile_id", "number"):
        with faults:
            key[name] = parsing.whole_numbers(
                batch[name], names[name].name, low=0, high=_INT32, required=True
            ).astype(np.int64)
    sky: list[np.ndarray] = []
    for name, low, high in zip(layout.position, (0.0, -90.0), (360.0, 90.0), strict=True):
        with faults:
            sky.append(parsing.angles(batch[name], names[name].name, low=low, high=high))
    if "ebv" in layout.read:
        with faults:
            columns["ebv"] = _single(parsing.numbers(batch["ebv"], names["ebv"].name))
    if layout.morph_type is not None:
        with faults:
            found = parsing.words(batch[layout.morph_type], names[layout.morph_type].name, MORPH_TYPES)
            columns["morph_type"] = found.fill_null(NONE)
    for name in ("flags", "mask_flags"):
        if name in layout.read:
            with faults:
                columns[name] = _flags(batch[name], names[name].name, layout)
    for reading in layout.readings:
        with faults:
            columns |= _fluxes(batch, reading, names)
    if faults.first is not None:
        raise faults.first

    columns["tile_id"] = pa.array(key["tile_id"], pa.int32())
    columns["number"] = pa.array(key["number"], pa.int32())
    columns["object_id"] = pa.array(key["tile_id"] << KEY_SHIFT | key["number"])
    columns["ra"], columns["dec"] = pa.array(sky[0]), pa.array(sky[1])
    columns["_healpix_29"] = pa.array(spatial_index(sky[0], sky[1]))
    schema = PHOTOMETRY.schema()
    return pa.Table.from_arrays(
        [columns.get(field.name, pa.nulls(batch.num_rows, field.type)) for field in schema], schema=schema
    )


def _flags(values: pa.Array, column: str, layout: TableMapping) -> pa.Array:
    """Flags of the detection band, from flags of each filter or of the object."""
    chosen = pa.array(parsing.pick(values, column, len(layout.filters), layout.detection))
    found = parsing.whole_numbers(chosen, column, low=-_INT32 - 1, high=_INT32)
    return pa.array(found, pa.int32(), from_pandas=True)


def _fluxes(
    batch: pa.RecordBatch, reading: ColumnMapping, names: Mapping[str, SourceColumn]
) -> dict[str, pa.Array]:
    value = _matrix(batch, reading.value, reading, names)
    error = np.full_like(value, np.nan)
    if reading.error is not None:
        error = _matrix(batch, reading.error, reading, names)
    flux, sigma = reading.measure(value, error, np.asarray(reading.scale))
    columns = {}
    for slot, band in enumerate(reading.bands):
        if band is not None:
            columns[band.flux_column] = _single(flux[:, slot])
            columns[band.error_column] = _single(sigma[:, slot])
    return columns


def _matrix(
    batch: pa.RecordBatch, name: str, reading: ColumnMapping, names: Mapping[str, SourceColumn]
) -> np.ndarray:
    if reading.is_array:
        return parsing.arrays(batch[name], names[name].name, len(reading.bands))
    return parsing.numbers(batch[name], names[name].name)[:, np.newaxis]


def _single(values: np.ndarray) -> pa.Array:
    with np.errstate(over="ignore"):
        return pa.array(values.astype(np.float32), from_pandas=True)
