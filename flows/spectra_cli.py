"""The command that makes a spectra catalogue."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from upath import UPath

from flows.console import AsJson, errors, say

app = typer.Typer()


@app.command()
def spectra(
    sources: Annotated[list[str], typer.Argument(help="Files, or folders with them.", metavar="SOURCE...")],
    out: Annotated[str, typer.Option(help="Folder of the spectra catalogue; must be new or empty.")],
    tile_rows: Annotated[int, typer.Option(help="Most spectra of a partition.", min=1)] = 1_000,
    as_json: AsJson = False,
) -> None:
    """Make a spectra catalogue (HATS) from files of DESI, SDSS/BOSS, LAMOST and templates.

    Files are told apart by their content. Redshifts and properties are taken from the surveys' tables among
    the sources: redrock, the quasar catalogue, FastSpecFit, RVTAB; LAMOST's stellar parameters.
    """
    from pipeline.spectra_ingest import ingest_spectra

    with errors():
        summary = ingest_spectra([UPath(source) for source in sources], UPath(out), tile_rows=tile_rows)
    facts = {
        "out": out,
        "spectra": summary.spectra,
        "objects": summary.objects,
        "without_redshift": summary.without_redshift,
        "counts": summary.counts,
        "partitions": len(summary.partitions),
        "inputs": [asdict(one) for one in summary.inputs],
        "not_read": summary.not_read,
    }
    lines = [
        f"{summary.spectra:,} spectra of {summary.objects:,} objects in {len(summary.partitions):,} "
        f"partitions: {out}"
    ]
    for survey, classes in summary.counts.items():
        lines.append(f"{survey}: " + ", ".join(f"{count:,} {name}" for name, count in classes.items()))
    if summary.without_redshift:
        lines.append(f"without redshift: {summary.without_redshift:,}")
    if summary.not_read:
        lines.append("not read:")
        lines += [f"  {line}" for line in summary.not_read]
    say("\n".join(lines), facts, as_json)
