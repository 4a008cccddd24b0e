"""VOTable files as TAP services send them, gzipped or not.

TABLEDATA is read as a stream; BINARY and BINARY2 are one block of base64 and are held whole. Data that
are not in the file itself are not fetched. An INFO or PARAM ``FILTERS`` gives the names of the filters of the
array columns, separated by spaces, where they are not the 57 of J-PAS. The format is that
of the IVOA Recommendation "VOTable Format Definition" 1.5.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import BinaryIO
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
from upath import UPath

from ojala.pipeline.ingest.errors import QueryOverflow, SourceError
from ojala.pipeline.ingest.formats.table import BATCH_ROWS, SourceColumn, TableSource, by_lower_case, opened

_Event = tuple[str, str, ElementTree.Element]

_NUMBERS: dict[str, np.dtype] = {
    "unsignedByte": np.dtype("u1"),
    "short": np.dtype(">i2"),
    "int": np.dtype(">i4"),
    "long": np.dtype(">i8"),
    "float": np.dtype(">f4"),
    "double": np.dtype(">f8"),
}
_BYTES = {name: kind.itemsize for name, kind in _NUMBERS.items()} | {
    "boolean": 1,
    "char": 1,
    "unicodeChar": 2,
    "bit": 0,  # eight to a byte
    "floatComplex": 8,
    "doubleComplex": 16,
}


@dataclass(slots=True)
class _Field:
    """A column: its type, the number of values in a cell (None: it varies), and the text of a null value."""

    column: SourceColumn
    datatype: str
    count: int | None
    is_array: bool
    null: str | None = None


@dataclass(slots=True)
class _Head:
    """Metadata before the first row."""

    fields: list[_Field] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    serialisation: str = ""
    data: ElementTree.Element | None = None


def matches(head: bytes) -> bool:
    """Whether the first bytes of a file are those of XML."""
    return head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<")


@contextmanager
def open_table(path: UPath, scratch: UPath) -> Iterator[TableSource]:
    """Open the one table of a VOTable file.

    Raises
    ------
    SourceError
        If it is damaged, holds no table or several, or says that the query failed or was cut off.
    """
    with opened(path) as raw:
        events = _events(raw)
        head = _read_head(events)
        columns = by_lower_case(one.column for one in head.fields)

        def batches(wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
            slots = [list(columns).index(key) for key in wanted]
            read = _read_text if head.serialisation == "TABLEDATA" else _read_binary
            for arrays in read(events, head, slots):
                yield pa.RecordBatch.from_arrays(arrays, list(wanted))

        yield TableSource(columns, batches, head.notes)


def _events(raw: BinaryIO) -> Iterator[_Event]:
    try:
        for event, element in ElementTree.iterparse(raw, events=("start", "end")):
            yield event, element.tag.rpartition("}")[2], element
    except ElementTree.ParseError as error:
        raise SourceError(f"is a damaged VOTable: {error}") from error


def _read_head(events: Iterator[_Event]) -> _Head:
    head = _Head()
    within: _Field | None = None
    for event, tag, element in events:
        if event == "start" and tag == "FIELD":
            within = _field(element)
            head.fields.append(within)
        elif event == "end" and tag == "FIELD":
            within = None
        elif event == "start" and tag == "VALUES" and within is not None:
            # Of a FIELD; a PARAM has VALUES, too.
            within.null = element.get("null", within.null)
        elif event == "start" and tag in ("TABLEDATA", "BINARY", "BINARY2"):
            head.serialisation, head.data = tag, element
            return head
        elif event == "start" and tag == "FITS":
            raise SourceError("holds its rows as FITS; ask the service for TABLEDATA or BINARY2, or for FITS")
        elif event == "end" and tag in ("INFO", "PARAM"):
            _note(head, element)
        elif event == "end" and tag == "TABLE":
            return head
    raise SourceError("holds no table")


def _field(element: ElementTree.Element) -> _Field:
    name = element.get("name") or element.get("ID") or ""
    size = (element.get("arraysize") or "").strip()
    try:
        count = None if size.endswith("*") else math.prod(int(n) for n in size.split("x")) if size else 1
    except ValueError:
        raise SourceError(f"has the arraysize {size!r}, which is not understood", column=name) from None
    return _Field(
        SourceColumn(name, element.get("unit") or ""),
        element.get("datatype") or "",
        count,
        size not in ("", "1"),
    )


def _note(head: _Head, element: ElementTree.Element) -> None:
    name, value = (element.get("name") or "").lower(), element.get("value") or ""
    if name == "query_status" and value.upper() == "OVERFLOW":
        raise QueryOverflow(
            "was cut off at the service's limit of rows (QUERY_STATUS OVERFLOW): ask for less"
        )
    if name == "query_status" and value.upper() == "ERROR":
        raise SourceError(f"is a query that failed (QUERY_STATUS ERROR): {(element.text or '').strip()}")
    if name in ("query", "select"):
        head.notes.setdefault("select", value)
    elif name == "filters":
        head.notes.setdefault("filters", value)


def _after_data(head: _Head, event: str, tag: str, element: ElementTree.Element) -> None:
    if event == "end" and tag == "INFO":
        _note(head, element)
    elif event == "start" and tag == "TABLE":
        raise SourceError("holds more than one table, expected one")


def _read_text(events: Iterator[_Event], head: _Head, slots: Sequence[int]) -> Iterator[list[pa.Array]]:
    row = 0
    columns: list[list[str | None]] = [[] for _ in slots]
    missing = [_without_null(head.fields[slot]) for slot in slots]
    for event, tag, element in events:
        if event != "end" or tag != "TR":
            _after_data(head, event, tag, element)
            continue
        row += 1
        cells = [cell.text for cell in element]
        if len(cells) != len(head.fields):
            raise SourceError(f"has {len(cells)} cells, expected {len(head.fields)}", row=row)
        for column, slot, clean in zip(columns, slots, missing, strict=True):
            text = cells[slot]
            column.append(text if text is None or clean is None else clean(text))
        if head.data is not None:
            # Drop the rows that have been read: the tree would grow to the size of the file.
            head.data.clear()
        if row % BATCH_ROWS == 0:
            yield [pa.array(column, pa.string()) for column in columns]
            columns = [[] for _ in slots]
    yield [pa.array(column, pa.string()) for column in columns]


def _without_null(one: _Field) -> Callable[[str], str | None] | None:
    """Function that takes the declared null out of a cell; None where none is declared."""
    if one.null is None:
        return None
    null = one.null.strip()

    def is_null(word: str) -> bool:
        return word == null or (one.datatype in _NUMBERS and _number(word) == _number(null))

    if one.is_array and one.datatype in _NUMBERS:
        return lambda text: " ".join("nan" if is_null(word) else word for word in text.split())
    return lambda text: None if is_null(text.strip()) else text


def _number(word: str) -> float:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(word)
    return math.nan


def _read_binary(events: Iterator[_Event], head: _Head, slots: Sequence[int]) -> Iterator[list[pa.Array]]:
    for event, tag, element in events:
        if event == "end" and tag == "STREAM":
            if element.get("encoding") != "base64" or element.get("href") is not None:
                raise SourceError("holds a STREAM that is not base64 in the file itself; ask for TABLEDATA")
            try:
                data = base64.b64decode("".join((element.text or "").split()), validate=True)
            except ValueError as error:
                raise SourceError(f"is a damaged VOTable: {error}") from error
            element.clear()
            yield from _binary_rows(data, head, slots)
        else:
            _after_data(head, event, tag, element)


def _binary_rows(data: bytes, head: _Head, slots: Sequence[int]) -> Iterator[list[pa.Array]]:
    """Cut the block into cells; numbers are decoded a column of a batch at a time."""
    # BINARY2 puts one bit per field, the first in the highest place, before each row: set where null.
    mask_bytes = (len(head.fields) + 7) // 8 if head.serialisation == "BINARY2" else 0
    for one in head.fields:
        if one.datatype not in _BYTES:
            raise SourceError(f"has the unknown datatype {one.datatype!r}", column=one.column.name)
    at, row = 0, 0
    cells: list[list[bytes | None]] = [[] for _ in head.fields]
    while at < len(data):
        row += 1
        start = at
        nulls = np.unpackbits(np.frombuffer(data, np.uint8, min(mask_bytes, len(data) - at), at))
        at += mask_bytes
        for number, one in enumerate(head.fields):
            count = one.count
            if count is None:
                if at + 4 > len(data):
                    raise SourceError("is cut off", row=row, column=one.column.name)
                (count,) = struct.unpack_from(">i", data, at)
                at += 4
            size = (count + 7) // 8 if one.datatype == "bit" else count * _BYTES[one.datatype]
            if size < 0 or at + size > len(data):
                raise SourceError("is cut off", row=row, column=one.column.name)
            is_null = number < len(nulls) and nulls[number]
            cells[number].append(None if is_null else data[at : at + size])
            at += size
        if at == start:
            raise SourceError("has columns without values only, but data")
        if row % BATCH_ROWS == 0:
            yield [_arrow(cells[slot], head.fields[slot]) for slot in slots]
            cells = [[] for _ in head.fields]
    yield [_arrow(cells[slot], head.fields[slot]) for slot in slots]


def _arrow(cells: list[bytes | None], one: _Field) -> pa.Array:
    if one.datatype in ("char", "unicodeChar"):
        code = "utf-8" if one.datatype == "char" else "utf-16-be"
        return pa.array(
            [None if c is None else c.decode(code, "replace").rstrip("\0") for c in cells], pa.string()
        )
    if one.datatype not in _NUMBERS:
        raise SourceError(f"holds {one.datatype or 'no datatype'}, expected numbers", column=one.column.name)
    kind = _NUMBERS[one.datatype]
    empty = b"" if one.is_array else bytes(kind.itemsize)
    flat = np.frombuffer(b"".join(empty if c is None else c for c in cells), kind)
    missing = np.array([c is None for c in cells], bool) if not one.is_array else np.zeros(len(flat), bool)
    if one.null is not None:
        missing |= flat == _number(one.null)
    values = pa.array(flat.astype(kind.newbyteorder("=")), mask=missing)
    if not one.is_array:
        return values
    # A null array has no elements here, which is how a missing array is understood.
    ends = np.cumsum([0, *(0 if c is None else len(c) // kind.itemsize for c in cells)])
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), values)
