"""Ingest of spectra: files of the surveys become a HATS catalogue.

Files are detected by their content. Tables of labels (redshifts, properties) are read first, then the spectra
in batches, which are sorted on disk and written as the leaves of the catalogue. The catalogue does not depend
on the order of the files.

In memory are the tables, `RUN_ROWS` spectra while sorting, one leaf while it is written, and 48 bytes per
spectrum for the cross-match of visits of the same object.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import islice

import numpy as np
import pyarrow as pa
from upath import UPath

from ojala.catalogs_schema.contract import NONE
from ojala.catalogs_schema.spectra import SPECTRA
from ojala.pipeline.ingest.build import build_catalogue, check_request
from ojala.pipeline.ingest.discovery import discover_files, local_copy
from ojala.pipeline.ingest.errors import IngestError, SourceError
from ojala.pipeline.ingest.external_sort import SortedRuns
from ojala.pipeline.ingest.surveys.cross_match import cross_match
from ojala.pipeline.ingest.surveys.detect import detect_kind
from ojala.pipeline.ingest.surveys.label_tables import LabelIndex, LabelTable
from ojala.pipeline.ingest.surveys.reader import FileKind
from ojala.pipeline.ingest.surveys.rows import spectra_table, target_key
from ojala.pipeline.ingest.surveys.spectrum import Spectrum
from ojala.pipeline.storage.files import sha256_of
from ojala.pipeline.storage.healpix import Partition
from ojala.pipeline.storage.progress import counted, note

TILE_ROWS = 1_000
"""Default of the largest number of rows in a leaf: 30 to 60 MB of spectra."""

RUN_ROWS = 1_024
"""Spectra that are sorted in memory at a time, about 130 MB."""

PROVENANCE = "spectra.json"
"""Provenance file of a spectra catalogue: input files, options and versions."""

_BATCH = 128
_OBJECT = np.dtype(
    [("id", "<i8"), ("target", "<i8"), ("ra", "<f8"), ("dec", "<f8"), ("snr", "<f8"), ("file", "<i8")]
)


@dataclass(frozen=True, slots=True)
class SpectraInput:
    """An input file.

    Attributes
    ----------
    name : str
        Name, without the folder.
    kind : str
        Name of its kind.
    sha256 : str
        Hash of its content.
    spectra : int
        Number of spectra; 0 for a table, and for further files of a spectrum that is counted with the first.
    from_air : int
        Number of them whose wavelengths are in air in the file; all are converted to vacuum.
    """

    name: str
    kind: str
    sha256: str
    spectra: int
    from_air: int


@dataclass(frozen=True, slots=True)
class SpectraSummary:
    """Outcome of an ingest of spectra.

    Attributes
    ----------
    spectra, objects : int
        Numbers of spectra and of different objects.
    without_redshift : int
        Rows with null z.
    counts : dict of str to dict of str to int
        Rows by survey and class (NONE where unknown).
    partitions : dict of Partition to int
        Rows of each leaf.
    inputs : tuple of SpectraInput
        Input files, sorted by name.
    not_read : tuple of str
        Files in folders that are neither spectra nor tables of a known kind, with the reason.
    """

    spectra: int
    objects: int
    without_redshift: int
    counts: dict[str, dict[str, int]]
    partitions: dict[Partition, int]
    inputs: tuple[SpectraInput, ...]
    not_read: tuple[str, ...]


def ingest_spectra(sources: Sequence[UPath], out: UPath, *, tile_rows: int = TILE_ROWS) -> SpectraSummary:
    """Make a spectra catalogue from files of the surveys.

    Parameters
    ----------
    sources : sequence of UPath
        Files, or folders, whose files are all tried. A file that is named must be understood; one in a folder
        that holds something else is passed over and listed.
    out : UPath
        Folder of the catalogue, new or empty.
    tile_rows : int
        Largest number of rows in a leaf.

    Returns
    -------
    SpectraSummary

    Raises
    ------
    IngestError
        If a file is not understood or damaged, or a spectrum comes twice: names the files. Also if the
        catalogue cannot be written. Nothing stays behind.
    """
    kinds, not_read = discover_files(sources, detect_kind)
    # Labels must be known before the spectra are read.
    files = sorted(kinds, key=lambda path: (kinds[path].read_labels is None, str(path)))
    check_request(list(sources), out, tile_rows)
    if not any(kind.read_spectra for kind in kinds.values()):
        seen = f"; {len(not_read)} files were looked at, such as {not_read[0]}" if not_read else ""
        raise IngestError(f"no spectra were found{seen}")
    with build_catalogue(out, SPECTRA) as catalogue:
        reader = _Reader(catalogue.scratch)
        reader.read_all(files, kinds)
        objects = reader.match_objects(files)
        catalogue.write_sorted(reader.runs, tile_rows, [path.name for path in files], objects.add_columns)
        inputs = [
            SpectraInput(
                path.name,
                kinds[path].name,
                reader.sha256[number],
                reader.per_file[number],
                reader.from_air[number],
            )
            for number, path in enumerate(files)
        ]
        summary = SpectraSummary(
            spectra=reader.runs.rows,
            objects=int((objects.primary == objects.id).sum()),
            without_redshift=reader.without_redshift,
            counts={
                survey: {c: reader.counts[survey, c] for s, c in sorted(reader.counts) if s == survey}
                for survey in sorted({survey for survey, _ in reader.counts})
            },
            partitions=catalogue.rows,
            inputs=tuple(sorted(inputs, key=lambda one: (one.name, one.sha256))),
            not_read=not_read,
        )
        provenance = {
            "spectra": summary.spectra,
            "objects": summary.objects,
            "counts": summary.counts,
            "options": {"tile_rows": tile_rows},
            "inputs": [asdict(one) for one in summary.inputs],
            "not_read": list(summary.not_read),
        }
        catalogue.finalise(PROVENANCE, provenance, reader.runs.skymap())
    return summary


@dataclass(frozen=True, slots=True)
class _Objects:
    """Cross-match of all spectra, by increasing object_id.

    Attributes
    ----------
    id, primary, count : ndarray of int64, shape (N,)
        Key of the spectrum, key of the best spectrum of the same object, and number of these spectra.
    """

    id: np.ndarray
    primary: np.ndarray
    count: np.ndarray

    def add_columns(self, table: pa.Table) -> pa.Table:
        """Add ``primary_id`` and ``n_spectra`` to rows of spectra, in the contract's order of columns."""
        at = np.searchsorted(self.id, table["object_id"].to_numpy())
        table = table.append_column("primary_id", pa.array(self.primary[at]))
        table = table.append_column("n_spectra", pa.array(self.count[at].astype(np.int32)))
        return table.select(SPECTRA.names)


