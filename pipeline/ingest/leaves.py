"""Leaves of a photometry catalogue, written from sorted runs and from leaves of a former release."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

from ojala.catalogs_schema.photometry import PHOTOMETRY
from ojala.pipeline.ingest.errors import IngestError
from ojala.pipeline.ingest.external_sort import Run, in_sky_order, map_run, table_slice
from ojala.pipeline.ingest.tasks import Runner, require_seen, run_tasks
from ojala.pipeline.storage.files import sha256_of
from ojala.pipeline.storage.healpix import INDEX_ORDER, Partition
from ojala.pipeline.storage.parquet import LeafRecord, conform, write_leaf

TASK_ROWS = 100_000
"""Rows of small leaves that are written as one task."""


@dataclass(frozen=True, slots=True)
class FormerLeaf:
    """A leaf of the release that an update starts from.

    Attributes
    ----------
    path : UPath
        Path of the file.
    first, last : int
        Its positions: ``first <= position < last``.
    sha256 : str
        Hash of its content by the catalogue's list.
    """

    path: UPath
    first: int
    last: int
    sha256: str


@dataclass(frozen=True, slots=True)
class LeafTask:
    """Task to write some leaves.

    Attributes
    ----------
    root : UPath
        Root of the catalogue.
    partitions : tuple of Partition
        Their partitions, in order of the sky.
    runs : tuple of Run
        Sorted runs with their new rows.
    former : tuple of FormerLeaf
        Leaves with their former rows, in order of the sky.
    gone : tuple of int
        Tiles whose former rows are left out.
    """

    root: UPath
    partitions: tuple[Partition, ...]
    runs: tuple[Run, ...]
    former: tuple[FormerLeaf, ...] = ()
    gone: tuple[int, ...] = ()

    @property
    def ends(self) -> tuple[str, ...]:
        """Names of the first and, where there are several, the last partition."""
        return tuple(dict.fromkeys((self.partitions[0].name, self.partitions[-1].name)))

    def __str__(self) -> str:
        return f"writing the partitions {' to '.join(self.ends)}"


@dataclass(frozen=True, slots=True)
class WrittenLeaves:
    """Leaves in the order of the partitions of their task."""

    leaves: tuple[LeafRecord, ...]


def write_leaves(
    run: Runner, folder: UPath, tasks: Sequence[LeafTask], rows: int
) -> dict[Partition, LeafRecord]:
    """Write the leaves of all tasks.

    Parameters
    ----------
    run : Runner
        Where they are written.
    folder : UPath
        Folder for results.
    tasks : sequence of LeafTask
        The leaves.
    rows : int
        Rows that they have in all.

    Raises
    ------
    IngestError
        If other rows were written, or a former leaf is damaged.
    """
    by_name = {f"leaves-{'-to-'.join(task.ends).replace('/', '-')}": task for task in tasks}
    weights = {name: float(len(task.partitions)) for name, task in by_name.items()}
    done = run_tasks(run, folder, _write, by_name, WrittenLeaves, noun="partitions written", weights=weights)
    leaves = {
        partition: leaf
        for name, task in by_name.items()
        for partition, leaf in zip(task.partitions, done[name].leaves, strict=True)
    }
    if (written := sum(leaf.rows for leaf in leaves.values())) != rows:
        raise IngestError(f"{rows:,} rows were expected but {written:,} written")
    return leaves


def rows_in(partitions: Sequence[Partition], pixels: np.ndarray, counts: np.ndarray, order: int) -> list[int]:
    """Rows of partitions by the rows of sorted pixels of an order; of a finer one those of its pixel."""
    bounds = np.array([edges(p) for p in partitions], dtype=np.int64).reshape(-1, 2)
    shift = 2 * (INDEX_ORDER - order)
    first = np.searchsorted(pixels, bounds[:, 0] >> shift)
    last = np.searchsorted(pixels, (bounds[:, 1] - 1) >> shift, side="right")
    total = np.concatenate([[0], np.cumsum(counts)])
    return [int(rows) for rows in total[last] - total[first]]


def grouped(partitions: Sequence[Partition], rows: Sequence[int]) -> Iterator[tuple[Partition, ...]]:
    """Partitions that follow each other, with `TASK_ROWS` rows in all or one partition."""
    group: list[Partition] = []
    room = TASK_ROWS
    for partition, count in zip(partitions, rows, strict=True):
        if group and count > room:
            yield tuple(group)
            group, room = [], TASK_ROWS
        group.append(partition)
        room -= count
    if group:
        yield tuple(group)


def edges(partition: Partition) -> tuple[int, int]:
    """Positions of a partition: ``first <= position < last``."""
    shift = 2 * (INDEX_ORDER - partition.order)
    return partition.pixel << shift, (partition.pixel + 1) << shift


def _write(task: LeafTask) -> WrittenLeaves:
    require_seen(task.root)
    gone = pa.array(task.gone, pa.int32())
    mapped = [map_run(run) for run in task.runs]
    read: dict[UPath, pa.Table] = {}  # a leaf that is divided is read once
    leaves = []
    for partition in task.partitions:
        low, high = edges(partition)
        parts = [part for part in (table_slice(table, low, high) for table in mapped) if part.num_rows]
        within = [leaf for leaf in task.former if leaf.first < high and leaf.last > low]
        read = {leaf.path: read.get(leaf.path) or read_former(leaf) for leaf in within}
        for table in read.values():
            index = table["_healpix_29"]
            mine = pc.and_(pc.greater_equal(index, low), pc.less(index, high))
            parts.append(table.filter(pc.and_(mine, pc.invert(pc.is_in(table["tile_id"], gone)))))
        rows = in_sky_order(pa.concat_tables(parts))
        leaves.append(write_leaf(task.root / partition.leaf, rows, PHOTOMETRY, {}))
    return WrittenLeaves(tuple(leaves))


def read_former(leaf: FormerLeaf) -> pa.Table:
    """All rows of a leaf, in the columns of the contract, after comparing its SHA-256 with the list.

    Raises
    ------
    IngestError
        If it is damaged.
    """
    with open_leaf(leaf.path) as file:
        if sha256_of(leaf.path) != leaf.sha256:
            raise pa.ArrowInvalid("its SHA-256 is not that of the catalogue's list")
        table = conform(file.read(), PHOTOMETRY)
    schema = PHOTOMETRY.schema()
    columns = [table[name].cast(schema.field(name).type) for name in schema.names]
    return pa.Table.from_arrays(columns, schema=schema)


@contextmanager
def open_leaf(path: UPath) -> Iterator[pq.ParquetFile]:
    """Open a leaf of a former release.

    Raises
    ------
    IngestError
        If it is damaged, as found inside of the block, too.
    """
    try:
        with path.open("rb") as file:
            yield pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise IngestError(
            f"{path} is damaged: {str(error).strip()}. Roll back to a release that `ojala verify` finds "
            "whole, or ingest the survey again"
        ) from error
