"""The command line: ``ojala --help``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Annotated, cast

import typer
from upath import UPath

from ojala.catalogs_schema.errors import ExitCode
from ojala.flows.cli import atlas, export, fetch, ingest, published, releases, signals, training, validate
from ojala.flows.cli.errors import Commands, Panel, configure_logging, error_as_json, errors, warn
from ojala.flows.cli.options import AsJson, Check, Publish, Region, run_options
from ojala.flows.cli.output import MAX_NAMED, echo, show_plan, show_run
from ojala.pipeline.runs.config import RunConfig

app = Commands(
    Panel.RUN,
    help="Turn a photometric sky survey into value-added catalogues with foundation models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

for group in (fetch, ingest, releases, training, atlas, validate, export, published):
    app.add_typer(group.app)


def run_app(words: Sequence[str]) -> None:
    """Run a command to its exit code; with ``--json`` errors of the call are JSON, too."""
    if "--json" not in words:
        app()
    usage_error = cast(type[Exception], typer.BadParameter.__mro__[1])
    try:
        code = typer.main.get_command(app).main(standalone_mode=False)
    except usage_error as problem:
        message = problem.format_message()  # type: ignore[attr-defined]  # its class is not public
        warn(message)
        print(error_as_json(ExitCode.USAGE, "UsageError", message))
        sys.exit(ExitCode.USAGE)
    sys.exit(code)


def _show_version(asked: bool) -> None:
    if asked:
        print(version("ojala"))
        raise typer.Exit


@app.callback()
def configure(
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, help="Log progress to stderr; twice: everything.")
    ] = 0,
    log_file: Annotated[Path | None, typer.Option(help="File that the log is appended to.")] = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Set up logging for all commands."""
    with errors():
        configure_logging(verbose, log_file)


@app.command()
@run_options
def plan(
    config: RunConfig,
    region: Annotated[str | None, typer.Option(help="Plan to reprocess a region, see `reprocess`.")] = None,
    check: Check = False,
    what_if: Annotated[
        int | None,
        typer.Option(
            help="Estimate time, memory and disk space for so many rows of photometry instead; "
            "needs neither a catalogue nor --out.",
            metavar="ROWS",
            min=1,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a run would do, and why; writes nothing."""
    if what_if is not None:
        from ojala.flows.cli.sizing import estimate

        sizing = estimate(what_if, config)
        echo(str(sizing), asdict(sizing), as_json)
        return
    from ojala.pipeline.runs.plan import make_plan
    from ojala.pipeline.runs.region import parse_region
    from ojala.pipeline.runs.resolved import resolve_run

    chosen = parse_region(region, config.adapter.flags) if region else None
    show_plan(make_plan(resolve_run(config), chosen, check=check), as_json)


@app.command(resumable=True)
@run_options
def run(config: RunConfig, publish: Publish = True, check: Check = False, as_json: AsJson = False) -> None:
    """Run a model over a catalogue of photometry or spectra and publish the value-added catalogue.

    With `PREFECT_API_URL` set it is a flow that this Prefect server tracks; otherwise no server is started.
    The same command resumes a run that was interrupted.
    """
    from ojala.flows.release import make_release
    from ojala.pipeline.runs.resolved import resolve_run

    # Errors of the request are raised here: within a flow they would be a task's failure.
    resolve_run(config)
    if config.truth:
        from ojala.pipeline.report import read_truth

        read_truth(UPath(config.truth))
    with signals.interruptible(UPath(config.out)):
        record = make_release(config, publish=publish, check=check)
    show_run(record, config, as_json)


@app.command(resumable=True)
@run_options
def reprocess(
    config: RunConfig,
    region: Region,
    execute: Annotated[
        bool, typer.Option("--yes", "--execute", help="Run it; otherwise only plan it.")
    ] = False,
    publish: Publish = True,
    as_json: AsJson = False,
) -> None:
    """Reprocess a region of the published release; without `--yes` only show the plan and its cost.

    The result is a new run. Partitions outside the region are linked unchanged, with their own provenance,
    also where other weights or another version of the program made them: plan and report name those.
    """
    from ojala.pipeline.runs.plan import make_plan
    from ojala.pipeline.runs.region import parse_region
    from ojala.pipeline.runs.resolved import resolve_run

    planned = make_plan(resolve_run(config), parse_region(region, config.adapter.flags))
    if not execute:
        show_plan(planned, as_json, "dry run: add --yes to run it")
        return
    from ojala.flows.release import make_release

    with signals.interruptible(UPath(config.out)):
        record = make_release(config, region, publish=publish)
    show_run(record, config, as_json)


@app.command()
def verify(
    directory: Annotated[str, typer.Argument(help="Collection, run folder or catalogue.")],
    as_json: AsJson = False,
) -> None:
    """Check contract, row counts and checksums; exits with 1 and names the damaged files."""
    from ojala.pipeline.quality.verify import verify as find_damages

    damages = list(islice(find_damages(UPath(directory)), MAX_NAMED))
    echo(
        "\n".join(str(damage) for damage in damages)
        or f"{directory}: OK, every file was read: contract, row counts, checksums",
        {"directory": directory, "whole": not damages, "damages": [asdict(damage) for damage in damages]},
        as_json,
    )
    if damages:
        raise typer.Exit(1)


@app.command(panel=Panel.TOOLS)
def demo(
    out: Annotated[Path, typer.Option(help="Folder for all output; must not exist.")],
    as_json: AsJson = False,
) -> None:
    """Ingest, run and verify the bundled patch of sky."""
    from ojala.flows.demo.run import run_demo

    facts = run_demo(out)
    echo(facts.pop("text"), facts, as_json)


@app.command(panel=Panel.TOOLS)
def bench(
    quick: Annotated[
        bool, typer.Option("--quick", help="Shorter measurement, without torch.compile.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure the throughput of this machine, of the network and of a run; takes ten minutes."""
    from ojala.flows.bench import FULL, QUICK
    from ojala.flows.bench import bench as measure

    result = measure(QUICK if quick else FULL, report=warn)
    echo(result.table(), asdict(result), as_json)
