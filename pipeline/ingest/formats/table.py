"""Tables in files, whatever their format: columns with units, notes, and rows in batches of bounded size."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO, cast

import pyarrow as pa
from upath import UPath

from ojala.pipeline.ingest.errors import SourceError

BATCH_ROWS = 8_192
"""Largest number of rows in a batch."""

GZIP_MAGIC = b"\x1f\x8b"


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


@contextmanager
def opened(path: UPath) -> Iterator[BinaryIO]:
    """Open a file for reading, decompressed where it is gzipped."""
    with path.open("rb") as raw:
        zipped = raw.read(2) == GZIP_MAGIC
        raw.seek(0)
        stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if zipped else raw
        try:
            yield stream
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise SourceError(f"is damaged: {error}") from error
