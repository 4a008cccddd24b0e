"""Tables as text: CSV of the archive, of spreadsheets and of astropy (ECSV), and columns divided by blanks.

The archive writes ``#SELECT ...``, an upper-case header, and arrays as numbers separated by spaces. A line
``#FILTERS uJAVA J0378 ...`` before the header gives the names of the filters of the array columns where they
are not the 57 of J-PAS. The divider (comma, semicolon, tab, bar or blanks) is that of the header, which may
stand behind ``#`` (numpy, TOPCAT); ECSV states its divider and the units of its columns.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO

import pyarrow as pa
import pyarrow.csv
from upath import UPath

from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.formats import FORMAT_NAMES
from ojala.pipeline.ingest.formats.table import BATCH_ROWS, SourceColumn, TableSource, by_lower_case, opened
from ojala.pipeline.storage.units import yaml_units

BLOCK_BYTES = 4 << 20
"""Size of the blocks that are parsed; no row may exceed it [bytes]."""

_HEADER_BYTES = 1 << 20
_WRONG_WIDTH = re.compile(r"Row #(\d+): Expected (\d+) columns, got (\d+)")
_DIVIDERS = (",", ";", "\t", "|")
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_CELLS = re.compile(rb'"(?:[^"]|"")*"|[^\s"]\S*')
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True, slots=True)
class _Head:
    """Header of a table.

    Attributes
    ----------
    names : list of str
        Names of the columns.
    divider : str
        Character between cells; a blank for any number of blanks.
    units, notes : dict of str to str
        Units by column, and notes by key.
    first : bytes
        First line of data, where it had to be read to find the header.
    """

    names: list[str]
    divider: str
    units: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    first: bytes = b""


def matches(head: bytes) -> bool:
    """Whether the first bytes of a file may be text."""
    return b"\0" not in head


@contextmanager
def open_table(path: UPath, scratch: UPath) -> Iterator[TableSource]:
    """Open a table of text, compressed or not.

    Raises
    ------
    SourceError
        If it has no header, or lines that do not fit it.
    """
    with opened(path) as raw:
        head = _read_head(raw)
        columns = by_lower_case(SourceColumn(name, head.units.get(name, "")) for name in head.names)

        def batches(wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
            return _batches(raw, list(columns), wanted, head)

        yield TableSource(columns, batches, head.notes)


def _read_head(raw: BinaryIO) -> _Head:
    comments: list[str] = []
    divider, length = "", 0
    while (line := _line(raw)) and (not line.strip() or line.startswith("#") or _states_divider(line)):
        if _states_divider(line):
            divider = line[4]
        elif line.strip():
            comments.append(line[1:].rstrip("\r\n"))
        length += len(line)
        if length > _HEADER_BYTES:
            raise SourceError(f"has no header within its first {_HEADER_BYTES >> 20} MiB")
    if not line:
        raise SourceError("is empty: it has no header")
    if comments and comments[0].strip().startswith("%ECSV"):
        return _ecsv_head(comments[1:], line)
    pairs = [comment.strip().partition(" ") for comment in reversed(comments)]
    notes = {key.lower(): value.strip() for key, _, value in pairs}
    divider = divider or _divider(line)
    names = _names(line, divider)
    if not (comments and any(_NUMBER.fullmatch(name) for name in names)):
        return _Head(names, divider, {}, notes)
    # The first line holds data: the header is the last line behind "#".
    header = _names(comments[-1], _divider(comments[-1]))
    if len(header) != len(names) or any(_NUMBER.fullmatch(name) for name in header):
        raise SourceError(
            "has no header: its first line without # holds numbers, and the line with # before it does not "
            f"name their {len(names)} columns"
        )
    return _Head(header, divider, {}, notes, line.encode())


def _ecsv_head(comments: Sequence[str], line: str) -> _Head:
    lines = [comment.removeprefix(" ") for comment in comments]
    stated = next((text.partition(":")[2] for text in lines if text.startswith("delimiter:")), "")
    divider = stated.strip().strip("'\"") or " "
    try:
        units = yaml_units(lines)
    except ValueError as error:
        raise SourceError(f"is a damaged ECSV file: {error}") from error
    return _Head(_names(line, divider), divider, units)


def _states_divider(line: str) -> bool:
    """Whether a line is ``sep=;``, with which spreadsheets say their divider."""
    return line.lower().startswith("sep=") and len(line.rstrip("\r\n")) == 5


def _divider(line: str) -> str:
    plain = _QUOTED.sub("", line)
    found = next((mark for mark in _DIVIDERS if mark in plain), "")
    return found or (" " if len(plain.split()) > 1 else ",")


def _names(line: str, divider: str) -> list[str]:
    if divider == " ":
        return [cell.decode().strip('"') for cell in _CELLS.findall(line.encode())]
    return [name.strip() for name in next(csv.reader([line], delimiter=divider, skipinitialspace=True))]


def _line(raw: BinaryIO) -> str:
    line = raw.readline(_HEADER_BYTES)
    if b"\0" in line:
        raise SourceError(f"is none of {FORMAT_NAMES}")
    try:
        return line.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SourceError(f"is none of {FORMAT_NAMES}: its header is no text") from None


def _batches(raw: BinaryIO, names: list[str], wanted: Sequence[str], head: _Head) -> Iterator[pa.RecordBatch]:
    blanks = head.divider == " "
    watched = (_Blanks if blanks else _EndWatch)(raw, head.first)
    rows = 0

    try:
        reader = pyarrow.csv.open_csv(
            pa.PythonFile(watched, mode="r"),
            read_options=pyarrow.csv.ReadOptions(
                column_names=names, block_size=BLOCK_BYTES, use_threads=False
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter="\t" if blanks else head.divider, newlines_in_values=True
            ),
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
    """Stream that begins with bytes that were read before, and records the number of bytes and the last.

    Parameters
    ----------
    raw : binary file
        The stream.
    first : bytes
        Beginning of it that was read before.
    """

    def __init__(self, raw: BinaryIO, first: bytes = b"") -> None:
        self.raw = raw
        self.bytes = 0
        self.last = b""
        self._first = first

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        block, self._first = self._first or self.raw.read(size), b""
        if block:
            self.bytes += len(block)
            self.last = block[-1:]
        return block


class _Blanks(_EndWatch):
    """The same with tabs in place of blanks between cells, without blank lines and comments."""

    def read(self, size: int = -1, /) -> bytes:
        block = bytearray()
        while len(block) < max(size, 1):
            line, self._first = self._first or self.raw.readline(BLOCK_BYTES), b""
            if not line:
                break
            self.bytes += len(line)
            self.last = line[-1:]
            if cells := [] if line.startswith(b"#") else _CELLS.findall(line):
                block += b"\t".join(cells) + b"\n"
        return bytes(block)
