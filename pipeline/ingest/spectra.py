"""Ingest of spectra: the surveys' files become a spectra catalogue.

Files are told apart by their content. Tables (redshifts, properties) are read first, then the spectra in
batches, which are sorted on disk and written as the leaves of a HATS catalogue. The catalogue is built beside
its place and moved there at the end, so that there is all of it or nothing, and what is written does not
depend on the order of the files.

In memory are the tables, `RUN_ROWS` spectra while sorting, one leaf while it is written, and 48 bytes for
each spectrum, by which visits of the same object are found.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from itertools import islice

import numpy as np
import pyarrow as pa
from upath import UPath

from ojala.catalogs_schema.contract import NONE
from ojala.catalogs_schema.spectra import SPECTRA
from ojala.pipeline.ingest.build import check_request, staging
from ojala.pipeline.ingest.discovery import discover_files
from ojala.pipeline.ingest.errors import IngestError, SourceError
from ojala.pipeline.ingest.external_sort import SOURCE, SortedRuns
from ojala.pipeline.ingest.photometry import SOURCES_KEY
from ojala.pipeline.ingest.surveys.cross_match import same_object
from ojala.pipeline.ingest.surveys.detect import TABLES, Kind, kind_of, read_spectra, read_tables
from ojala.pipeline.ingest.surveys.label_tables import KnownObjects, KnownTable
from ojala.pipeline.ingest.surveys.rows import spectra_table, target_key
from ojala.pipeline.ingest.surveys.spectrum import Spectrum
from ojala.pipeline.storage.files import sha256_of, write_whole
from ojala.pipeline.storage.hats import finalise_catalogue
from ojala.pipeline.storage.healpix import Partition
from ojala.pipeline.storage.parquet import LeafRecord, write_leaf

TILE_ROWS = 1_000
"""Most rows of a leaf, unless asked otherwise: 30 to 60 MB of spectra."""

RUN_ROWS = 1_024
"""Spectra that are sorted in memory at a time, about 130 MB."""

PROVENANCE = "spectra.json"
"""Where a spectra catalogue says what it was made from."""

_BATCH = 128
_OBJECT = np.dtype(
    [("id", "<i8"), ("target", "<i8"), ("ra", "<f8"), ("dec", "<f8"), ("snr", "<f8"), ("file", "<i8")]
)


@dataclass(frozen=True, slots=True)
class SpectraInput:
    """One file that was read.

    Attributes
    ----------
    name : str
        Its name, without the folder.
    kind : str
        What it was found to be.
    sha256 : str
        Hash of its content.
    spectra : int
        Rows that came from it; 0 for a table.
    """

    name: str
    kind: str
    sha256: str
    spectra: int


@dataclass(frozen=True, slots=True)
class SpectraSummary:
    """What came in.

    Attributes
    ----------
    spectra, objects : int
        Rows, and different objects among them.
    without_redshift : int
        Rows with null z.
    counts : dict of str to dict of str to int
        Rows by survey and class (NONE where not known).
    partitions : dict of Partition to int
        Rows of each leaf.
    inputs : tuple of SpectraInput
        The files, sorted by name.
    not_read : tuple of str
        Files in the folders named that hold neither spectra nor tables known here, with the reason.
    """

    spectra: int
    objects: int
    without_redshift: int
    counts: dict[str, dict[str, int]]
    partitions: dict[Partition, int]
    inputs: tuple[SpectraInput, ...]
    not_read: tuple[str, ...]


def ingest_spectra(sources: Sequence[UPath], out: UPath, *, tile_rows: int = TILE_ROWS) -> SpectraSummary:
    """Make a spectra catalogue from the surveys' files.

    Parameters
    ----------
    sources : sequence of UPath
        Files, or folders whose files are all looked at. A file that is named must be understood; one in a
        folder that holds something else is passed over and listed.
    out : UPath
        Folder of the catalogue, new or empty.
    tile_rows : int
        Most rows of a leaf.

    Returns
    -------
    SpectraSummary

    Raises
    ------
    IngestError
        If a file is not understood or damaged, or a spectrum comes twice: names the files. Also if the result
        cannot be written. Nothing stays behind.
    """
    found = _Found.of(sources)
    files = list(found.kinds)
    check_request(list(sources), out, tile_rows)
    if not any(kind not in TABLES for kind in found.kinds.values()):
        raise IngestError(
            "no spectra were found"
            + (
                f"; {len(found.not_read)} files were looked at, such as {found.not_read[0]}"
                if found.not_read
                else ""
            )
        )
    try:
        with staging(out) as (root, scratch):
            taken = SpectraBuilder(SortedRuns(scratch, RUN_ROWS))
            taken.read(files, found.kinds)
            objects = taken.marked()
            try:
                partitions = taken.runs.partitions(tile_rows)
            except ValueError as error:
                raise IngestError(str(error)) from error
            leaves = {p: _write(root, p, taken.runs, objects, files) for p in partitions}
            rows = {partition: leaf.rows for partition, leaf in leaves.items()}
            if sum(rows.values()) != taken.runs.rows:
                raise IngestError(f"{taken.runs.rows:,} spectra were read but {sum(rows.values()):,} written")
            summary = SpectraSummary(
                spectra=taken.runs.rows,
                objects=int((objects.primary == objects.id).sum()),
                without_redshift=taken.without_redshift,
                counts={
                    survey: {c: taken.counts[survey, c] for s, c in sorted(taken.counts) if s == survey}
                    for survey in sorted({survey for survey, _ in taken.counts})
                },
                partitions=rows,
                inputs=_inputs(files, found.kinds, taken),
                not_read=found.not_read,
            )
            write_whole(root / PROVENANCE, _provenance(summary, tile_rows))
            finalise_catalogue(root, SPECTRA, leaves, name=out.name, skymap=taken.runs.skymap())
    except OSError as error:
        raise IngestError(f"{out} cannot be written: {error}") from error
    return summary


@dataclass(frozen=True, slots=True)
class _Found:
    """The files to read with their kinds, tables first, and those passed over."""

    kinds: dict[UPath, Kind]
    not_read: tuple[str, ...]

    @classmethod
    def of(cls, sources: Sequence[UPath]) -> _Found:
        kinds, passed_over = discover_files(sources, kind_of)
        ordered = sorted(kinds, key=lambda path: (kinds[path] not in TABLES, str(path)))
        return cls({path: kinds[path] for path in ordered}, passed_over)


@dataclass(slots=True)
class _Objects:
    """Of each spectrum, by increasing object_id: the best of the same object, and how many there are."""

    id: np.ndarray
    primary: np.ndarray
    count: np.ndarray


@dataclass(slots=True)
class SpectraBuilder:
    """What has been read so far."""

    runs: SortedRuns
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    without_redshift: int = 0
    per_file: Counter[int] = field(default_factory=Counter)
    facts: list[np.ndarray] = field(default_factory=list)
    files: Sequence[UPath] = ()

    def read(self, files: Sequence[UPath], kinds: dict[UPath, Kind]) -> None:
        """Read all files; tables come first."""
        self.files = files
        tables: list[KnownTable] = []
        objects = KnownObjects()
        faults = []
        for number, path in enumerate(files):
            try:
                if kinds[path] in TABLES:
                    tables += read_tables(path, kinds[path])
                    objects = KnownObjects(tables)
                else:
                    self._take(read_spectra(path, kinds[path], objects), number)
            except SourceError as fault:
                faults.append(f"{path}, {fault}" if fault.row or fault.column else f"{path} {fault}")
        if faults:
            raise IngestError("\n".join(faults))
        self.runs.flush()

    def _take(self, spectra: Iterator[Spectrum], number: int) -> None:
        while batch := list(islice(spectra, _BATCH)):
            table = spectra_table(batch)
            self.runs.add(table, number)
            self.without_redshift += table["z"].null_count
            facts = np.empty(len(batch), _OBJECT)
            facts["file"] = number
            facts["target"] = [target_key(spectrum) for spectrum in batch]
            for name, column in (("id", "object_id"), ("ra", "ra"), ("dec", "dec"), ("snr", "snr")):
                facts[name] = table[column].to_numpy()
            self.counts.update((spectrum.survey, spectrum.object_class or NONE) for spectrum in batch)
            self.facts.append(facts)
            self.per_file[number] += len(batch)

    def marked(self) -> _Objects:
        """Find the spectra of the same object.

        Raises
        ------
        IngestError
            If a spectrum comes twice.
        """
        facts = np.sort(np.concatenate(self.facts), order=["id", "file"])
        again = np.flatnonzero(facts["id"][1:] == facts["id"][:-1])
        if len(again):
            one, two = (self.files[facts["file"][again[0] + k]] for k in (0, 1))
            raise IngestError(
                f"{len(again):,} spectra come twice, the first of them in {one} and in {two}: name one "
                "of the files"
            )
        group = same_object(facts["ra"], facts["dec"], facts["target"])
        # Of each group the last by signal to noise; of equals the first by object_id.
        order = np.lexsort((-np.arange(len(facts)), facts["snr"], group))
        last = np.r_[np.flatnonzero(np.diff(group[order])), len(order) - 1]
        _, member, count = np.unique(group, return_inverse=True, return_counts=True)
        return _Objects(facts["id"].copy(), facts["id"][order[last]][member], count[member])


def _write(
    root: UPath, partition: Partition, runs: SortedRuns, objects: _Objects, files: Sequence[UPath]
) -> LeafRecord:
    table = runs.read(partition)
    at = np.searchsorted(objects.id, table["object_id"].to_numpy())
    numbers, counts = np.unique(table[SOURCE].to_numpy(), return_counts=True)
    sources = sorted((files[n].name, int(count)) for n, count in zip(numbers, counts, strict=True))
    metadata = {SOURCES_KEY: json.dumps([{"name": name, "rows": rows} for name, rows in sources])}
    table = table.drop_columns([SOURCE])
    table = table.append_column("primary_id", pa.array(objects.primary[at]))
    table = table.append_column("n_spectra", pa.array(objects.count[at].astype(np.int32)))
    return write_leaf(root / partition.leaf, table.select(SPECTRA.names), SPECTRA, metadata)


def _inputs(
    files: Sequence[UPath], kinds: dict[UPath, Kind], taken: SpectraBuilder
) -> tuple[SpectraInput, ...]:
    inputs = [
        SpectraInput(path.name, str(kinds[path]), sha256_of(path), taken.per_file[number])
        for number, path in enumerate(files)
    ]
    return tuple(sorted(inputs, key=lambda one: (one.name, one.sha256)))


def _provenance(summary: SpectraSummary, tile_rows: int) -> bytes:
    record = {
        "spectra": summary.spectra,
        "objects": summary.objects,
        "counts": summary.counts,
        "partitions": len(summary.partitions),
        "contract": f"{SPECTRA.name} {SPECTRA.version}",
        "options": {"tile_rows": tile_rows},
        "inputs": [asdict(one) for one in summary.inputs],
        "not_read": list(summary.not_read),
        "versions": {package: version(package) for package in ("astropy", "healpy", "numpy", "pyarrow")},
    }
    return (json.dumps(record, indent=2) + "\n").encode()
