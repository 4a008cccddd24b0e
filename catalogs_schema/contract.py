"""A contract: the table of columns from which schema, headers, documentation and checks are made."""

from __future__ import annotations

import enum
import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

NONE = "NONE"
"""The word for a missing value in text columns: astropy cannot read null text from Parquet."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a contract.

    Attributes
    ----------
    name : str
        Column name, lower case.
    type : pyarrow.DataType
        Arrow type on disk and in memory.
    unit : str
        VOUnits string; empty for dimensionless quantities, codes and text.
    ucd : str
        UCD1+ word(s).
    description : str
        One sentence for a reader of the catalogue.
    nullable : bool
        Whether the value may be null (not observed, not applicable, not predicted).
    minimum, maximum : float or None
        Inclusive range of valid values; None where there is no bound.
    allowed : tuple of str
        The permitted words of a text column; empty where any text is valid.
    metadata : mapping of str to str
        Machine-readable facts that a reader needs, such as the grid of a binned function; they stand in the
        metadata of the Arrow field and in the footer of each leaf.
    """

    name: str
    type: pa.DataType
    unit: str
    ucd: str
    description: str
    nullable: bool = True
    minimum: float | None = None
    maximum: float | None = None
    allowed: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def range_text(self) -> str:
        """The range as ``[minimum, maximum]``, a missing bound left out."""
        low = "" if self.minimum is None else f"{self.minimum:g}"
        high = "" if self.maximum is None else f"{self.maximum:g}"
        return f"[{low}, {high}]"


@dataclass(frozen=True, slots=True)
class Violation:
    """Violation of a contract by a table.

    Attributes
    ----------
    column : str
        Name of the column at fault.
    problem : str
        Description of the violation.
    row : int or None
        First row at fault; None where the whole column is.
    """

    column: str
    problem: str
    row: int | None = None

    def __str__(self) -> str:
        where = "" if self.row is None else f", row {self.row}"
        return f"column {self.column}{where}: {self.problem}"


