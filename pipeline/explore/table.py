"""Table of a site: the columns that filters, lists and plots read, in few Parquet files."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from ojala.catalogs_schema.bands import REFERENCE_BAND
from ojala.catalogs_schema.contract import Column
from ojala.catalogs_schema.errors import InputError
from ojala.pipeline.explore.records import kept_columns
from ojala.pipeline.runs.published import Product, Release
from ojala.pipeline.storage.files import write_whole

FILE_ROWS = 1_000_000
"""Most rows of a file."""

GROUP_ROWS = 250_000
"""Rows of a row group: a column of it is one request of a browser, 1 MB of single-precision numbers."""

KEYS = ("object_id", "ra", "dec")
"""Columns that come first."""


def table_columns(release: Release, wanted: Sequence[str]) -> list[tuple[Product, Column]]:
    """Columns of the table without the keys.

    Scalar columns of the main product without errors (but that of the redshift), those of each product of
    another model, the flux density in the reference band, and those that are asked for.

    Parameters
    ----------
    release : Release
        The release.
    wanted : sequence of str
        Further columns, as ``product.column``.

    Raises
    ------
    InputError
        If there is no such column, or it holds lists; names the catalogues.
    """
    catalogues = (release.source, *release.products)
    mains = [one for one in release.products if one.record is None or one.record.main == one.name]
    chosen: list[tuple[Product, Column]] = []
    for product in mains:
        errors = {product.contract.name_of(name) for name in ("z_err", "z_nn_err")}
        chosen += [
            (product, product.contract[name])
            for name in kept_columns(product, release.source.contract)
            if _is_scalar(product.contract[name]) and (not name.endswith("_err") or name in errors)
        ]
    facts = (f"flux_{REFERENCE_BAND.lower()}", "class", "z", "snr", "survey", "source_id")
    chosen += [(release.source, column) for column in release.source.contract if column.name in facts]
    for word in wanted:
        catalogue, _, name = word.partition(".")
        found = next((one for one in catalogues if one.name == catalogue), None)
        if found is None or name not in kept_columns(found, release.source.contract):
            raise InputError(
                f"--column {word}: no such column; write PRODUCT.COLUMN with a product of "
                + ", ".join(one.name for one in catalogues)
            )
        if not _is_scalar(found.contract[name]):
            raise InputError(f"--column {word} holds lists, which the table cannot show")
        if (found, found.contract[name]) not in chosen:
            chosen.append((found, found.contract[name]))
    return chosen


def _is_scalar(column: Column) -> bool:
    return not pa.types.is_nested(column.type)


def describe(product: Product, column: Column) -> dict[str, Any]:
    """A column as the site's description has it."""
    kind = "text" if pa.types.is_string(column.type) else "number"
    if column.allowed:
        kind = "word"
    if pa.types.is_boolean(column.type):
        kind = "truth"
    return {
        "name": f"{product.name}.{column.name}",
        "label": column.name,
        "product": product.name,
        "unit": column.unit,
        "description": column.description,
        "kind": kind,
        "probability": column.ucd.startswith("stat.probability"),
        "words": list(column.allowed),
    }


class TableWriter:
    """Collects rows and writes them as files of `FILE_ROWS` rows.

    Parameters
    ----------
    folder : UPath
        Folder of the files.
    columns : sequence of str
        Columns of the records that the table has, after `KEYS`.
    """

    def __init__(self, folder: UPath, columns: Sequence[str]) -> None:
        self._folder, self._columns = folder, [*KEYS, *columns]
        self._rows: list[pa.Table] = []
        self.files: list[dict[str, Any]] = []

    def add(self, records: pa.Table) -> None:
        """Add rows; a file is written when it is full."""
        self._rows.append(_without_null(records.select(self._columns)))
        while sum(one.num_rows for one in self._rows) >= FILE_ROWS:
            rows = pa.concat_tables(self._rows)
            self._write(rows.slice(0, FILE_ROWS))
            self._rows = [rows.slice(FILE_ROWS)]

    def close(self) -> None:
        """Write the rows that are left."""
        if self._rows and (rows := pa.concat_tables(self._rows)).num_rows:
            self._write(rows)
        self._rows = []

    def _write(self, rows: pa.Table) -> None:
        name = f"{len(self.files):04d}.parquet"
        numbers = dict.fromkeys(rows.column_names, "none")
        text = {field.name: "zstd" for field in rows.schema if pa.types.is_string(field.type)}
        content = parquet_bytes(rows, GROUP_ROWS, numbers | text)
        write_whole(self._folder / name, content, durable=False)
        self.files.append({"file": name, "rows": rows.num_rows, "bytes": len(content)})


def _without_null(rows: pa.Table) -> pa.Table:
    """Floating-point numbers with NaN for null, which a browser takes from their pages as they are."""
    columns, fields = [], []
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        kind = column.type
        if pa.types.is_integer(kind) and name != "object_id":
            column = column.cast(pa.float64() if kind.bit_width > 16 else pa.float32())
        if column.null_count:
            empty = "" if pa.types.is_string(kind) else False if pa.types.is_boolean(kind) else math.nan
            column = column.fill_null(empty)
        columns.append(column)
        fields.append(pa.field(name, column.type, nullable=False))
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def parquet_bytes(rows: pa.Table, group_rows: int, compression: str | dict[str, str] = "zstd") -> bytes:
    """A Parquet file that browsers read: no Arrow schema, dictionaries for text alone, pages of 80 kB.

    Numbers of the table are not compressed: that would save a quarter, and a browser takes twice as long to
    decompress them as for all the rest of a query.
    """
    text = [field.name for field in rows.schema if pa.types.is_string(field.type)]
    sink = io.BytesIO()
    pq.write_table(
        rows.replace_schema_metadata(None),
        sink,
        row_group_size=group_rows,
        compression=compression,
        use_dictionary=text,
        store_schema=False,
        write_page_index=True,
        data_page_size=80_000,
        write_statistics=True,
    )
    return sink.getvalue()
