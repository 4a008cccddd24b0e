"""Commands that fetch a survey's tables: fetch tap."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ojala.flows.cli.errors import Commands, Panel
from ojala.flows.cli.options import AsJson
from ojala.flows.cli.output import echo, size_text

app = Commands(Panel.DATA)
fetch = Commands(Panel.DATA, help="Fetch a survey's tables from its archive.", no_args_is_help=True)
app.add_typer(fetch, name="fetch")


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


@fetch.command("tap", resumable=True)
def fetch_tap(
    url: Annotated[str, typer.Argument(help="Address of the TAP service.")],
    tables: Annotated[
        str, typer.Option(help="Tables, separated by commas, as in MagABDualObj,MWExtinction.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the tables; one file for each tile.")],
    tiles: Annotated[str, typer.Option(help="Tiles, separated by commas; default: all.")] = "",
    mapping: Annotated[
        Path | None, typer.Option(help="TOML file with names of tables and columns, for other archives.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Jobs at a time.", min=1, max=16)] = 2,
    maxrec: Annotated[
        int, typer.Option(help="Most rows of a job; a larger tile is split.", min=1)
    ] = 1_000_000,
    attempts: Annotated[int, typer.Option(help="Attempts at a job.", min=1)] = 5,
    job_seconds: Annotated[float, typer.Option(help="Longest time of a job at the service [s].")] = 3600.0,
    as_json: AsJson = False,
) -> None:
    """Fetch tables over TAP, by one asynchronous job for each tile.

    The same command continues an interrupted one; later it fetches the tiles that are new or have changed.
    Credentials are `OJALA_TAP_USER` and `OJALA_TAP_PASSWORD` in the environment.
    """
    from ojala.flows.fetch import Limits, fetch_tables

    limits = Limits(maxrec=maxrec, parallel=jobs, attempts=attempts, job_seconds=job_seconds)
    summary = fetch_tables(url, _words(tables), out, tiles=_words(tiles), mapping=mapping, limits=limits)
    lines = [
        f"{summary.rows:,} rows in {summary.jobs:,} jobs, {size_text(summary.bytes)}, "
        f"{summary.seconds:,.1f} s: {out}"
    ]
    lines += [
        f"{name}: {sum(held.values()):,} rows of {len(held):,} tiles" for name, held in summary.tables.items()
    ]
    lines += [f"{summary.kept:,} files were there already"] if summary.kept else []
    lines += [f"{name}, fetched again: {', '.join(one)}" for name, one in summary.changed.items()]
    lines += [
        f"{name}, no longer in the archive, files kept: {', '.join(one)}"
        for name, one in summary.withdrawn.items()
    ]
    echo("\n".join(lines), {"out": str(out), **asdict(summary)}, as_json)
