"""Ingest of photometry: table files of the survey become a HATS catalogue.

Rows are read in batches, sorted on disk and written as the leaves of the catalogue, each with a limited
number of rows. The catalogue depends on the rows alone: neither on the order of the files nor on how they
were cut into batches.

Memory is bounded whatever the number of rows: a batch of a file, `external_sort.RUN_ROWS` rows while sorting,
and a few times `tile_rows` rows while a leaf is written; scratch files are mapped, and the system can reclaim
their pages. VOTables in a binary serialisation are the exception: they are held whole.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType

from upath import UPath

from ojala.catalogs_schema.bands import BANDS
from ojala.catalogs_schema.photometry import PHOTOMETRY
from ojala.pipeline.ingest.build import build_catalogue, check_request
from ojala.pipeline.ingest.jpas.column_mapping import APERTURE
from ojala.pipeline.ingest.jpas.flux_units import FluxDensityKind
from ojala.pipeline.ingest.lineage import PROVENANCE
from ojala.pipeline.ingest.reader import Input, PhotometryReader
from ojala.pipeline.storage.healpix import Partition

__all__ = ["PROVENANCE", "TILE_ROWS", "IngestSummary", "Input", "ingest_photometry"]

TILE_ROWS = 100_000
"""Default of the largest number of rows in a leaf."""


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
    with build_catalogue(out, PHOTOMETRY, name) as catalogue:
        reader = PhotometryReader(catalogue.scratch, aperture, units, ignore, columns)
        inputs = reader.read_rows(files)
        reader.check_keys(files)
        catalogue.write_sorted(reader.runs, tile_rows, None)
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
