"""Commands that make catalogues from files: ingest, spectra, cutouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from upath import UPath

from ojala.catalogs_schema.errors import ExitCode, InputError
from ojala.flows.cli.errors import Commands, Panel
from ojala.flows.cli.options import AsJson
from ojala.flows.cli.output import echo, plural
from ojala.pipeline.execution.functions import CPU_ENGINES, open_runner
from ojala.pipeline.ingest.formats import FORMAT_NAMES

if TYPE_CHECKING:
    from ojala.pipeline.ingest.pieces import Input

app = Commands(Panel.DATA)


class UsageError(InputError):
    """Options that do not go together."""

    exit_code = ExitCode.USAGE


@app.command()
def spectra(
    sources: Annotated[
        list[str],
        typer.Argument(help="Files, folders or HATS catalogues; here, s3:// or hf://.", metavar="SOURCE..."),
    ],
    out: Annotated[str, typer.Option(help="Folder of the spectra catalogue; must be new or empty.")],
    tile_rows: Annotated[int, typer.Option(help="Most spectra of a partition.", min=1)] = 1_000,
    as_json: AsJson = False,
) -> None:
    """Make a spectra catalogue (HATS) from the surveys' files or the Multimodal Universe.

    Reads files of DESI, SDSS, BOSS and SDSS-V, APOGEE, GALAH, LAMOST, ESO's archive (phase 3) and templates,
    the Multimodal Universe (HATS or HDF5) and LSDB's catalogue of DESI. The kind of a file is detected from
    its content. Redshifts and properties are taken from the surveys' tables among the sources: redrock, the
    quasar catalogue, FastSpecFit, RVTAB; APOGEE's allStar; GALAH's catalogue; LAMOST's stellar parameters.
    Wavelengths in air are converted to vacuum.
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
    if from_air := sum(one.from_air for one in summary.inputs):
        lines.append(f"wavelengths converted from air to vacuum: {from_air:,}")
    if summary.not_read:
        lines.append("not read:")
        lines += [f"  {line}" for line in summary.not_read]
    echo("\n".join(lines), facts, as_json)


@app.command()
def cutouts(
    sources: Annotated[
        list[str],
        typer.Argument(help="Images, folders or HATS catalogues; here, s3:// or hf://.", metavar="SOURCE..."),
    ],
    objects: Annotated[
        str,
        typer.Option(
            help="Catalogue of spectra or photometry, or a CSV, FITS or Parquet table with id, ra, dec."
        ),
    ],
    out: Annotated[str, typer.Option(help="Folder of the cut-out catalogue; must be new or empty.")],
    as_json: AsJson = False,
) -> None:
    """Make a catalogue of image cut-outs (HATS) from images of the Legacy Survey or the Multimodal Universe.

    It has the partitions and the rows of the catalogue of objects, also for objects without image. The kind
    of a file is detected from its content: image, invvar, maskbits and psfsize of bricks, FITS cut-outs of
    the viewer, images of the Multimodal Universe (HATS or HDF5).
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


Engine = StrEnum("Engine", [(name.upper(), name) for name in CPU_ENGINES])  # type: ignore[misc]  # names are known when it runs


def _tiles(text: str) -> tuple[int, ...]:
    """Numbers of tiles from a text like ``9611,9612``."""
    try:
        return tuple(int(word) for word in text.split(",") if word.strip())
    except ValueError:
        raise InputError(f"--withdraw {text}: expected numbers of tiles, such as 9611,9612") from None


@app.command(resumable=True)
def ingest(
    files: Annotated[list[str] | None, typer.Argument(help=f"{FORMAT_NAMES} files.")] = None,
    out: Annotated[
        str, typer.Option(help="Folder of a new photometry catalogue; must be new or empty.")
    ] = "",
    to: Annotated[
        str, typer.Option(help="Catalogue to update, with --add, --replace, --withdraw or --rollback.")
    ] = "",
    add: Annotated[bool, typer.Option("--add", help="Add the files' rows to it.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put the files' rows in the place of the tiles' present ones.")
    ] = False,
    withdraw: Annotated[str, typer.Option(help="Tiles to take out of it.", metavar="TILE,...")] = "",
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Point it at its release before the current one.")
    ] = False,
    tile_rows: Annotated[
        int | None, typer.Option(help="Most rows of a partition; default: 100,000.", min=1)
    ] = None,
    aperture: Annotated[
        str | None, typer.Option(help="The archive's aperture to read; default: APER_COR_3_0.")
    ] = None,
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
    engine: Annotated[
        Engine | None,
        typer.Option(
            help="Where files are read and partitions written; default: serial, or local with workers."
        ),
    ] = None,
    workers: Annotated[int, typer.Option(help="Number of worker processes or jobs.", min=1)] = 1,
    scheduler: Annotated[
        str | None, typer.Option(help="Dask scheduler of the engine address, as in tls://HOST:8786.")
    ] = None,
    scratch: Annotated[
        str | None,
        typer.Option(help="Folder for sorted rows, which all workers see; default: beside the catalogue."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a photometry catalogue (HATS) from the survey's files, or add, replace and withdraw tiles.

    Reads tables in the columns of the contract or of the archive, with array columns over its filters, and
    converts the units that the files state. Input that cannot be understood is refused with file, row and
    column. An ingest that was interrupted goes on when the same command is given again.
    """
    if bool(out) == bool(to):
        raise UsageError("give either --out for a new catalogue or --to for one that is updated")
    update = add or replace or withdraw or rollback
    if bool(to) != bool(update):
        raise UsageError(
            "--add, --replace, --withdraw and --rollback say what to do with the catalogue --to"
            + ("; none of them was given" if to else ", which was not given")
        )
    if to and tile_rows is not None:
        raise UsageError("--tile-rows is fixed when a catalogue is made: leave it out with --to")
    if rollback:
        if files or add or replace or withdraw:
            raise UsageError("--rollback takes no files and no other change")
        _roll_back(to, as_json)
        return
    options: dict[str, Any] = {
        "aperture": aperture,
        "units": units.value if units else None,
        "ignore": ignore or (),
        "columns": _pairs(column or ()),
        "engine": engine.value if engine else None,
        "workers": workers,
        "scheduler": scheduler,
        "scratch": scratch,
    }
    if to:
        _update(files or [], to, add, replace, _tiles(withdraw), options, as_json)
        return
    from ojala.api import ingest as ingest_files

    summary = ingest_files(files or [], out, tile_rows=tile_rows, **options)
    facts = {
        "out": out,
        "rows": summary.rows,
        "partitions": len(summary.partitions),
        "bands": list(summary.bands),
        "inputs": [asdict(one) for one in summary.inputs],
    }
    partitions = plural(len(summary.partitions), "partition")
    text = f"{plural(summary.rows, 'row')} in {partitions}, {len(summary.bands)} bands: {out}"
    echo(text + _ignored(summary.inputs), facts, as_json)


