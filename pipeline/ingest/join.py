"""Join of tables that the archive gives apart, such as fluxes, extinction and cross-matches, on their key.

Files with the same columns are parts of one table, whatever the order of their rows and columns. Every object
must come once in each table. Rows are distributed to scratch files by their key, and joined one such bucket
after the other, so that memory is bounded.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from upath import UPath

from ojala.catalogs_schema.photometry import KEY_SHIFT
from ojala.pipeline.ingest.errors import IngestError, SourceError
from ojala.pipeline.ingest.formats.table import BATCH_ROWS, SourceColumn, TableSource
from ojala.pipeline.ingest.jpas import parsing
from ojala.pipeline.ingest.jpas.column_mapping import POSITIONS, TableMapping

KEY = ("tile_id", "number")
"""Columns of the key."""

BUCKET_BYTES = 128 << 20
"""Size of the files whose rows share a bucket [bytes]."""

_MAX_BUCKETS = 64
_SHOWN = 20
_INT32 = 2**31 - 1
_ID, _FILE, _ROW = "_object_id", "_file", "_row"

Open = Callable[[UPath], AbstractContextManager[TableSource]]
"""Opens a file as a table."""


@dataclass
class JoinedTable:
    """A table of a join, in one file or several.

    Attributes
    ----------
    files : list of int
        Numbers of its files.
    columns : dict of str to SourceColumn
        Its columns by their names in lower case.
    wanted : list of str
        Those that are taken from it, without the key.
    """

    files: list[int]
    columns: dict[str, SourceColumn]
    wanted: list[str] = field(default_factory=list)


class Join:
    """Join of the tables in some files.

    Parameters
    ----------
    files : sequence of UPath
        The files.
    open_file : callable
        Opens one of them.
    scratch : UPath
        Local folder for scratch files.

    Attributes
    ----------
    tables : list of JoinedTable
        The table with the positions, then the others, those with more columns first.
    source : TableSource
        Columns and notes of all tables together; a column that several have is that of the first of them.
    rows, tiles : list of int, list of Counter
        Rows of each file, and by tile.
    forms : list of str
        Format of each file.
    """

    def __init__(self, files: Sequence[UPath], open_file: Open, scratch: UPath) -> None:
        self.files, self._open, self._scratch = files, open_file, scratch
        self.rows = [0] * len(files)
        self.tiles = [Counter[int]() for _ in files]
        self.forms: list[str] = []
        tables: dict[frozenset[str], JoinedTable] = {}
        notes: dict[str, dict[str, None]] = {}
        for number, file in enumerate(files):
            with open_file(file) as source:
                self.forms.append(source.form)
                table = tables.setdefault(frozenset(source.columns), JoinedTable([], source.columns))
                table.files.append(number)
                for name, note in source.notes.items():
                    notes.setdefault(name, {})[note] = None
        self.tables = sorted(tables.values(), key=_rank)
        columns: dict[str, SourceColumn] = {}
        for table in reversed(self.tables):
            columns |= table.columns
        if len(notes.get("filters", ())) > 1:
            raise IngestError("the tables name different filters, or in another order: they cannot be joined")
        self.source = TableSource(columns, lambda _: iter(()), {n: " ".join(v) for n, v in notes.items()})

    @property
    def is_possible(self) -> bool:
        """Whether there are several tables, each with the key."""
        return len(self.tables) > 1 and all(set(KEY) <= table.columns.keys() for table in self.tables)

    def named(self, table: JoinedTable) -> str:
        """Names of a table's files."""
        first = [str(self.files[number]) for number in table.files[:2]]
        more = len(table.files) - len(first)
        return " and ".join(first) if not more else f"{', '.join(first)} and {more:,} more files"

    def owner(self, column: str) -> JoinedTable:
        """Table that a column is taken from, by its name in lower case."""
        return next(table for table in self.tables if column in table.columns)

    def batches(self, mapping: TableMapping) -> Iterator[tuple[pa.RecordBatch, np.ndarray, np.ndarray]]:
        """Read, join and yield all rows.

        Parameters
        ----------
        mapping : TableMapping
            Mapping of the columns of `source`.

        Yields
        ------
        batch : pyarrow.RecordBatch
            The columns ``mapping.read``.
        file, row : ndarray of int64, shape (T, N)
            File and row of each of the N rows in each of the T tables.

        Raises
        ------
        IngestError
            If a file is not understood, or a key comes twice in a table or is not in all of them.
        """
        for name in mapping.read:
            if name not in KEY:
                self.owner(name).wanted.append(name)
        size = sum(file.stat().st_size for file in self.files)
        buckets = min(1 + size // BUCKET_BYTES, _MAX_BUCKETS)
        self._distribute(buckets)
        problems: list[tuple[int, int, str]] = []
        for bucket in range(buckets):
            parts = [self._read(number, bucket) for number in range(len(self.tables))]
            if found := list(self._problems(parts)):
                problems = heapq.nsmallest(_SHOWN + 1, [*problems, *found])
            elif not problems and parts[0].num_rows:
                yield from self._join(parts, mapping.read)
        if problems:
            lines = [text for *_, text in problems[:_SHOWN]]
            lines += ["and more rows without a partner or with a key that has come before"] * (
                len(problems) > _SHOWN
            )
            raise IngestError("\n".join(lines))

    def _distribute(self, buckets: int) -> None:
        errors = []
        for number, table in enumerate(self.tables):
            with ExitStack() as stack:
                writers: dict[int, pa.RecordBatchWriter] = {}
                for file in table.files:
                    try:
                        with self._open(self.files[file]) as source:
                            for batch in source.batches([*KEY, *table.wanted]):
                                part = self._with_keys(batch, file, source)
                                self._write(stack, writers, part, number, buckets)
                    except SourceError as error:
                        errors.append(error.in_file(self.files[file]))
                    except OSError as error:
                        errors.append(f"{self.files[file]} cannot be read: {error}")
        if errors:
            raise IngestError("\n".join(errors))

    def _with_keys(self, batch: pa.RecordBatch, file: int, source: TableSource) -> pa.Table:
        keys = []
        for name in KEY:
            try:
                found = parsing.whole_numbers(
                    batch[name], source.columns[name].name, low=0, high=_INT32, required=True
                )
            except SourceError as error:
                raise error.after(self.rows[file]) from None
            keys.append(found.astype(np.int64))
        self.tiles[file].update(keys[0].tolist())
        rows = np.arange(self.rows[file] + 1, self.rows[file] + 1 + batch.num_rows)
        self.rows[file] += batch.num_rows
        table = pa.Table.from_batches([batch]).append_column(_ID, pa.array(keys[0] << KEY_SHIFT | keys[1]))
        return table.append_column(_FILE, pa.array(np.full(len(rows), file))).append_column(
            _ROW, pa.array(rows)
        )

    def _write(
        self,
        stack: ExitStack,
        writers: dict[int, pa.RecordBatchWriter],
        part: pa.Table,
        number: int,
        buckets: int,
    ) -> None:
        place = part[_ID].to_numpy() % buckets
        for bucket in np.unique(place).tolist():
            if bucket not in writers:
                sink = stack.enter_context(pa.OSFile(self._path(number, bucket).path, "wb"))
                writers[bucket] = stack.enter_context(pa.ipc.new_stream(sink, part.schema))
            try:
                writers[bucket].write_table(part.filter(pa.array(place == bucket)))
            except pa.ArrowInvalid:
                raise SourceError(
                    "has cells of other types than the files of the same table before it: give all files of "
                    "a table in one format"
                ) from None

    def _path(self, number: int, bucket: int) -> UPath:
        return self._scratch / f"join-{number}-{bucket}.arrow"

    def _read(self, number: int, bucket: int) -> pa.Table:
        """Rows of a table in a bucket, sorted by key, file and row."""
        path = self._path(number, bucket)
        if not path.exists():
            names = (_ID, _FILE, _ROW)
            return pa.table({name: pa.array([], pa.int64()) for name in names})
        with pa.memory_map(path.path) as mapped, pa.ipc.open_stream(mapped) as stream:
            table = stream.read_all()
        return table.take(pc.sort_indices(table, sort_keys=[(n, "ascending") for n in (_ID, _FILE, _ROW)]))

    def _problems(self, parts: Sequence[pa.Table]) -> Iterator[tuple[int, int, str]]:
        """File, row and sentence of each key that comes twice in a table, or in one table only."""
        ids = [part[_ID].to_numpy() for part in parts]
        for number, part in enumerate(parts):
            for at in np.flatnonzero(ids[number][1:] == ids[number][:-1]).tolist():
                before = self._place(part, at)
                yield self._problem(part, at + 1, f"has come before, in {before[0]}, row {before[1]}")
            others = range(1, len(parts)) if number == 0 else (0,)
            for other in others:
                lone = ~np.isin(ids[number], ids[other])
                for at in np.flatnonzero(lone).tolist():
                    text = f"has no partner in {self.named(self.tables[other])}"
                    yield self._problem(part, at, text)

    def _place(self, part: pa.Table, at: int) -> tuple[UPath, int]:
        return self.files[part[_FILE][at].as_py()], part[_ROW][at].as_py()

    def _problem(self, part: pa.Table, at: int, text: str) -> tuple[int, int, str]:
        file, row = self._place(part, at)
        key = part[_ID][at].as_py()
        return (
            part[_FILE][at].as_py(),
            row,
            f"{file}, row {row}, columns tile_id and number: the key ({key >> KEY_SHIFT}, "
            f"{key % 2**KEY_SHIFT}) {text}",
        )

    def _join(
        self, parts: Sequence[pa.Table], names: Sequence[str]
    ) -> Iterator[tuple[pa.RecordBatch, np.ndarray, np.ndarray]]:
        """Rows side by side: all parts have the same keys, in the same order."""
        file = np.stack([part[_FILE].to_numpy() for part in parts])
        row = np.stack([part[_ROW].to_numpy() for part in parts])
        columns = {name: parts[0][name] for name in KEY}
        for table, part in zip(self.tables, parts, strict=True):
            columns |= {name: part[name] for name in table.wanted}
        joined = pa.table({name: columns[name] for name in names}).combine_chunks()
        first = 0
        for batch in joined.to_batches(max_chunksize=BATCH_ROWS):
            last = first + batch.num_rows
            yield batch, file[:, first:last], row[:, first:last]
            first = last


def _rank(table: JoinedTable) -> tuple[bool, int, list[str]]:
    """Tables with positions first, then those with more columns."""
    there = any(all(name in table.columns for name in pair) for pair in POSITIONS)
    return not there, -len(table.columns), sorted(table.columns)
