"""Ingest of photometry: table files of the survey become a HATS catalogue.

Rows are read in batches, sorted on disk and written as the leaves of the catalogue, each with a limited
number of rows. The catalogue depends on the rows alone: neither on the order of the files nor on how they
were cut into batches.

Memory is bounded whatever the number of rows: a batch of a file, `external_sort.RUN_ROWS` rows while sorting,
and a few times `tile_rows` rows while a leaf is written; scratch files are mapped, and the system can reclaim
their pages. VOTables in a binary serialisation are the exception: they are held whole.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import MappingProxyType

import pyarrow as pa
from upath import UPath

from ojala.catalogs_schema.bands import BANDS
from ojala.catalogs_schema.photometry import KEY_SHIFT, PHOTOMETRY
from ojala.pipeline.ingest.build import build_catalogue, check_request
from ojala.pipeline.ingest.errors import IngestError, SourceError
from ojala.pipeline.ingest.external_sort import Duplicate, DuplicateChecker, SortedRuns
from ojala.pipeline.ingest.formats.detect import open_table
from ojala.pipeline.ingest.formats.table import TableSource, choose_columns
from ojala.pipeline.ingest.jpas.column_mapping import APERTURE, TableMapping, map_columns
from ojala.pipeline.ingest.jpas.convert import convert_photometry
from ojala.pipeline.ingest.jpas.flux_units import FluxDensityKind
from ojala.pipeline.storage.files import sha256_of
from ojala.pipeline.storage.healpix import Partition

TILE_ROWS = 100_000
"""Default of the largest number of rows in a leaf."""

PROVENANCE = "ingest.json"
"""Provenance file of a photometry catalogue: input files, options and versions."""

_SHOWN_DUPLICATES = 20


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
    """

    name: str
    sha256: str
    bytes: int
    rows: int
    form: str
    bands: tuple[str, ...]
    ignored: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IngestSummary:
    """Outcome of an ingest of photometry.

    Attributes
    ----------
    rows : int
        Rows read and written.
    partitions : dict of Partition to int
        Rows of each leaf.
    inputs : tuple of Input
        Input files, sorted by name.
    """

    rows: int
    partitions: dict[Partition, int]
    inputs: tuple[Input, ...]

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands with fluxes in any file, in the contract's order."""
        found = {name for one in self.inputs for name in one.bands}
        return tuple(band.name for band in BANDS if band.name in found)


def ingest_photometry(
    files: Sequence[UPath],
    out: UPath,
    *,
    tile_rows: int = TILE_ROWS,
    aperture: str = APERTURE,
    units: FluxDensityKind | None = None,
    ignore: Collection[str] = (),
    columns: Mapping[str, str] = MappingProxyType({}),
) -> IngestSummary:
    """Make a photometry catalogue from table files of the survey.

    Parameters
    ----------
    files : sequence of UPath
        Files in any mixture of the formats `ojala.pipeline.ingest.formats.FORMATS`; their rows are
        concatenated.
    out : UPath
        Folder of the catalogue, new or empty.
    tile_rows : int
        Largest number of rows in a leaf.
    aperture : str
        Aperture of the archive to read, such as ``APER_COR_3_0`` or ``AUTO``.
    units : {"fnu", "flambda"}, optional
        The archive's flux table that the files come from, where they do not state it.
    ignore : collection of str
        Columns of the files, in any case, to leave out.
    columns : mapping of str to str
        The files' name of a column, in any case, by the name under which it is read, such as
        ``{"ra": "RA_J2000"}``.

    Returns
    -------
    IngestSummary

    Raises
    ------
    IngestError
        If a file is not understood: names each faulty file with the row and the column of its first error.
        If no file has a column of `ignore` or `columns`.
        Also if the catalogue cannot be written. Nothing stays behind.
    """
    check_request(files, out, tile_rows)
    with build_catalogue(out, PHOTOMETRY) as catalogue:
        reader = _Reader(catalogue.scratch, aperture, units, ignore, columns)
        inputs = reader.read_all(files)
        catalogue.write_sorted(reader.runs, tile_rows, [one.name for one in inputs])
        summary = IngestSummary(
            reader.runs.rows,
            catalogue.rows,
            tuple(sorted(inputs, key=lambda one: (one.name, one.sha256))),
        )
        provenance = {
            "rows": summary.rows,
            "options": {
                "tile_rows": tile_rows,
                "aperture": aperture,
                "units": units,
                "ignore": sorted(ignore),
                "columns": dict(columns),
            },
            "inputs": [asdict(one) for one in summary.inputs],
        }
        catalogue.finalise(PROVENANCE, provenance, reader.runs.skymap())
    return summary


class _Reader:
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
        self._named = {name.strip().lower() for name in (*ignore, *columns.values())}
        """Names of the user's options that no file has had so far."""

    def read_all(self, files: Sequence[UPath]) -> list[Input]:
        """Read all files.

        Raises
        ------
        IngestError
            With the first error of each faulty file, or the duplicate keys.
        """
        inputs: list[Input] = []
        errors: list[str] = []
        for number, file in enumerate(files):
            try:
                inputs.append(self._read(file, number))
            except SourceError as error:
                errors.append(error.in_file(file))
        if self._named and not errors:
            errors = [f"no file has a column {name}" for name in sorted(self._named)]
        if not errors:
            self.runs.flush()
            errors = _duplicates(self._keys, files)
        if errors:
            raise IngestError("\n".join(errors))
        return inputs

    def _read(self, file: UPath, number: int) -> Input:
        rows = 0
        with _read_errors(), open_table(file, self._scratch) as source:
            if self._ignore or self._columns:
                self._named -= source.columns.keys()
                source = choose_columns(source, self._ignore, self._columns)
            mapping = map_columns(source, self._aperture, self._units)
            for table in _convert_batches(source, mapping):
                try:
                    self._keys.add(table["object_id"].to_numpy(), number, rows + 1)
                    self.runs.add(table, number)
                except OSError as error:
                    raise IngestError(f"rows cannot be sorted in {self._scratch.parent}: {error}") from error
                rows += table.num_rows
        if not rows:
            raise SourceError("has no rows")
        with _read_errors():
            sha256, size = sha256_of(file), file.stat().st_size
        return Input(file.name, sha256, size, rows, source.form, mapping.bands, mapping.ignored)


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


def _duplicates(keys: DuplicateChecker, files: Sequence[UPath]) -> list[str]:
    count = 0

    def counted() -> Iterator[Duplicate]:
        nonlocal count
        for duplicate in keys.duplicates():
            count += 1
            yield duplicate

    first = heapq.nsmallest(_SHOWN_DUPLICATES, counted(), key=lambda d: (d.second, d.object_id))
    lines = [
        f"{files[d.second[0]]}, row {d.second[1]}, columns tile_id and number: the key "
        f"({d.object_id >> KEY_SHIFT}, {d.object_id % 2**KEY_SHIFT}) has come before, in "
        f"{files[d.first[0]]}, row {d.first[1]}"
        for d in first
    ]
    if count > len(lines):
        lines.append(f"and {count - len(lines):,} more rows with a key that has come before")
    return lines
