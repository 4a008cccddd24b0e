"""Objects of a cut-out request: those of a catalogue, leaf by leaf, or of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

from ojala.catalogs_schema.cutouts import CUTOUTS
from ojala.catalogs_schema.spectra import KEY_NAMES
from ojala.pipeline.ingest.errors import IngestError, SourceError
from ojala.pipeline.ingest.external_sort import FINEST_ORDER, in_sky_order
from ojala.pipeline.ingest.formats.detect import open_table
from ojala.pipeline.ingest.formats.table import scale_to
from ojala.pipeline.ingest.jpas import parsing
from ojala.pipeline.ingest.surveys.spectrum import name_key
from ojala.pipeline.storage.hats import catalogue_name, current_release, read_leaves
from ojala.pipeline.storage.healpix import (
    INDEX_ORDER,
    Partition,
    partitions_of,
    pixel_at,
    sky_order,
    spatial_index,
)

LEAF_ROWS = 10_000
"""Largest number of rows in a leaf: 0.5 GB of images, held three times while a leaf is written."""

TABLE_ROWS = 1_000
"""Largest number of rows in a leaf of a table's objects."""

_NUMBER = r"^\s*([+-]?\d{1,19}|[+-]?(\d+\.\d*|\.?\d+)([eE][+-]?\d+)|[+-]?\d+\.\d*)?\s*$"
"""Texts that are keys, also those that a program has made floating-point numbers; longer ones are names."""

_NAMES = {
    "object_id": ("object_id", "id", "targetid", "source_id"),
    "ra": ("ra", "target_ra"),
    "dec": ("dec", "target_dec"),
}


@dataclass(frozen=True, slots=True)
class CutoutObjects:
    """Objects by partition.

    Attributes
    ----------
    name : str
        Name of the catalogue, or of the table's file.
    rows : mapping of Partition to int
        Rows of each partition.
    root : UPath or None
        The catalogue; None where the objects are a table's.
    table : pyarrow.Table or None
        Keys of all of a table's objects, in the order of the sky.
    """

    name: str
    rows: Mapping[Partition, int]
    root: UPath | None = None
    table: pa.Table | None = None

    def keys(self, partition: Partition) -> pa.Table:
        """Keys and positions of a partition's objects, in their order, as `CUTOUTS` has them.

        Raises
        ------
        IngestError
            If a leaf of the catalogue cannot be read.
        """
        if self.table is not None:
            index = pixel_at(self.table["_healpix_29"].to_numpy(), partition.order)
            start, stop = np.searchsorted(index, [partition.pixel, partition.pixel + 1])
            return self.table.slice(start, stop - start)
        assert self.root is not None
        path = self.root / partition.leaf
        try:
            with path.open("rb") as raw, pq.ParquetFile(raw) as file:
                names = [name for name in KEY_NAMES if name in file.schema_arrow.names]
                table = file.read(columns=names)
        except (OSError, pa.ArrowException) as problem:
            raise IngestError(f"{path} cannot be read: {problem}") from problem
        if "primary_id" not in names and "object_id" in names:
            table = table.append_column("primary_id", table["object_id"])
        missing = [name for name in KEY_NAMES if name not in table.column_names]
        if missing:
            raise IngestError(
                f"{path} has no {', '.join(missing)}: name a catalogue of `ojala spectra` or `ojala ingest`"
            )
        return pa.table({name: table[name].cast(CUTOUTS[name].type) for name in KEY_NAMES})


