"""The command that makes a cut-out catalogue."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from upath import UPath

from flows.console import AsJson, errors, say

app = typer.Typer()


@app.command()
def cutouts(
    sources: Annotated[list[str], typer.Argument(help="Images, or folders with them.", metavar="SOURCE...")],
    objects: Annotated[
        str,
        typer.Option(
            help="Catalogue of spectra or photometry, or a CSV, FITS or Parquet table with id, ra, dec."
        ),
    ],
    out: Annotated[str, typer.Option(help="Folder of the cut-out catalogue; must be new or empty.")],
    as_json: AsJson = False,
) -> None:
    """Make a catalogue of image cut-outs (HATS) from coadds or cut-outs of the Legacy Survey.

    It has the partitions and the rows of the catalogue of objects, also for objects without image. Files are
    told apart by their content: image, invvar, maskbits and psfsize of bricks, FITS cut-outs of the viewer.
    """
    from pipeline.cutouts_ingest import ingest_cutouts

    with errors():
        summary = ingest_cutouts([UPath(source) for source in sources], UPath(objects), UPath(out))
    facts = {
        "out": out,
        "objects": summary.objects,
        "without_image": summary.without_image,
        "flags": summary.flags,
        "bands": summary.bands,
        "partitions": len(summary.partitions),
        "fields": summary.fields,
        "inputs": [asdict(one) for one in summary.inputs],
        "not_read": summary.not_read,
    }
    lines = [
        f"cut-outs of {summary.objects - summary.without_image:,} of {summary.objects:,} objects from "
        f"{summary.fields:,} images of the sky, in {len(summary.partitions):,} partitions: {out}",
        "bands: " + ", ".join(f"{count:,} {bands}" for bands, count in summary.bands.items()),
    ]
    if any(summary.flags.values()):
        lines.append(
            "flags: " + ", ".join(f"{count:,} {name}" for name, count in summary.flags.items() if count)
        )
    if summary.not_read:
        lines.append("not read:")
        lines += [f"  {line}" for line in summary.not_read]
    say("\n".join(lines), facts, as_json)
