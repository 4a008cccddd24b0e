"""Command that compares a catalogue with known objects: validate."""

from __future__ import annotations

from typing import Annotated

import typer

from ojala.flows.cli.errors import Commands, Panel
from ojala.flows.cli.options import AsJson
from ojala.flows.cli.output import echo

app = Commands(Panel.RUN)


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