class _Reader:
    """Reader of files of spectra and labels into sorted runs, with counts.

    Parameters
    ----------
    scratch : UPath
        Local folder for the runs.
    """

    def __init__(self, scratch: UPath) -> None:
        self.runs = SortedRuns(scratch, RUN_ROWS)
        self.counts: Counter[tuple[str, str]] = Counter()
        self.without_redshift = 0
        self.per_file: Counter[int] = Counter()
        self.from_air: Counter[int] = Counter()
        self.sha256: dict[int, str] = {}
        self._scratch = scratch
        self._objects: list[np.ndarray] = []

    def read_all(self, files: Sequence[UPath], kinds: dict[UPath, FileKind]) -> None:
        """Read all files; those with labels come first.

        Raises
        ------
        IngestError
            With the first error of each faulty file.
        """
        tables: list[LabelTable] = []
        errors = []
        for numbers in counted(_groups(files, kinds), "groups of files read"):
            first = files[numbers[0]]
            kind = kinds[first]
            try:
                with ExitStack() as stack:
                    paths = [stack.enter_context(local_copy(files[n], self._scratch)) for n in numbers]
                    self.sha256 |= {n: sha256_of(path) for n, path in zip(numbers, paths, strict=True)}
                    if kind.read_labels is not None:
                        tables += kind.read_labels(paths[0])
                    if kind.read_spectra is not None:
                        self._add(kind.read_spectra(paths, LabelIndex(tables)), numbers[0])
            except SourceError as error:
                errors.append(error.in_file(first))
        if errors:
            raise IngestError("\n".join(errors))
        self.runs.flush()

    def _add(self, spectra: Iterable[Spectrum], number: int) -> None:
        iterator = iter(spectra)
        while batch := list(islice(iterator, _BATCH)):
            table = spectra_table(batch)
            self.runs.add(table, number)
            self.without_redshift += table["z"].null_count
            objects = np.empty(len(batch), _OBJECT)
            objects["file"] = number
            objects["target"] = [target_key(spectrum) for spectrum in batch]
            for name, column in (("id", "object_id"), ("ra", "ra"), ("dec", "dec"), ("snr", "snr")):
                objects[name] = table[column].to_numpy()
            self._objects.append(objects)
            self.counts.update((spectrum.survey, spectrum.object_class or NONE) for spectrum in batch)
            self.per_file[number] += len(batch)
            note(f"{self.runs.rows:,} spectra")
            self.from_air[number] += sum(spectrum.from_air for spectrum in batch)

    def match_objects(self, files: Sequence[UPath]) -> _Objects:
        """Find the spectra of the same object.

        Raises
        ------
        IngestError
            If a spectrum comes twice.
        """
        objects = np.sort(np.concatenate(self._objects), order=["id", "file"])
        again = np.flatnonzero(objects["id"][1:] == objects["id"][:-1])
        if len(again):
            one, two = (files[objects["file"][again[0] + k]] for k in (0, 1))
            raise IngestError(
                f"{len(again):,} spectra come twice, the first of them in {one} and in {two}: name one "
                "of the files"
            )
        group = cross_match(objects["ra"], objects["dec"], objects["target"])
        # The best of each group is its last by signal to noise, and of equals the first by object_id.
        order = np.lexsort((-np.arange(len(objects)), objects["snr"], group))
        best = np.r_[np.flatnonzero(np.diff(group[order])), len(order) - 1]
        _, member, count = np.unique(group, return_inverse=True, return_counts=True)
        return _Objects(objects["id"].copy(), objects["id"][order[best]][member], count[member])


def _groups(files: Sequence[UPath], kinds: dict[UPath, FileKind]) -> Iterator[list[int]]:
    """Numbers of the files that are read together, in the order of their first."""
    groups: dict[tuple[str, str], list[int]] = {}
    for number, path in enumerate(files):
        kind = kinds[path]
        key = str(path) if kind.group is None else kind.group(path)
        groups.setdefault((kind.name, key), []).append(number)
    yield from groups.values()
