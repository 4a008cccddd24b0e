"""Commands that plan and make a run: plan, run, reprocess."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from upath import UPath

from ojala.flows.cli import signals
from ojala.flows.cli.errors import Commands, Panel
from ojala.flows.cli.options import AsJson, Check, Publish, Region
from ojala.flows.cli.output import echo, show_plan, show_run
from ojala.flows.cli.run_options import run_options
from ojala.pipeline.runs.config import RunConfig

app = Commands(Panel.RUN)


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
    from ojala.pipeline.runs.resolved import resolve_run

    chosen = None
    if region:
        from ojala.pipeline.runs.region import parse_region

        chosen = parse_region(region, config.adapter.flags)
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
