"""Leaves: the Parquet files of a catalogue, one per partition, written whole or not at all."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from catalogs_schema import votable
from catalogs_schema.contract import Contract

ROW_GROUP_ROWS = 25_000
"""Rows per row group: a cone reads half of what it would of 100,000, other questions some 3 % more."""

FEW_ROWS = 256
"""Below, a column is a kilobyte: compressing it would take as long as all the rest, and save 5 %."""

ROW_GROUP_LISTS = 128
"""The same where rows hold lists of thousands of numbers: some 10 MB, so that few rows are cheap to read."""

LONG_LIST = 1_000
"""Numbers from which a list of a fixed size is one of thousands."""

TEMPORARY = ".tmp"
"""Ending of the names under which files are written before they are renamed."""

_READ_BLOCK = 1 << 20


class ContractError(ValueError):
    """A table that does not keep its contract."""


class DamagedInput(ValueError):
    """A leaf that is not the file that its catalogue lists."""


class OutputError(OSError):
    """Nothing can be written where the results should go; says why and what to do."""


_REMEDIES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room or raise the quota",
    errno.EROFS: "make it writable or name another folder",
    errno.EACCES: "allow writing there or name another folder",
    errno.EPERM: "allow writing there or name another folder",
}
"""What a person can do where nothing can be written."""


@dataclass(frozen=True, slots=True)
class LeafRecord:
    """What was written.

    Attributes
    ----------
    path : str
        Where.
    rows, bytes : int
        How much.
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
        Where to; an existing file is replaced in one step.
    table : pyarrow.Table
        Rows in the contract's columns.
    contract : Contract
        Contract of the product.
    metadata : dict of str to str
        Provenance for the file's footer, beside the VOTable header.

    Returns
    -------
    LeafRecord

    Raises
    ------
    ContractError
        If the table departs from the contract; names the column and the first row.
    OSError
        If the file cannot be written; no part of it stays.
    """
    faults = contract.violations(table)
    if faults:
        raise ContractError(f"{path}: " + "; ".join(str(fault) for fault in faults[:5]))
    # Order, types and nullability of the contract and nothing else make the schema of a leaf: readers
    # refuse a catalogue whose leaves differ.
    schema, footer = contract.schema(), {**votable.header(contract), **contract.metadata(), **metadata}
    settings = dict(writer_settings(contract))
    if table.num_rows < FEW_ROWS:
        settings["compression"] = "none"
    if settings["store_schema"]:
        schema = schema.with_metadata(footer)
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, **settings) as writer:
        if not settings["store_schema"]:
            writer.add_key_value_metadata(footer)
        columns = [table[name] for name in contract.names]
        writer.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=_group_rows(contract))
    content = memoryview(sink.getvalue())
    write_whole(path, content)
    return LeafRecord(str(path), table.num_rows, len(content), hashlib.sha256(content).hexdigest())


@functools.cache
def writer_settings(contract: Contract) -> Mapping[str, Any]:
    """Settings of the Parquet writer for leaves of a contract; why these is told in ``flows/QUERIES.md``."""
    return {
        "compression": "zstd",
        # Measured numbers hardly repeat: a dictionary of them makes a file larger, and twice as slow to
        # write and to read.
        "use_dictionary": [column.name for column in contract if pa.types.is_string(column.type)],
        # The bytes of the numbers in lists are stored by their place: 15 % smaller spectra in half the time.
        "use_byte_stream_split": _long_lists(contract),
        # Numbers of neighbouring bins differ by one, which takes next to nothing.
        "column_encoding": {
            f"{column.name}.list.element": "DELTA_BINARY_PACKED"
            for column in contract
            if pa.types.is_list(column.type) and pa.types.is_int16(column.type.value_type)
        },
        "write_page_index": True,
        # Parquet's own types tell the schema, but for lists of a fixed size. Where they do, the Arrow
        # schema is left out: it would hold the footer once more, in base64.
        "store_schema": any(pa.types.is_fixed_size_list(column.type) for column in contract),
    }


@functools.cache
def _group_rows(contract: Contract) -> int:
    return ROW_GROUP_LISTS if _long_lists(contract) else ROW_GROUP_ROWS


def _long_lists(contract: Contract) -> list[str]:
    """Parquet's names of the numbers in lists of thousands."""
    return [
        f"{column.name}.list.element"
        for column in contract
        if _is_long_list(column.type) and pa.types.is_floating(column.type.value_type)
    ]


def _is_long_list(kind: pa.DataType) -> bool:
    # Not those of half precision: few readers know bytes that are stored by their place in two.
    single = pa.types.is_fixed_size_list(kind) and kind.value_type == pa.float32()
    ragged = pa.types.is_list(kind) and kind.value_type == pa.float32()
    return bool(ragged or (single and kind.list_size >= LONG_LIST))


def write_whole(path: UPath, content: bytes | memoryview, *, durable: bool = True) -> None:
    """Write a file so that a reader sees all of it or none.

    On a local file system the content goes to a temporary name beside the file, is flushed to the disk
    and renamed. On an object store it is one request, or a multipart upload that is completed when all its
    parts are there: an object becomes visible only when it is complete.

    Parameters
    ----------
    path : UPath
        Where to; folders are made, an existing file is replaced in one step.
    content : bytes or memoryview
        What.
    durable : bool
        Whether it must survive a power failure right after; what can be made again need not.

    Raises
    ------
    OutputError
        If nothing can be written there: no room, read-only, no permission. Says what to do.
    OSError
        If it cannot be written for another reason; the temporary file is removed in either case.
    """
    with remedies(path):
        if is_local(path):
            _write_and_rename(path, content, durable)
        else:
            path.fs.pipe_file(path.path, bytes(content))


@contextmanager
def remedies(path: UPath) -> Iterator[None]:
    """Say what a person can do where the block finds that nothing can be written.

    Raises
    ------
    OutputError
        In the place of an `OSError` that has a remedy.
    """
    try:
        yield
    except OSError as problem:
        # Object stores' refusals come without a number.
        code = errno.EACCES if isinstance(problem, PermissionError) else problem.errno
        if code in _REMEDIES:
            what = f"{os.strerror(code)}: {_REMEDIES[code]}, then give the same command again"
            raise OutputError(code, what, str(path)) from problem
        raise


def is_local(path: UPath) -> bool:
    """Whether a path lies on a file system of this machine, not on an object store."""
    return path.protocol in ("", "file", "local")


def _write_and_rename(path: UPath, content: bytes | memoryview, durable: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{TEMPORARY}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary.path, path.path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_unfinished(folder: UPath) -> None:
    """Remove what processes that were killed while writing left under a folder; no one may write there."""
    if not is_local(folder):
        return  # an object store shows no object before it is complete
    for stray in folder.rglob(f".*{TEMPORARY}"):
        stray.unlink(missing_ok=True)


def sha256_of(path: UPath) -> str:
    """SHA-256 of a file's content, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BLOCK):
            digest.update(block)
    return digest.hexdigest()
