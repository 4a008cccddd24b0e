"""A contract: the table of columns from which schema, headers, documentation and checks are made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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

    @property
    def range_text(self) -> str:
        """The range as ``[minimum, maximum]``, a missing bound left out."""
        low = "" if self.minimum is None else f"{self.minimum:g}"
        high = "" if self.maximum is None else f"{self.maximum:g}"
        return f"[{low}, {high}]"


@dataclass(frozen=True, slots=True)
class Violation:
    """What is wrong with a table, where.

    Attributes
    ----------
    column : str
        Name of the column at fault.
    problem : str
        What is wrong with it.
    row : int or None
        First row at fault; None where the whole column is.
    """

    column: str
    problem: str
    row: int | None = None

    def __str__(self) -> str:
        where = "" if self.row is None else f", row {self.row}"
        return f"column {self.column}{where}: {self.problem}"


@dataclass(frozen=True, slots=True)
class Contract:
    """What a product's table looks like, with a semantic version.

    Attributes
    ----------
    name : str
        Name of the product.
    version : str
        Semantic version: the major number changes when a reader can break.
    title : str
        One line for headings.
    description : str
        What one row is, and what a reader has to know.
    columns : tuple of Column
        The columns in their order on disk.
    """

    name: str
    version: str
    title: str
    description: str
    columns: tuple[Column, ...]

    def __iter__(self) -> Iterator[Column]:
        return iter(self.columns)

    def __getitem__(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"{self.name} {self.version} has no column {name!r}")

    @property
    def names(self) -> list[str]:
        """Column names in their order on disk."""
        return [column.name for column in self.columns]

    def schema(self) -> pa.Schema:
        """The Arrow schema, without metadata."""
        return pa.schema([pa.field(c.name, c.type, nullable=c.nullable) for c in self.columns])

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
        found = [Violation(name, "missing") for name in self.names if name not in table.column_names]
        found += [Violation(n, "not in the contract") for n in table.column_names if n not in self.names]
        for column in self.columns:
            if column.name in table.column_names:
                found += _column_violations(column, table[column.name])
        return found


def _column_violations(column: Column, values: pa.ChunkedArray) -> list[Violation]:
    if values.type != column.type:
        return [Violation(column.name, f"has type {values.type}, expected {column.type}")]
    found = []
    if not column.nullable and values.null_count:
        found.append(Violation(column.name, "is null", _first(pc.is_null(values))))
    if column.minimum is not None or column.maximum is not None:
        outside = pc.fill_null(outside_range(column, values), False)
        if pc.any(outside).as_py():
            row = _first(outside)
            problem = f"value {values[row].as_py()} outside {column.range_text}"
            found.append(Violation(column.name, problem, row))
    elif pa.types.is_floating(column.type):
        bad = pc.fill_null(pc.is_nan(values), False)
        if pc.any(bad).as_py():
            found.append(Violation(column.name, "is NaN (null means missing)", _first(bad)))
    if column.allowed:
        strange = pc.and_(pc.is_valid(values), pc.invert(pc.is_in(values, pa.array(column.allowed))))
        if pc.any(strange).as_py():
            row = _first(strange)
            word = values[row].as_py()
            found.append(Violation(column.name, f"{word!r} is none of {', '.join(column.allowed)}", row))
    return found


def outside_range(column: Column, values: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """True where a value lies outside the column's range or is NaN, null where it is null."""
    inside = pc.is_valid(values)
    if column.minimum is not None:
        inside = pc.and_(inside, pc.greater_equal(values, pa.scalar(column.minimum, column.type)))
    if column.maximum is not None:
        inside = pc.and_(inside, pc.less_equal(values, pa.scalar(column.maximum, column.type)))
    return pc.invert(inside)


def _first(mask: pa.ChunkedArray) -> int:
    return int(pc.index(mask, pa.scalar(True)).as_py())
