"""Discovery of the files of a request, which may name folders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from upath import UPath

from ojala.pipeline.ingest.errors import IngestError, SourceError

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
        folder = source.is_dir()
        for path in _files_under(source) if folder else [source]:
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


def _files_under(folder: UPath) -> list[UPath]:
    return sorted((p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")), key=str)
