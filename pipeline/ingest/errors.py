"""Faults of input: what could not be understood, in which file, row and column."""

from __future__ import annotations

from ojala.catalogs_schema.errors import OjalaError


class IngestError(OjalaError, ValueError):
    """Input that was refused; the message names each faulty file with its first fault."""


class SourceError(OjalaError, ValueError):
    """One fault of one file.

    Attributes
    ----------
    problem : str
        What is wrong and, where it is not obvious, what to do.
    row : int or None
        Data row, counted from 1, headers and blank lines not counted; None where the whole column or
        file is at fault.
    column : str or None
        Name of the column at fault.
    """

    def __init__(self, problem: str, *, row: int | None = None, column: str | None = None) -> None:
        self.problem = problem
        self.row = row
        self.column = column
        where = [f"row {row}"] if row is not None else []
        where += [f"column {column}"] if column is not None else []
        super().__init__(f"{', '.join(where)}: {problem}" if where else problem)

    def after(self, rows: int) -> SourceError:
        """The same fault, when so many rows lie before the ones that were looked at."""
        row = None if self.row is None else self.row + rows
        return SourceError(self.problem, row=row, column=self.column)
