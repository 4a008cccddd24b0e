"""The Prefect flow of a run: plan, run, finalise, publish."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import cast
from uuid import UUID

from prefect import flow, get_run_logger, task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from upath import UPath

from catalogs_schema.receipt import Receipt
from pipeline import run as survey_run
from pipeline.config import RunConfig
from pipeline.plan import Plan, make_plan
from pipeline.record import RunRecord, Status, read_record, runs_folder

PROGRESS_STEPS = 50
"""Updates of the progress artifact per run; each is a request to the server."""


@task(name="plan")
def plan_task(config: RunConfig) -> Plan:
    """Find out what has to be done."""
    plan = make_plan(config)
    get_run_logger().info(
        "run %s: %d of %d partitions to do (%s)",
        plan.run_id,
        len(plan.to_do),
        len(plan.entries),
        ", ".join(f"{count} {state}" for state, count in plan.states().items()),
    )
    return plan


@task(name="run")
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


@task(name="finalise")
def finalise_task(plan: Plan, config: RunConfig) -> RunRecord:
    """Write metadata, provenance, report and checksums."""
    record = survey_run.finalise(plan, config)
    lines = [
        f"run `{record.run_id}` is **{record.status}**",
        f"{record.rows_out:,} of {record.rows_in:,} rows in {record.partitions:,} partitions",
    ]
    lines += [f"failed: {', '.join(record.failed)}"] if record.failed else []
    create_markdown_artifact("\n\n".join(lines), key="run-record", description="What became of the run")
    return record


@task(name="publish")
def publish_task(plan: Plan, config: RunConfig) -> None:
    """Point the collection at the run."""
    survey_run.publish(plan, config)


@flow(name="survey", validate_parameters=False)
def survey(config: RunConfig) -> RunRecord:
    """Run a model over a photometry catalogue and publish the value-added catalogue.

    A run with failed partitions ends incomplete and is not published; starting it again works on what is
    missing.

    Parameters
    ----------
    config : RunConfig
        What to do.

    Returns
    -------
    RunRecord
        What became of it.
    """
    plan = plan_task(config)
    if plan.to_do or not plan.resumes:
        run_task(plan, config)
    record = read_record(runs_folder(UPath(config.out)) / plan.run_id)
    if record.status != Status.COMPLETE:
        record = finalise_task(plan, config)
    if record.status == Status.COMPLETE:
        publish_task(plan, config)
    return record


def with_progress(receipts: Iterator[Receipt], total: int) -> Iterator[Receipt]:
    """Pass receipts on, with a progress artifact in Prefect and, on a terminal, a bar."""
    artifact = cast(UUID, create_progress_artifact(progress=0.0, description="partitions done"))
    step = max(1, total // PROGRESS_STEPS)
    console = Console(file=sys.stderr)
    columns = (TextColumn("partitions"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        shown = bar.add_task("partitions", total=total)
        for count, receipt in enumerate(receipts, start=1):
            bar.advance(shown)
            if count % step == 0 or count == total:
                update_progress_artifact(artifact, progress=100.0 * count / total)
            yield receipt
