"""Reading of input files, on a worker: rows of the photometry contract in sorted runs, and their keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from upath import UPath

from ojala.pipeline.ingest.duplicates import KeyChunk, KeyWriter
from ojala.pipeline.ingest.errors import IngestError, SourceError
from ojala.pipeline.ingest.external_sort import RunList, SortedRuns, own_folder
from ojala.pipeline.ingest.formats.detect import open_table
from ojala.pipeline.ingest.formats.table import TableSource, choose_columns
from ojala.pipeline.ingest.join import KEY, Join
from ojala.pipeline.ingest.jpas.column_mapping import IncompleteTable, TableMapping, map_columns
from ojala.pipeline.ingest.jpas.convert import convert_photometry
from ojala.pipeline.ingest.jpas.flux_units import FluxDensityKind
from ojala.pipeline.storage.files import sha256_of
from ojala.pipeline.storage.progress import note


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Options of the user on how files are read; see `ojala.pipeline.ingest.photometry.ingest_photometry`."""

    aperture: str
    units: FluxDensityKind | None = None
    ignore: tuple[str, ...] = ()
    columns: tuple[tuple[str, str], ...] = ()

    @property
    def named(self) -> set[str]:
        """Columns of the files, in lower case, that the options name."""
        return {name.strip().lower() for name in (*self.ignore, *dict(self.columns).values())}


@dataclass(frozen=True, slots=True)
class Input:
    """An input file.

    Attributes
    ----------
    name : str
        Name, without the folder.
    sha256 : str
        Hash of its content.
    bytes, rows : int
        Size.
    form : str
        Table format, one of `ojala.pipeline.ingest.formats.FORMATS`.
    bands : tuple of str
        Bands with fluxes.
    ignored : tuple of str
        Columns that were not read.
    tiles : dict of int to int
        Rows by tile of the survey.
    """

    name: str
    sha256: str
    bytes: int
    rows: int
    form: str
    bands: tuple[str, ...]
    ignored: tuple[str, ...]
    tiles: dict[int, int]


@dataclass(frozen=True, slots=True)
class FileError:
    """The first error of a file.

    Attributes
    ----------
    file : int
        Number of the file.
    message : str
        The error, with file, row and column.
    incomplete : bool
        Whether it is that a table lacks positions or photometry, which may be in another file.
    """

    file: int
    message: str
    incomplete: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """What was read of some files.

    Attributes
    ----------
    runs : RunList
        Their rows.
    keys : tuple of KeyChunk
        Keys of the rows.
    inputs : tuple of Input
        The files, in their order.
    tiles : dict of int to int
        Rows by tile of the survey.
    unnamed : tuple of str
        Columns of the user's options that none of the files has.
    errors : tuple of FileError
        Errors, in the order of the files; then the rest does not count.
    """

    runs: RunList
    keys: tuple[KeyChunk, ...]
    inputs: tuple[Input, ...]
    tiles: dict[int, int]
    unnamed: tuple[str, ...]
    errors: tuple[FileError, ...] = ()

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(run.rows for run in self.runs.runs)


@dataclass(frozen=True, slots=True)
class ReadTask:
    """Task to read some files into a folder of their own.

    Attributes
    ----------
    folder : UPath
        The folder, which all workers see.
    files : tuple of (int, UPath)
        The files with their numbers.
    options : ReadOptions
        Options.
    """

    folder: UPath
    files: tuple[tuple[int, UPath], ...]
    options: ReadOptions

    def __str__(self) -> str:
        more = f" and {len(self.files) - 1:,} more files" if len(self.files) > 1 else ""
        return f"reading {self.files[0][1]}{more}"


def read_files(task: ReadTask) -> Piece:
    """Read files whose rows are concatenated."""
    reader = _Reader(task)
    inputs, errors = [], []
    for number, file in task.files:
        try:
            inputs.append(reader.read(file, number))
        except SourceError as error:
            errors.append(FileError(number, error.in_file(file), isinstance(error, IncompleteTable)))
    return reader.piece(inputs, errors)


def read_joined(task: ReadTask) -> Piece:
    """Read files of different tables, which are joined on their key.

    Raises
    ------
    IngestError
        If a file is not understood, or keys have no partner.
    """
    return _Reader(task).read_joined([file for _, file in task.files])


def find_join(task: ReadTask) -> bool:
    """Whether files are different tables that can be joined."""
    reader = _Reader(task)
    try:
        return Join([file for _, file in task.files], reader.open, reader.folder).is_possible
    except SourceError:
        return False  # said of its file when that is read


