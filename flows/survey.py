"""Prefect flows that make releases: a run over a survey, and the reprocessing of a region.

Both plan, run, finalise, assess and publish; they differ in the plan. A lock restricts each product of a
collection to one flow at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal, cast
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
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.events import emit_event
from prefect.runtime import deployment, flow_run
from prefect.states import Failed
from prefect.utilities.annotations import quote
from pydantic import WithJsonSchema

from ojala.catalogs_schema.errors import OjalaError
from ojala.catalogs_schema.receipt import Receipt
from ojala.flows.terminal import progress_bar
from ojala.pipeline import run as survey_run
from ojala.pipeline.execution.clusters import ClusterError
from ojala.pipeline.runs.config import RunConfig
from ojala.pipeline.runs.gates import GateError, read_gates
from ojala.pipeline.runs.plan import Plan
from ojala.pipeline.runs.record import GATES, RunRecord, Status
from ojala.pipeline.runs.resolved import ResolvedRun, resolve_run
from ojala.pipeline.storage.files import OutputError
from ojala.pipeline.storage.lock import LockedError
from ojala.pipeline.storage.progress import listening


def parameter(kind: Literal["string", "boolean", "integer"], description: str) -> WithJsonSchema:
    """Type and description of a flow's parameter, for `typing.Annotated`.

    Prefect reads descriptions from docstrings of another style and overwrites those of pydantic's fields, but
    keeps those of a JSON schema.
    """
    return WithJsonSchema({"type": kind, "description": description})


INCOMPLETE, REFUSED = "Incomplete", "Refused"
"""Names of the states of flow runs that end without some partitions, or that a quality gate refuses."""

PUBLISHED = "ojala.release.published"
"""Event of a release that was published."""

PROGRESS_STEPS = 50
"""Most updates of the progress artifact in a run; each is a request to the server."""


Region = Annotated[
    str,
    parameter(
        "string",
        "cone:RA,DEC,RADIUS, box:RA1,RA2,DEC1,DEC2, polygon:RA,DEC;..., moc:FILE, tiles:5/1234,..., flagged "
        "or flagged:NAME>0.1; angles in degrees",
    ),
]
Publish = Annotated[
    bool, parameter("boolean", "point the collection at the run when it is complete and its gates allow it")
]
Check = Annotated[bool, parameter("boolean", "read every existing leaf, not only size and time of change")]


@flow(name="survey")
def survey(config: RunConfig, publish: Publish = True, check: Check = False) -> RunRecord | State[Any]:
    """Run a model over a photometry catalogue and publish the value-added catalogue.

    An interrupted run is resumed; partitions that a finished run has under the same key are linked. A run
    with failed partitions ends incomplete and is not published; starting it again retries these.

    Parameters
    ----------
    config : RunConfig
        Settings of the run.
    publish : bool
        Whether to point the collection at the run when it is complete and its quality gates allow it.
    check : bool
        Whether to read every existing leaf; otherwise its size and time of change are trusted.

    Returns
    -------
    RunRecord
        Record of the run.
    """
    return make_release(config, None, publish, check)


@flow(name="reprocess")
def reprocess(config: RunConfig, region: Region, publish: Publish = True) -> RunRecord | State[Any]:
    """Reprocess a region of the published release and publish the result.

    The result is a new run: partitions outside the region are linked unchanged, with their own provenance.

    Parameters
    ----------
    config : RunConfig
        Settings of the run.
    region : str
        The region: `cone:RA,DEC,RADIUS`, `box:RA1,RA2,DEC1,DEC2`, `polygon:RA,DEC;...`, `moc:FILE`,
        `tiles:5/1234,...`, `flagged` or `flagged:NAME>0.1`; angles in degrees.
    publish : bool
        Whether to point the collection at the run when it is complete and its quality gates allow it.

    Returns
    -------
    RunRecord
        Record of the run.
    """
    return make_release(config, region, publish, check=False)


def make_release(config: RunConfig, region: str | None, publish: bool, check: bool) -> RunRecord | State[Any]:
    """Make a release within a flow, whose log shows its messages."""
    logger = get_run_logger()
    try:
        with listening(lambda text: logger.info("%s", text)):
            record = survey_run.make_release(
                resolve_run(config), region, publish=publish, check=check, steps=_TrackedSteps()
            )
    except OjalaError as problem:
        return raise_or_fail(problem)
    return outcome(record)


class _TrackedSteps(survey_run.Steps):
    """Steps as tasks of the flow. Without `quote` Prefect searches all fields for futures before a task."""

    def plan(self, run: ResolvedRun, region: str | None, check: bool) -> Plan:
        plan = plan_task(cast(ResolvedRun, quote(run)), region, check)
        with _shown("the name of the run"), get_client(sync_client=True) as client:
            client.update_flow_run(UUID(str(flow_run.id)), name=plan.run_id)
        return plan

    def execute(self, plan: Plan) -> None:
        run_task(cast(Plan, quote(plan)))

    def finalise(self, plan: Plan) -> RunRecord:
        return finalise_task(cast(Plan, quote(plan)))

    def assess(self, plan: Plan) -> RunRecord:
        return quality_task(cast(Plan, quote(plan)))

    def publish(self, plan: Plan) -> None:
        publish_task(cast(Plan, quote(plan)))


def raise_or_fail(problem: OjalaError) -> State[Any]:
    """Failed state of a deployment's flow run; elsewhere the problem is raised, for the command line."""
    if deployment.id is None:
        raise problem
    return failure(problem)


