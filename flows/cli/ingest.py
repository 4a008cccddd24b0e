"""Commands that make catalogues from files: ingest, spectra, cutouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer
from upath import UPath

from ojala.catalogs_schema.errors import InputError
from ojala.flows.cli.errors import Commands, Panel
from ojala.flows.cli.options import AsJson
from ojala.flows.cli.output import echo, plural
from ojala.pipeline.ingest.formats import FORMAT_NAMES

app = Commands(Panel.DATA)


@app.command()
def spectra(
    sources: Annotated[list[str], typer.Argument(help="Files, or folders with them.", metavar="SOURCE...")],
    out: Annotated[str, typer.Option(help="Folder of the spectra catalogue; must be new or empty.")],
    tile_rows: Annotated[int, typer.Option(help="Most spectra of a partition.", min=1)] = 1_000,
    as_json: AsJson = False,
) -> None:
    """Make a spectra catalogue (HATS) from files of DESI, SDSS/BOSS, LAMOST and templates.

    The kind of a file is detected from its content. Redshifts and properties are taken from the surveys'
    tables among the sources: redrock, the quasar catalogue, FastSpecFit, RVTAB; LAMOST's stellar parameters.
    """
    from ojala.pipeline.ingest.spectra import ingest_spectra

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
        f"{summary.spectra:,} spectra of {plural(summary.objects, 'object')} in "
        f"{plural(len(summary.partitions), 'partition')}: {out}"
    ]
    for survey, classes in summary.counts.items():
        lines.append(f"{survey}: " + ", ".join(f"{count:,} {name}" for name, count in classes.items()))
    if summary.without_redshift:
        lines.append(f"without redshift: {summary.without_redshift:,}")
    if summary.not_read:
        lines.append("not read:")
        lines += [f"  {line}" for line in summary.not_read]
    echo("\n".join(lines), facts, as_json)


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

    It has the partitions and the rows of the catalogue of objects, also for objects without image. The kind
    of a file is detected from its content: image, invvar, maskbits and psfsize of bricks, FITS cut-outs of
    the viewer.
    """
    from ojala.pipeline.ingest.cutouts import ingest_cutouts

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
    echo("\n".join(lines), facts, as_json)


def _pairs(words: Sequence[str]) -> dict[str, str]:
    """Names of columns from words like ``ra=RA_J2000``."""
    for word in words:
        if not all(part.strip() for part in word.partition("=")):
            raise InputError(f"--column {word}: expected NAME=THEIRS, such as ra=RA_J2000")
    return {name: theirs for name, _, theirs in (word.partition("=") for word in words)}


class Units(StrEnum):
    """Kinds of flux density in the archive's tables."""

    FNU = "fnu"
    FLAMBDA = "flambda"


@app.command()
def ingest(
    files: Annotated[list[str], typer.Argument(help=f"{FORMAT_NAMES} files.")],
    out: Annotated[str, typer.Option(help="Folder of the photometry catalogue; must be new or empty.")],
    tile_rows: Annotated[int, typer.Option(help="Most rows of a partition.", min=1)] = 100_000,
    aperture: Annotated[str, typer.Option(help="The archive's aperture to read.")] = "APER_COR_3_0",
    units: Annotated[
        Units | None, typer.Option(help="Flux table the files come from, where they do not state it.")
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="Column to leave out; can be repeated.", metavar="NAME")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="Read the files' column THEIRS as NAME; can be repeated.", metavar="NAME=THEIRS"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a photometry catalogue (HATS) from the survey's files.

    Reads tables in the columns of the contract or of the archive, with array columns over its filters, and
    converts the units that the files state. Input that cannot be understood is refused with file, row and
    column.
    """
    from ojala.api import ingest as ingest_files

    summary = ingest_files(
        files,
        out,
        tile_rows=tile_rows,
        aperture=aperture,
        units=units.value if units else None,
        ignore=ignore or (),
        columns=_pairs(column or ()),
    )
    facts = {
        "out": out,
        "rows": summary.rows,
        "partitions": len(summary.partitions),
        "bands": list(summary.bands),
        "inputs": [asdict(one) for one in summary.inputs],
    }
    ignored = sorted({column for one in summary.inputs for column in one.ignored})
    partitions = plural(len(summary.partitions), "partition")
    text = f"{plural(summary.rows, 'row')} in {partitions}, {len(summary.bands)} bands: {out}"
    if ignored:
        text += f"\ncolumns that were not read: {', '.join(ignored)}"
    echo(text, facts, as_json)
