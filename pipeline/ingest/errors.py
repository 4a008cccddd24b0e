"""Errors of input files, with file, row and column."""

from __future__ import annotations

from ojala.catalogs_schema.errors import InputError


class IngestError(InputError):
    """Refused input; the message names each faulty file with its first error."""


class SourceError(InputError):
    """One error in one file.

    Attributes
    ----------
    problem : str
        Description of the error and, where it is not obvious, its remedy.
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

    def in_file(self, path: object) -> str:
        """The message with the name of the file."""
        return f"{path}, {self}" if self.row or self.column else f"{path} {self}"

    def after(self, rows: int) -> SourceError:
        """The same error with a number of preceding rows added to its row."""
        row = None if self.row is None else self.row + rows
        return SourceError(self.problem, row=row, column=self.column)


class QueryOverflow(SourceError):
    """The result of a query that the service has cut off at its limit of rows."""
