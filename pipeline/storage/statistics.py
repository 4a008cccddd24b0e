"""Statistics of each partition of a catalogue from the footers of its leaves, and a thumbnail, as in HATS.

What an earlier catalogue has of the same leaves is taken over, and only leaves that have changed are opened.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from ojala.pipeline.storage.files import write_whole
from ojala.pipeline.storage.hats import open_leaf, read_leaves
from ojala.pipeline.storage.healpix import INDEX_ORDER, Partition, sky_order
from ojala.pipeline.storage.parquet import FEW_ROWS, LeafRecord

STATISTICS = "per_partition_statistics.parquet"
"""Least and largest value, nulls, rows and sizes of each column, one row for each row group of the leaves."""

THUMBNAIL = "data_thumbnail.parquet"
"""First row of each partition."""

_MEASURES = ("min_value", "max_value", "null_count", "row_count", "disk_bytes", "memory_bytes")
_LEAVES_AT_ONCE = 64
"""Leaves whose statistics are in memory as Python's numbers, which take some 100 kB a leaf."""

_PLACE = ("Norder", "Npix", "row_group_index")


def write_statistics(
    root: UPath, leaves: Mapping[Partition, LeafRecord], *, base: UPath | None = None
) -> None:
    """Write `STATISTICS` and `THUMBNAIL` of a catalogue.

    Parameters
    ----------
    root : UPath
        Root of the catalogue.
    leaves : mapping of Partition to LeafRecord
        Its leaves.
    base : UPath, optional
        Earlier catalogue whose files of the same leaves are taken over.
    """
    kept, statistics, thumbnail = _of_base(base, leaves)
    fresh = sky_order(leaves.keys() - kept)
    for start in range(0, len(fresh), _LEAVES_AT_ONCE):
        rows, firsts = [], []
        for partition in fresh[start : start + _LEAVES_AT_ONCE]:
            with open_leaf(root, partition) as file:
                rows += _row_groups(partition, file.metadata)
                names = _column_names(file.metadata)
                if file.metadata.num_rows:
                    firsts.append(_first_row(file).replace_schema_metadata(None))
        if rows:
            columns = [*_PLACE, *(f"{name}::{measure}" for name in names for measure in _MEASURES)]
            values = [pa.array(one) for one in zip(*rows, strict=True)]
            statistics.append(pa.Table.from_arrays(values, columns))
        if firsts:
            thumbnail.append(pa.concat_tables(firsts, promote_options="permissive").combine_chunks())
    for tables, name in ((statistics, STATISTICS), (thumbnail, THUMBNAIL)):
        if tables:
            table = pa.concat_tables(tables, promote_options="permissive")
            sink = pa.BufferOutputStream()
            order = _order(table) if name == STATISTICS else np.argsort(table["_healpix_29"].to_numpy())
            pq.write_table(table.take(pa.array(order)), sink, compression="zstd")
            write_whole(root / name, memoryview(sink.getvalue()))


def _of_base(
    base: UPath | None, leaves: Mapping[Partition, LeafRecord]
) -> tuple[set[Partition], list[pa.Table], list[pa.Table]]:
    """Partitions whose leaf an earlier catalogue has, and their rows of its statistics and thumbnail."""
    if base is None or not ((base / STATISTICS).exists() and (base / THUMBNAIL).exists()):
        return set(), [], []
    before = read_leaves(base)
    same = {p for p, leaf in leaves.items() if before.get(p) == leaf}
    tables = []
    for name in (STATISTICS, THUMBNAIL):
        with (base / name).open("rb") as file:
            tables.append(pq.read_table(file))
    statistics, thumbnail = tables
    place = zip(statistics["Norder"].to_pylist(), statistics["Npix"].to_pylist(), strict=True)
    wanted = [Partition(*one) in same for one in place]
    index = thumbnail["_healpix_29"].to_numpy()
    shown = np.zeros(len(index), bool)
    for order in {p.order for p in same}:
        pixels = [p.pixel for p in same if p.order == order]
        shown |= np.isin(index >> 2 * (INDEX_ORDER - order), pixels)
    return same, [statistics.filter(pa.array(wanted))], [thumbnail.filter(pa.array(shown))]


def _first_row(leaf: pq.ParquetFile) -> pa.Table:
    if leaf.metadata.num_rows < FEW_ROWS:  # to read them all takes half the time of a batch of one row
        return leaf.read_row_group(0, use_threads=False).slice(0, 1)
    return pa.Table.from_batches([next(leaf.iter_batches(1))])


def _row_groups(partition: Partition, footer: pq.FileMetaData) -> list[list[object]]:
    """A row of the statistics for each row group of a leaf."""
    rows = []
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        columns = [group.column(i) for i in range(footer.num_columns)]
        known = [
            (None, None, 0) if (s := one.statistics) is None else (s.min, s.max, s.null_count)
            for one in columns
        ]
        sizes = [(one.num_values, one.total_compressed_size, one.total_uncompressed_size) for one in columns]
        values = itertools.chain.from_iterable((*a, *b) for a, b in zip(known, sizes, strict=True))
        rows.append([partition.order, partition.pixel, number, *values])
    return rows


def _column_names(footer: pq.FileMetaData) -> list[str]:
    columns = (footer.schema.column(i).path for i in range(footer.num_columns))
    return [path.removesuffix(".list.element") for path in columns]


def _order(statistics: pa.Table) -> np.ndarray:
    """Order of the rows of statistics on the sky."""
    order, pixel, group = (statistics[name].to_numpy() for name in _PLACE)
    return np.lexsort((group, order, pixel << 2 * (INDEX_ORDER - order)))
