"""The command that compares a catalogue with known objects: validate."""

from __future__ import annotations

from typing import Annotated

import typer
from upath import UPath

from ojala.flows.cli.output import AsJson, echo, errors

app = typer.Typer()


@app.command()
def validate(
    catalogue: Annotated[str, typer.Argument(help="Collection, run folder or value-added catalogue.")],
    truth: Annotated[str, typer.Option(help="Known classes, redshifts and labels: Parquet or CSV.")],
    photometry: Annotated[
        str | None,
        typer.Option(help="Where magnitudes are from; default: the input of the run."),
    ] = None,
    out: Annotated[str | None, typer.Option(help="Folder for a page, its numbers and its objects.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how good a catalogue's answers are, where the truth is known.

    The truth has `tile_id` and `number` (or `object_id`), `class` (GALAXY, STAR, QSO), `z`, and any of the
    catalogue's quantities under their names. Each measure comes with a bootstrap error. Without `--out`
    nothing is written.
    """
    from ojala.pipeline.quality.validation.locate import locate, match
    from ojala.pipeline.quality.validation.scores import validate as judge
    from ojala.pipeline.quality.validation.text import tables
    from ojala.pipeline.quality.validation.truth import read_truth
    from ojala.pipeline.report.validation_page import write_validation

    with errors():
        known = read_truth(UPath(truth))
        location = locate(UPath(catalogue))
        matched = match(known, location, UPath(photometry) if photometry else None)
        found = judge(known, matched, str(location.product))
        page = write_validation(UPath(out), matched, found) if out else None
    text = tables(found) + (f"\n\npage: {page}" if page else "")
    echo(text, found.model_dump(mode="json"), as_json)
