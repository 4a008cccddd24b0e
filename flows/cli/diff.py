"""Command for the difference of two releases: diff."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer
from upath import UPath

from ojala.flows.cli.errors import Commands, Panel
from ojala.flows.cli.options import AsJson, Collection
from ojala.flows.cli.output import MAX_NAMED, echo

if TYPE_CHECKING:
    from ojala.pipeline.runs.diff import Changes

app = Commands(Panel.RELEASES)


@app.command()
def diff(
    former: Annotated[
        str, typer.Argument(help="Former run; `ojala releases` lists them.", metavar="RELEASE")
    ],
    run: Annotated[str, typer.Argument(help="Run to compare with it.", metavar="RELEASE")],
    out: Collection,
    as_json: AsJson = False,
) -> None:
    """Show rows added, withdrawn, and of another class or redshift, by tile and by cause."""
    from ojala.pipeline.runs.diff import find_difference
    from ojala.pipeline.runs.record import run_folder

    found = find_difference(run_folder(UPath(out), former), run_folder(UPath(out), run))
    lines = [
        f"{found.rows_before:,} rows in {found.former}, {found.rows:,} in {found.run_id}; "
        f"{found.partitions_same:,} partitions are the same files, {found.partitions_read:,} were compared",
        f"{'':24}{'added':>10}{'withdrawn':>10}{'compared':>10}{'class':>10}{'redshift':>10}",
        _line("all", found.total),
        *(_line(f"cause {cause}", changes) for cause, changes in found.by_cause.items()),
        *(_line(f"tile {tile}", changes) for tile, changes in islice(found.by_tile.items(), MAX_NAMED)),
    ]
    if len(found.by_tile) > MAX_NAMED:
        lines.append(f"and {len(found.by_tile) - MAX_NAMED:,} more tiles; --json has all")
    lines += [f"{count:,} rows from {change}" for change, count in found.classes.items()]
    echo("\n".join(lines), found.model_dump(mode="json"), as_json)


def _line(name: str, changes: Changes) -> str:
    counts = (
        changes.added,
        changes.withdrawn,
        changes.compared,
        changes.class_changed,
        changes.redshift_changed,
    )
    return f"{name:<24}" + "".join(f"{count:>10,}" for count in counts)
