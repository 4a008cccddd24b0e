"""Ingest: the survey's files, in whatever form the archive gave them, become a photometry catalogue.

Rows are read in batches, sorted on disk and written as the leaves of a HATS catalogue, each with at most
so many rows. The catalogue is built beside its place and moved there at the end, so that there is all of
it or nothing. What is written depends on the rows alone: neither on the order of the files nor on how
they were cut into batches.

Memory is bounded whatever the number of rows: a batch of a file, `spill.RUN_ROWS` rows while sorting, and
a few times `tile_rows` rows while a leaf is written; scratch files are mapped, which the system counts
but can take back. VOTables in a binary serialisation are the exception: they are held whole.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version

import numpy as np
import pyarrow as pa
from upath import UPath

from ojala.catalogs_schema.bands import BANDS
from ojala.catalogs_schema.photometry import KEY_SHIFT, PHOTOMETRY
from ojala.pipeline.ingest.build import check_request, staging
from ojala.pipeline.ingest.errors import IngestError, SourceError
from ojala.pipeline.ingest.external_sort import SOURCE, Duplicate, DuplicateChecker, SortedRuns
from ojala.pipeline.ingest.formats.detect import open_table
from ojala.pipeline.ingest.formats.table import TableSource
from ojala.pipeline.ingest.jpas import column_mapping
from ojala.pipeline.ingest.jpas.convert import photometry
from ojala.pipeline.ingest.jpas.flux_units import FluxDensityKind
from ojala.pipeline.storage.files import sha256_of, write_whole
from ojala.pipeline.storage.hats import finalise_catalogue
from ojala.pipeline.storage.healpix import Partition
from ojala.pipeline.storage.parquet import LeafRecord, write_leaf

TILE_ROWS = 100_000
"""Most rows of a leaf, unless asked otherwise."""

PROVENANCE = "ingest.json"
"""Where a photometry catalogue says what it was made from."""

SOURCES_KEY = "ojala.sources"
"""Key of a leaf's footer: the files that its rows came from. Their hashes are in ``ingest.json``: with them a
leaf would change, and be computed again, when a row of another leaf does."""

_SHOWN_DUPLICATES = 20


@dataclass(frozen=True, slots=True)
class Input:
    """One file that was read.

    Attributes
    ----------
    name : str
        Its name, without the folder.
    sha256 : str
        Hash of its content.
    bytes, rows : int
        Its size.
    form : str
        Parquet, CSV, FITS or VOTable.
    bands : tuple of str
        Bands that it has fluxes of.
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
    """What was ingested.

    Attributes
    ----------
    rows : int
        Rows read, which is rows written.
    partitions : dict of Partition to int
        Rows of each leaf.
    inputs : tuple of Input
        The files, sorted by name.
    """

    rows: int
    partitions: dict[Partition, int]
    inputs: tuple[Input, ...]

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands that any file has fluxes of, in the contract's order."""
        found = {name for one in self.inputs for name in one.bands}
        return tuple(band.name for band in BANDS if band.name in found)


def ingest(
    files: Sequence[UPath],
    out: UPath,
    *,
    tile_rows: int = TILE_ROWS,
    aperture: str = column_mapping.APERTURE,
    units: FluxDensityKind | None = None,
) -> IngestSummary:
    """Make a photometry catalogue from the survey's files.

    Parameters
    ----------
    files : sequence of UPath
        Parquet, CSV, FITS or VOTable files, in any mixture; their rows are put together.
    out : UPath
        Folder of the catalogue, new or empty.
    tile_rows : int
        Most rows of a leaf.
    aperture : str
        Which of the archive's apertures to read, such as ``APER_COR_3_0`` or ``AUTO``.
    units : {"fnu", "flambda"}, optional
        Which of the archive's flux tables the files come from, where they do not say.

    Returns
    -------
    IngestSummary

    Raises
    ------
    IngestError
        If anything is not understood: names each faulty file with the row and the column of its first
        fault. Also if the result cannot be written. Nothing stays behind.
    """
    check_request(files, out, tile_rows)
    try:
        with staging(out) as (root, scratch):
            runs, inputs = _read_all(files, scratch, aperture, units)
            try:
                partitions = runs.partitions(tile_rows)
            except ValueError as error:
                raise IngestError(str(error)) from error
            leaves = {partition: _write(root, partition, runs, inputs) for partition in partitions}
            rows = {partition: leaf.rows for partition, leaf in leaves.items()}
            if sum(rows.values()) != runs.rows:
                raise IngestError(f"{runs.rows:,} rows were read but {sum(rows.values()):,} written")
            summary = IngestSummary(runs.rows, rows, tuple(sorted(inputs, key=_by_name)))
            options: dict[str, str | int | None] = {
                "tile_rows": tile_rows,
                "aperture": aperture,
                "units": units,
            }
            write_whole(root / PROVENANCE, _provenance(summary, options))
            finalise_catalogue(root, PHOTOMETRY, leaves, name=out.name, skymap=runs.skymap())
    except OSError as error:
        raise IngestError(f"{out} cannot be written: {error}") from error
    return summary


