"""VOTable files as TAP services send them, gzipped or not.

The common serialisation, TABLEDATA, is read as a stream; the binary ones are read whole by astropy. An
INFO or PARAM ``FILTERS`` with the names of the filters, separated by spaces, stands for the array columns
where they are not the 57 of J-PAS.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
from astropy.io import votable
from astropy.utils.exceptions import AstropyWarning
from upath import UPath

from pipeline.sources.faults import SourceError
from pipeline.sources.tables import BATCH_ROWS, SourceColumn, TableSource, by_lower_case, opened

_BINARY = ("BINARY", "BINARY2", "FITS")


@dataclass(slots=True)
class _Head:
    """What comes before the first row."""

    fields: list[SourceColumn] = field(default_factory=list)
    nulls: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    serialisation: str = ""
    rows: ElementTree.Element | None = None


@contextmanager
def open_votable(path: UPath) -> Iterator[TableSource]:
    """Open the one table of a VOTable file.

    Raises
    ------
    SourceError
        If it is damaged, holds no table or several, or says that the query failed or was cut off.
    """
    with opened(path) as raw:
        events = _events(raw)
        head = _read_head(events)
        columns = by_lower_case(head.fields)
        if head.serialisation in _BINARY:
            for _ in _rows(events, head):
                pass
            raw.seek(0)

        def batches(wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
            if head.serialisation in _BINARY:
                return _binary_batches(raw, list(columns), wanted)
            return _text_batches(events, head, list(columns), wanted)

        yield TableSource("VOTable", columns, batches, head.notes)


def _events(raw: BinaryIO) -> Iterator[tuple[str, str, ElementTree.Element]]:
    try:
        for event, element in ElementTree.iterparse(raw, events=("start", "end")):
            yield event, element.tag.rpartition("}")[2], element
    except ElementTree.ParseError as error:
        raise SourceError(f"is a damaged VOTable: {error}") from error


def _read_head(events: Iterator[tuple[str, str, ElementTree.Element]]) -> _Head:
    head = _Head()
    for event, tag, element in events:
        if event == "start":
            if tag == "FIELD":
                name = element.get("name") or element.get("ID") or ""
                head.fields.append(SourceColumn(name, element.get("unit") or ""))
            elif tag == "VALUES" and head.fields and element.get("null") is not None:
                head.nulls[head.fields[-1].name.strip().lower()] = str(element.get("null"))
            elif tag in ("TABLEDATA", *_BINARY):
                head.serialisation, head.rows = tag, element
                return head
        elif tag in ("INFO", "PARAM"):
            _note(head, element)
        elif tag == "TABLE":
            return head
    raise SourceError("holds no table")


def _note(head: _Head, element: ElementTree.Element) -> None:
    name, value = (element.get("name") or "").lower(), element.get("value") or ""
    if name == "query_status" and value.upper() in ("OVERFLOW", "ERROR"):
        meaning = "cut off at the service's limit of rows" if value.upper() == "OVERFLOW" else "not answered"
        raise SourceError(
            f"says QUERY_STATUS {value.upper()}: the query was {meaning}; ask for less at a time"
        )
    if name in ("query", "select"):
        head.notes.setdefault("select", value)
    elif name == "filters":
        head.notes.setdefault("filters", value)


def _rows(events: Iterator[tuple[str, str, ElementTree.Element]], head: _Head) -> Iterator[list[str | None]]:
    """Texts of each row, then what stands after the rows is looked at."""
    row = 0
    for event, tag, element in events:
        if event == "end" and tag == "TR":
            row += 1
            cells = [cell.text for cell in element]
            if len(cells) != len(head.fields):
                raise SourceError(f"has {len(cells)} cells, expected {len(head.fields)}", row=row)
            yield cells
            if head.rows is not None:
                head.rows.clear()
        elif event == "end" and tag == "INFO":
            _note(head, element)
        elif event == "start" and tag == "TABLE":
            raise SourceError("holds more than one table, expected one")


def _text_batches(
    events: Iterator[tuple[str, str, ElementTree.Element]],
    head: _Head,
    names: list[str],
    wanted: Sequence[str],
) -> Iterator[pa.RecordBatch]:
    slots = [names.index(key) for key in wanted]
    nulls = [head.nulls.get(key) for key in wanted]
    columns: list[list[str | None]] = [[] for _ in wanted]

    def batch() -> pa.RecordBatch:
        return pa.RecordBatch.from_arrays([pa.array(c, pa.string()) for c in columns], list(wanted))

    for cells in _rows(events, head):
        for column, slot, null in zip(columns, slots, nulls, strict=True):
            text = cells[slot]
            column.append(None if text is None or text.strip() == null else text)
        if len(columns[0]) == BATCH_ROWS:
            yield batch()
            columns = [[] for _ in wanted]
    yield batch()


def _binary_batches(raw: BinaryIO, names: list[str], wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            table = votable.parse(raw, verify="ignore").get_first_table()
    except (ValueError, TypeError, IndexError, OSError, EOFError) as error:
        raise SourceError(f"is a damaged VOTable: {error}") from error
    identifiers = [table.fields[names.index(key)].ID for key in wanted]
    for first in range(0, len(table.array), BATCH_ROWS):
        part = table.array[first : first + BATCH_ROWS]
        yield pa.RecordBatch.from_arrays(
            [_arrow(part[identifier], key) for identifier, key in zip(identifiers, wanted, strict=True)],
            list(wanted),
        )


def _arrow(values: np.ma.MaskedArray, column: str) -> pa.Array:
    missing = np.ma.getmaskarray(values)
    plain = np.ma.getdata(values)
    if plain.dtype.kind == "O":
        cells = [None if _is_empty(cell) else _cell(cell) for cell in plain]
        return pa.array(cells)
    if plain.dtype.kind in "SU":
        return pa.array(plain.astype(str).tolist())
    if plain.dtype.kind not in "iufb" or plain.ndim > 2:
        raise SourceError(f"holds {plain.dtype}, expected numbers", column=column)
    flat = pa.array(np.ascontiguousarray(plain).ravel(), mask=missing.ravel())
    return flat if plain.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, plain.shape[1])


def _is_empty(cell: object) -> bool:
    return cell is None or (not isinstance(cell, str) and np.size(np.asarray(cell)) == 0)


def _cell(cell: object) -> str | np.ndarray:
    return cell if isinstance(cell, str) else np.ma.filled(np.ma.asarray(cell, dtype=np.float64), np.nan)
