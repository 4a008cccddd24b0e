"""Commands for the published weights: convert-weights, check-published."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from upath import UPath

from ojala.flows.cli.errors import Commands, Panel
from ojala.flows.cli.options import AsJson
from ojala.flows.cli.output import echo

app = Commands(Panel.TOOLS)


@app.command("convert-weights")
def convert_weights(
    weights: Annotated[
        Path, typer.Argument(help="weights.pt of the published OJALA, config.json beside it.")
    ],
    out: Annotated[Path, typer.Option(help="File to write (.safetensors).")],
    as_json: AsJson = False,
) -> None:
    """Write published weights and their configuration as one safetensors file, which needs no pickle."""
    from ojala.models.ojala_published import convert

    facts = convert(weights, out)
    text = f"{out}: {facts['tensors']} tensors, {facts['numbers']:,} numbers, SHA-256 {facts['sha256']}"
    echo(text, {"file": str(out), **facts}, as_json)


@app.command("check-published")
def check_published(
    weights: Annotated[
        Path, typer.Option(help="Published weights: weights.pt with config.json beside it, or converted.")
    ],
    photometry: Annotated[Path, typer.Option(help="The authors' input table (CSV).")],
    catalogue: Annotated[Path, typer.Option(help="The published catalogue (CSV).")],
    aperture: Annotated[str, typer.Option(help="Aperture in the names of the ratios.")] = "APER_COR_3_0",
    rows: Annotated[int, typer.Option(help="Most rows to recompute.", min=1)] = 10_000,
    archive: Annotated[
        str | None,
        typer.Option(help="Photometry catalogue of the archive's tables of the same objects."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Recompute rows of the published catalogue and compare; exits with 1 where they do not agree.

    For each column the median of |difference| / scale is given, and whether it is below 1e-5; then what the
    files settle: the wavelength bias, the version of the script and, with `--archive`, how the authors' table
    came from the archive's.
    """
    from ojala.pipeline.quality.check_published import check_published as check

    found = check(
        weights,
        photometry,
        catalogue,
        aperture=aperture,
        rows=rows,
        archive=UPath(archive) if archive else None,
    )
    echo(found.table(), asdict(found), as_json)
    if not found.agrees:
        raise typer.Exit(1)
