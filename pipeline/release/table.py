"""Table of a selection of a published product, as one file for tools that read tables."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet as pq
from upath import UPath

from ojala.catalogs_schema.contract import Column, Contract
from ojala.catalogs_schema.errors import OjalaError
from ojala.catalogs_schema.votable import CONTENT_KEY, header
from ojala.pipeline.inference.products.table import KEYS
from ojala.pipeline.runs.record import read_record, run_folder
from ojala.pipeline.runs.releases import pointers, published_run
from ojala.pipeline.storage.drafts import draft
from ojala.pipeline.storage.files import is_local
from ojala.pipeline.storage.hats import read_leaves
from ojala.pipeline.storage.healpix import Partition
from ojala.pipeline.storage.progress import counted

DEFAULT_COLUMNS = "*"
"""Columns of a selection: all of the product."""


class TableError(OjalaError, ValueError):
    """A selection or a file that is not possible."""


@dataclass(frozen=True, slots=True)
class ExportedTable:
    """Outcome of an export.

    Attributes
    ----------
    run_id, product : str
        Run and product that the rows are of.
    rows, columns, bytes : int
        Size of the table and of the file.
    """

    run_id: str
    product: str
    rows: int
    columns: int
    bytes: int


def export_table(
    out: UPath,
    to: UPath,
    *,
    where: str | None = None,
    columns: str = DEFAULT_COLUMNS,
    product: str | None = None,
) -> ExportedTable:
    """Write the rows of a published product that fulfil a condition.

    Conditions and columns are expressions of SQL over the columns of the product and of its input, a
    partition at a time, so that memory is bounded by the largest of them.

    Parameters
    ----------
    out : UPath
        Collection.
    to : UPath
        File to write, on this machine: ``.fits``, ``.csv``, ``.parquet`` or ``.vot``.
    where : str, optional
        Condition, as ``ojala_class = 'QSO' AND z > 2``; default: all rows.
    columns : str
        Columns, as ``object_id, ra, dec, 23.9 - 2.5 * log10(flux_isdss) AS i_mag``.
    product : str, optional
        Product; default: the only main product that is published.

    Raises
    ------
    TableError
        If duckdb is not installed, an expression or a name is wrong, or the format cannot hold the table.
    """
    if find_spec("duckdb") is None:
        raise TableError("duckdb is not installed: pip install '.[table]' in a checkout of ojala")
    form = to.suffix.lower()
    if form not in _WRITERS or not is_local(to):
        raise TableError(f"{to}: name a file of this machine that ends in {', '.join(sorted(_WRITERS))}")
    if to.exists():
        raise TableError(f"{to} exists: remove it or name another file")
    selection = _Selection(out, product, where, columns)
    with draft(Path(to.path)) as path:
        # The rows first as Parquet, which tells their number and the lengths of words.
        selected = path.with_name("selected.parquet")
        rows = selection.write(selected)
        _WRITERS[form](selected, path, selection)
    schema = selection.schema
    return ExportedTable(selection.run_id, selection.product, rows, len(schema), to.stat().st_size)


class _Selection:
    """Rows of a product joined with those of its input, and the selection of them.

    Attributes
    ----------
    run_id, product : str
        Run and product.
    schema : pyarrow.Schema
        Columns of the result.
    """

    def __init__(self, out: UPath, product: str | None, where: str | None, columns: str) -> None:
        run = published_run(out, product) if product else self._only_run(out)
        record = read_record(run)
        self.run_id, self.product = run.name, product or record.main
        self._contract, self._reads = record.contract(self.product), record.adapter.reads
        self._root, self._source = run / self.product, UPath(record.source)
        self._query = f"SELECT {columns} FROM rows" + (f" WHERE {where}" if where else "")
        self._partitions = list(read_leaves(self._root))
        self._names = self._wanted(columns, where or "")
        self.schema = self._run(self._rows(self._partitions[0]).slice(0, 0)).schema

    @staticmethod
    def _only_run(out: UPath) -> UPath:
        published = pointers(out)
        runs = dict.fromkeys(published.values())
        if len(runs) != 1:
            which = f"publishes {', '.join(sorted(published))}: name one" if runs else "publishes nothing"
            raise TableError(f"{out} {which} with --product")
        return run_folder(out, next(iter(runs)))

    def column(self, name: str) -> Column | None:
        """The column of the contracts with a name; None for an expression."""
        for contract in (self._contract, self._reads):
            if name in contract.names:
                return contract[name]
        return None

    @property
    def contract(self) -> Contract:
        """Contract of the product."""
        return self._contract

    def _wanted(self, *expressions: str) -> dict[str, list[str]]:
        """Columns to read of product and input: those whose names stand in the expressions."""
        text = " ".join(expressions)
        words = {text[start:end].strip('"').lower() for start, end in _words(text)}
        every = "*" in text
        with (self._root / self._partitions[0].leaf).open("rb") as file:
            own = pq.read_schema(file).names
        with (self._source / self._partitions[0].leaf).open("rb") as file:
            given = [name for name in pq.read_schema(file).names if name not in KEYS and name not in own]
        return {
            "own": [name for name in own if every or name in KEYS or name.lower() in words],
            "given": [name for name in given if name.lower() in words],
        }

    def _rows(self, partition: Partition) -> pa.Table:
        with (self._root / partition.leaf).open("rb") as file:
            table = pq.read_table(file, columns=self._names["own"])
        if self._names["given"]:
            with (self._source / partition.leaf).open("rb") as file:
                given = pq.read_table(file, columns=["object_id", *self._names["given"]])
            if not given["object_id"].equals(table["object_id"]):
                raise TableError(
                    f"{self._source / partition.leaf}: its rows are not those of the product: check with "
                    "`ojala verify`"
                )
            for name in self._names["given"]:
                table = table.append_column(given.schema.field(name), given[name])
        for place, field in enumerate(table.schema):
            if (kind := _readable(field.type)) != field.type:
                table = table.set_column(place, field.with_type(kind), table[field.name].cast(kind))
        return table.replace_schema_metadata(None)

    def _run(self, rows: pa.Table) -> pa.Table:
        import duckdb

        connection = duckdb.connect(config={"enable_external_access": "false", "threads": "1"})
        try:
            connection.register("rows", rows)
            return connection.sql(self._query).to_arrow_table()
        except duckdb.Error as problem:
            raise TableError(f"{str(problem).splitlines()[0]}{self._hint(str(problem))}") from problem
        finally:
            connection.close()

    def _hint(self, problem: str) -> str:
        """Present name of a column of contract 1 that the message names."""
        for old, present in self._contract.column_names.items():
            if f'"{old}"' in problem:
                return f" (its name was changed to {present} in contract 2)"
        return ""

    def write(self, path: Path) -> int:
        """Write the result as Parquet, and return its rows."""
        fields = []
        for field in self.schema:
            column = self.column(field.name)
            facts = self._contract.field_metadata(column) if column else None
            fields.append(field.with_metadata(facts))
        schema, rows = pa.schema(fields), 0
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for partition in counted(self._partitions, "partitions read"):
                table = self._run(self._rows(partition)).cast(schema)
                rows += table.num_rows
                writer.write_table(table)
        self.schema = schema
        return rows


def _readable(kind: pa.DataType) -> pa.DataType:
    """Single precision in place of half precision, which DuckDB does not read."""
    if pa.types.is_fixed_size_list(kind) and pa.types.is_float16(kind.value_type):
        return pa.list_(pa.float32(), kind.list_size)
    return pa.list_(pa.float32()) if pa.types.is_list(kind) and pa.types.is_float16(kind.value_type) else kind


def _words(text: str) -> Iterator[tuple[int, int]]:
    """Beginnings and ends of the names in an expression."""
    import duckdb

    tokens = duckdb.tokenize(text)
    ends = [start for start, _ in tokens[1:]] + [len(text)]
    for (start, kind), end in zip(tokens, ends, strict=True):
        if kind in (duckdb.token_type.identifier, duckdb.token_type.keyword):
            yield start, start + len(text[start:end].rstrip(" \t\n"))


def _batches(source: Path) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(source) as file:
        yield from file.iter_batches(batch_size=20_000)


def _parquet(source: Path, to: Path, selection: _Selection) -> None:
    os.replace(source, to)


def _csv(source: Path, to: Path, selection: _Selection) -> None:
    _refuse_lists(selection, ".csv")
    with pyarrow.csv.CSVWriter(to, selection.schema) as writer:
        for batch in _batches(source):
            writer.write_batch(batch)


_FITS = {"bool": "L", "int16": "I", "int32": "J", "int64": "K", "float": "E", "halffloat": "E", "double": "D"}
_FITS_BLOCK = 2880


def _fits(source: Path, to: Path, selection: _Selection) -> None:
    """FITS binary table, a batch of rows at a time; null integers are the least number of their type."""
    from astropy.io import fits

    _refuse_lists(selection, ".fits")
    widths = _text_widths(source, selection.schema)
    kinds, cards = [], fits.Header()
    for number, field in enumerate(selection.schema, start=1):
        column = selection.column(field.name)
        size, element = _shape(field.type)
        text = widths.get(field.name)
        form = f"{text}A" if text else f"{size}{_FITS[str(element)]}"
        kinds.append((field.name, f"S{text}" if text else _record_type(element), (size,) if size > 1 else ()))
        cards[f"TTYPE{number}"] = (field.name, column.description[:47] if column else "")
        cards[f"TFORM{number}"] = form
        if column and column.unit:
            cards[f"TUNIT{number}"] = column.unit
        if pa.types.is_integer(element):
            cards[f"TNULL{number}"] = int(np.iinfo(element.to_pandas_dtype()).min)
    record = np.dtype(kinds)
    rows = pq.read_metadata(source).num_rows
    sizes = {"NAXIS1": record.itemsize, "NAXIS2": rows, "PCOUNT": 0, "GCOUNT": 1, "TFIELDS": len(kinds)}
    head = fits.Header([("XTENSION", "BINTABLE"), ("BITPIX", 8), ("NAXIS", 2), *sizes.items(), *cards.cards])
    head["EXTNAME"] = selection.product
    head["OJALARUN"] = (selection.run_id, "run of the release")
    primary = fits.Header([("SIMPLE", True), ("BITPIX", 8), ("NAXIS", 0), ("EXTEND", True)])
    with to.open("wb") as file:
        file.write(primary.tostring().encode("ascii") + head.tostring().encode("ascii"))
        for batch in _batches(source):
            block = np.zeros(batch.num_rows, record)
            for name in batch.schema.names:
                block[name] = _fits_values(batch[name], block[name].shape)
            file.write(block.tobytes())
        file.write(bytes(-rows * record.itemsize % _FITS_BLOCK))


def _record_type(element: pa.DataType) -> str:
    if pa.types.is_boolean(element):
        return "S1"
    kind = np.dtype(element.to_pandas_dtype())
    return ">f4" if kind == np.float16 else kind.newbyteorder(">").str


def _fits_values(values: pa.Array, shape: tuple[int, ...]) -> np.ndarray:
    kind = values.type
    if pa.types.is_fixed_size_list(kind):
        return np.asarray(values.flatten().to_numpy(zero_copy_only=False)).reshape(shape)
    if pa.types.is_boolean(kind):
        return np.array([{True: b"T", False: b"F"}.get(value, b"\0") for value in values.to_pylist()])
    if pa.types.is_integer(kind):
        return np.asarray(values.fill_null(int(np.iinfo(kind.to_pandas_dtype()).min)).to_numpy())
    if pa.types.is_string(kind):
        return np.array([value.encode("ascii", "replace") for value in values.fill_null("").to_pylist()])
    return np.asarray(values.to_numpy(zero_copy_only=False))


def _votable(source: Path, to: Path, selection: _Selection) -> None:
    """VOTable with its rows as TABLEDATA, a batch at a time."""
    from xml.sax.saxutils import escape

    _refuse_lists(selection, ".vot")
    columns = [
        replace(column, name=field.name, type=field.type, allowed=())
        if (column := selection.column(field.name))
        else Column(field.name, field.type, "", "", "expression of the selection")
        for field in selection.schema
    ]
    contract = replace(selection.contract, columns=tuple(columns), flag_meanings={}, column_names={})
    before, end, after = header(contract)[CONTENT_KEY].partition("</TABLE>")
    with to.open("w", encoding="utf-8") as file:
        file.write(f"{before}<DATA><TABLEDATA>\n")
        for batch in _batches(source):
            for row in zip(*(batch[name].to_pylist() for name in batch.schema.names), strict=True):
                cells = (escape(_cell(value)) for value in row)
                file.write("<TR>" + "".join(f"<TD>{cell}</TD>" for cell in cells) + "</TR>\n")
        file.write(f"</TABLEDATA></DATA>{end}{after}")


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return " ".join("NaN" if one is None else str(one) for one in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _refuse_lists(selection: _Selection, ending: str) -> None:
    """Refuse columns that a format cannot hold, and for CSV all lists."""
    for field in selection.schema:
        fixed = pa.types.is_fixed_size_list(field.type) and ending != ".csv"
        size, element = _shape(field.type)
        if (size > 1 and not fixed) or not (pa.types.is_string(element) or str(element) in _FITS):
            raise TableError(
                f"column {field.name} ({field.type}) has no form in {ending}: write .parquet, leave it out, "
                "or cast it (CAST(... AS DOUBLE))"
            )


def _shape(kind: pa.DataType) -> tuple[int, pa.DataType]:
    """Number and type of a cell's elements; 2 for a list of any size."""
    if pa.types.is_fixed_size_list(kind):
        return kind.list_size, kind.value_type
    return (2, kind.value_type) if pa.types.is_list(kind) else (1, kind)


def _text_widths(source: Path, schema: pa.Schema) -> dict[str, int]:
    """Characters of the longest word of each text column, 1 at least."""
    names = [field.name for field in schema if pa.types.is_string(field.type)]
    widths = dict.fromkeys(names, 1)
    for batch in _batches(source) if names else ():
        for name in names:
            lengths = pa.compute.max(pa.compute.binary_length(batch[name])).as_py()
            widths[name] = max(widths[name], lengths or 0)
    return widths


_WRITERS: dict[str, Callable[[Path, Path, _Selection], None]] = {
    ".csv": _csv,
    ".fits": _fits,
    ".parquet": _parquet,
    ".vot": _votable,
}
