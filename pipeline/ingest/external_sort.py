"""External sort of rows by sky position: sorted runs on disk, read back one partition at a time.

Workers write runs of their own (`SortedRuns.add`, `flush`), whose lists are put together (`include`). Time is
proportional to the rows, whatever their order on the sky: each pass of `merge` reads and writes every row
once. Up to 2 million rows there is none, one up to 67 million, two up to 2,100 million.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from upath import UPath

from ojala.pipeline.ingest.tasks import Runner, run_here, run_tasks
from ojala.pipeline.storage.hats import SKYMAP_ORDER
from ojala.pipeline.storage.healpix import (
    INDEX_ORDER,
    Partition,
    adaptive_partitions,
    partitions_of,
    pixel_at,
)

RUN_ROWS = 65_536
"""Rows of photometry that are sorted in memory at a time (about 40 MB)."""

COUNTED_ORDER = 10
"""HEALPix order of the pixels (3.4 arcmin) whose rows are counted while files are read."""

FINEST_ORDER = 18
"""Finest HEALPix order of a partition (pixels of 0.8 arcsec), into which crowded pixels are divided."""

SOURCE = "_source"
"""Column of a run with the number of a row's input file."""

FAN_IN = 32
"""Most sorted sequences of runs that a partition is read from; more are merged before."""

_SAMPLE = 64
"""One position in so many determines where merged runs end."""

_MANY_COUNTS = 1 << 21
"""Counts of pixels that are collected before those of the same pixel are added up."""


@dataclass(frozen=True, slots=True)
class Run:
    """A file of sorted rows.

    Attributes
    ----------
    path : str
        Path of the file (Arrow).
    first, last : int
        Positions of its first and last row.
    rows : int
        Number of rows.
    """

    path: str
    first: int
    last: int
    rows: int


@dataclass(frozen=True, slots=True)
class RunList:
    """Sorted runs of a task, and the file with the numbers of their rows by pixel."""

    runs: tuple[Run, ...]
    counts: str


class SortedRuns:
    """Sorted runs of rows, for reading in order of the sky.

    Parameters
    ----------
    scratch : UPath
        Local folder for the runs.
    run_rows : int, optional
        Rows that are sorted in memory at a time; default: `RUN_ROWS`.
    """

    def __init__(self, scratch: UPath, run_rows: int | None = None) -> None:
        self.folder = scratch
        self.rows = 0
        self._run_rows = RUN_ROWS if run_rows is None else run_rows
        self._sequences: list[list[Run]] = []
        self._buffer: list[pa.Table] = []
        self._buffered_rows = 0
        self._pixels: list[np.ndarray] = []
        self._counts: list[np.ndarray] = []

    def add(self, table: pa.Table, source: int | None = None) -> None:
        """Add rows; those of a numbered file get the column `SOURCE`."""
        if source is not None:
            table = table.append_column(SOURCE, pa.array(np.full(table.num_rows, source, dtype=np.int32)))
        self._buffer.append(table)
        self._buffered_rows += table.num_rows
        self.rows += table.num_rows
        if self._buffered_rows >= self._run_rows:
            self.flush()

    def flush(self) -> None:
        """Write the buffered rows as a run."""
        if not self._buffered_rows:
            return
        table = in_sky_order(pa.concat_tables(self._buffer))
        self._buffer, self._buffered_rows = [], 0
        self._sequences.append([write_run(self.folder / f"run-{len(self._sequences)}.arrow", table)])
        self._count(*np.unique(pixel_at(table["_healpix_29"].to_numpy(), COUNTED_ORDER), return_counts=True))

    def _count(self, pixels: np.ndarray, counts: np.ndarray) -> None:
        self._pixels.append(pixels)
        self._counts.append(counts.astype(np.int64))
        if sum(len(part) for part in self._pixels[1:]) > _MANY_COUNTS:
            self.counts()

    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Distinct pixels of `COUNTED_ORDER` that hold rows, sorted, and the number of rows in each."""
        pixels, places = np.unique(np.concatenate([[], *self._pixels]).astype(np.int64), return_inverse=True)
        both = np.concatenate([[], *self._counts])
        counts = np.bincount(places, weights=both, minlength=len(pixels)).astype(np.int64)
        self._pixels, self._counts = [pixels], [counts]
        return pixels, counts

    def export(self) -> RunList:
        """The list of the runs, for `include` in another process."""
        path = self.folder / "counts.npy"
        np.save(path.path, np.stack(self.counts()))
        return RunList(tuple(run for run in self._runs), path.path)

    def include(self, part: RunList) -> None:
        """Take over runs that a task has written."""
        self._sequences += [[run] for run in part.runs]
        self.rows += sum(run.rows for run in part.runs)
        self._count(*np.load(part.counts))

    def merge(self, run: Runner = run_here) -> None:
        """Merge runs until at most `FAN_IN` of them overlap anywhere, in memory for a few runs.

        Parameters
        ----------
        run : Runner, optional
            Where it is done; all workers see the folder of the runs.
        """
        level = 0
        while len(self._sequences) > FAN_IN:
            level += 1
            groups = [self._sequences[n : n + FAN_IN] for n in range(0, len(self._sequences), FAN_IN)]
            tasks = {
                f"merge-{level}-{n}": _Merge(
                    self.folder / f"merged-{level}-{n}",
                    tuple(one for sequence in group for one in sequence),
                    self._run_rows,
                )
                for n, group in enumerate(groups)
            }
            rows = {name: float(sum(one.rows for one in task.runs)) for name, task in tasks.items()}
            merged = run_tasks(
                run, self.folder, _merge, tasks, _Merged, noun=f"rows sorted (pass {level})", weights=rows
            )
            self._sequences = [list(one.runs) for one in merged.values()]
            for task in tasks.values():
                for one in task.runs:
                    UPath(one.path).unlink(missing_ok=True)

    @property
    def _runs(self) -> list[Run]:
        return [run for sequence in self._sequences for run in sequence]

    def index(self) -> np.ndarray:
        """Positions of all rows, sorted, shape (rows,)."""
        parts = [_positions(run) for run in self._runs]
        return np.sort(np.concatenate([np.empty(0, dtype=np.int64), *parts]))

    def skymap(self) -> np.ndarray:
        """Rows per pixel of the order of a catalogue's map, shape (12 * 4**SKYMAP_ORDER,)."""
        pixels, counts = self.counts()
        pixels = pixels >> 2 * (COUNTED_ORDER - SKYMAP_ORDER)
        return np.bincount(pixels, weights=counts, minlength=12 * 4**SKYMAP_ORDER).astype(np.int64)

    def partitions(self, tile_rows: int) -> list[Partition]:
        """The coarsest partitions with at most `tile_rows` rows each.

        Raises
        ------
        ValueError
            If one pixel of `FINEST_ORDER` holds more.
        """

        def divide(pixel: int) -> list[Partition]:
            crowded = self._slices(Partition(COUNTED_ORDER, pixel), ["_healpix_29"])
            index = np.concatenate([part["_healpix_29"].to_numpy() for part in crowded])
            return partitions_of(index, FINEST_ORDER, tile_rows)

        return adaptive_partitions(*self.counts(), COUNTED_ORDER, tile_rows, divide)

    def read(self, partition: Partition) -> pa.Table:
        """Read the rows of a partition in order of the sky, with the column `SOURCE` where they have it."""
        return in_sky_order(pa.concat_tables(self._slices(partition)))

    def overlapping(self, low: int, high: int) -> tuple[Run, ...]:
        """Runs that may have rows in ``low <= position < high``."""
        return tuple(run for run in self._runs if run.first < high and run.last >= low)

    def _slices(self, partition: Partition, names: Sequence[str] | None = None) -> list[pa.Table]:
        """Rows of a partition in each run that has any, with some columns or all."""
        shift = 2 * (INDEX_ORDER - partition.order)
        return read_slices(self._runs, partition.pixel << shift, (partition.pixel + 1) << shift, names)