class _Reader:
    """Reader of the files of a task."""

    def __init__(self, task: ReadTask) -> None:
        self.folder = own_folder(task.folder)
        self._options = task.options
        self._unnamed = task.options.named
        self._runs = SortedRuns(self.folder)
        self._keys = KeyWriter(self.folder)
        self._tiles: Counter[int] = Counter()

    def piece(self, inputs: Sequence[Input], errors: Sequence[FileError] = ()) -> Piece:
        """What was read."""
        with self._sorting():
            self._runs.flush()
            self._keys.flush()
            runs = self._runs.export()
        tiles = dict(sorted(self._tiles.items()))
        unnamed = tuple(sorted(self._unnamed))
        return Piece(runs, tuple(self._keys.chunks), tuple(inputs), tiles, unnamed, tuple(errors))

    @contextmanager
    def open(self, file: UPath) -> Iterator[TableSource]:
        """Open a file as a table with the columns that the options leave."""
        with read_errors(), open_table(file, self.folder) as source:
            if self._options.named:
                self._unnamed -= source.columns.keys()
                source = choose_columns(source, self._options.ignore, dict(self._options.columns))
            yield source

    def read(self, file: UPath, number: int) -> Input:
        """Read a file."""
        rows, tiles = 0, Counter[int]()
        with self.open(file) as source:
            mapping = map_columns(source, self._options.aperture, self._options.units)
            for table in _convert_batches(source, mapping):
                self._add(table, number, np.arange(rows + 1, rows + 1 + table.num_rows))
                rows += table.num_rows
                tiles += _count_tiles(table)
                note(f"{rows:,} rows of {file.name}")
        if not rows:
            raise SourceError("has no rows")
        self._tiles += tiles
        with read_errors():
            sha256, size = sha256_of(file), file.stat().st_size
        return Input(
            name=file.name,
            sha256=sha256,
            bytes=size,
            rows=rows,
            form=source.form,
            bands=mapping.bands,
            ignored=mapping.ignored,
            tiles=dict(sorted(tiles.items())),
        )

    def read_joined(self, files: Sequence[UPath]) -> Piece:
        """Read tables that belong together."""
        join = Join(files, self.open, self.folder)
        try:
            mapping = map_columns(join.source, self._options.aperture, self._options.units)
        except SourceError as error:
            names = "; ".join(join.named(table) for table in sorted(join.tables, key=lambda t: t.files))
            raise IngestError(f"the tables together, of {names}: {error}") from error
        require_named(self._unnamed)
        for batch, file, row in join.batches(mapping):
            try:
                table = convert_photometry(batch, mapping, join.source.columns)
            except SourceError as error:
                raise IngestError(_in_table(error, join, file, row)) from None
            self._add(table, file[0], row[0])
            self._tiles += _count_tiles(table)
            note(f"{self._runs.rows:,} rows joined")
        return self.piece([_joined_input(join, mapping, number) for number in range(len(files))])

    def _add(self, table: pa.Table, file: np.ndarray | int, row: np.ndarray) -> None:
        with self._sorting():
            self._keys.add(table["object_id"].to_numpy(), file, row)
            self._runs.add(table)

    @contextmanager
    def _sorting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise IngestError(f"rows cannot be sorted in {self.folder}: {error}") from error


def require_named(unnamed: Iterable[str]) -> None:
    """Refuse columns of the user's options that no file has.

    Raises
    ------
    IngestError
        If there are any.
    """
    if lines := [f"no file has a column {name}" for name in sorted(unnamed)]:
        raise IngestError("\n".join(lines))


def _count_tiles(table: pa.Table) -> Counter[int]:
    tiles, rows = np.unique(table["tile_id"].to_numpy(), return_counts=True)
    return Counter(dict(zip(tiles.tolist(), rows.tolist(), strict=True)))


def _in_table(error: SourceError, join: Join, file: np.ndarray, row: np.ndarray) -> str:
    """Message of an error in a joined row, with the file and row of the cell."""
    names = {column.name: name for name, column in join.source.columns.items()}
    table = join.owner(names[error.column]) if error.column in names else join.tables[0]
    at = (join.tables.index(table), (error.row or 1) - 1)
    return SourceError(error.problem, row=int(row[at]), column=error.column).in_file(join.files[file[at]])


def _joined_input(join: Join, mapping: TableMapping, number: int) -> Input:
    file = join.files[number]
    table = next(table for table in join.tables if number in table.files)
    bands = {band.name for c in mapping.columns if c.value in table.wanted for band in c.bands if band}
    read = {*KEY, *table.wanted}
    with read_errors():
        sha256, size = sha256_of(file), file.stat().st_size
    return Input(
        name=file.name,
        sha256=sha256,
        bytes=size,
        rows=join.rows[number],
        form=join.forms[number],
        bands=tuple(name for name in mapping.bands if name in bands),
        ignored=tuple(column.name for name, column in table.columns.items() if name not in read),
        tiles=dict(sorted(join.tiles[number].items())),
    )


def _convert_batches(source: TableSource, mapping: TableMapping) -> Iterator[pa.Table]:
    rows = 0
    with read_errors():
        for batch in source.batches(mapping.read):
            try:
                table = convert_photometry(batch, mapping, source.columns)
            except SourceError as error:
                raise error.after(rows) from None
            rows += batch.num_rows
            yield table


@contextmanager
def read_errors() -> Iterator[None]:
    """Convert errors of the operating system to errors of the file that is read."""
    try:
        yield
    except OSError as error:
        raise SourceError(f"cannot be read: {error}") from error