def failure(problem: OjalaError) -> State[Any]:
    """Failed state of a deployment's flow run, with the entry of the runbook."""
    entry = next((name for kind, name in _ENTRIES if isinstance(problem, kind)), "Failed")
    return _failed(REFUSED if entry == REFUSED else "Failed", str(problem), entry)


def _failed(name: str, message: str, entry: str) -> State[Any]:
    return Failed(name=name, message=f"{message}. See deploy/RUNBOOK.md, {entry}.")


_ENTRIES: tuple[tuple[type[OjalaError], str], ...] = (
    (GateError, REFUSED),
    (LockedError, "Locked"),
    (OutputError, "Disk full"),
    (ClusterError, "Workers do not come"),
)
"""Errors and the headings of ``deploy/RUNBOOK.md``."""


def outcome(record: RunRecord) -> RunRecord | State[Any]:
    """The record of a run; for an incomplete run of a deployment a failed state, which people see there."""
    if record.status != Status.INCOMPLETE or deployment.id is None:
        return record
    return _failed(
        INCOMPLETE,
        f"run {record.run_id} is incomplete: {len(record.failed)} of {record.partitions} partitions are "
        f"missing, among them {', '.join(list(record.failed)[:5])}; start it again to retry them",
        INCOMPLETE,
    )


_STEPS = survey_run.Steps()


# With a cache policy Prefect hashes the whole plan.
@task(name="plan", cache_policy=NO_CACHE)
def plan_task(resolved: ResolvedRun, region: str | None, check: bool) -> Plan:
    """Plan the run."""
    return _STEPS.plan(resolved, region, check)


@task(name="run", cache_policy=NO_CACHE)
def run_task(plan: Plan) -> None:
    """Process the partitions; one task owns the engine, as a task for each costs more than its work."""
    failed: list[dict[str, str]] = []
    rows = 0
    for receipt in with_progress(survey_run.execute(plan), len(plan.to_do)):
        rows += receipt.rows_out
        if receipt.status == "failed":
            failed.append({"partition": receipt.partition, "error": receipt.attempts[-1].error or ""})
            get_run_logger().warning("partition %s failed: %s", receipt.partition, failed[-1]["error"])
    get_run_logger().info("%d rows in %d partitions written", rows, len(plan.to_do) - len(failed))
    if failed:
        with _shown("the table of failed partitions"):
            create_table_artifact(table=failed, key="failed-partitions", description="Partitions that failed")


@task(name="finalise", cache_policy=NO_CACHE)
def finalise_task(plan: Plan) -> RunRecord:
    """Write catalogues, provenance and record, which ends the run."""
    return _STEPS.finalise(plan)


@task(name="quality", cache_policy=NO_CACHE)
def quality_task(plan: Plan) -> RunRecord:
    """Evaluate the quality gates, write report and checksums."""
    record = _STEPS.assess(plan)
    lines = [
        f"run `{record.run_id}` is **{record.status}**",
        f"{record.rows_out:,} of {record.rows_in:,} rows in {record.partitions:,} partitions",
    ]
    lines += [f"failed: {', '.join(record.failed)}"] if record.failed else []
    lines += [f"{step} failed: {problem}" for step, problem in record.problems.items()]
    with _shown("the outcome of the run"):
        create_markdown_artifact("\n\n".join(lines), key="run-record", description="Outcome of the run")
    if GATES in record.problems:
        return record
    gates = read_gates(plan.folder).gates
    with _shown("the table of quality gates"):
        create_table_artifact(
            table=[{"gate": gate.name, "outcome": gate.outcome, "value": gate.text} for gate in gates],
            key="quality-gates",
            description="Quality gates; a run with a failed gate is not published",
        )
    return record


@task(name="publish", cache_policy=NO_CACHE)
def publish_task(plan: Plan) -> None:
    """Point the collection at the run."""
    _STEPS.publish(plan)
    emit_event(PUBLISHED, resource={"prefect.resource.id": f"ojala.run.{plan.run_id}"})


@contextmanager
def _shown(what: str) -> Iterator[None]:
    """Send Prefect's server something to show; if it does not take it, warn and continue."""
    try:
        yield
    except httpx.HTTPError as problem:
        get_run_logger().warning("Prefect's server does not show %s; the run continues: %s", what, problem)


def with_progress(receipts: Iterator[Receipt], total: int) -> Iterator[Receipt]:
    """Yield the receipts, with a progress artifact in Prefect and, on a terminal, a progress bar."""
    artifact: UUID | None = None
    with _shown("the progress"):
        artifact = cast(UUID, create_progress_artifact(progress=0.0, description="partitions done"))
    step = max(1, total // PROGRESS_STEPS)
    for count, receipt in enumerate(progress_bar(receipts, total), start=1):
        if artifact is not None and (count % step == 0 or count == total):
            sent, artifact = artifact, None
            with _shown("further progress"):
                update_progress_artifact(sent, progress=100.0 * count / total)
                artifact = sent
        yield receipt
