"""Construction of a catalogue: in a scratch folder, moved to its final path when it is complete."""

from __future__ import annotations

import json
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
from upath import UPath

from ojala.catalogs_schema.contract import Contract
from ojala.catalogs_schema.errors import InputError, OjalaError
from ojala.pipeline.ingest.errors import IngestError
from ojala.pipeline.ingest.external_sort import SOURCE, SortedRuns
from ojala.pipeline.storage.drafts import locked_folder, remove_abandoned
from ojala.pipeline.storage.files import is_local, write_whole
from ojala.pipeline.storage.hats import RELEASES, finalise_catalogue
from ojala.pipeline.storage.healpix import Partition
from ojala.pipeline.storage.lock import LOCKS, LockedError, hold
from ojala.pipeline.storage.parquet import LeafRecord, write_leaf
from ojala.pipeline.storage.progress import counted
from ojala.pipeline.storage.statistics import write_statistics

SOURCES_KEY = "ojala.sources"
"""Key in a leaf's footer: the names of its input files. Their hashes are in the catalogue's provenance: in
the footer they would change a leaf, which would be computed again, whenever a row of another leaf changes."""

_UNFINISHED = "ingest.unfinished"
"""Object that marks a catalogue on an object store while it is built."""


@dataclass(frozen=True, slots=True)
class CatalogueBuilder:
    """A catalogue under construction.

    Attributes
    ----------
    root : UPath
        Folder of the catalogue's files.
    scratch : UPath
        Local folder for scratch files.
    name : str
        Name of the catalogue.
    contract : Contract
        Contract of its leaves.
    leaves : dict of Partition to LeafRecord
        Leaves written so far.
    """

    root: UPath
    scratch: UPath
    name: str
    contract: Contract
    leaves: dict[Partition, LeafRecord] = field(default_factory=dict)

    @property
    def rows(self) -> dict[Partition, int]:
        """Rows of each leaf."""
        return {partition: leaf.rows for partition, leaf in self.leaves.items()}

    def write_leaf(self, partition: Partition, table: pa.Table, sources: Sequence[dict[str, object]]) -> None:
        """Write the leaf of a partition, with its input files in the footer."""
        metadata = {SOURCES_KEY: json.dumps(sources)}
        self.leaves[partition] = write_leaf(self.root / partition.leaf, table, self.contract, metadata)

    def write_sorted(
        self,
        runs: SortedRuns,
        tile_rows: int,
        names: Sequence[str],
        complete: Callable[[pa.Table], pa.Table] = lambda table: table,
    ) -> None:
        """Write all leaves from sorted runs.

        Parameters
        ----------
        runs : SortedRuns
            All rows.
        tile_rows : int
            Most rows of a leaf.
        names : sequence of str
            Names of the input files, by the numbers under which their rows were added.
        complete : callable, optional
            Adds columns to the rows of a partition that are known only when all rows are read.

        Raises
        ------
        IngestError
            If one pixel of the finest order holds more than `tile_rows` rows, or not all rows were written.
        """
        try:
            runs.merge()
            partitions = runs.partitions(tile_rows)
        except ValueError as error:
            raise IngestError(str(error)) from error
        for partition in counted(partitions, "partitions written"):
            table = runs.read(partition)
            numbers, counts = np.unique(table[SOURCE].to_numpy(), return_counts=True)
            sources = sorted((names[n], int(count)) for n, count in zip(numbers, counts, strict=True))
            listing: list[dict[str, object]] = [{"name": name, "rows": rows} for name, rows in sources]
            self.write_leaf(partition, complete(table.drop_columns([SOURCE])), listing)
        if (written := sum(self.rows.values())) != runs.rows:
            raise IngestError(f"{runs.rows:,} rows were read but {written:,} written")

    def finalise(self, file: str, provenance: dict[str, object], skymap: np.ndarray) -> None:
        """Write provenance and HATS metadata.

        Parameters
        ----------
        file : str
            Name of the provenance file.
        provenance : dict of str to object
            Its content, without the contract, the number of partitions and the versions of packages.
        skymap : ndarray of int64
            Rows per pixel, as `finalise_catalogue` takes them.
        """
        record = provenance | {
            "partitions": len(self.leaves),
            "contract": f"{self.contract.name} {self.contract.version}",
            "versions": {package: version(package) for package in ("astropy", "healpy", "numpy", "pyarrow")},
        }
        write_whole(self.root / file, (json.dumps(record, indent=2) + "\n").encode())
        write_statistics(self.root, self.leaves)
        finalise_catalogue(self.root, self.contract, self.leaves, name=self.name, skymap=skymap)


@contextmanager
def build_catalogue(
    out: UPath, contract: Contract, name: str = "", *, key: str = "", scratch: UPath | None = None
) -> Iterator[CatalogueBuilder]:
    """Build a catalogue inside the block; it appears at `out` at the end, or nothing does.

    On a local file system the catalogue is built in a scratch folder beside `out` and renamed. On an object
    store it is built at `out`, where it cannot be opened before its properties, the last file written, are
    there. Remains of a killed process, at either place, are removed, unless they have the same key: then the
    block finds them, and goes on from there.

    Parameters
    ----------
    out : UPath
        Folder of the catalogue; see `check_request`.
    contract : Contract
        Contract of its leaves.
    name : str, optional
        Name of the catalogue; default: that of its folder.
    key : str, optional
        Key of all that the catalogue depends on. Without one nothing is kept for another process.
    scratch : UPath, optional
        Folder in which that for scratch files is made; default: beside `out`, or a temporary one where `out`
        is on an object store.

    Raises
    ------
    IngestError
        If a file cannot be written.
    LockedError
        If another process builds the same catalogue, or any at the same place of an object store.
    """
    folders = _beside(out.absolute(), key, scratch) if is_local(out) else _in_place(out, key, scratch)
    try:
        with folders as (root, scratch_files):
            yield CatalogueBuilder(root, scratch_files, name or out.name, contract)
    except OSError as error:
        raise IngestError(f"{out} cannot be written: {error}") from error


