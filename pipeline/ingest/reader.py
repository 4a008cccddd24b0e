"""Reader of table files into sorted rows of the photometry contract, on one process or many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from upath import UPath

from ojala.catalogs_schema.photometry import KEY_SHIFT
from ojala.pipeline.ingest.duplicates import KeyChunk, KeyWriter, find_duplicates
from ojala.pipeline.ingest.errors import IngestError
from ojala.pipeline.ingest.external_sort import SortedRuns
from ojala.pipeline.ingest.pieces import (
    Input,
    Piece,
    ReadOptions,
    ReadTask,
    find_join,
    read_files,
    read_joined,
    require_named,
)
from ojala.pipeline.ingest.tasks import Runner, run_here, run_tasks
from ojala.pipeline.storage.files import file_stat

PIECE_BYTES = 32 << 20
"""Size of the files that are read as one task; larger ones are one each [bytes]."""

_FORMER = -1
"""Number of the catalogue to which rows are added, where files have theirs."""


class PhotometryReader:
    """Reader of table files into sorted runs.

    Parameters
    ----------
    scratch : UPath
        Folder for scratch files, which all workers see.
    options : ReadOptions
        How files are read.
    run : Runner
        Where they are read.
    """

    def __init__(self, scratch: UPath, options: ReadOptions, run: Runner = run_here) -> None:
        self.runs = SortedRuns(scratch)
        self._scratch = scratch
        self._options = options
        self._run = run
        self._keys: list[KeyChunk] = []
        self._tiles: Counter[int] = Counter()

    @property
    def tiles(self) -> dict[int, int]:
        """Rows that were read by tile of the survey."""
        return dict(sorted(self._tiles.items()))

    def read_rows(self, files: Sequence[UPath]) -> list[Input]:
        """Read all files; keys are not yet checked.

        Where a file has no positions or no photometry, and others have other columns, the files are tables
        that belong together; they are joined on their key.

        Raises
        ------
        IngestError
            With the first error of each faulty file, or the keys of joined tables that do not fit.
        """
        sizes = [max(file_stat(file).bytes, 0) for file in files]
        tasks, sizes_by_task = {}, {}
        for numbers in _groups(sizes):
            name = f"read-{numbers[0]}-{numbers[-1]}"
            of_group = tuple((number, files[number]) for number in numbers)
            tasks[name] = ReadTask(self._scratch / name, of_group, self._options)
            sizes_by_task[name] = sum(sizes[number] for number in numbers) / 1e6
        pieces = run_tasks(
            self._run, self._scratch, read_files, tasks, Piece, noun="MB read", weights=sizes_by_task
        ).values()
        errors = [error for piece in pieces for error in piece.errors]
        every = ReadTask(self._scratch / "joined", tuple(enumerate(files)), self._options)
        if any(error.incomplete for error in errors) and find_join(every):
            pieces = run_tasks(
                self._run, self._scratch, read_joined, {"joined": every}, Piece, noun="joins"
            ).values()
        elif errors:
            raise IngestError("\n".join(error.message for error in errors))
        require_named(set[str].intersection(*(set(piece.unnamed) for piece in pieces)))
        for piece in pieces:
            self.runs.include(piece.runs)
            self._keys += piece.keys
            self._tiles += Counter(piece.tiles)
        return [one for piece in pieces for one in piece.inputs]

    def check_keys(
        self, files: Sequence[UPath], former: UPath | None = None, keys: Iterable[np.ndarray] = ()
    ) -> None:
        """Check that no key comes twice, nor is one of a catalogue to which the rows are added.

        Parameters
        ----------
        files : sequence of UPath
            The files, as they were read.
        former : UPath, optional
            Root of that catalogue.
        keys : iterable of ndarray of int64
            Its keys.

        Raises
        ------
        IngestError
            Names the first duplicates with file and row.
        """
        present = KeyWriter(self._scratch)
        for some in keys:
            present.add(some, _FORMER, 1)
        present.flush()
        found = find_duplicates(self._run, self._scratch, [*self._keys, *present.chunks])

        def before(place: tuple[int, int]) -> str:
            if place[0] == _FORMER:
                return f"is in {former} already: --replace takes the files' tiles out of it first"
            return f"has come before, in {files[place[0]]}, row {place[1]}"

        lines = [
            f"{files[d.second[0]]}, row {d.second[1]}, columns tile_id and number: the key "
            f"({d.object_id >> KEY_SHIFT}, {d.object_id % 2**KEY_SHIFT}) {before(d.first)}"
            for d in found.first
        ]
        if found.count > len(lines):
            lines.append(f"and {found.count - len(lines):,} more rows with a key that has come before")
        if lines:
            raise IngestError("\n".join(lines))


def _groups(sizes: Sequence[int]) -> list[list[int]]:
    """Numbers of the files that are read as one task: files that follow each other, `PIECE_BYTES` in all."""
    groups: list[list[int]] = []
    room = 0
    for number, size in enumerate(sizes):
        if not groups or size > room:
            groups.append([])
            room = PIECE_BYTES
        groups[-1].append(number)
        room -= size
    return groups
