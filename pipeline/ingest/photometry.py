"""Ingest of photometry: table files of the survey become a HATS catalogue.

Rows are read in batches, sorted on disk and written as the leaves of the catalogue, each with a limited
number of rows. The catalogue depends on the rows alone: neither on the order of the files nor on how they
were cut into batches.

Files are read, sorted runs merged and leaves written by tasks, in this process or on the workers of an
engine (`ojala.pipeline.execution.functions`); the result is the same byte for byte. What a killed process had
finished is kept in a scratch folder under a key of the files, the options and the code, and not done again.

Memory of a task is bounded whatever the number of rows and their order on the sky: a batch of a file,
`external_sort.RUN_ROWS` rows while sorting, `duplicates.KEYS_AT_ONCE` keys, and a few times `tile_rows` rows
while a leaf is written; scratch files are mapped, and the system can reclaim their pages. VOTables in a
binary serialisation are the exception: they are held whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType

from upath import UPath

from ojala.catalogs_schema.bands import BANDS
from ojala.catalogs_schema.photometry import PHOTOMETRY
from ojala.pipeline.ingest.build import build_catalogue, check_request
from ojala.pipeline.ingest.errors import IngestError
from ojala.pipeline.ingest.external_sort import COUNTED_ORDER
from ojala.pipeline.ingest.formats import FORMATS
from ojala.pipeline.ingest.jpas.column_mapping import APERTURE
from ojala.pipeline.ingest.jpas.flux_units import FluxDensityKind
from ojala.pipeline.ingest.leaves import LeafTask, edges, grouped, rows_in, write_leaves
from ojala.pipeline.ingest.lineage import PROVENANCE
from ojala.pipeline.ingest.pieces import Input, ReadOptions
from ojala.pipeline.ingest.reader import PhotometryReader
from ojala.pipeline.ingest.tasks import Runner, run_here
from ojala.pipeline.storage.code_version import code_version
from ojala.pipeline.storage.files import file_stat
from ojala.pipeline.storage.healpix import Partition

__all__ = ["PROVENANCE", "TILE_ROWS", "IngestSummary", "Input", "ingest_photometry"]

TILE_ROWS = 100_000
"""Default of the largest number of rows in a leaf."""

CODE = (
    "ojala.pipeline.ingest.reader",
    "ojala.pipeline.ingest.leaves",
    *(f"ojala.pipeline.ingest.formats.{module}" for module in FORMATS.values()),
)
"""Modules whose code makes the rows: that of a worker must be the same as here."""


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
    tiles : dict of int to int
        Rows by tile of the survey.
    """

    rows: int
    partitions: dict[Partition, int]
    inputs: tuple[Input, ...]
    tiles: dict[int, int]

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
    name: str = "",
    run: Runner = run_here,
    scratch: UPath | None = None,
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
    name : str, optional
        Name of the catalogue; default: that of its folder.
    run : Runner, optional
        Where the tasks are done; default: in this process.
    scratch : UPath, optional
        Folder for scratch files, local and seen by all workers; default: beside `out`, or a temporary one
        where `out` is on an object store; an ingest there is resumed only where the folder is named.

    Returns
    -------
    IngestSummary

    Raises
    ------
    IngestError
        If a file is not understood: names each faulty file with the row and the column of its first error.
        If no file has a column of `ignore` or `columns`.
        Also if the catalogue cannot be written. Nothing stays behind.
    LockedError
        If another process is making the same catalogue of the same files.
    """
    check_request(files, out, tile_rows)
    options = ReadOptions(aperture, units, tuple(ignore), tuple(columns.items()))
    key = workspace_key(files, options, tile_rows)
    with build_catalogue(out, PHOTOMETRY, name, key=key, scratch=scratch) as catalogue:
        reader = PhotometryReader(catalogue.scratch, options, run)
        inputs = reader.read_rows(files)
        reader.check_keys(files)
        reader.runs.merge(run)
        try:
            partitions = reader.runs.partitions(tile_rows)
        except ValueError as error:
            raise IngestError(str(error)) from error
        tasks = [
            LeafTask(catalogue.root, group, reader.runs.overlapping(edges(group[0])[0], edges(group[-1])[1]))
            for group in grouped(partitions, rows_in(partitions, *reader.runs.counts(), COUNTED_ORDER))
        ]
        catalogue.leaves.update(write_leaves(run, catalogue.scratch, tasks, reader.runs.rows))
        summary = IngestSummary(
            reader.runs.rows,
            catalogue.rows,
            tuple(sorted(inputs, key=lambda one: (one.name, one.sha256))),
            reader.tiles,
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


def workspace_key(files: Sequence[UPath], options: ReadOptions, *others: object) -> str:
    """Key of the work that is kept for a process that resumes it: files, options and code."""
    stats = [[str(file.absolute()), file_stat(file).bytes, file_stat(file).changed] for file in files]
    content = json.dumps([code_version(*CODE), stats, asdict(options), others])
    return hashlib.sha256(content.encode()).hexdigest()[:16]
