"""Commands that check a catalogue, its files and its numbers: verify, validate."""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice
from typing import Annotated

import typer
from upath import UPath

from ojala.flows.cli.errors import Commands, Panel
from ojala.flows.cli.options import AsJson
from ojala.flows.cli.output import MAX_NAMED, echo

app = Commands(Panel.RUN)


@app.command()
def verify(
    directory: Annotated[str, typer.Argument(help="Collection, run folder or catalogue.")],
    as_json: AsJson = False,
) -> None:
    """Check contract, row counts and checksums; exits with 1 and names the damaged files."""
    from ojala.pipeline.quality.verify import verify as find_damages

    damages = list(islice(find_damages(UPath(directory)), MAX_NAMED))
    echo(
        "\n".join(str(damage) for damage in damages)
        or f"{directory}: OK, every file was read: contract, row counts, checksums",
        {"directory": directory, "whole": not damages, "damages": [asdict(damage) for damage in damages]},
        as_json,
    )
    if damages:
        raise typer.Exit(1)


@app.command()
def validate(
    catalogue: Annotated[str, typer.Argument(help="Collection, run folder or value-added catalogue.")],
    truth: Annotated[str, typer.Option(help="Known classes, redshifts and labels: Parquet or CSV.")],
    photometry: Annotated[
        str | None,
        typer.Option(help="Photometry catalogue for magnitudes; default: that of the run."),
    ] = None,
    out: Annotated[str | None, typer.Option(help="Folder for a page, the measures and the objects.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure the accuracy of a catalogue against known classes, redshifts and properties.

    The truth has `tile_id` and `number` (or `object_id`), `class` (GALAXY, STAR, QSO), `z`, and any of the
    catalogue's quantities under their names. Each measure comes with a bootstrap error. Without `--out`
    nothing is written.
    """
    from ojala.api import validate as compare
    from ojala.pipeline.quality.validation.text import tables

    result = compare(catalogue, truth, photometry=photometry, out=out)
    text = tables(result) + (f"\n\npage: {out}/index.html" if out else "")
    echo(text, result.model_dump(mode="json"), as_json)
