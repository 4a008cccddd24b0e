"""Life of a run: begin, execute, make catalogues, assess, publish."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import nullcontext, suppress
from datetime import datetime

from upath import UPath

from ojala.catalogs_schema.errors import OjalaError, access_errors
from ojala.catalogs_schema.receipt import Fingerprint, Receipt
from ojala.catalogs_schema.urls import redact
from ojala.pipeline.execution import RetryPolicy, prepare_engine, run_tasks
from ojala.pipeline.inference.adapters.base import WEIGHTS
from ojala.pipeline.inference.process import Task
from ojala.pipeline.runs.catalogues import make_catalogues
from ojala.pipeline.runs.diff import write_difference
from ojala.pipeline.runs.gates import (
    GATES_FILE,
    GateError,
    GateReport,
    RunEvidence,
    evaluate_gates,
    raise_for_failed,
    read_gates,
    write_gates,
)
from ojala.pipeline.runs.plan import DONE, Entry, Plan, make_plan, read_inputs
from ojala.pipeline.runs.provenance import write_checksums
from ojala.pipeline.runs.receipts import all_receipts
from ojala.pipeline.runs.record import (
    CHECKSUMS,
    ENDED,
    GATES,
    MARGINS,
    REPORT,
    RunRecord,
    Status,
    read_record,
    run_folder,
    write_record,
)
from ojala.pipeline.runs.releases import (
    ReleaseError,
    check_ended,
    check_name,
    pointers,
    set_published,
    was_published,
    was_rolled_back,
)
from ojala.pipeline.runs.resolved import ResolvedRun
from ojala.pipeline.runs.supplemental import write_supplemental
from ojala.pipeline.runs.workspace import link_from, prune
from ojala.pipeline.storage.code_version import package_versions
from ojala.pipeline.storage.files import list_files, remove_unfinished, sha256_of, utc_now
from ojala.pipeline.storage.hats import (
    catalogue_name,
    read_leaves,
)
from ojala.pipeline.storage.healpix import Partition
from ojala.pipeline.storage.lock import hold
from ojala.pipeline.storage.progress import RUN_LOG, log_to, report

_log = logging.getLogger(__name__)


def begin(plan: Plan) -> UPath:
    """Make the folder of a planned run, with its record and the leaves that it links, and return it.

    Files that do not belong to the plan are removed from the folder.

    Raises
    ------
    ReleaseError
        If the run is or was published, or has ended: it is never written to again.
    """
    run, folder = plan.resolved, plan.folder
    started = utc_now()
    if plan.resumes:
        record = read_record(folder)
        if record.status in ENDED or was_published(run.out, plan.run_id):
            raise ReleaseError(f"run {plan.run_id} has ended or was published and is not written to again")
        started = record.started
    elif list_files(folder):
        raise ReleaseError(f"{folder} is there already: a new run needs a new folder")
    record = RunRecord(
        run_id=plan.run_id,
        status=Status.RUNNING,
        started=started,
        config=run.config.to_record(),
        config_sha256=run.config_sha256,
        products=run.products,
        heads=run.heads,
        code_version=run.code_version,
        packages=package_versions(),
        weights_sha256=run.weights_sha256,
        assets={role: sha256 for role, sha256 in run.assets.items() if role != WEIGHTS},
        base=plan.base,
        region=plan.region,
        partitions=len(plan.entries),
        rows_in=plan.rows,
    )
    write_record(folder, record)
    prune(plan)
    if plan.to_link and plan.base is not None:
        partitions = (entry.partition for entry in plan.to_link)
        link_from(run.folder(plan.base), folder, partitions, run.products)
    return folder


class Steps:
    """The steps of a release; a workflow manager overrides them to track each."""

    def plan(self, run: ResolvedRun, region: str | None, check: bool) -> Plan:
        """Plan the run, over all of the sky or a region of it."""
        if region is None:
            return make_plan(run, check=check)
        from ojala.pipeline.runs.region import parse_region

        return make_plan(run, parse_region(region, run.adapter.flags), check=check)

    def execute(self, plan: Plan) -> None:
        """Process the partitions."""
        for _ in execute(plan):
            pass

    def finalise(self, plan: Plan) -> RunRecord:
        """Write catalogues, provenance and record, which ends the run."""
        return make_catalogues(plan)

    def assess(self, plan: Plan) -> RunRecord:
        """Evaluate the quality gates, write report and checksums."""
        return assess(plan.resolved, plan.run_id)

    def publish(self, plan: Plan) -> None:
        """Point the collection at the run."""
        publish(plan, assessed=True)


def make_release(
    run: ResolvedRun,
    region: str | None = None,
    *,
    publish: bool = True,
    check: bool = False,
    steps: Steps | None = None,
) -> RunRecord:
    """Plan, execute, finalise, assess and publish a run; continue one that was interrupted.

    A lock restricts each product of a collection to one release at a time. Progress is logged, also into
    `run_log.RUN_LOG` of the run's folder.

    Parameters
    ----------
    run : ResolvedRun
        Resolved configuration.
    region : str, optional
        Region of the published release to reprocess; default: a run over all of the sky.
    publish : bool
        Whether to publish the run when it is complete and its quality gates allow it.
    check : bool
        Whether to read every existing leaf; otherwise its size and time of change are trusted.
    steps : Steps, optional
        The steps; default: in this process, untracked.

    Raises
    ------
    OjalaError
        If the request cannot be met; what is done is kept.
    """
    steps = steps or Steps()
    prepare_engine(run.config.engine, run.spec)
    report("planning")
    with hold(run.out, run.products[0]) as lock:
        plan = steps.plan(run, region, check)
        lock.tell(plan.run_id)
        record = ended_record(plan)
        if record is None:
            begin(plan)
        at_work = record is None or needs_assessment(plan, record)
        with log_to(plan.folder / RUN_LOG) if at_work else nullcontext():
            _report_plan(plan)
            if record is None:
                steps.execute(plan)
                lock.check()
                report("making the catalogues")
                record = steps.finalise(plan)
                lock.check()
            if needs_assessment(plan, record):
                record = steps.assess(plan)
        if publish and record.status == Status.COMPLETE:
            report(f"publishing run {plan.run_id}")
            steps.publish(plan)
    return record


def _report_plan(plan: Plan) -> None:
    states = ", ".join(f"{count:,} {state}" for state, count in plan.states().items())
    report(
        f"run {plan.run_id}: {len(plan.to_do):,} of {len(plan.entries):,} partitions to do, "
        f"{len(plan.to_link):,} to link ({states})"
    )
    for remark in plan.remarks:
        _log.warning(remark)


def ended_record(plan: Plan) -> RunRecord | None:
    """Record of a planned run that has ended already, with nothing left to do; None of any other."""
    record = read_record(plan.folder) if plan.resumes else None
    return record if record is not None and record.status in ENDED else None


def needs_assessment(plan: Plan, record: RunRecord) -> bool:
    """Whether the assessment of a run is pending or has failed, and may be repeated."""
    return bool(record.problems) and not was_published(plan.resolved.out, plan.run_id)


def execute(plan: Plan) -> Iterator[Receipt]:
    """Process the partitions of a plan; yields a receipt as each one ends, in any order."""
    run, config, adapter = plan.resolved, plan.resolved.config, plan.resolved.adapter
    metadata = {
        "ojala.run_id": plan.run_id,
        "ojala.code_version": run.code_version,
        "ojala.model": config.model,
        **config.publication.words(),
        f"ojala.{adapter.reads.name}": catalogue_name(run.source),
        **{f"ojala.{role}": sha256 for role, sha256 in run.assets.items() if role != WEIGHTS},
    }
    if run.auxiliary is not None and adapter.auxiliary is not None:
        metadata[f"ojala.{adapter.auxiliary.name}"] = catalogue_name(run.auxiliary)
    tasks = [
        Task(
            partition=entry.partition,
            adapter=adapter,
            source=config.source,
            run=str(plan.folder),
            rows=entry.rows,
            fingerprint=entry.fingerprint,
            products=run.products,
            heads=run.heads,
            auxiliary=config.auxiliary or "",
            metadata=(
                *metadata.items(),
                ("ojala.partition", entry.partition.name),
                ("ojala.key", entry.fingerprint.key()),
                *((f"ojala.{name}", value) for name, value in entry.fingerprint.model_dump().items()),
            ),
        )
        for entry in plan.to_do
    ]
    if not tasks:
        return
    retries = RetryPolicy(config.attempts, config.partition_seconds)
    yield from run_tasks(
        tasks,
        run.spec,
        engine=config.engine,
        workers=config.workers,
        retries=retries,
        scheduler=config.scheduler,
    )


def assess(run: ResolvedRun, run_id: str) -> RunRecord:
    """Evaluate the quality gates of a run that has ended, make its margins, write report and checksums.

    A step that fails does not touch the run: it is named, with its error, in the record's ``problems``.

    Parameters
    ----------
    run : ResolvedRun
        Resolved configuration of the run.
    run_id : str
        The run.

    Returns
    -------
    RunRecord
        The record as written.
    """
    folder = run.folder(run_id)
    remove_unfinished(folder)
    record, receipts = read_record(folder), all_receipts(folder)
    problems: dict[str, str] = {}

    def attempt(step: str, work: Callable[[], None]) -> None:
        try:
            with access_errors():
                work()
        except Exception as problem:  # noqa: BLE001 - the run is whole, whatever its assessment meets
            problems[step] = redact(f"{type(problem).__name__}: {problem}")
            fault = not isinstance(problem, OjalaError)
            _log.error("run %s: %s failed: %s", run_id, step, problem, exc_info=fault)

    report("evaluating the quality gates")
    attempt(GATES, lambda: _judge(run, record, receipts))
    gates = None if problems else read_gates(folder)
    attempt(MARGINS, lambda: _write_supplemental(run, record))
    if gates is not None and gates.failed():
        problems.pop(MARGINS, None)  # of leaves that a gate has found damaged
    report("writing report and checksums")
    attempt(REPORT, lambda: write_report(run, record, receipts, gates))
    attempt(CHECKSUMS, lambda: write_checksums(folder, receipts))
    record = record.model_copy(update={"problems": problems})
    write_record(folder, record)
    return record


def write_report(
    run: ResolvedRun, record: RunRecord, receipts: Sequence[Receipt], gates: GateReport | None
) -> None:
    """Write the report of a run, see `ojala.pipeline.report`; what draws it takes seconds to import."""
    from ojala.pipeline.report import write_report as write

    write(run, record, receipts, gates)


def _write_supplemental(run: ResolvedRun, record: RunRecord) -> None:
    names = dict.fromkeys([*filter(None, [record.base]), *pointers(run.out).values()])
    earlier = [run.folder(name) for name in names if name != record.run_id]
    write_supplemental(run, record, earlier, run.config.publication.words())


def finalise(plan: Plan, *, partial: bool = False) -> RunRecord:
    """End and assess a run: `make_catalogues`, then `assess`."""
    make_catalogues(plan, partial=partial)
    return assess(plan.resolved, plan.run_id)


def publish(plan: Plan, *, assessed: bool = False) -> GateReport:
    """Point the collection at a run that has just ended.

    Parameters
    ----------
    plan : Plan
        Its plan.
    assessed : bool
        Whether the caller has just assessed the run, under its lock; else what failed is repeated.

    Raises
    ------
    ReleaseError
        If it is not complete, or was rolled back.
    GateError
        If its quality does not allow it.
    """
    out = plan.resolved.out
    if was_rolled_back(out, plan.run_id):
        raise ReleaseError(
            f"run {plan.run_id} was rolled back and is not published again by itself: "
            f"ojala publish {plan.run_id}"
        )
    return publish_run(out, plan.run_id, assessed=assessed)


def publish_run(
    out: UPath,
    run_id: str,
    *,
    name: str | None = None,
    forced: Collection[str] = (),
    partial: bool = False,
    again: bool = False,
    assessed: bool = False,
) -> GateReport:
    """Point a collection at a run, if its quality gates allow it.

    Parameters
    ----------
    out : UPath
        Root of the collection.
    run_id : str
        The run.
    name : str, optional
        Name of the release, such as ``DR1``; it belongs to the run for ever.
    forced : collection of str
        Gates that may fail.
    partial : bool
        End an incomplete run without its missing partitions, and publish it.
    again : bool
        Evaluate the gates again, and not only if another release is published now than at the end of the
        run.
    assessed : bool
        Whether the caller has just assessed the run, under its lock; else what failed is repeated.

    Returns
    -------
    GateReport
        The gates that allowed it.

    Raises
    ------
    ReleaseError
        If the run cannot be published.
    GateError
        If its quality does not allow it.
    """
    folder = run_folder(out, run_id)
    record = read_record(folder)
    if name is not None:
        check_name(out, run_id, name)
    pending = record.status in ENDED and record.problems and not was_published(out, run_id)
    if (pending and not assessed) or (record.status == Status.INCOMPLETE and partial):
        with hold(out, record.main) as lock:
            lock.tell(run_id)
            record = _end_partial(folder)
    check_ended(record)
    gates = _report_for(out, folder, record, again)
    if gates.failed() and not was_published(out, run_id):
        write_gates(folder, gates)  # where leaves differ, the next plan trusts none of them unread
        write_checksums(folder, all_receipts(folder))
    raise_for_failed(gates, forced, out)
    overruled = [gate.name for gate in gates.failed() if gate.name in forced]
    set_published(out, record, gates=gates.outcomes(), forced=overruled, name=name)
    return gates


def _report_for(out: UPath, folder: UPath, record: RunRecord, again: bool) -> GateReport:
    if not again:
        try:
            gates = read_gates(folder)
        except FileNotFoundError:
            raise GateError(
                f"run {record.run_id} has lost {GATES_FILE}: evaluate it with ojala publish {record.run_id} "
                f"--out {out}"
            ) from None
        if pointers(out).get(record.main) in (gates.against, folder.name):
            return gates
    return _evaluate(ResolvedRun.from_record(record), record, all_receipts(folder))


def _judge(run: ResolvedRun, record: RunRecord, receipts: Sequence[Receipt]) -> None:
    """Evaluate the gates of a run that has just ended, and keep them with its difference to the release."""
    evidence = _evidence(run, record, receipts)
    write_gates(evidence.run, evaluate_gates(evidence, run.config.gates))
    with suppress(OSError, ValueError):  # the gate states why it could not be compared
        if (difference := evidence.difference) is not None:
            write_difference(evidence.run, difference)


def _evaluate(run: ResolvedRun, record: RunRecord, receipts: Sequence[Receipt]) -> GateReport:
    return evaluate_gates(_evidence(run, record, receipts), run.config.gates)


def _evidence(run: ResolvedRun, record: RunRecord, receipts: Sequence[Receipt]) -> RunEvidence:
    inputs = read_inputs(run)
    rows = {partition.name: rows for partition, (rows, _) in inputs.items()}
    hashes = {partition.name: sha256 for partition, (_, sha256) in inputs.items()}
    hashes |= _rehash_changed(run, receipts)
    published = pointers(run.out).get(record.main)
    against = None
    if published is not None and published != record.run_id:
        folder = run.folder(published)
        against = folder, all_receipts(folder)
    return RunEvidence(run.folder(record.run_id), record, receipts, rows, hashes, against)


def _rehash_changed(run: ResolvedRun, receipts: Sequence[Receipt]) -> dict[str, str]:
    """SHA-256 of the input of those partitions whose files changed after their last attempt began."""
    roots = [run.source, *([run.auxiliary] if run.auxiliary is not None else [])]
    listings = [list_files(root) for root in roots]
    hashes = {}
    for receipt in receipts:
        leaf = Partition.parse(receipt.partition).leaf
        begun = datetime.fromisoformat(receipt.attempts[-1].started).timestamp() * 1e9
        if any(leaf not in files or files[leaf].changed > begun for files in listings):
            here = [root / leaf for root, files in zip(roots, listings, strict=True) if leaf in files]
            hashes[receipt.partition] = " ".join(map(sha256_of, here))
    return hashes


def _end_partial(folder: UPath) -> RunRecord:
    """End an incomplete run without its missing partitions; assess one whose assessment is pending."""
    record = read_record(folder)
    run = ResolvedRun.from_record(record)
    if record.status == Status.INCOMPLETE:
        done = {receipt.partition: receipt for receipt in all_receipts(folder) if receipt.status == "done"}
        entries = tuple(
            Entry(partition, leaf.rows, done[partition.name].ingredients, DONE, "keep")
            if partition.name in done
            else Entry(partition, leaf.rows, _UNKNOWN, "missing", "skip")
            for partition, leaf in read_leaves(run.source).items()
        )
        make_catalogues(Plan(run, folder.name, True, entries, record.base, record.region), partial=True)
    return assess(run, folder.name)


_UNKNOWN = Fingerprint(
    input_sha256="", weights_sha256="", config_sha256="", code_version="", contract_version=""
)
