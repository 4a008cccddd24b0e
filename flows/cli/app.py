"""The command line: ``ojala --help``."""

from __future__ import annotations

import os
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from upath import UPath

from ojala.flows.cli import atlas as atlas_cli
from ojala.flows.cli import export, ingest, releases, signals, training, validate
from ojala.flows.cli.options import (
    Atlas,
    Check,
    ConfigFile,
    Cutouts,
    Device,
    Engine,
    Heads,
    ModelName,
    Out,
    Photometry,
    Scheduler,
    Spectra,
    Truth,
    Vectors,
    Weights,
    Workers,
    resolve,
)
from ojala.flows.cli.output import (
    MAX_NAMED,
    RUN_INTERRUPTED,
    AsJson,
    echo,
    errors,
    show_plan,
    tell_run,
    warn,
)
from ojala.flows.cli.releases import Publish

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

app.add_typer(ingest.app)
app.add_typer(releases.app)
app.add_typer(training.app)
app.add_typer(atlas_cli.app)
app.add_typer(validate.app)
app.add_typer(export.app)


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
    from ojala.pipeline.runs.plan import make_plan
    from ojala.pipeline.runs.region import parse_region
    from ojala.pipeline.runs.resolved import resolve_run

    with errors():
        resolved = resolve_run(resolve(context))
        show_plan(
            make_plan(
                resolved, parse_region(region, resolved.adapter.flags) if region else None, check=check
            ),
            as_json,
        )


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
    from ojala.pipeline.report import read_truth
    from ojala.pipeline.runs.resolved import resolve_run
    from ojala.pipeline.storage.hats import read_leaves

    with errors(RUN_INTERRUPTED):
        asked = resolve(context)
        # Faults of the request are told here: within the flow they would be a task's failure.
        read_leaves(UPath(asked.source))
        resolve_run(asked)
        if asked.truth:
            read_truth(UPath(asked.truth))
        from ojala.flows.survey import survey

        with signals.interruptible(UPath(asked.out)):
            record = survey(asked, publish, check)
    tell_run(record, asked, as_json)


@app.command()
def verify(
    directory: Annotated[str, typer.Argument(help="Collection, run folder or catalogue.")],
    as_json: AsJson = False,
) -> None:
    """Check contract, row accounts and checksums; exits with 1 and names the file if one is damaged."""
    from ojala.pipeline.quality.verify import verify as damages_of

    with errors():
        damages = list(islice(damages_of(UPath(directory)), MAX_NAMED))
    echo(
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
        from ojala.flows.demo.run import run_demo

        facts = run_demo(out)
    echo(facts.pop("text"), facts, as_json)


@app.command()
def bench(
    quick: Annotated[bool, typer.Option("--quick", help="Less of everything, nothing compiled.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure what this machine allows, and how much of it the network and a run use; takes ten minutes."""
    with errors():
        from ojala.flows.bench import FULL, QUICK
        from ojala.flows.bench import bench as measure

        found = measure(QUICK if quick else FULL, report=warn)
    echo(found.table(), asdict(found), as_json)
