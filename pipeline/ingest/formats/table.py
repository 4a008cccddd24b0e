"""A table in a file, whatever its form: columns with units, notes, and rows in batches of bounded size."""

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
"""Most rows of a batch."""

GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class SourceColumn:
    """A column as a file has it.

    Attributes
    ----------
    name : str
        Name in the file's own spelling.
    unit : str
        Unit as the file gives it; empty where it gives none.
    """

    name: str
    unit: str = ""


@dataclass(frozen=True, slots=True)
class TableSource:
    """A table that can be read once, from its first row to its last.

    Attributes
    ----------
    form : str
        Form of the file: Parquet, CSV, FITS or VOTable.
    columns : dict of str to SourceColumn
        Columns in their order, by their names in lower case.
    batches : callable
        Takes the lower-case names of the columns wanted, gives record batches of them with at most
        `BATCH_ROWS` rows. Cells are numbers, texts, or lists of numbers; those of text forms are all
        texts, in which an array stands as numbers with white space between. Raises
        :class:`SourceError` where the file is damaged.
    notes : dict of str to str
        What the file says about itself, by lower-case key: ``select``, the query that made it;
        ``filters``, the names of the filters in the order of its array columns.
    """

    form: str
    columns: dict[str, SourceColumn]
    batches: Callable[[Sequence[str]], Iterator[pa.RecordBatch]]
    notes: dict[str, str] = field(default_factory=dict)


def by_lower_case(columns: Iterable[SourceColumn]) -> dict[str, SourceColumn]:
    """Columns by their names in lower case.

    Raises
    ------
    SourceError
        If two names differ in case only, or a name comes twice.
    """
    found: dict[str, SourceColumn] = {}
    for column in columns:
        key = column.name.strip().lower()
        if key in found:
            raise SourceError(
                f"comes twice ({found[key].name} and {column.name}); names are read without regard to case",
                column=column.name,
            )
        found[key] = column
    return found


@contextmanager
def opened(path: UPath) -> Iterator[BinaryIO]:
    """A file's content, decompressed where it is gzipped."""
    with path.open("rb") as raw:
        zipped = raw.read(2) == GZIP_MAGIC
        raw.seek(0)
        stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if zipped else raw
        try:
            yield stream
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise SourceError(f"is damaged: {error}") from error