def _ignored(inputs: Sequence[Input]) -> str:
    """A line with the columns that were not read, where there are any."""
    names = sorted({column for one in inputs for column in one.ignored})
    return f"\ncolumns that were not read: {', '.join(names)}" if names else ""


def _update(
    files: Sequence[str],
    to: str,
    add: bool,
    replace: bool,
    withdraw: Sequence[int],
    options: dict[str, Any],
    as_json: bool,
) -> None:
    from ojala.pipeline.ingest.photometry import CODE
    from ojala.pipeline.ingest.update import update_photometry

    engine, workers, scheduler = (options.pop(name) for name in ("engine", "workers", "scheduler"))
    options["scratch"] = UPath(options["scratch"]) if options["scratch"] else None
    with open_runner(engine, workers, CODE, scheduler) as run:
        summary = update_photometry(
            UPath(to),
            [UPath(file) for file in files],
            add=add,
            replace=replace,
            withdraw=withdraw,
            run=run,
            **options,
        )
    facts = {
        "to": to,
        "release": str(summary.release),
        "before": None if summary.before is None else str(summary.before),
        "rows": summary.rows,
        "partitions": len(summary.partitions),
        "partitions_written": [partition.name for partition in summary.written],
        "added": summary.added,
        "replaced": summary.replaced,
        "withdrawn": summary.withdrawn,
        "inputs": [asdict(one) for one in summary.inputs],
    }
    changes = [
        f"{plural(sum(tiles.values()), 'row')} of {plural(len(tiles), 'tile')} {verb}"
        for verb, tiles in (
            ("added", summary.added),
            ("taken out for their successors", summary.replaced),
            ("withdrawn", summary.withdrawn),
        )
        if tiles
    ]
    partitions = plural(len(summary.partitions), "partition")
    text = (
        f"{', '.join(changes)}; {plural(summary.rows, 'row')} in {partitions}, "
        f"{len(summary.written):,} of them written, the others linked\nrelease: {summary.release}"
    )
    echo(text + _ignored(summary.inputs), facts, as_json)


def _roll_back(to: str, as_json: bool) -> None:
    from ojala.pipeline.ingest.update import roll_back

    release = roll_back(UPath(to))
    echo(f"{to} is {release} again", {"to": to, "release": str(release)}, as_json)
