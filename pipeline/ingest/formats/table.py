"""Tables in files, whatever their format: columns with units, notes, and rows in batches of bounded size."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import BinaryIO, cast

import pyarrow as pa
from upath import UPath

from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.storage.files import is_local
from ojala.pipeline.storage.units import scale_between

BATCH_ROWS = 8_192
"""Largest number of rows in a batch."""

_COMPRESSIONS: tuple[tuple[bytes, Callable[[BinaryIO], object]], ...] = (
    (b"\x1f\x8b", lambda raw: gzip.GzipFile(fileobj=raw)),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ\0", lzma.LZMAFile),
)
"""First bytes of compressed files, and what decompresses them."""

_UNREAD = {
    b"PK\x03\x04": "a ZIP archive",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"\x1f\x9d": "a .Z file",
}
_MAGIC_BYTES = 6


@dataclass(frozen=True, slots=True)
class SourceColumn:
    """A column of a file.

    Attributes
    ----------
    name : str
        Name in the file's own spelling.
    unit : str
        Unit in the file's own spelling; empty where it gives none.
    """

    name: str
    unit: str = ""


@dataclass(frozen=True, slots=True)
class TableSource:
    """A table that can be read once, from its first row to its last.

    Attributes
    ----------
    columns : dict of str to SourceColumn
        Columns in their order, by their names in lower case.
    batches : callable
        Takes lower-case names of columns and yields record batches of them with at most `BATCH_ROWS` rows.
        Cells are numbers, texts, or lists of numbers; those of text formats are all texts, with arrays as
        numbers separated by white space. Raises :class:`SourceError` where the file is damaged.
    notes : dict of str to str
        Metadata by lower-case key: ``select``, the query that made the file; ``filters``, the names of the
        filters in the order of its array columns.
    form : str
        Name of the format in `ojala.pipeline.ingest.formats.FORMATS`.
    """

    columns: dict[str, SourceColumn]
    batches: Callable[[Sequence[str]], Iterator[pa.RecordBatch]]
    notes: dict[str, str] = field(default_factory=dict)
    form: str = ""


def scale_to(column: SourceColumn, wanted: str, *, hour_angle: bool = False) -> float:
    """Factor that brings a column's numbers to a unit; 1 where the file states none.

    Parameters
    ----------
    column : SourceColumn
        The column.
    wanted : str
        The unit; empty for a pure number.
    hour_angle : bool
        Whether hours are those of right ascension.

    Raises
    ------
    SourceError
        If the stated unit is not understood, or cannot be converted.
    """
    try:
        return scale_between(column.unit, wanted, hour_angle=hour_angle)
    except ValueError:
        expected = wanted or "a number without unit"
        raise SourceError(
            f"has the unit {column.unit!r}, expected {expected}: convert the column, or correct its unit",
            column=column.name,
        ) from None


def by_lower_case(columns: Iterable[SourceColumn]) -> dict[str, SourceColumn]:
    """Columns by their names in lower case.

    Raises
    ------
    SourceError
        If two names differ in case only, or a name comes twice.
    """
    found: dict[str, SourceColumn] = {}
    columns = list(columns)
    for column in columns:
        key = column.name.strip().lower()
        if column.name == "MAG_I" and any(other.name == "MAG_i" for other in columns):
            key = "mag_i_legacy"  # beside iSDSS in the tables of the authors of OJALÁ
        if key in found:
            raise SourceError(
                f"comes twice ({found[key].name} and {column.name}); names are read without regard to case",
                column=column.name,
            )
        found[key] = column
    return found


def choose_columns(source: TableSource, ignore: Collection[str], names: Mapping[str, str]) -> TableSource:
    """The same table without some columns, and with others under names that this program knows.

    Parameters
    ----------
    source : TableSource
        The table.
    ignore : collection of str
        Columns to leave out, by the file's names in any case.
    names : mapping of str to str
        The file's name of a column, in any case, by the name under which it is read.

    Raises
    ------
    SourceError
        If two columns have one name then.
    """
    left_out = {name.strip().lower() for name in ignore}
    known = {theirs.strip().lower(): ours.strip().lower() for ours, theirs in names.items()}
    theirs_by_ours: dict[str, str] = {}
    for theirs in source.columns:
        if theirs in left_out:
            continue
        ours = known.get(theirs, theirs)
        if ours in theirs_by_ours:
            raise SourceError(
                f"is to be read as {ours}, but {source.columns[theirs_by_ours[ours]].name} is, too: leave "
                "one of them out with --ignore",
                column=source.columns[theirs].name,
            )
        theirs_by_ours[ours] = theirs

    def batches(wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for batch in source.batches([theirs_by_ours[name] for name in wanted]):
            yield batch.rename_columns(list(wanted))

    columns = {ours: source.columns[theirs] for ours, theirs in theirs_by_ours.items()}
    return replace(source, columns=columns, batches=batches)


@contextmanager
def opened(path: UPath) -> Iterator[BinaryIO]:
    """Open a file for reading, decompressed where it is compressed with gzip, bzip2 or xz.

    Raises
    ------
    SourceError
        If it is damaged, compressed otherwise, or a pipe or a device, which gives its content only once.
    """
    if is_local(path) and path.exists() and not path.is_file():
        raise SourceError("is a pipe or a device, which is read only once: write its content to a file")
    with path.open("rb") as raw:
        head = raw.read(_MAGIC_BYTES)
        raw.seek(0)
        for magic, form in _UNREAD.items():
            if head.startswith(magic):
                raise SourceError(f"is {form}: unpack it first (gzip, bzip2 and xz are read as they are)")
        decompress = next((form for magic, form in _COMPRESSIONS if head.startswith(magic)), None)
        stream = raw if decompress is None else cast(BinaryIO, decompress(raw))
        try:
            yield stream
        except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
            raise SourceError(f"is damaged: {error}") from error
        except OSError as error:
            if str(error) == "Invalid data stream":  # of bzip2, which has no exception of its own
                raise SourceError(f"is damaged: {error}") from error
            raise


def is_compressed(head: bytes) -> bool:
    """Whether a file with these first bytes is compressed."""
    return any(head.startswith(magic) for magic, _ in _COMPRESSIONS)
