"""Registry of the readers of spectra and labels; ``docs/writing-a-reader.md`` shows how to write one.

A reader is a function in a module of this package, or of another package with an entry point of the group
``ojala.readers``, below `reader` or `label_reader`. All such modules are imported when files are detected.
"""

from __future__ import annotations

import functools
import pkgutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, TypeVar

from astropy.io import fits
from upath import UPath

from ojala.pipeline.ingest.surveys.spectrum import Spectrum

if TYPE_CHECKING:
    from ojala.pipeline.ingest.surveys.label_tables import LabelIndex, LabelTable

SpectraReader = TypeVar("SpectraReader", bound="Callable[[UPath, LabelIndex], Spectrum | Iterable[Spectrum]]")
GroupReader = TypeVar(
    "GroupReader", bound="Callable[[Sequence[UPath], LabelIndex], Spectrum | Iterable[Spectrum]]"
)
LabelReader = TypeVar("LabelReader", bound="Callable[[UPath], LabelTable | list[LabelTable]]")

ENTRY_POINTS = "ojala.readers"
"""Group of the entry points of modules with readers outside of this package."""


@dataclass(frozen=True, slots=True)
class FileKind:
    """A kind of files with its detection and its reader.

    Attributes
    ----------
    name : str
        Name in summaries and provenance.
    expected : str
        Description for error messages.
    matches_fits : callable, optional
        Detects the kind in an open FITS file.
    matches_columns : callable, optional
        Detects the kind by the columns of a Parquet file (those of a struct as ``spectrum.flux``) or the
        data sets of an HDF5 file.
    matches_head : callable, optional
        Detects the kind in the first bytes of any other file.
    read_spectra : callable, optional
        Reads spectra from the files of a group, given the labels of all tables.
    read_labels : callable, optional
        Reads tables of labels.
    group : callable, optional
        Key of the spectrum to which a file belongs; files of the same key are read together, sorted by name.
        Without it each file is read by itself.
    """

    name: str
    expected: str
    matches_fits: Callable[[fits.HDUList], bool] | None = None
    matches_columns: Callable[[frozenset[str]], bool] | None = None
    matches_head: Callable[[bytes], bool] | None = None
    read_spectra: Callable[[Sequence[UPath], LabelIndex], Iterable[Spectrum]] | None = None
    read_labels: Callable[[UPath], list[LabelTable]] | None = None
    group: Callable[[UPath], str] | None = None


_KINDS: dict[str, FileKind] = {}


def register(kind: FileKind) -> None:
    """Add a kind of files; no two kinds should match the same file.

    Raises
    ------
    ValueError
        If another kind has its name.
    """
    if kind.name in _KINDS:
        raise ValueError(f"there are two readers of {kind.name!r}")
    _KINDS[kind.name] = kind


def reader(
    name: str,
    expected: str,
    *,
    fits: Callable[[fits.HDUList], bool] | None = None,
    columns: Callable[[frozenset[str]], bool] | None = None,
    head: Callable[[bytes], bool] | None = None,
) -> Callable[[SpectraReader], SpectraReader]:
    """Register a reader of the spectrum or the spectra in one file.

    Parameters
    ----------
    name, expected : str
        Name of the kind of files, and its description for error messages.
    fits, columns, head : callable, optional
        Detection of the kind, at least one; see `FileKind`.
    """

    def add(function: SpectraReader) -> SpectraReader:
        def read(paths: Sequence[UPath], labels: LabelIndex) -> Iterable[Spectrum]:
            return _several(function(paths[0], labels))

        register(FileKind(name, expected, fits, columns, head, read))
        return function

    return add


def group_reader(
    name: str,
    expected: str,
    *,
    group: Callable[[UPath], str],
    fits: Callable[[fits.HDUList], bool] | None = None,
) -> Callable[[GroupReader], GroupReader]:
    """Register a reader of a spectrum that is spread over several files.

    Parameters
    ----------
    name, expected : str
        Name of the kind of files, and its description for error messages.
    group : callable
        Key of the spectrum to which a file belongs.
    fits : callable, optional
        Detection of the kind in an open FITS file.
    """

    def add(function: GroupReader) -> GroupReader:
        def read(paths: Sequence[UPath], labels: LabelIndex) -> Iterable[Spectrum]:
            return _several(function(paths, labels))

        register(FileKind(name, expected, matches_fits=fits, read_spectra=read, group=group))
        return function

    return add


def label_reader(
    name: str,
    expected: str,
    *,
    fits: Callable[[fits.HDUList], bool] | None = None,
    head: Callable[[bytes], bool] | None = None,
) -> Callable[[LabelReader], LabelReader]:
    """Register a reader of one or several tables of labels; the parameters are those of `reader`."""

    def add(function: LabelReader) -> LabelReader:
        def read(path: UPath) -> list[LabelTable]:
            found = function(path)
            return found if isinstance(found, list) else [found]

        register(FileKind(name, expected, matches_fits=fits, matches_head=head, read_labels=read))
        return function

    return add


def _several(found: Spectrum | Iterable[Spectrum]) -> Iterable[Spectrum]:
    return [found] if isinstance(found, Spectrum) else found


def file_kinds() -> tuple[FileKind, ...]:
    """All registered kinds by name, with those of all modules of this package and of the entry points."""
    _import_readers()
    return tuple(_KINDS[name] for name in sorted(_KINDS))


@functools.cache
def _import_readers() -> None:
    """Import the modules with readers; once, since all installed packages are searched for entry points."""
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules(import_module(package).__path__):
        import_module(f"{package}.{module.name}")
    for entry in entry_points(group=ENTRY_POINTS):
        entry.load()
