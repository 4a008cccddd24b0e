"""The command line: ``ojala --help``."""

from __future__ import annotations

import os
from dataclasses import asdict
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from upath import UPath

from flows import (
    atlas_cli,
    cutouts_cli,
    export_cli,
    interrupt,
    release_cli,
    spectra_cli,
    training_cli,
    validate_cli,
    weights_cli,
)
from flows.console import RUN_INTERRUPTED, AsJson, complain, errors, say
from flows.release_cli import Publish
from flows.telling import MAX_NAMED, show_plan, tell_run
from pipeline.systems import SYSTEMS

if TYPE_CHECKING:
    from pipeline.config import RunConfig

# Prefect reads its settings when it is imported. Whoever set them knows better; the defaults here keep
# a run on the command line quiet and at home.
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
# The embedded server takes longer than Prefect's 20 s to start where all cores are busy.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "300")

app = typer.Typer(
    help="Turn a photometric sky survey into value-added catalogues with foundation models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

app.add_typer(release_cli.app)
app.add_typer(training_cli.app)
app.add_typer(spectra_cli.app)
app.add_typer(cutouts_cli.app)
app.add_typer(atlas_cli.app)
app.add_typer(validate_cli.app)
app.add_typer(export_cli.app)
app.add_typer(weights_cli.app)


class EngineName(StrEnum):
    """Engines that `run` can use."""

    SERIAL = "serial"
    LOCAL = "local"
    CUDA = "cuda"
    ADDRESS = "address"
    SLURM = "slurm"


class DeviceName(StrEnum):
    """What a network runs on."""

    CPU = "cpu"
    CUDA = "cuda"


class Units(StrEnum):
    """Kinds of the archive's flux tables."""

    FNU = "fnu"
    FLAMBDA = "flambda"


Photometry = Annotated[str | None, typer.Option(help="Photometry catalogue, made by `ojala ingest`.")]
Spectra = Annotated[
    str | None, typer.Option(help="Spectra catalogue, made by `ojala spectra`, for models that read spectra.")
]
Cutouts = Annotated[
    str | None, typer.Option(help="Cut-outs of these spectra, made by `ojala cutouts`, for models of both.")
]
Out = Annotated[str, typer.Option(help="Collection that the results go into; made if it is not there.")]
ModelName = Annotated[
    str | None, typer.Option(help=f"Model to run: {', '.join(SYSTEMS)}; empty answers nothing.")
]
Weights = Annotated[str | None, typer.Option(help="Weights of the model; default: those that come along.")]
Engine = Annotated[EngineName | None, typer.Option(help="Where partitions are worked on; default: local.")]
Device = Annotated[
    DeviceName | None, typer.Option(help="What the network runs on; default: cuda for engine cuda, else cpu.")
]
Scheduler = Annotated[str | None, typer.Option(help="Dask scheduler of engine address: tls://HOST:PORT.")]
Workers = Annotated[
    int | None,
    typer.Option(help="Worker processes, Slurm jobs or GPUs; default: one per core or GPU.", min=1),
]
Vectors = Annotated[
    bool | None, typer.Option("--vectors", help="Also write the large products: PDFs, embeddings, spectra.")
]
Heads = Annotated[
    list[str] | None,
    typer.Option("--head", help="Head made by `ojala finetune`, for a product of one's own; repeatable."),
]
Atlas = Annotated[
    str | None, typer.Option(help="Atlas made by `ojala atlas`; default: the one beside the weights, if any.")
]
Truth = Annotated[str | None, typer.Option(help="Known classes and redshifts, for the report.")]
Check = Annotated[
    bool, typer.Option("--check", help="Read all leaves that are there and compare their SHA-256.")
]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file; options override it.")]


@app.command()
def ingest(
    files: Annotated[list[str], typer.Argument(help="Parquet, CSV, FITS or VOTable files.")],
    out: Annotated[str, typer.Option(help="Folder of the photometry catalogue; must be new or empty.")],
    tile_rows: Annotated[int, typer.Option(help="Most rows of a partition.", min=1)] = 100_000,
    aperture: Annotated[str, typer.Option(help="The archive's aperture to read.")] = "APER_COR_3_0",
    units: Annotated[
        Units | None, typer.Option(help="Flux table the files come from, where they do not say.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a photometry catalogue (HATS) from the survey's files.

    Reads Parquet in the contract's columns and the archive's own CSV, FITS and VOTable with array columns
    over its filters. Whatever cannot be understood is refused with file, row and column.
    """
    from pipeline.ingest import ingest as ingest_files

    with errors():
        summary = ingest_files(
            [UPath(file) for file in files],
            UPath(out),
            tile_rows=tile_rows,
            aperture=aperture,
            units=units.value if units else None,
        )
    facts = {
        "out": out,
        "rows": summary.rows,
        "partitions": len(summary.partitions),
        "bands": list(summary.bands),
        "inputs": [asdict(one) for one in summary.inputs],
    }
    ignored = sorted({column for one in summary.inputs for column in one.ignored})
    text = (
        f"{summary.rows:,} rows in {len(summary.partitions):,} partitions, {len(summary.bands)} bands: {out}"
    )
    if ignored:
        text += f"\ncolumns that were not read: {', '.join(ignored)}"
    say(text, facts, as_json)


@app.command()
def plan(
    context: typer.Context,
    out: Out,
    photometry: Photometry = None,
    spectra: Spectra = None,
    cutouts: Cutouts = None,
    model: ModelName = None,
    weights: Weights = None,
    heads: Heads = None,
    atlas: Atlas = None,
    engine: Engine = None,
    device: Device = None,
    workers: Workers = None,
    vectors: Vectors = None,
    config: ConfigFile = None,
    region: Annotated[str | None, typer.Option(help="Plan to reprocess a region, see `reprocess`.")] = None,
    check: Check = False,
    as_json: AsJson = False,
) -> None:
    """Say what a run would do, and why; writes nothing."""
    from pipeline.plan import make_plan
    from pipeline.region import parse_region

    with errors():
        asked = resolve(context)
        found = make_plan(asked, parse_region(region) if region else None, check=check)
        show_plan(found, asked, as_json)


@app.command()
def run(
    context: typer.Context,
    out: Out,
    photometry: Photometry = None,
    spectra: Spectra = None,
    cutouts: Cutouts = None,
    model: ModelName = None,
    weights: Weights = None,
    heads: Heads = None,
    atlas: Atlas = None,
    engine: Engine = None,
    device: Device = None,
    scheduler: Scheduler = None,
    workers: Workers = None,
    vectors: Vectors = None,
    truth: Truth = None,
    config: ConfigFile = None,
    publish: Publish = True,
    check: Check = False,
    as_json: AsJson = False,
) -> None:
    """Run a model over a catalogue of photometry or spectra and publish the value-added catalogue.

    A Prefect flow: with `PREFECT_API_URL` set it is tracked by that server, otherwise by an embedded one.
    A run that was interrupted goes on where it stopped when the same command is given again.
    """
    from pipeline.catalogue import read_leaves
    from pipeline.report import read_truth

    with errors(RUN_INTERRUPTED):
        asked = resolve(context)
        # Faults of the request are told here: within the flow they would be a task's failure.
        read_leaves(UPath(asked.source))
        asked.spec().weights_sha256()
        asked.contracts()
        if asked.truth:
            read_truth(UPath(asked.truth))
        from flows.survey import survey

        with interrupt.interruptible(UPath(asked.out)):
            record = survey(asked, publish, check)
    tell_run(record, asked, as_json)


@app.command()
def verify(
    directory: Annotated[str, typer.Argument(help="Collection, run folder or catalogue.")],
    as_json: AsJson = False,
) -> None:
    """Check contract, row accounts and checksums; exits with 1 and names the file if one is damaged."""
    from pipeline.verify import verify as damages_of

    with errors():
        damages = list(islice(damages_of(UPath(directory)), MAX_NAMED))
    say(
        "\n".join(str(damage) for damage in damages) or f"{directory} is whole",
        {"directory": directory, "whole": not damages, "damages": [asdict(damage) for damage in damages]},
        as_json,
    )
    if damages:
        raise typer.Exit(1)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that is made; must not exist.")],
    as_json: AsJson = False,
) -> None:
    """Run everything on the bundled patch of sky: ingest, run, verify."""
    with errors():
        from flows.demo import run_demo

        facts = run_demo(out)
    say(facts.pop("text"), facts, as_json)


@app.command()
def bench(
    quick: Annotated[bool, typer.Option("--quick", help="Less of everything, nothing compiled.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure what this machine allows, and how much of it the network and a run use; takes ten minutes."""
    with errors():
        from flows.bench import FULL, QUICK
        from flows.bench import bench as measure

        found = measure(QUICK if quick else FULL, report=complain)
    say(found.table(), asdict(found), as_json)


def resolve(context: typer.Context) -> RunConfig:
    """The configuration that a command's options ask for; they have the names of its fields."""
    from pipeline.config import read_config

    others = ("config", "as_json", "region", "publish", "check")
    options = {name: value for name, value in context.params.items() if name not in others and value != ()}
    return read_config(context.params["config"], options)