def read_objects(source: UPath, scratch: UPath) -> CutoutObjects:
    """Read the objects of a catalogue of spectra or photometry, or of a table.

    Parameters
    ----------
    source : UPath
        Folder of the catalogue, or a file in one of the formats `ojala.pipeline.ingest.formats.FORMATS` with
        the columns ``ra`` and ``dec`` [deg, or the unit that the file states] and ``object_id``, ``id``,
        ``targetid`` or ``source_id``. A whole number is the key itself; of a text, the key is the first 63
        bits of its SHA-256.
    scratch : UPath
        Local folder for unpacked files.

    Raises
    ------
    IngestError
        If it is neither, a column is missing or not understood, a key comes twice, or a leaf of the catalogue
        is too large.
    """
    if source.is_dir():
        source = current_release(source)
        rows = {partition: leaf.rows for partition, leaf in read_leaves(source).items()}
        largest = max(rows, key=lambda p: rows[p], default=None)
        if largest is not None and rows[largest] > LEAF_ROWS:
            raise IngestError(
                f"{source}: partition {largest.name} has {rows[largest]:,} objects, but cut-outs are made of "
                f"{LEAF_ROWS:,} at most: make the catalogue with --tile-rows {LEAF_ROWS}"
            )
        return CutoutObjects(catalogue_name(source), rows, root=source)
    try:
        table = _table(source, scratch)
        partitions = partitions_of(table["_healpix_29"].to_numpy(), FINEST_ORDER, TABLE_ROWS)
    except SourceError as fault:
        raise IngestError(fault.in_file(source)) from fault
    except ValueError as error:
        raise IngestError(f"{source}: {error}") from error
    made = CutoutObjects(source.name, {}, table=table)
    return CutoutObjects(source.name, {p: made.keys(p).num_rows for p in sky_order(partitions)}, table=table)


def _table(path: UPath, scratch: UPath) -> pa.Table:
    """Keys and positions of a table's rows, in the order of the sky."""
    with open_table(path, scratch) as source:
        found = {}
        for name, spellings in _NAMES.items():
            spelling = next((word for word in spellings if word in source.columns), None)
            if spelling is None:
                raise SourceError(f"is missing; one of {', '.join(spellings)} is needed", column=name)
            found[name] = spelling
        wanted = list(found.values())
        batches = [batch for batch in source.batches(wanted) if batch.num_rows]
        columns = {name: source.columns[spelling] for name, spelling in found.items()}
    if not batches:
        raise SourceError("has no rows")
    table = pa.Table.from_batches(batches).unify_dictionaries().combine_chunks().rename_columns(list(found))
    cells = {name: pa.concat_arrays(table[name].chunks) for name in found}
    ra, dec = (
        parsing.numbers(cells[name], columns[name].name)
        * scale_to(columns[name], "deg", hour_angle=name == "ra")
        for name in ("ra", "dec")
    )
    key = _key(cells["object_id"], columns["object_id"].name)
    placed = (ra >= 0.0) & (ra <= 360.0) & (np.abs(dec) <= 90.0)
    index = key % (12 * 4**INDEX_ORDER)
    index[placed] = spatial_index(ra[placed], dec[placed])
    rows = {
        "_healpix_29": pa.array(index),
        "object_id": pa.array(key),
        "primary_id": pa.array(key),
        "ra": pa.array(ra, mask=~placed),
        "dec": pa.array(dec, mask=~placed),
    }
    return in_sky_order(pa.table({name: rows[name] for name in KEY_NAMES}))


def _key(cells: pa.Array, column: str) -> np.ndarray:
    """Keys of objects: whole numbers themselves, hashes of names."""
    words = None
    if pa.types.is_dictionary(cells.type) or pa.types.is_string(cells.type) or pa.types.is_binary(cells.type):
        words = pc.utf8_trim_whitespace(cells.cast(pa.string()))
        if pc.all(pc.fill_null(pc.match_substring_regex(words, _NUMBER), True)).as_py():
            words = None
    if words is None:
        key = parsing.keys(cells, column)
    else:
        missing = pc.fill_null(pc.equal(words, ""), True)
        if (row := pc.index(missing, True).as_py()) >= 0:
            raise SourceError("is missing", row=row + 1, column=column)
        key = np.array([name_key(word) for word in words.to_pylist()], np.int64)
    _, first, count = np.unique(key, return_index=True, return_counts=True)
    if (count > 1).any():
        twice = cells[int(first[count > 1][0])].as_py()
        raise SourceError(f"{twice} comes more than once: an object has one cut-out", column=column)
    return key
