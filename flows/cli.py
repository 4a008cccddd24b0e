"""The command line: ``ojala --help``."""

from __future__ import annotations

import os
from dataclasses import asdict
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from upath import UPath

from flows import interrupt, training_cli, validate_cli
from flows.console import RUN_INTERRUPTED, AsJson, complain, duration, errors, say

if TYPE_CHECKING:
    from pipeline.config import RunConfig

# Prefect reads its settings when it is imported. Whoever set them knows better; the defaults here keep
# a run on the command line quiet and at home.
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")

app = typer.Typer(
    help="Turn a photometric sky survey into value-added catalogues with foundation models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

app.add_typer(training_cli.app)
app.add_typer(validate_cli.app)

MAX_NAMED = 20
"""Damaged files that `verify` names before it stops looking, and failed partitions that `run` names."""


class EngineName(StrEnum):
    """Engines that `run` can use."""

    SERIAL = "serial"
    LOCAL = "local"


class Units(StrEnum):
    """Kinds of the archive's flux tables."""

    FNU = "fnu"
    FLAMBDA = "flambda"


Photometry = Annotated[str, typer.Option(help="Photometry catalogue, made by `ojala ingest`.")]
Out = Annotated[str, typer.Option(help="Collection that the results go into; made if it is not there.")]
ModelName = Annotated[str | None, typer.Option(help="Model to run: ojala, or empty (answers nothing).")]
Weights = Annotated[str | None, typer.Option(help="Weights of the model; default: those that come along.")]
Engine = Annotated[EngineName | None, typer.Option(help="Where partitions are worked on; default: local.")]
Workers = Annotated[int | None, typer.Option(help="Worker processes; default: one per core.", min=1)]
Vectors = Annotated[bool | None, typer.Option("--vectors", help="Also write redshift PDFs and embeddings.")]
Truth = Annotated[str | None, typer.Option(help="Known classes and redshifts, for the report.")]
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
    photometry: Photometry,
    out: Out,
    model: ModelName = None,
    weights: Weights = None,
    engine: Engine = None,
    workers: Workers = None,
    vectors: Vectors = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Say what a run would do, and why; writes nothing."""
    from pipeline.plan import make_plan, rows_per_second

    with errors():
        asked = resolve(context)
        found = make_plan(asked)
        rate = rows_per_second(found, asked) if found.to_do else 0.0
    seconds = found.rows_to_do / rate if rate else 0.0
    facts = {
        "run": found.run_id if found.resumes else None,
        "resumes": found.resumes,
        "partitions": len(found.entries),
        "partitions_to_do": len(found.to_do),
        "rows": found.rows,
        "rows_to_do": found.rows_to_do,
        "rows_per_second": round(rate, 1),
        "seconds": round(seconds, 1),
        "states": found.states(),
        "to_do": [{"partition": e.partition.name, "rows": e.rows, "why": e.state} for e in found.to_do],
    }
    if as_json:
        say("", facts, as_json)
        return
    table = Table("state", "partitions", "rows")
    for state, count in sorted(found.states().items()):
        rows = sum(entry.rows for entry in found.entries if entry.state == state)
        table.add_row(state, f"{count:,}", f"{rows:,}")
    stdout = Console()
    stdout.print(table)
    stdout.print(
        f"{'run ' + found.run_id if found.resumes else 'a new run'}: {len(found.to_do):,} partitions, "
        f"{found.rows_to_do:,} rows to do"
        + (f", about {duration(seconds)} at {rate:,.0f} rows/s" if found.to_do else ": nothing to do")
    )


@app.command()
def run(
    context: typer.Context,
    photometry: Photometry,
    out: Out,
    model: ModelName = None,
    weights: Weights = None,
    engine: Engine = None,
    workers: Workers = None,
    vectors: Vectors = None,
    truth: Truth = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Run a model over a photometry catalogue and publish the value-added catalogue.

    A Prefect flow: with `PREFECT_API_URL` set it is tracked by that server, otherwise by an embedded one.
    A run that was interrupted goes on where it stopped when the same command is given again.
    """
    from pipeline.catalogue import read_leaves
    from pipeline.report import read_truth

    with errors(RUN_INTERRUPTED):
        asked = resolve(context)
        # Faults of the request are told here: within the flow they would be a task's failure.
        read_leaves(UPath(asked.photometry))
        asked.spec().weights_sha256()
        if asked.truth:
            read_truth(UPath(asked.truth))
        from flows.survey import survey
        from pipeline.record import runs_folder

        with interrupt.interruptible(runs_folder(UPath(asked.out))):
            record = survey(asked)
    folder = f"{out}/runs/{record.run_id}"
    facts = {**record.model_dump(), "folder": folder, "report": f"{folder}/report/index.html"}
    text = (
        f"run {record.run_id} is {record.status}: {record.rows_out:,} of {record.rows_in:,} rows in "
        f"{record.partitions:,} partitions\ncatalogue: {folder}/{asked.products[0]}\n"
        f"report:    {folder}/report/index.html"
    )
    say(text, facts, as_json)
    if record.failed:
        for name, error in islice(record.failed.items(), MAX_NAMED):
            complain(f"partition {name}: {error}")
        complain(f"{len(record.failed)} partitions failed; give the command again to retry them")
        raise typer.Exit(1)


@app.command()
def verify(
    directory: Annotated[str, typer.Argument(help="Collection, run folder or photometry catalogue.")],
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
def bench(as_json: AsJson = False) -> None:
    """Measure what a run costs on this machine: rows a second, partitions, memory. Takes some minutes."""
    from flows.bench import bench as measure

    with errors():
        figures = measure(report=complain)
    say(figures.table(), asdict(figures), as_json)


def resolve(context: typer.Context) -> RunConfig:
    """The configuration that a command's options ask for; they have the names of its fields."""
    from pipeline.config import read_config

    options = {name: value for name, value in context.params.items() if name not in ("config", "as_json")}
    return read_config(context.params["config"], options)
