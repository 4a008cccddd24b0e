"""Search for keys that come more than once among the rows of all files, in memory for a part of the keys."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from upath import UPath

from ojala.pipeline.ingest.tasks import Runner, run_tasks

CHUNK_ROWS = 1 << 20
"""Keys that are sorted in memory at a time (20 bytes each)."""

KEYS_AT_ONCE = 1 << 22
"""Keys that are compared with each other at a time."""

SHOWN = 20
"""Most duplicates that are named."""

_SAMPLE = 1 << 12
"""One key in so many determines the ranges that are searched one by one."""

_KEY = np.dtype([("object_id", "<i8"), ("source", "<i4"), ("row", "<i8")])


@dataclass(frozen=True, slots=True)
class KeyChunk:
    """A file of sorted keys with their files and rows.

    Attributes
    ----------
    path : str
        Path of the file.
    samples : tuple of int
        One key in `_SAMPLE`, the first of all and the last of all.
    """

    path: str
    samples: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A key that comes twice, with (file, row) of two occurrences that follow each other."""

    object_id: int
    first: tuple[int, int]
    second: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Duplicates of a range of keys: their number, and the `SHOWN` first by file and row."""

    count: int = 0
    first: tuple[Duplicate, ...] = ()


@dataclass
class KeyWriter:
    """Writer of the keys of rows into sorted chunks.

    Attributes
    ----------
    folder : UPath
        Local folder for them.
    chunks : list of KeyChunk
        Those that are written.
    """

    folder: UPath
    chunks: list[KeyChunk] = field(default_factory=list)
    _buffer: list[np.ndarray] = field(default_factory=list)

    def add(self, object_id: np.ndarray, source: np.ndarray | int, row: np.ndarray | int) -> None:
        """Add the keys of rows; those of a file in order of its rows, files in order of their numbers."""
        keys = np.empty(len(object_id), dtype=_KEY)
        keys["object_id"], keys["source"], keys["row"] = object_id, source, row
        self._buffer.append(keys)
        if sum(map(len, self._buffer)) >= CHUNK_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write the keys that are in memory."""
        keys = np.concatenate([np.empty(0, _KEY), *self._buffer])
        self._buffer = []
        if not len(keys):
            return
        keys = keys[np.argsort(keys["object_id"], kind="stable")]
        path = self.folder / f"keys-{len(self.chunks)}.npy"
        np.save(path.path, keys)
        samples = keys["object_id"][[*range(0, len(keys), _SAMPLE), -1]]
        self.chunks.append(KeyChunk(path.path, tuple(samples.tolist())))


@dataclass(frozen=True, slots=True)
class _Range:
    """Task to search among the keys ``low <= object_id < high`` of some chunks."""

    low: int
    high: int
    paths: tuple[str, ...]

    def __str__(self) -> str:
        return f"comparing the keys {self.low} to {self.high}"


def find_duplicates(run: Runner, folder: UPath, chunks: Sequence[KeyChunk]) -> Duplicates:
    """Find keys that come more than once.

    Parameters
    ----------
    run : Runner
        Where it is done.
    folder : UPath
        Folder for results.
    chunks : sequence of KeyChunk
        Keys of all rows.
    """
    samples = np.sort(np.concatenate([chunk.samples for chunk in chunks]))
    edges = np.unique([samples[0], *samples[:: KEYS_AT_ONCE // _SAMPLE], samples[-1] + 1]).tolist()
    tasks = {}
    for n, (low, high) in enumerate(itertools.pairwise(edges)):
        paths = (c.path for c in chunks if c.samples[0] < high and c.samples[-1] >= low)
        tasks[f"keys-{n}"] = _Range(low, high, tuple(paths))
    found = run_tasks(run, folder, _search, tasks, Duplicates, noun="ranges of keys compared").values()
    return Duplicates(sum(one.count for one in found), _smallest(d for one in found for d in one.first))


def _search(task: _Range) -> Duplicates:
    parts = []
    for path in task.paths:
        keys = np.load(path, mmap_mode="r")
        start, stop = np.searchsorted(keys["object_id"], [task.low, task.high])
        parts.append(np.array(keys[start:stop]))
    keys = np.concatenate(parts)
    ids = np.sort(keys["object_id"])
    twice = np.unique(ids[1:][ids[1:] == ids[:-1]])
    if not len(twice):
        return Duplicates()
    keys = np.sort(keys[np.isin(keys["object_id"], twice)], order=["object_id", "source", "row"])
    again = np.flatnonzero(keys["object_id"][1:] == keys["object_id"][:-1])
    return Duplicates(len(again), _smallest(_duplicate(keys[at], keys[at + 1]) for at in again))


def _smallest(duplicates: Iterable[Duplicate]) -> tuple[Duplicate, ...]:
    return tuple(heapq.nsmallest(SHOWN, duplicates, key=lambda d: (d.second, d.object_id)))


def _duplicate(one: np.void, two: np.void) -> Duplicate:
    first, second = ((int(key["source"]), int(key["row"])) for key in (one, two))
    return Duplicate(int(one["object_id"]), first, second)