@dataclass(frozen=True)
class Contract:
    """Columns of a product's table, with a semantic version.

    Attributes
    ----------
    name : str
        Name of the product.
    version : str
        Semantic version: the major number changes when a reader can break.
    title : str
        One line for headings.
    description : str
        Meaning of a row, and advice for readers.
    columns : tuple of Column
        The columns in their order on disk.
    flag_meanings : mapping of IntFlag to str
        Meaning of each bit of the column of flags; empty where there is none.
    column_names : mapping of str to str
        Columns by the names that predictions of models have, which were those of the columns in contract 1,
        where the two differ: ``{"flags": "ojala_flags"}``.
    default_columns : tuple of str
        Columns that LSDB reads where a reader names none (``hats_cols_default``); empty for all of them.
    """

    name: str
    version: str
    title: str
    description: str
    columns: tuple[Column, ...]
    flag_meanings: Mapping[enum.IntFlag, str] = field(default_factory=dict, hash=False)
    column_names: Mapping[str, str] = field(default_factory=dict, hash=False)
    default_columns: tuple[str, ...] = ()

    def __hash__(self) -> int:
        # Caches look contracts up for every leaf: a hash of all columns would take a millisecond.
        return hash((self.name, self.version))

    def __iter__(self) -> Iterator[Column]:
        return iter(self.columns)

    def __getitem__(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(self.unknown(name))

    def unknown(self, name: str) -> str:
        """Message about a missing column, with the present name of a column of contract 1."""
        present = self.column_names.get(name)
        hint = f": its name was changed to {present!r} in contract 2" if present else ""
        return f"{self.name} {self.version} has no column {name!r}{hint}"

    def name_of(self, common: str) -> str:
        """Name of the column for a prediction, see `column_names`."""
        return self.column_names.get(common, common)

    @property
    def names(self) -> list[str]:
        """Column names in their order on disk."""
        return [column.name for column in self.columns]

    def schema(self) -> pa.Schema:
        """The Arrow schema; its fields have `field_metadata`, the whole has no metadata."""
        return self._schema

    @functools.cached_property
    def _schema(self) -> pa.Schema:
        return pa.schema(
            [pa.field(c.name, c.type, c.nullable, metadata=self.field_metadata(c)) for c in self.columns]
        )

    def field_metadata(self, column: Column) -> dict[str, str]:
        """Unit, UCD and description of a column, its further facts, and the bits of the flags.

        The key ``bits`` is a JSON object of ``NAME: meaning`` by the value of each bit.
        """
        found = {"unit": column.unit} if column.unit else {}
        found |= {"ucd": column.ucd, "description": column.description, **column.metadata}
        if self.flag_meanings and column.name == self.name_of("flags"):
            found["bits"] = json.dumps(
                {int(bit): f"{bit.name}: {text}" for bit, text in self.flag_meanings.items()}
            )
        return found

    def metadata(self) -> dict[str, str]:
        """The metadata of all columns, under ``COLUMN.KEY``, as they stand in the footer of a leaf."""
        return {f"{c.name}.{key}": value for c in self.columns for key, value in c.metadata.items()}

    def violations(self, table: pa.Table) -> list[Violation]:
        """Everything in which a table departs from the contract.

        Parameters
        ----------
        table : pyarrow.Table
            Table to check.

        Returns
        -------
        list of Violation
            Empty when the table keeps the contract; at most one entry per column and kind of fault.
        """
        present = dict(zip(table.column_names, table.columns, strict=True))
        found = [Violation(name, "missing") for name in self.names if name not in present]
        known = set(self.names)
        found += [Violation(name, "not in the contract") for name in present if name not in known]
        sound = self._sound_columns(present)
        for column in self.columns:
            if column.name in present and column.name not in sound:
                found += _column_violations(column, present[column.name])
        return found

    def _sound_columns(self, present: Mapping[str, pa.ChunkedArray]) -> set[str]:
        """Columns of single precision without violation; the others may have one.

        They are looked at side by side: in a small table each call would cost more than its rows.
        """
        of_type = [c for c in self.columns if c.type == _SINGLE and c.name in present]
        columns = [c for c in of_type if present[c.name].type == _SINGLE]
        if not columns:
            return set()
        table = pa.table([present[c.name] for c in columns], [c.name for c in columns])
        low = np.array([-np.inf if c.minimum is None else c.minimum for c in columns], np.float32)
        high = np.array([np.inf if c.maximum is None else c.maximum for c in columns], np.float32)
        nullable = np.array([c.nullable for c in columns], bool)
        sound = np.ones(len(columns), bool)
        for batch in table.to_batches(max_chunksize=_BLOCK_ROWS):
            nulls = np.array([values.null_count for values in batch.columns], int)
            block = np.asarray(batch.to_tensor(null_to_nan=True, row_major=False))
            inside = ((block >= low) & (block <= high)).sum(axis=0)
            sound &= (inside + nulls == len(block)) & (nullable | (nulls == 0))
        return {column.name for column, is_sound in zip(columns, sound, strict=True) if is_sound}


_SINGLE = pa.float32()

_BLOCK_ROWS = 4096
"""Rows of several columns that are looked at side by side."""


def _inside_range(column: Column, values: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """True where a value is within the column's range, False where not or NaN, null where it is null.

    A column without range takes every value but NaN, since null is the word for missing.
    """
    low, high = column.minimum, column.maximum
    if low is not None and high is not None:
        above = pc.greater_equal(values, pa.scalar(low, column.type))
        return pc.and_(above, pc.less_equal(values, pa.scalar(high, column.type)))
    if low is not None:
        return pc.greater_equal(values, pa.scalar(low, column.type))
    if high is not None:
        return pc.less_equal(values, pa.scalar(high, column.type))
    return pc.invert(pc.is_nan(values))


def _column_violations(column: Column, values: pa.ChunkedArray) -> list[Violation]:
    if values.type != column.type:
        return [Violation(column.name, f"has type {values.type}, expected {column.type}")]
    found = []
    if not column.nullable and values.null_count:
        found.append(Violation(column.name, "is null", _first(pc.is_null(values))))
    ranged = pa.types.is_floating(column.type) or column.minimum is not None or column.maximum is not None
    if ranged:
        inside = _inside_range(column, values)
        if pc.all(inside).as_py() is False:
            row = _first(pc.invert(inside))
            problem = f"value {values[row].as_py()} outside {column.range_text}"
            found.append(Violation(column.name, problem, row))
    if column.allowed:
        strange = pc.and_(pc.is_valid(values), pc.invert(pc.is_in(values, pa.array(column.allowed))))
        if pc.any(strange).as_py():
            row = _first(strange)
            word = values[row].as_py()
            found.append(Violation(column.name, f"{word!r} is none of {', '.join(column.allowed)}", row))
    return found


def _first(mask: pa.ChunkedArray) -> int:
    return int(pc.index(mask, pa.scalar(True)).as_py())