def _read_all(
    files: Sequence[UPath], scratch: UPath, aperture: str, units: FluxDensityKind | None
) -> tuple[SortedRuns, list[Input]]:
    runs, keys = SortedRuns(scratch), DuplicateChecker(scratch)
    inputs: list[Input] = []
    faults: list[str] = []
    for number, file in enumerate(files):
        try:
            inputs.append(_read(file, number, runs, keys, scratch, aperture, units))
        except SourceError as fault:
            faults.append(f"{file}, {fault}" if fault.row or fault.column else f"{file} {fault}")
    if not faults:
        runs.flush()
        faults = _duplicates(keys, files)
    if faults:
        raise IngestError("\n".join(faults))
    return runs, inputs


def _read(
    file: UPath,
    number: int,
    runs: SortedRuns,
    keys: DuplicateChecker,
    scratch: UPath,
    aperture: str,
    units: FluxDensityKind | None,
) -> Input:
    rows = 0
    with _reading(), open_table(file, scratch) as source:
        layout = column_mapping.resolve(source, aperture, units)
        for table in _rows_of(source, layout):
            try:
                keys.add(table["object_id"].to_numpy(), number, rows + 1)
                runs.add(table, number)
            except OSError as error:
                raise IngestError(f"rows cannot be sorted in {scratch.parent}: {error}") from error
            rows += table.num_rows
    if not rows:
        raise SourceError("has no rows")
    with _reading():
        sha256, size = sha256_of(file), file.stat().st_size
    return Input(file.name, sha256, size, rows, source.form, layout.bands, layout.ignored)


def _rows_of(source: TableSource, layout: column_mapping.TableMapping) -> Iterator[pa.Table]:
    rows = 0
    with _reading():
        for batch in source.batches(layout.read):
            try:
                table = photometry(batch, layout, source.columns)
            except SourceError as fault:
                raise fault.after(rows) from None
            rows += batch.num_rows
            yield table


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceError(f"cannot be read: {error}") from error


def _duplicates(keys: DuplicateChecker, files: Sequence[UPath]) -> list[str]:
    found = 0

    def counted() -> Iterator[Duplicate]:
        nonlocal found
        for duplicate in keys.duplicates():
            found += 1
            yield duplicate

    first = heapq.nsmallest(_SHOWN_DUPLICATES, counted(), key=lambda d: (d.second, d.object_id))
    lines = [
        f"{files[d.second[0]]}, row {d.second[1]}, columns tile_id and number: the key "
        f"({d.object_id >> KEY_SHIFT}, {d.object_id % 2**KEY_SHIFT}) has come before, in "
        f"{files[d.first[0]]}, row {d.first[1]}"
        for d in first
    ]
    return lines + (
        [f"and {found - len(lines):,} more rows with a key that has come before"]
        if found > len(lines)
        else []
    )


def _write(root: UPath, partition: Partition, runs: SortedRuns, inputs: Sequence[Input]) -> LeafRecord:
    table = runs.read(partition)
    numbers, counts = np.unique(table[SOURCE].to_numpy(), return_counts=True)
    sources = sorted((inputs[n].name, int(count)) for n, count in zip(numbers, counts, strict=True))
    listing = [{"name": name, "rows": rows} for name, rows in sources]
    metadata = {SOURCES_KEY: json.dumps(listing)}
    return write_leaf(root / partition.leaf, table.drop_columns([SOURCE]), PHOTOMETRY, metadata)


def _by_name(one: Input) -> tuple[str, str]:
    return one.name, one.sha256


def _provenance(summary: IngestSummary, options: Mapping[str, str | int | None]) -> bytes:
    record = {
        "rows": summary.rows,
        "partitions": len(summary.partitions),
        "contract": f"{PHOTOMETRY.name} {PHOTOMETRY.version}",
        "options": options,
        "inputs": [asdict(one) for one in summary.inputs],
        "versions": {package: version(package) for package in ("astropy", "healpy", "numpy", "pyarrow")},
    }
    return (json.dumps(record, indent=2) + "\n").encode()
