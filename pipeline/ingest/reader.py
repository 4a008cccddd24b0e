"""Reader of table files into sorted rows of the photometry contract."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from upath import UPath

from ojala.catalogs_schema.photometry import KEY_SHIFT
from ojala.pipeline.ingest.errors import IngestError, SourceError
from ojala.pipeline.ingest.external_sort import Duplicate, DuplicateChecker, SortedRuns
from ojala.pipeline.ingest.formats.detect import open_table
from ojala.pipeline.ingest.formats.table import TableSource, choose_columns
from ojala.pipeline.ingest.join import KEY, Join
from ojala.pipeline.ingest.jpas.column_mapping import IncompleteTable, TableMapping, map_columns
from ojala.pipeline.ingest.jpas.convert import convert_photometry
from ojala.pipeline.ingest.jpas.flux_units import FluxDensityKind
from ojala.pipeline.storage.files import sha256_of

_SHOWN_DUPLICATES = 20

_FORMER = -1
"""Number of the catalogue to which rows are added, where files have theirs."""


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


class PhotometryReader:
    """Reader of table files into sorted runs.

    Parameters
    ----------
    scratch : UPath
        Local folder for scratch files.
    aperture, units, ignore, columns
        As in `ingest_photometry`.
    """

    def __init__(
        self,
        scratch: UPath,
        aperture: str,
        units: FluxDensityKind | None,
        ignore: Collection[str],
        columns: Mapping[str, str],
    ) -> None:
        self.runs = SortedRuns(scratch)
        self._keys = DuplicateChecker(scratch)
        self._scratch = scratch
        self._aperture = aperture
        self._units = units
        self._ignore = ignore
        self._columns = columns
        self._tiles: Counter[int] = Counter()
        self._named = {name.strip().lower() for name in (*ignore, *columns.values())}
        """Names of the user's options that no file has had so far."""

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
        inputs: list[Input] = []
        errors: list[str] = []
        for number, file in enumerate(files):
            try:
                inputs.append(self._read(file, number))
            except IncompleteTable as error:
                if (join := self._find_join(files)) is not None:
                    return self._read_joined(join)
                errors.append(error.in_file(file))
            except SourceError as error:
                errors.append(error.in_file(file))
        if self._named and not errors:
            errors = [f"no file has a column {name}" for name in sorted(self._named)]
        if errors:
            raise IngestError("\n".join(errors))
        self.runs.flush()
        return inputs

    def check_keys(
        self, files: Sequence[UPath], former: UPath | None = None, keys: Iterable[np.ndarray] = ()
    ) -> None:
        """Check that no key comes twice.

        Parameters
        ----------
        files : sequence of UPath
            The files that were read.
        former : UPath, optional
            Catalogue to which the rows are added.
        keys : iterable of ndarray of int64
            Keys (``object_id``) of its rows that stay, as far as they can be among those of the files.

        Raises
        ------
        IngestError
            If one does; names both places.
        """
        for some in keys:
            self._keys.add(some, _FORMER, 1)
        if errors := _duplicates(self._keys, files, former):
            raise IngestError("\n".join(errors))

    @contextmanager
    def _open(self, file: UPath) -> Iterator[TableSource]:
        with _read_errors(), open_table(file, self._scratch) as source:
            if self._ignore or self._columns:
                self._named -= source.columns.keys()
                source = choose_columns(source, self._ignore, self._columns)
            yield source

    def _find_join(self, files: Sequence[UPath]) -> Join | None:
        """Join of the files' tables; None where they are no tables that can be joined."""
        try:
            join = Join(files, self._open, self._scratch)
        except SourceError:
            return None  # said of its file when that is read
        return join if join.is_possible else None

    def _read_joined(self, join: Join) -> list[Input]:
        """Read tables that belong together."""
        self.runs, self._keys = (
            SortedRuns(self._scratch / "joined"),
            DuplicateChecker(self._scratch / "joined"),
        )
        self._tiles.clear()
        (self._scratch / "joined").mkdir()
        try:
            mapping = map_columns(join.source, self._aperture, self._units)
        except SourceError as error:
            names = "; ".join(join.named(table) for table in sorted(join.tables, key=lambda t: t.files))
            raise IngestError(f"the tables together, of {names}: {error}") from error
        if self._named:
            raise IngestError("\n".join(f"no file has a column {name}" for name in sorted(self._named)))
        for batch, file, row in join.batches(mapping):
            try:
                table = convert_photometry(batch, mapping, join.source.columns)
            except SourceError as error:
                raise IngestError(_in_table(error, join, file, row)) from None
            self._keys.add_rows(table["object_id"].to_numpy(), file[0], row[0])
            self.runs.add(table, 0)
            self._tiles.update(table["tile_id"].to_pylist())
        self.runs.flush()
        return [_joined_input(join, mapping, number) for number in range(len(join.files))]

    def _read(self, file: UPath, number: int) -> Input:
        rows, tiles = 0, Counter[int]()
        with self._open(file) as source:
            mapping = map_columns(source, self._aperture, self._units)
            for table in _convert_batches(source, mapping):
                try:
                    self._keys.add(table["object_id"].to_numpy(), number, rows + 1)
                    self.runs.add(table, number)
                except OSError as error:
                    raise IngestError(f"rows cannot be sorted in {self._scratch.parent}: {error}") from error
                rows += table.num_rows
                found, counts = np.unique(table["tile_id"].to_numpy(), return_counts=True)
                tiles.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))
        if not rows:
            raise SourceError("has no rows")
        self._tiles.update(tiles)
        with _read_errors():
            sha256, size = sha256_of(file), file.stat().st_size
        return Input(
            file.name,
            sha256,
            size,
            rows,
            source.form,
            mapping.bands,
            mapping.ignored,
            dict(sorted(tiles.items())),
        )


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
    with _read_errors():
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
    with _read_errors():
        for batch in source.batches(mapping.read):
            try:
                table = convert_photometry(batch, mapping, source.columns)
            except SourceError as error:
                raise error.after(rows) from None
            rows += batch.num_rows
            yield table


@contextmanager
def _read_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceError(f"cannot be read: {error}") from error


def _duplicates(keys: DuplicateChecker, files: Sequence[UPath], former: UPath | None) -> list[str]:
    count = 0

    def counted() -> Iterator[Duplicate]:
        nonlocal count
        for duplicate in keys.duplicates():
            count += 1
            yield duplicate

    def before(place: tuple[int, int]) -> str:
        if place[0] == _FORMER:
            return f"is in {former} already: --replace takes the files' tiles out of it first"
        return f"has come before, in {files[place[0]]}, row {place[1]}"

    first = heapq.nsmallest(_SHOWN_DUPLICATES, counted(), key=lambda d: (d.second, d.object_id))
    lines = [
        f"{files[d.second[0]]}, row {d.second[1]}, columns tile_id and number: the key "
        f"({d.object_id >> KEY_SHIFT}, {d.object_id % 2**KEY_SHIFT}) {before(d.first)}"
        for d in first
    ]
    if count > len(lines):
        lines.append(f"and {count - len(lines):,} more rows with a key that has come before")
    return lines
