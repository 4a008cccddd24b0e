"""Names of the archive's tables, their keys and columns: presets of J-PAS and a file of the user's own."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ojala.catalogs_schema.errors import ExitCode, InputError
from ojala.flows.fetch.service import Service

_NAME = re.compile(r"\w+")
_TEXT_TYPES = ("char", "varchar", "unicode", "string", "text", "clob")


class TableError(InputError):
    """A table or column that the archive does not have."""

    exit_code = ExitCode.USAGE


class TableNames(BaseModel):
    """Names of one table in the archive. Unknown settings are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    table: str = Field(default="", description="name in the archive; empty: found by its last word")
    tile: str = Field(default="tile_id", description="column of the tile; empty: the table is not divided")
    number: str = Field(default="number", description="whole number within a tile; empty: not divided")
    columns: tuple[str, ...] = Field(default=(), description="columns to fetch; empty: all")


@dataclass(frozen=True, slots=True)
class ArchiveTable:
    """A table that is in the archive, with the queries for its rows.

    Attributes
    ----------
    name : str
        Name for the user, and of the folder.
    table : str
        Name in the archive, with its schema.
    tile, number : str
        Key columns; empty where the table is not divided by them.
    columns : tuple of str
        Columns to fetch; empty for all.
    tile_is_text : bool
        Whether tiles are texts, which stand in quotes in a query.
    """

    name: str
    table: str
    tile: str
    number: str
    columns: tuple[str, ...]
    tile_is_text: bool = False

    def select(self) -> str:
        """The query for all rows."""
        return f"SELECT {', '.join(self.columns) or '*'} FROM {self.table}"

    def where(self, tile: str, first: int | None = None, last: int | None = None) -> str:
        """Condition for the rows of a tile, or for a range of its numbers; with a blank before it."""
        if not self.tile:
            return ""
        condition = f" WHERE {self.tile} = {self._literal(tile)}"
        return condition if first is None else f"{condition} AND {self.number} BETWEEN {first} AND {last}"

    def counts(self, tiles: Sequence[str] = ()) -> str:
        """The query for the number of rows and the range of numbers of each tile."""
        keys = (
            f", MIN({self.number}) AS first_number, MAX({self.number}) AS last_number" if self.number else ""
        )
        if not self.tile:
            return f"SELECT COUNT(*) AS n_rows FROM {self.table}"
        among = f" WHERE {self.tile} IN ({', '.join(map(self._literal, tiles))})" if tiles else ""
        return f"SELECT {self.tile}, COUNT(*) AS n_rows{keys} FROM {self.table}{among} GROUP BY {self.tile}"

    def _literal(self, tile: str) -> str:
        return "'" + tile.replace("'", "''") + "'" if self.tile_is_text else str(int(tile))


def read_names(mapping: Path | None) -> dict[str, TableNames]:
    """Presets of the archive's tables, with those of a file over them.

    Raises
    ------
    TableError
        If the file cannot be read, or has an unknown setting.
    """
    presets = tomllib.loads(files("ojala.flows.fetch").joinpath("presets.toml").read_text())
    own: dict[str, Any] = {}
    if mapping is not None:
        try:
            own = tomllib.loads(mapping.read_text())
        except (OSError, ValueError) as problem:
            raise TableError(f"{mapping}: {problem}") from problem
    found = {}
    for name, settings in (presets | own).items():
        try:
            found[name] = TableNames.model_validate(settings)
        except ValidationError as problem:
            faults = "; ".join(f"{'.'.join(map(str, f['loc']))}: {f['msg']}" for f in problem.errors())
            raise TableError(
                f"{mapping}, table {name}: {faults}; settings are {', '.join(TableNames.model_fields)}"
            ) from problem
    return found


def find_tables(
    service: Service, wanted: Sequence[str], known: Mapping[str, TableNames]
) -> list[ArchiveTable]:
    """Find tables and their columns in the archive's own description of them (TAP_SCHEMA).

    Raises
    ------
    TableError
        If the archive has no such table, or several, or lacks a column.
    """
    present = [row[0] for row in service.rows("SELECT table_name FROM TAP_SCHEMA.tables", at_once=True)]
    by_lower_case = {name.lower(): name for name in known}
    found = []
    for word in wanted:
        name = by_lower_case.get(word.rpartition(".")[2].lower(), word.rpartition(".")[2])
        names = known.get(name, TableNames())
        table = _find(names.table or word, present)
        columns = {
            row[0].lower(): row[1].lower()
            for row in service.rows(
                f"SELECT column_name, datatype FROM TAP_SCHEMA.columns WHERE table_name = '{table}'",
                at_once=True,
            )
        }
        for column in filter(None, (names.tile, names.number, *names.columns)):
            if _NAME.fullmatch(column) and column.lower() not in columns:
                raise TableError(
                    f"{table} has no column {column}: it has {', '.join(columns) or 'none'}; a TOML file "
                    f'for --mapping names others, as in [{name}] tile = "..." number = "..." columns = [...]'
                )
        is_text = columns.get(names.tile.lower(), "").startswith(_TEXT_TYPES)
        found.append(ArchiveTable(name, table, names.tile, names.number, names.columns, is_text))
    if len({one.name for one in found}) < len(found):
        raise TableError(f"a table is asked for twice: {', '.join(wanted)}")
    # The key is needed to check what comes.
    return [
        replace(one, columns=tuple(dict.fromkeys(filter(None, (one.tile, one.number, *one.columns)))))
        if one.columns
        else one
        for one in found
    ]


def _find(name: str, present: Sequence[str]) -> str:
    same = [one for one in present if one.lower() == name.lower()]
    same = same or [one for one in present if one.lower().rpartition(".")[2] == name.lower()]
    if len(same) == 1:
        return same[0]
    if same:
        raise TableError(f"the archive has several tables {name}: name one of {', '.join(sorted(same))}")
    raise TableError(f"the archive has no table {name}: it has {', '.join(sorted(present)) or 'none'}")
