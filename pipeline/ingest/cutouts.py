"""Ingest of cut-outs: images of the sky become a HATS catalogue of small images around objects.

A cut-out catalogue is made for a catalogue of spectra or photometry and has its partitions and, leaf by leaf,
its rows in their order, so that the two join by row as well as by ``object_id``. An object without image
keeps its row. Where fields overlap, an object is cut out of the one in which it lies farthest from the edge;
of equals, bricks come before files, and names in their order. The catalogue does not depend on the order of
the sources.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby

import numpy as np
import pyarrow as pa
from upath import UPath

from ojala.catalogs_schema.cutouts import CUTOUTS, CutoutFlag
from ojala.pipeline.ingest.build import CatalogueBuilder, build_catalogue, check_request
from ojala.pipeline.ingest.errors import IngestError, SourceError
from ojala.pipeline.ingest.images.detect import find_fields
from ojala.pipeline.ingest.images.extract import CutoutRows, cut_out
from ojala.pipeline.ingest.images.field import Field, OpenFiles
from ojala.pipeline.ingest.images.targets import CutoutObjects, read_objects
from ojala.pipeline.storage.files import sha256_of
from ojala.pipeline.storage.hats import SKYMAP_ORDER, CatalogueError
from ojala.pipeline.storage.healpix import Partition, pixel_at
from ojala.pipeline.storage.progress import counted

PROVENANCE = "cutouts.json"
"""Provenance file of a cut-out catalogue: input files and versions."""

_FIELDS_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class ImageInput:
    """An input file.

    Attributes
    ----------
    name : str
        Name, without the folder.
    sha256 : str
        Hash of its content.
    """

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class CutoutsSummary:
    """Outcome of an ingest of cut-outs.

    Attributes
    ----------
    objects : int
        Rows, with and without image.
    flags : dict of str to int
        Rows with each flag.
    bands : dict of str to int
        Rows by the bands that were measured, such as ``grz``.
    partitions : dict of Partition to int
        Rows of each leaf.
    fields : int
        Number of bricks and files with objects.
    inputs : tuple of ImageInput
        Their files, sorted by name.
    not_read : tuple of str
        Files in folders that are no images of a known kind, with the reason.
    """

    objects: int
    flags: dict[str, int]
    bands: dict[str, int]
    partitions: dict[Partition, int]
    fields: int
    inputs: tuple[ImageInput, ...]
    not_read: tuple[str, ...]

    @property
    def without_image(self) -> int:
        """Rows without any image."""
        return self.flags[str(CutoutFlag.NO_IMAGE.name)]


def ingest_cutouts(sources: Sequence[UPath], objects: UPath, out: UPath) -> CutoutsSummary:
    """Make a cut-out catalogue.

    Parameters
    ----------
    sources : sequence of UPath
        Images, or folders, whose files are all tried: coadds of the Legacy Survey, cut-outs of its viewer,
        images of the Multimodal Universe.
    objects : UPath
        A catalogue of spectra or photometry, or a table; see
        `ojala.pipeline.ingest.images.targets.read_objects`.
    out : UPath
        Folder of the catalogue, new or empty.

    Returns
    -------
    CutoutsSummary

    Raises
    ------
    IngestError
        If images or objects are not understood or damaged: names the files. Also if the result cannot be
        written. Nothing stays behind.
    """
    check_request(list(sources), out)
    with build_catalogue(out, CUTOUTS) as catalogue:
        try:
            wanted = read_objects(objects, catalogue.scratch)
        except CatalogueError as error:
            raise IngestError(str(error)) from error
        fields, not_read = find_fields(sources)
        fields.sort(key=lambda field: (not field.brick, field.name, str(field.files[0])))
        cutter = _Cutter(catalogue, _Fields(fields))
        for partition in counted(wanted.rows, "partitions written"):
            cutter.write_leaf(partition, wanted)
        if sum(catalogue.rows.values()) != sum(wanted.rows.values()):
            raise IngestError(f"{objects} has changed while it was read: give the same command again")
        summary = cutter.summary(not_read)
        provenance = {
            "objects": summary.objects,
            "objects_of": wanted.name,
            "flags": summary.flags,
            "bands": summary.bands,
            "fields": summary.fields,
            "inputs": [asdict(one) for one in summary.inputs],
            "not_read": list(summary.not_read),
        }
        catalogue.finalise(PROVENANCE, provenance, cutter.skymap)
    return summary


class _Fields:
    """Fields on the sky."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self.fields = fields
        centres = np.array([field.centre for field in fields])
        self._directions = _directions(centres[:, 0], centres[:, 1])
        self._reach = np.cos(np.radians([field.radius for field in fields]))

    def best(self, ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Index of the field (-1: none) in which each position lies farthest from the edge, and its pixel."""
        chosen = np.full(len(ra), -1)
        pixel = np.full((2, len(ra)), np.nan)
        margin = np.zeros(len(ra))
        for number, at in self._near(_directions(ra, dec)):
            x, y = self.fields[number].pixels(ra[at], dec[at])
            within = self.fields[number].margin(x, y)
            better = within > margin[at]
            rows = at[better]
            chosen[rows], margin[rows] = number, within[better]
            pixel[:, rows] = x[better], y[better]
        return chosen, pixel[0], pixel[1]

    def _near(self, directions: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Fields that may contain any of the positions, each with the rows of these."""
        for begin in range(0, len(self.fields), _FIELDS_AT_ONCE):
            part = slice(begin, begin + _FIELDS_AT_ONCE)
            near = directions @ self._directions[part].T >= self._reach[part]
            for number in np.flatnonzero(near.any(axis=0)).tolist():
                yield begin + number, np.flatnonzero(near[:, number])


def _directions(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Unit vectors (N, 3) of positions [deg]; NaN where there is none."""
    ra, dec = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


class _Cutter:
    """Writer of the leaves of cut-outs, with counts.

    Parameters
    ----------
    catalogue : CatalogueBuilder
        The catalogue under construction.
    fields : _Fields
        Fields to cut from.
    """

    def __init__(self, catalogue: CatalogueBuilder, fields: _Fields) -> None:
        self.skymap = np.zeros(12 * 4**SKYMAP_ORDER, np.int64)
        self._catalogue = catalogue
        self._fields = fields
        self._used: set[int] = set()
        self._flags: Counter[str] = Counter()
        self._bands: Counter[str] = Counter()

    def write_leaf(self, partition: Partition, wanted: CutoutObjects) -> None:
        """Cut out the objects of a partition and write its leaf."""
        keys = wanted.keys(partition)
        ra, dec = (np.asarray(keys[name].to_numpy(), np.float64) for name in ("ra", "dec"))
        chosen, x, y = self._fields.best(ra, dec)
        rows = CutoutRows(keys)
        used = [int(number) for number in np.unique(chosen[chosen >= 0])]
        for _, together in groupby(used, key=lambda number: self._fields.fields[number].files):
            try:
                with OpenFiles() as files:
                    for number in together:
                        field = self._fields.fields[number]
                        for row in np.flatnonzero(chosen == number):
                            rows.put(int(row), cut_out(field, files, float(x[row]), float(y[row])))
            except SourceError as error:  # names its file
                raise IngestError(str(error)) from error
        table = rows.table()
        names = sorted({path.name for number in used for path in self._fields.fields[number].files})
        self._catalogue.write_leaf(partition, table, [{"name": name} for name in names])
        self._count(table)
        self._used.update(used)

    def _count(self, table: pa.Table) -> None:
        flags = table["flags"].to_numpy()
        self._flags.update({str(flag.name): int(((flags & flag) != 0).sum()) for flag in CutoutFlag})
        self._bands.update(table["bands"].to_pylist())
        pixels = pixel_at(table["_healpix_29"].to_numpy(), SKYMAP_ORDER)
        self.skymap += np.bincount(pixels, minlength=len(self.skymap))

    def summary(self, not_read: tuple[str, ...]) -> CutoutsSummary:
        """Summarise all leaves."""
        files = {path for number in self._used for path in self._fields.fields[number].files}
        inputs = [ImageInput(path.name, sha256_of(path)) for path in files]
        return CutoutsSummary(
            objects=sum(self._catalogue.rows.values()),
            flags={str(flag.name): self._flags[str(flag.name)] for flag in CutoutFlag},
            bands=dict(sorted(self._bands.items())),
            partitions=self._catalogue.rows,
            fields=len(self._used),
            inputs=tuple(sorted(inputs, key=lambda one: (one.name, one.sha256))),
            not_read=not_read,
        )