@dataclass(frozen=True, slots=True)
class _Merge:
    """Task to write some runs again, as runs that follow each other.

    Attributes
    ----------
    folder : UPath
        Folder for them.
    runs : tuple of Run
        The runs.
    run_rows : int
        Rows that are sorted in memory at a time.
    """

    folder: UPath
    runs: tuple[Run, ...]
    run_rows: int

    def __str__(self) -> str:
        return f"sorting {sum(run.rows for run in self.runs):,} rows in {self.folder}"


@dataclass(frozen=True, slots=True)
class _Merged:
    runs: tuple[Run, ...]


def _merge(task: _Merge) -> _Merged:
    samples = np.sort(np.concatenate([_positions(run)[::_SAMPLE] for run in task.runs]))
    inner = np.unique(samples[:: max(task.run_rows // _SAMPLE, 1)][1:])
    folder = own_folder(task.folder)
    made: list[Run] = []
    for low, high in itertools.pairwise([0, *inner.tolist(), 12 << 2 * INDEX_ORDER]):
        if parts := read_slices(task.runs, low, high):
            made.append(write_run(folder / f"run-{len(made)}.arrow", in_sky_order(pa.concat_tables(parts))))
    return _Merged(tuple(made))


def own_folder(folder: UPath) -> UPath:
    """A new folder in a folder, for one attempt at a task: an attempt that lives on disturbs no other."""
    folder.mkdir(parents=True, exist_ok=True)
    return UPath(tempfile.mkdtemp(dir=folder.path))


def write_run(path: UPath, table: pa.Table) -> Run:
    """Write rows in order of the sky as a run."""
    with pa.OSFile(path.path, "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    index = table["_healpix_29"]
    return Run(path.path, index[0].as_py(), index[-1].as_py(), table.num_rows)


def _positions(run: Run) -> np.ndarray:
    """Positions of the rows of a run, in their order."""
    with pa.memory_map(run.path) as mapped:
        return np.array(pa.ipc.open_file(mapped).read_all()["_healpix_29"].to_numpy())


def read_slices(
    runs: Sequence[Run], low: int, high: int, names: Sequence[str] | None = None
) -> list[pa.Table]:
    """Rows in ``low <= position < high`` of each run that has any, with some columns or all."""
    there = (map_run(run) for run in runs if run.first < high and run.last >= low)
    parts = [part for part in (table_slice(table, low, high) for table in there) if part.num_rows]
    return parts if names is None else [part.select(names) for part in parts]


def map_run(run: Run) -> pa.Table:
    """All rows of a run, mapped: only the pages of those that are used are read from the disk."""
    with pa.memory_map(run.path) as mapped:
        return pa.ipc.open_file(mapped).read_all()


def table_slice(table: pa.Table, low: int, high: int) -> pa.Table:
    """Rows in ``low <= position < high`` of a table in order of the sky."""
    start, stop = np.searchsorted(table["_healpix_29"].to_numpy(), [low, high])
    return table.slice(start, stop - start)


def in_sky_order(table: pa.Table) -> pa.Table:
    """Sort rows by their position on the sky, then by their key."""
    keys = [("_healpix_29", "ascending"), ("object_id", "ascending")]
    return table.take(pc.sort_indices(table, sort_keys=keys))
