"""External sort of rows by sky position: sorted runs on disk, read back one partition at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from upath import UPath

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

_BUCKETS = 64
_KEY = np.dtype([("object_id", "<i8"), ("source", "<i4"), ("row", "<i8")])


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A key that comes twice, with (file, row) of its first two occurrences."""

    object_id: int
    first: tuple[int, int]
    second: tuple[int, int]


class DuplicateChecker:
    """Keys of all rows with their file and row, in scratch files, searched for duplicates."""

    def __init__(self, scratch: UPath) -> None:
        self.folder = scratch

    def add(self, object_id: np.ndarray, source: int, first_row: int) -> None:
        """Add the keys of consecutive rows of a file."""
        self.add_rows(object_id, source, np.arange(first_row, first_row + len(object_id)))

    def add_rows(self, object_id: np.ndarray, source: np.ndarray | int, row: np.ndarray) -> None:
        """Add the keys of some rows of a file, or of several."""
        keys = np.empty(len(object_id), dtype=_KEY)
        keys["object_id"], keys["source"], keys["row"] = object_id, source, row
        bucket = object_id % _BUCKETS
        order = np.argsort(bucket, kind="stable")
        starts = np.searchsorted(bucket[order], np.arange(_BUCKETS + 1))
        keys = keys[order]
        for number in np.unique(bucket):
            with self._file(int(number)).open("ab") as file:
                file.write(keys[starts[number] : starts[number + 1]].tobytes())

    def duplicates(self) -> Iterator[Duplicate]:
        """Find keys that come more than once; one part in 64 of all keys is in memory."""
        for number in range(_BUCKETS):
            file = self._file(number)
            if file.exists():
                keys = np.sort(
                    np.frombuffer(file.read_bytes(), dtype=_KEY), order=["object_id", "source", "row"]
                )
                again = np.flatnonzero(keys["object_id"][1:] == keys["object_id"][:-1])
                for at in again:
                    one, two = keys[at], keys[at + 1]
                    yield Duplicate(
                        int(one["object_id"]),
                        (int(one["source"]), int(one["row"])),
                        (int(two["source"]), int(two["row"])),
                    )

    def _file(self, number: int) -> UPath:
        return self.folder / f"keys-{number}"


@dataclass(frozen=True, slots=True)
class _Run:
    path: UPath
    first: int
    last: int


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
        self._sequences: list[list[_Run]] = []
        self._written = 0
        self._buffer: list[pa.Table] = []
        self._buffered_rows = 0
        self._pixels = np.empty(0, dtype=np.int64)
        self._counts = np.empty(0, dtype=np.int64)

    def add(self, table: pa.Table, source: int) -> None:
        """Add rows of a file."""
        origin = pa.array(np.full(table.num_rows, source, dtype=np.int32))
        self._buffer.append(table.append_column(SOURCE, origin))
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
        index = table["_healpix_29"].to_numpy()
        self._sequences.append([self._write(table)])
        pixels, counts = np.unique(pixel_at(index, COUNTED_ORDER), return_counts=True)
        self._pixels, places = np.unique(np.concatenate([self._pixels, pixels]), return_inverse=True)
        both = np.concatenate([self._counts, counts])
        self._counts = np.bincount(places, weights=both, minlength=len(self._pixels)).astype(np.int64)

    def merge(self) -> None:
        """Merge runs until at most `FAN_IN` of them overlap anywhere, in memory for a few runs.

        Each pass reads and writes every row once, so that the time is proportional to the rows, whatever
        their order on the sky.
        """
        while len(self._sequences) > FAN_IN:
            groups = [self._sequences[n : n + FAN_IN] for n in range(0, len(self._sequences), FAN_IN)]
            self._sequences = [self._merged(group) for group in groups]

    def _merged(self, group: list[list[_Run]]) -> list[_Run]:
        """One sequence of runs that follow each other, with the rows of some sequences."""
        runs = [run for sequence in group for run in sequence]
        samples = np.sort(np.concatenate([_positions(run)[::_SAMPLE] for run in runs]))
        inner = np.unique(samples[:: max(self._run_rows // _SAMPLE, 1)][1:])
        edges = [0, *inner.tolist(), 12 << 2 * INDEX_ORDER]
        made = []
        for low, high in itertools.pairwise(edges):
            if parts := _slices(runs, low, high):
                made.append(self._write(in_sky_order(pa.concat_tables(parts))))
        for run in runs:
            run.path.unlink()
        return made

    def _write(self, table: pa.Table) -> _Run:
        path = self.folder / f"run-{self._written}.arrow"
        self._written += 1
        with pa.OSFile(path.path, "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())
        index = table["_healpix_29"]
        return _Run(path, index[0].as_py(), index[-1].as_py())

    @property
    def _runs(self) -> list[_Run]:
        return [run for sequence in self._sequences for run in sequence]

    def index(self) -> np.ndarray:
        """Positions of all rows, sorted, shape (rows,)."""
        parts = [_positions(run) for run in self._runs]
        return np.sort(np.concatenate([np.empty(0, dtype=np.int64), *parts]))

    def skymap(self) -> np.ndarray:
        """Rows per pixel of the order of a catalogue's map, shape (12 * 4**SKYMAP_ORDER,)."""
        pixels = self._pixels >> 2 * (COUNTED_ORDER - SKYMAP_ORDER)
        return np.bincount(pixels, weights=self._counts, minlength=12 * 4**SKYMAP_ORDER).astype(np.int64)

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

        return adaptive_partitions(self._pixels, self._counts, COUNTED_ORDER, tile_rows, divide)

    def read(self, partition: Partition) -> pa.Table:
        """Read the rows of a partition in order of the sky, with the column `SOURCE`."""
        return in_sky_order(pa.concat_tables(self._slices(partition)))

    def _slices(self, partition: Partition, names: Sequence[str] | None = None) -> list[pa.Table]:
        """Rows of a partition in each run that has any, with some columns or all."""
        shift = 2 * (INDEX_ORDER - partition.order)
        return _slices(self._runs, partition.pixel << shift, (partition.pixel + 1) << shift, names)


def _positions(run: _Run) -> np.ndarray:
    """Positions of the rows of a run, in their order."""
    with pa.memory_map(run.path.path) as mapped:
        return np.array(pa.ipc.open_file(mapped).read_all()["_healpix_29"].to_numpy())


def _slices(runs: Sequence[_Run], low: int, high: int, names: Sequence[str] | None = None) -> list[pa.Table]:
    """Rows in ``low <= position < high`` of each run that has any, with some columns or all."""
    parts = []
    for run in runs:
        if run.first < high and run.last >= low:
            # Mapped: only the pages of the slice are read from the disk.
            with pa.memory_map(run.path.path) as mapped:
                table = pa.ipc.open_file(mapped).read_all()
                start, stop = np.searchsorted(table["_healpix_29"].to_numpy(), [low, high])
                if stop > start:
                    part = table.slice(start, stop - start)
                    parts.append(part if names is None else part.select(names))
    return parts


def in_sky_order(table: pa.Table) -> pa.Table:
    """Sort rows by their position on the sky, then by their key."""
    keys = [("_healpix_29", "ascending"), ("object_id", "ascending")]
    return table.take(pc.sort_indices(table, sort_keys=keys))
