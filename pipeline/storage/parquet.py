"""Leaves: the Parquet files of a catalogue, one per partition, written atomically."""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from ojala.catalogs_schema import votable
from ojala.catalogs_schema.contract import Contract
from ojala.catalogs_schema.errors import InputError
from ojala.pipeline.storage.files import write_whole

ROW_GROUP_ROWS = 25_000
"""Rows per row group: a cone reads half of what it would of 100,000, other questions some 3 % more."""

FEW_ROWS = 256
"""Rows below which a leaf is not compressed: that would take as long as all the rest, and save 5 %."""

ROW_GROUP_LISTS = 128
"""Rows per row group with lists of thousands of numbers: some 10 MB, so that few rows are cheap to read."""

LONG_LIST = 1_000
"""Smallest fixed size of a long list."""


class ContractError(InputError):
    """A table that violates its contract."""


class DamagedInput(InputError):
    """A leaf that differs from the listing of its catalogue."""


@dataclass(frozen=True, slots=True)
class LeafRecord:
    """A written leaf.

    Attributes
    ----------
    path : str
        Path of the file.
    rows, bytes : int
        Size.
    sha256 : str
        Hash of the file's content.
    """

    path: str
    rows: int
    bytes: int
    sha256: str


def write_leaf(path: UPath, table: pa.Table, contract: Contract, metadata: dict[str, str]) -> LeafRecord:
    """Write a table as a leaf, after checking it against its contract.

    Parameters
    ----------
    path : UPath
        Path of the file; an existing one is replaced atomically.
    table : pyarrow.Table
        Rows in the contract's columns.
    contract : Contract
        Contract of the product.
    metadata : dict of str to str
        Provenance for the file's footer, in addition to the VOTable header.

    Returns
    -------
    LeafRecord

    Raises
    ------
    ContractError
        If the table violates the contract; names the column and the first row.
    OSError
        If the file cannot be written; no part of it stays.
    """
    faults = contract.violations(table)
    if faults:
        raise ContractError(f"{path}: " + "; ".join(str(fault) for fault in faults[:5]))
    # Order, types and nullability of the contract and nothing else make the schema of a leaf: readers
    # refuse a catalogue whose leaves differ.
    schema, footer = contract.schema(), {**votable.header(contract), **contract.metadata(), **metadata}
    settings = copy.deepcopy(writer_settings(contract))  # pyarrow writes into the dictionaries it is given
    if table.num_rows < FEW_ROWS:
        settings["compression"] = "none"
    # The long header apart: what the Arrow schema holds is in the footer once more, in base64.
    header = {votable.CONTENT_KEY: footer.pop(votable.CONTENT_KEY)}
    schema, sink = schema.with_metadata(footer), pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, **settings) as writer:
        writer.add_key_value_metadata(header)
        columns = [table[name] for name in contract.names]
        writer.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=_group_rows(contract))
    content = memoryview(sink.getvalue())
    write_whole(path, content)
    return LeafRecord(str(path), table.num_rows, len(content), hashlib.sha256(content).hexdigest())


def conform(table: pa.Table, contract: Contract, names: Sequence[str] | None = None) -> pa.Table:
    """Rows of a leaf that others may have written, in the types of a contract.

    Parameters
    ----------
    table : pyarrow.Table
        The rows.
    contract : Contract
        The contract.
    names : sequence of str, optional
        Columns of it that are needed; default: all.

    Returns
    -------
    pyarrow.Table
        The same rows; a column that is missing is null, further columns are kept.

    Raises
    ------
    ContractError
        If a column cannot be cast to its type, or one is missing that cannot be null.
    """
    for column in contract:
        if names is not None and column.name not in names:
            continue
        at = table.schema.get_field_index(column.name)
        if at < 0 and not column.nullable:
            raise ContractError(f"column {column.name} is missing")
        if at < 0:
            table = table.append_column(column.name, pa.nulls(table.num_rows, column.type))
        elif table.schema.field(at).type != column.type:
            try:
                # Floating-point numbers may lose digits, integers may not.
                cells = table[column.name].cast(column.type, safe=not pa.types.is_floating(column.type))
            except pa.ArrowException as problem:
                raise ContractError(f"column {column.name} is no {column.type}: {problem}") from problem
            table = table.set_column(at, column.name, cells)
    return table


@functools.cache
def writer_settings(contract: Contract) -> dict[str, Any]:
    """Settings of the Parquet writer for leaves of a contract; reasons in ``tests/benchmarks/QUERIES.md``."""
    return {
        "compression": "zstd",
        # Measured numbers hardly repeat: a dictionary of them makes a file larger, and twice as slow to
        # write and to read.
        "use_dictionary": [column.name for column in contract if pa.types.is_string(column.type)],
        # None instead of an empty mapping, with which pyarrow refuses the other settings.
        "column_encoding": _encodings(contract) or None,
        "write_page_index": True,
        "store_schema": True,  # lists of a fixed size; units and descriptions as metadata of the fields
    }


@functools.cache
def _group_rows(contract: Contract) -> int:
    return ROW_GROUP_LISTS if any(_is_long_list(column.type) for column in contract) else ROW_GROUP_ROWS


def _encodings(contract: Contract) -> dict[str, str]:
    """Encodings of the numbers in lists, by Parquet's names of their columns."""
    encodings = {}
    for column in contract:
        if _is_long_list(column.type):
            # The bytes of the numbers are stored by their position: 15 % smaller spectra in half the time.
            encodings[f"{column.name}.list.element"] = "BYTE_STREAM_SPLIT"
        elif pa.types.is_list(column.type) and pa.types.is_int16(column.type.value_type):
            # Numbers of neighbouring bins differ by one, which takes next to nothing.
            encodings[f"{column.name}.list.element"] = "DELTA_BINARY_PACKED"
    return encodings


def _is_long_list(kind: pa.DataType) -> bool:
    # Not those of half precision: few readers know their byte stream split.
    single = pa.types.is_fixed_size_list(kind) and kind.value_type == pa.float32()
    ragged = pa.types.is_list(kind) and kind.value_type == pa.float32()
    return bool(ragged or (single and kind.list_size >= LONG_LIST))
