"""CSV tables of the archive: ``#SELECT ...``, an upper-case header, arrays as numbers separated by spaces.

A line ``#FILTERS uJAVA J0378 ...`` before the header gives the names of the filters of the array columns
where they are not the 57 of J-PAS.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

import pyarrow as pa
import pyarrow.csv
from upath import UPath

from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.formats import FORMAT_NAMES
from ojala.pipeline.ingest.formats.table import BATCH_ROWS, SourceColumn, TableSource, by_lower_case, opened

BLOCK_BYTES = 4 << 20
"""Size of the blocks that are parsed; no row may exceed it [bytes]."""

_HEADER_BYTES = 1 << 20
_WRONG_WIDTH = re.compile(r"Row #(\d+): Expected (\d+) columns, got (\d+)")


def matches(head: bytes) -> bool:
    """Whether the first bytes of a file may be text."""
    return b"\0" not in head


@contextmanager
def open_table(path: UPath, scratch: UPath) -> Iterator[TableSource]:
    """Open a CSV file, gzipped or not.

    Raises
    ------
    SourceError
        If it has no header, or lines that do not fit it.
    """
    with opened(path) as raw:
        notes: dict[str, str] = {}
        line = _line(raw).removeprefix("\ufeff")
        while line.startswith("#") or (line and not line.strip()):
            key, _, value = line[1:].strip().partition(" ")
            notes.setdefault(key.lower(), value.strip())
            line = _line(raw)
        if not line:
            raise SourceError("is empty: it has no header")
        names = next(csv.reader(io.StringIO(line), skipinitialspace=True))
        columns = by_lower_case(SourceColumn(name.strip()) for name in names)

        def batches(wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
            return _batches(raw, list(columns), wanted)

        yield TableSource(columns, batches, notes)


def _line(raw: BinaryIO) -> str:
    line = raw.readline(_HEADER_BYTES)
    if b"\0" in line:
        raise SourceError(f"is none of {FORMAT_NAMES}")
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise SourceError(f"is none of {FORMAT_NAMES}: its header is no text") from None


def _batches(raw: BinaryIO, names: list[str], wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
    watched = _EndWatch(raw)
    rows = 0

    try:
        reader = pyarrow.csv.open_csv(
            pa.PythonFile(watched, mode="r"),
            read_options=pyarrow.csv.ReadOptions(
                column_names=names, block_size=BLOCK_BYTES, use_threads=False
            ),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(wanted, pa.string()),
                include_columns=list(wanted),
                check_utf8=False,
            ),
        )
        for block in reader:
            for first in range(0, block.num_rows, BATCH_ROWS):
                batch = block.slice(first, BATCH_ROWS)
                rows += batch.num_rows
                yield batch
    except pa.ArrowInvalid as error:
        if watched.bytes == 0:
            return
        if match := _WRONG_WIDTH.search(str(error)):
            row, width, found = match.groups()
            raise SourceError(
                f"has {found} cells, expected {width} as in the header", row=int(row)
            ) from error
        if "straddling" in str(error):
            raise SourceError(
                f"is damaged: a row after row {rows} does not end within {BLOCK_BYTES >> 20} MiB "
                "(is a quote left open?)"
            ) from error
        raise SourceError(f"is damaged: {error}") from error
    if watched.last not in (b"\n", b"\r"):
        raise SourceError(
            "its last line has no line end, so the file looks cut off; end the line if it is whole", row=rows
        )


class _EndWatch(io.RawIOBase):
    """Stream that records the number of bytes read and the last of them."""

    def __init__(self, raw: BinaryIO) -> None:
        self.raw = raw
        self.bytes = 0
        self.last = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        block = self.raw.read(size)
        if block:
            self.bytes += len(block)
            self.last = block[-1:]
        return block
