"""The Prefect flows that make releases: a survey, and a region of it done again.

Both plan, run, finalise, judge and publish; they differ in what they plan. A lock lets one flow at a time
work on a product of a collection.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated, Literal, cast
from uuid import UUID

import httpx
from prefect import flow, get_run_logger, task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.runtime import deployment
from prefect.utilities.annotations import quote
from pydantic import WithJsonSchema
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from upath import UPath

from ojala.catalogs_schema.receipt import Receipt
from ojala.pipeline import run as survey_run
from ojala.pipeline.quality.gates import read_gates
from ojala.pipeline.runs.config import RunConfig
from ojala.pipeline.runs.plan import Plan, make_plan
from ojala.pipeline.runs.record import ENDED, RunRecord, Status, read_record, run_folder
from ojala.pipeline.runs.region import parse_region
from ojala.pipeline.storage.lock import hold


def shown(kind: Literal["string", "boolean", "integer"], description: str) -> WithJsonSchema:
    """The type and the description of a parameter, for use in `typing.Annotated`.

    Prefect reads descriptions from docstrings of another style than ours, and overwrites those of pydantic's
    fields; those of a JSON schema it leaves alone.
    """
    return WithJsonSchema({"type": kind, "description": description})


PROGRESS_STEPS = 50
"""Updates of the progress artifact per run; each is a request to the server."""


Region = Annotated[
    str,
    shown(
        "string",
        "cone:RA,DEC,RADIUS, box:RA1,RA2,DEC1,DEC2, polygon:RA,DEC;..., moc:FILE, tiles:5/1234,..., flagged "
        "or flagged:NAME>0.1; angles in degrees",
    ),
]
Publish = Annotated[
    bool, shown("boolean", "point the collection at the run when it is complete and its gates allow it")
]
Check = Annotated[bool, shown("boolean", "read every leaf that is there already, not only its size and time")]


@flow(name="survey")
def survey(config: RunConfig, publish: Publish = True, check: Check = False) -> RunRecord:
    """Run a model over a photometry catalogue and publish the value-added catalogue.

    A run that was stopped goes on where it stopped; what a finished run has under the same key is linked.
    A run with failed partitions ends incomplete and is not published; starting it again works on what is
    missing.

    Parameters
    ----------
    config : RunConfig
        What to do.
    publish : bool
        Whether to point the collection at the run when it is complete and its quality gates allow it.
    check : bool
        Whether to read every leaf that is there already; otherwise size and time of change are trusted.

    Returns
    -------
    RunRecord
        What became of it.
    """
    return _carry_out(config, None, publish, check)


@flow(name="reprocess")
def reprocess(config: RunConfig, region: Region, publish: Publish = True) -> RunRecord:
    """Do a region of the published release again and publish the outcome.

    It becomes a new run: what the region does not touch is linked as it is, with its own provenance.

    Parameters
    ----------
    config : RunConfig
        What to do it with.
    region : str
        The region: `cone:RA,DEC,RADIUS`, `box:RA1,RA2,DEC1,DEC2`, `polygon:RA,DEC;...`, `moc:FILE`,
        `tiles:5/1234,...`, `flagged` or `flagged:NAME>0.1`; angles in degrees.
    publish : bool
        Whether to point the collection at the run when it is complete and its quality gates allow it.

    Returns
    -------
    RunRecord
        What became of it.
    """
    return _carry_out(config, region, publish, check=False)


def _carry_out(config: RunConfig, region: str | None, publish: bool, check: bool) -> RunRecord:
    out = UPath(config.out)
    with hold(out, config.products[0]) as lock:
        plan = plan_task(config, region, check)
        lock.tell(plan.run_id)
        run = run_folder(out, plan.run_id)
        # Prefect would look through all entries of the plan for futures, before every task.
        hidden = cast(Plan, quote(plan))
        if plan.resumes and read_record(run).status in ENDED:
            record = read_record(run)
        else:
            run_task(hidden, config)
            lock.check()
            finalise_task(hidden, config)
            lock.check()
            record = quality_task(hidden, config)
        if publish and record.status == Status.COMPLETE:
            publish_task(hidden, config)
    return seen_by_the_server(record)


class IncompleteRun(RuntimeError):
    """A run that a server started and that ended with partitions missing."""


def seen_by_the_server(record: RunRecord) -> RunRecord:
    """The record as it is; but the flow of a deployment fails with a run that is incomplete.

    Whoever gives a command reads the record. Of what a server started, people see the state of the flow.

    Raises
    ------
    IncompleteRun
        If partitions are missing and a server started the flow.
    """
    if record.status == Status.INCOMPLETE and deployment.id is not None:
        raise IncompleteRun(
            f"run {record.run_id} is incomplete: {len(record.failed)} of {record.partitions} partitions are "
            f"missing, among them {', '.join(list(record.failed)[:5])}; start it again to try them again"
        )
    return record


# Prefect would hash the whole plan for a cache that nobody asks.
@task(name="plan", cache_policy=NO_CACHE)
def plan_task(config: RunConfig, region: str | None, check: bool) -> Plan:
    """Find out what has to be done."""
    plan = make_plan(config, parse_region(region) if region is not None else None, check=check)
    log = get_run_logger()
    log.info(
        "run %s: %d of %d partitions to do, %d to link (%s)",
        plan.run_id,
        len(plan.to_do),
        len(plan.entries),
        len(plan.to_link),
        ", ".join(f"{count} {state}" for state, count in plan.states().items()),
    )
    for remark in plan.remarks:
        log.warning(remark)
    return plan


@task(name="run", cache_policy=NO_CACHE)
def run_task(plan: Plan, config: RunConfig) -> None:
    """Work on the partitions; one task owns the engine (a task each would cost more than the work)."""
    survey_run.begin(plan, config)
    failed: list[dict[str, str]] = []
    rows = 0
    for receipt in with_progress(survey_run.execute(plan, config), len(plan.to_do)):
        rows += receipt.rows_out
        if receipt.status == "failed":
            failed.append({"partition": receipt.partition, "error": receipt.attempts[-1].error or ""})
            get_run_logger().warning("partition %s failed: %s", receipt.partition, failed[-1]["error"])
    get_run_logger().info("%d rows in %d partitions written", rows, len(plan.to_do) - len(failed))
    if failed:
        create_table_artifact(table=failed, key="failed-partitions", description="Partitions that failed")


@task(name="finalise", cache_policy=NO_CACHE)
def finalise_task(plan: Plan, config: RunConfig) -> None:
    """Write metadata and provenance."""
    survey_run.make_catalogues(plan, config)


@task(name="quality", cache_policy=NO_CACHE)
def quality_task(plan: Plan, config: RunConfig) -> RunRecord:
    """Ask the quality gates, write report and checksums, and end the run."""
    record = survey_run.assess(plan, config)
    lines = [
        f"run `{record.run_id}` is **{record.status}**",
        f"{record.rows_out:,} of {record.rows_in:,} rows in {record.partitions:,} partitions",
    ]
    lines += [f"failed: {', '.join(record.failed)}"] if record.failed else []
    create_markdown_artifact("\n\n".join(lines), key="run-record", description="What became of the run")
    gates = read_gates(run_folder(UPath(config.out), plan.run_id)).gates
    create_table_artifact(
        table=[{"gate": gate.name, "outcome": gate.outcome, "found": gate.text} for gate in gates],
        key="quality-gates",
        description="Quality gates; one that fails keeps the run from being published",
    )
    return record


@task(name="publish", cache_policy=NO_CACHE)
def publish_task(plan: Plan, config: RunConfig) -> None:
    """Point the collection at the run."""
    survey_run.publish(plan, config)


def with_progress(receipts: Iterator[Receipt], total: int) -> Iterator[Receipt]:
    """Pass receipts on, with a progress artifact in Prefect and, on a terminal, a bar."""
    artifact = cast(UUID | None, create_progress_artifact(progress=0.0, description="partitions done"))
    step = max(1, total // PROGRESS_STEPS)
    console = Console(file=sys.stderr)
    columns = (TextColumn("partitions"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        shown = bar.add_task("partitions", total=total)
        for count, receipt in enumerate(receipts, start=1):
            bar.advance(shown)
            if artifact is not None and (count % step == 0 or count == total):
                try:
                    update_progress_artifact(artifact, progress=100.0 * count / total)
                except httpx.TransportError as problem:
                    # The partitions are worth more than their count: what was begun is done without it.
                    get_run_logger().warning("Prefect's server is not told of progress any more: %s", problem)
                    artifact = None
            yield receipt