def check_request(files: Sequence[UPath], out: UPath, tile_rows: int = 1) -> None:
    """Check a request before anything is read.

    Raises
    ------
    IngestError
        If no file is named or one twice, `tile_rows` is less than 1, or `out` is not new or empty.
    """
    check_files(files)
    if tile_rows < 1:
        raise IngestError(f"a leaf cannot have {tile_rows} rows at most: ask for 1 or more")
    if out.is_file():
        raise IngestError(f"{out} is a file; name a folder for the catalogue")
    if out.is_dir() and any(entry.name != LOCKS for entry in out.iterdir()) and not _unfinished(out):
        raise IngestError(f"{out} is not empty; name a new folder, or remove it first")


def check_files(files: Sequence[UPath]) -> None:
    """Check that files are named, and none twice.

    Raises
    ------
    IngestError
        If none is, or one is named twice.
    """
    if not files:
        raise IngestError("no files were named")
    paths = [str(file.absolute()) for file in files]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise IngestError(f"{twice} is named twice")


@contextmanager
def _beside(out: UPath, key: str, scratch: UPath | None) -> Iterator[tuple[UPath, UPath]]:
    prefix = "." if out.parent.name == RELEASES else f".{out.name}."
    folder = out.parent / f"{prefix}{key or secrets.token_hex(8)}"
    out.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(Path(folder.path), prefix)
    files = folder / "scratch" if scratch is None else scratch.absolute() / folder.name
    with _own(folder, files, key), _scratch(files, key):
        root = folder / "catalogue"
        root.mkdir(exist_ok=True)
        yield root, files
        root.rename(out)


@contextmanager
def _in_place(out: UPath, key: str, scratch: UPath | None) -> Iterator[tuple[UPath, UPath]]:
    mark = out / _UNFINISHED
    with hold(out, "ingest"), ExitStack() as stack:
        if scratch is None:
            key = ""
            scratch = UPath(stack.enter_context(tempfile.TemporaryDirectory(prefix="ojala-")))
        files = scratch.absolute() / f".{out.name}.{key or secrets.token_hex(8)}"
        stack.enter_context(_scratch(files, key))
        text = f"A catalogue is being built here; this file is removed at its end. {key}\n".encode()
        if not (key and any(files.iterdir()) and mark.exists() and mark.read_bytes() == text):
            _empty(out)
            write_whole(mark, text)
        try:
            yield out, files
        except BaseException as error:  # nothing half-written stays; raised again
            if not (key and _can_resume(files, error)):
                _empty(out)
            raise
        mark.unlink()


@contextmanager
def _scratch(folder: UPath, key: str) -> Iterator[None]:
    """Make a folder for scratch files, which is removed at the end, as `_own` does it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException as error:  # nothing half-written stays; raised again
        if not (key and _can_resume(folder, error)):
            shutil.rmtree(folder.path, ignore_errors=True)
        raise
    shutil.rmtree(folder.path)


@contextmanager
def _own(folder: UPath, scratch: UPath, key: str) -> Iterator[None]:
    """Own a folder, which other processes do not touch meanwhile; it is removed at the end.

    After an interruption it is kept where there are results of tasks among the scratch files.

    Raises
    ------
    LockedError
        If another process owns it.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(locked_folder(Path(folder.path)))
        except BlockingIOError:
            raise LockedError(
                f"another process is making the same catalogue, in {folder}: wait for its end, or end it; "
                "its finished work is kept then"
            ) from None
        try:
            yield
        except BaseException as error:  # nothing half-written stays; raised again
            if not (key and _can_resume(scratch, error)):
                shutil.rmtree(folder.path, ignore_errors=True)
            raise
        shutil.rmtree(folder.path)


def _can_resume(scratch: UPath, error: BaseException) -> bool:
    """Whether tasks are finished that the same command can use when it is given again.

    After Ctrl-C or the loss of workers it can; after bad input or on a full disk nothing stays.
    """
    interrupted = isinstance(error, KeyboardInterrupt) or (
        isinstance(error, OjalaError) and not isinstance(error, InputError | OSError)
    )
    return interrupted and any(scratch.glob("*.json"))


def _unfinished(out: UPath) -> bool:
    """Whether a killed process left an unfinished catalogue on an object store."""
    return (out / _UNFINISHED).exists() and not (out / "hats.properties").exists()


def _empty(out: UPath) -> None:
    """Remove all objects of an unfinished catalogue but its locks, the marker last."""
    out.fs.invalidate_cache()
    locks, mark = (out / LOCKS).path + "/", (out / _UNFINISHED).path
    files = [file for file in out.fs.find(out.path) if not file.startswith(locks) and file != mark]
    if files:
        out.fs.rm(files)
    (out / _UNFINISHED).unlink(missing_ok=True)
