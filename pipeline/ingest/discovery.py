"""Discovery of the files of a request, which may name folders and HATS catalogues, here or elsewhere.

A HATS catalogue or collection stands for the leaves of its main catalogue: its margins, which hold the same
rows again, its indexes and its metadata are passed over.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from upath import UPath

from ojala.pipeline.ingest.errors import IngestError, SourceError
from ojala.pipeline.storage.files import is_local
from ojala.pipeline.storage.progress import counted

Kind = TypeVar("Kind")
"""Result of the detection of a file."""


def discover_files(
    sources: Sequence[UPath], detect: Callable[[UPath], Kind]
) -> tuple[dict[UPath, Kind], tuple[str, ...]]:
    """Detect the kind of each file.

    Parameters
    ----------
    sources : sequence of UPath
        Files, or folders, whose files are all tried. A file that is named must be understood; one in a folder
        that holds something else is passed over.
    detect : callable
        Returns the kind of a file; raises `SourceError` for an unknown one.

    Returns
    -------
    kinds : dict of UPath to Kind
        In the order of the sources, files of a folder by name.
    passed_over : tuple of str
        Other files in folders, with the reason.

    Raises
    ------
    IngestError
        If a file that is named is not understood, or any cannot be read: names all of them.
    """
    kinds: dict[UPath, Kind] = {}
    faults: list[str] = []
    passed_over: list[str] = []
    for source in sources:
        try:
            folder = source.is_dir()
        except ImportError as error:  # of the file system's package
            raise IngestError(
                f"{source} needs a package that is not installed: {error}; for hf:// "
                "pip install '.[hf]' in a checkout of ojala, for s3:// '.[s3]'"
            ) from error
        for path in counted(
            _files_under(source) if folder else [source], f"files of {source.name} looked at"
        ):
            try:
                kinds[path] = detect(path)
            except SourceError as fault:
                if folder:
                    passed_over.append(f"{path} {str(fault).partition(': expected')[0]}")
                else:
                    faults.append(f"{path} {fault}")
            except OSError as error:
                faults.append(f"{path} cannot be read: {error}")
    if faults:
        raise IngestError("\n".join(faults))
    return kinds, tuple(passed_over)


@contextmanager
def local_copy(path: UPath, scratch: UPath) -> Iterator[UPath]:
    """The file itself if it lies on a local disk, else a copy under `scratch` while it is open.

    A file of an object store is fetched once, however often it is read.

    Raises
    ------
    SourceError
        If it cannot be fetched.
    """
    if is_local(path):
        yield path
        return
    with tempfile.TemporaryDirectory(dir=scratch.path) as folder:
        copy = UPath(folder) / path.name
        try:
            path.fs.get_file(path.path, copy.path)
        except OSError as error:
            raise SourceError(f"cannot be fetched: {error}") from error
        yield copy


_MAIN_PRODUCTS = ("object", "source", "nested", "")
"""Kinds of HATS catalogues whose rows are read; others repeat them (margins) or point at them (indexes)."""


def _files_under(folder: UPath) -> list[UPath]:
    if is_local(folder):
        found = {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}
    else:  # one listing, not one of each folder
        root = len(folder.path.strip("/")) + 1
        listed = (name.strip("/")[root:] for name in folder.fs.find(folder.path))
        found = {name: folder / name for name in listed}
    skipped: list[str] = []  # prefixes of the files that are passed over
    data: list[str] = []  # folders of catalogues, of which the data set is read
    for name, path in found.items():
        if name.rpartition("/")[2] in ("hats.properties", "properties"):
            catalogue = name.rpartition("/")[0]
            prefix = f"{catalogue}/" if catalogue else ""
            (data if _product(path) in _MAIN_PRODUCTS else skipped).append(prefix)

    def wanted(name: str) -> bool:
        if name.rpartition("/")[2].startswith(".") or name.startswith(tuple(skipped)):
            return False
        prefix = next((one for one in data if name.startswith(one)), None)
        if prefix is None:
            return name.rpartition("/")[2] != "collection.properties"
        return name.startswith(f"{prefix}dataset/") and not name.rpartition("/")[2].startswith("_")

    return [found[name] for name in sorted(found, key=lambda name: str(found[name])) if wanted(name)]


def _product(path: UPath) -> str:
    """The kind of a HATS catalogue, by its properties file."""
    lines = (line.partition("=") for line in path.read_text().splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == "dataproduct_type"), "")
