"""A run: work on the planned partitions, make a catalogue of them, judge it and publish it."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import dask
import numpy as np
from upath import UPath

from ojala.catalogs_schema.receipt import Fingerprint, Receipt
from ojala.pipeline.execution import RetryPolicy, run_tasks
from ojala.pipeline.inference.process import Task
from ojala.pipeline.quality.gates import GateReport, judge, read_gates, refuse, write_gates
from ojala.pipeline.report import RunFacts, write_report
from ojala.pipeline.runs.config import RunConfig
from ojala.pipeline.runs.plan import DONE, Entry, Plan
from ojala.pipeline.runs.provenance import write_checksums, write_provenance
from ojala.pipeline.runs.receipts import all_receipts, read_receipts, worker_rate, write_receipts_table
from ojala.pipeline.runs.record import ENDED, RunRecord, Status, read_record, run_folder, write_record
from ojala.pipeline.runs.region import coverage
from ojala.pipeline.runs.releases import (
    ReleaseError,
    check_ended,
    pointers,
    turn,
    was_published,
    was_rolled_back,
)
from ojala.pipeline.runs.workspace import link, tidy
from ojala.pipeline.storage.code_version import package_versions
from ojala.pipeline.storage.files import list_files, utc_now, write_whole
from ojala.pipeline.storage.hats import (
    SKYMAP_ORDER,
    catalogue_name,
    finalise_catalogue,
    read_counts,
    read_leaves,
)
from ojala.pipeline.storage.healpix import Partition
from ojala.pipeline.storage.lock import hold
from ojala.pipeline.storage.parquet import LeafRecord

MOC = "moc.fits"
"""Coverage of the partitions that are there."""

MISSING_MOC = "failed.moc.fits"
"""Coverage of those that are not, in a run that is not complete."""


def begin(plan: Plan, config: RunConfig) -> UPath:
    """Make the folder of a planned run, with its record and the leaves that it links, and return it.

    What does not belong to the plan is removed from the folder.

    Raises
    ------
    ReleaseError
        If the run is or was published, or has ended: it is never written to again.
    """
    out = UPath(config.out)
    run = run_folder(out, plan.run_id)
    started = utc_now()
    if plan.resumes:
        record = read_record(run)
        if record.status in ENDED or was_published(out, plan.run_id):
            raise ReleaseError(f"run {plan.run_id} has ended or was published and is not written to again")
        started = record.started
    elif list_files(run):
        raise ReleaseError(f"{run} is there already: a new run needs a new folder")
    record = RunRecord(
        run_id=plan.run_id,
        status=Status.RUNNING,
        started=started,
        config=config.to_record(),
        products=config.products,
        heads=config.finetuned_heads(),
        code_version=config.adapter.code_version,
        packages=package_versions(),
        weights_sha256=config.spec().read_assets()[0].sha256,
        atlas_sha256=config.atlas_sha256(),
        base=plan.base,
        region=plan.region,
        partitions=len(plan.entries),
        rows_in=plan.rows,
    )
    write_record(run, record)
    tidy(run, plan, config.products)
    if plan.to_link and plan.base is not None:
        link(run_folder(out, plan.base), run, (entry.partition for entry in plan.to_link), config.products)
    return run


def execute(plan: Plan, config: RunConfig) -> Iterator[Receipt]:
    """Work on the partitions that are to do; yields a receipt as each one ends, in any order."""
    run = run_folder(UPath(config.out), plan.run_id)
    assets, heads = config.spec().read_assets(), config.finetuned_heads()
    metadata = {
        "ojala.run_id": plan.run_id,
        "ojala.code_version": config.adapter.code_version,
        "ojala.model": config.model,
        f"ojala.{config.adapter.reads.name}": catalogue_name(UPath(config.source)),
        **{f"ojala.{asset.role}": asset.sha256 for asset in assets[1:]},
    }
    if config.auxiliary is not None and config.adapter.auxiliary is not None:
        metadata[f"ojala.{config.adapter.auxiliary.name}"] = catalogue_name(UPath(config.auxiliary))
    tasks = [
        Task(
            partition=entry.partition,
            adapter=config.adapter,
            source=config.source,
            run=str(run),
            rows=entry.rows,
            fingerprint=entry.ingredients,
            products=config.products,
            heads=heads,
            auxiliary=config.auxiliary or "",
            metadata=(
                *metadata.items(),
                ("ojala.partition", entry.partition.name),
                ("ojala.key", entry.ingredients.key()),
                *((f"ojala.{name}", value) for name, value in entry.ingredients.model_dump().items()),
            ),
        )
        for entry in plan.to_do
    ]
    if not tasks:
        return
    retries = RetryPolicy(config.attempts, config.partition_seconds)
    # The hashes that stand in the leaves are the plan's: workers refuse any other files.
    planned = {"weights": plan.to_do[0].ingredients.weights_sha256}
    wanted = {asset.role: asset.sha256 for asset in assets} | planned
    spec = replace(config.spec(), assets=tuple(wanted.items()))
    with dask.config.set({"scheduler-address": config.scheduler} if config.scheduler else {}):
        yield from run_tasks(tasks, spec, engine=config.engine, workers=config.workers, retries=retries)


def make_catalogues(plan: Plan, config: RunConfig, *, partial: bool = False) -> None:
    """Make catalogues of the leaves of a run, with their coverage and provenance.

    Of a run with a failed or missing partition no catalogue is made, unless a partial one is wanted.
    """
    run = run_folder(UPath(config.out), plan.run_id)
    receipts = _sound_receipts(run, plan, config)
    record = _outcome(plan, config, receipts, partial)
    photometry = UPath(config.source)
    done = [Partition.parse(receipt.partition) for receipt in receipts if receipt.status == "done"]
    missing = [Partition.parse(name) for name in record.failed]
    for name, partitions in ((MOC, done), (MISSING_MOC, missing)):
        if partitions:
            content = io.BytesIO()
            coverage(partitions).serialize("fits").writeto(content)
            write_whole(run / name, content.getvalue())
    if record.status in ENDED:
        _finalise_catalogues(run, record, receipts, photometry, missing)
    contracts = {product: record.contract(product) for product in record.products}
    write_provenance(run, record, config.source, contracts, receipts)
    write_receipts_table(run, receipts)


def assess(plan: Plan, config: RunConfig, *, partial: bool = False) -> RunRecord:
    """Ask the quality gates, write report and checksums, and with the record end the run.

    Returns
    -------
    RunRecord
        The record as written: ``complete``, ``partial`` or ``incomplete``.
    """
    out = UPath(config.out)
    run = run_folder(out, plan.run_id)
    receipts = all_receipts(run)
    record = _outcome(plan, config, receipts, partial)
    rows = {entry.partition.name: entry.rows for entry in plan.entries}
    gates = judge(run, record, receipts, rows, config.gates, _published(out, record), partial=partial)
    write_gates(run, gates)
    truth = UPath(config.truth) if config.truth else None
    write_report(run, UPath(config.source), receipts, _facts(record, config), truth, gates)
    write_checksums(run, receipts)
    write_record(run, record)
    return record


def finalise(plan: Plan, config: RunConfig, *, partial: bool = False) -> RunRecord:
    """Make the catalogues of a run and judge them: `make_catalogues`, then `assess`."""
    make_catalogues(plan, config, partial=partial)
    return assess(plan, config, partial=partial)


def publish(plan: Plan, config: RunConfig) -> GateReport:
    """Point the collection at a run that has just ended.

    Raises
    ------
    ReleaseError
        If it is not complete, or a rollback led away from it.
    GateError
        If its quality does not allow it.
    """
    out = UPath(config.out)
    if was_rolled_back(out, plan.run_id):
        raise ReleaseError(
            f"run {plan.run_id} was rolled back and is not published again by itself: "
            f"ojala publish {plan.run_id}"
        )
    return publish_run(out, plan.run_id)


def publish_run(
    out: UPath, run_id: str, *, forced: Collection[str] = (), partial: bool = False, again: bool = False
) -> GateReport:
    """Point a collection at a run, if its quality gates allow it.

    Parameters
    ----------
    out : UPath
        Root of the collection.
    run_id : str
        The run.
    forced : collection of str
        Gates that may fail.
    partial : bool
        Publish an incomplete run without the partitions that are missing. It is ended by that.
    again : bool
        Judge the run anew from its files, and not only if the published release is another one than that
        with which it was compared when it ended.

    Returns
    -------
    GateReport
        What decided.

    Raises
    ------
    ReleaseError
        If the run cannot be published.
    GateError
        If its quality does not allow it.
    """
    run = run_folder(out, run_id)
    record = read_record(run)
    if record.status == Status.INCOMPLETE and partial:
        with hold(out, record.main) as lock:
            lock.tell(run_id)
            record = _end_partial(run)
    check_ended(record)
    report = _report_for(out, run, record, again)
    refuse(report, forced)
    overruled = [gate.name for gate in report.failed() if gate.name in forced]
    turn(out, record, gates=report.outcomes(), forced=overruled)
    return report


def _report_for(out: UPath, run: UPath, record: RunRecord, again: bool) -> GateReport:
    present = pointers(out).get(record.main)
    if not again:
        report = read_gates(run)
        if present in (report.against, run.name):
            return report
    config = RunConfig.from_record(record.config)
    leaves = read_leaves(UPath(config.source))
    rows = {partition.name: leaf.rows for partition, leaf in leaves.items()}
    return judge(
        run,
        record,
        all_receipts(run),
        rows,
        config.gates,
        _published(out, record),
        partial=record.status == Status.PARTIAL,
    )


def _end_partial(run: UPath) -> RunRecord:
    """End an incomplete run without what is missing."""
    record = read_record(run)
    if record.status != Status.INCOMPLETE:
        return record
    config = RunConfig.from_record(record.config)
    known = {receipt.partition: receipt for receipt in all_receipts(run) if receipt.status == "done"}
    entries = []
    for partition, leaf in read_leaves(UPath(config.source)).items():
        receipt = known.get(partition.name)
        ingredients = receipt.ingredients if receipt else _UNKNOWN
        entries.append(
            Entry(
                partition,
                leaf.rows,
                ingredients,
                DONE if receipt else "missing",
                "keep" if receipt else "leave",
            )
        )
    plan = Plan(run.name, True, tuple(entries), record.base, record.region)
    return finalise(plan, config, partial=True)


_UNKNOWN = Fingerprint(
    input_sha256="", weights_sha256="", config_sha256="", code_version="", contract_version=""
)


def _sound_receipts(run: UPath, plan: Plan, config: RunConfig) -> list[Receipt]:
    """Receipts of the plan's partitions; one that does not fit its plan or its leaves counts as lost."""
    files = list_files(run)
    entries = {entry.partition.name: entry for entry in plan.entries}
    sound = []
    for receipt in read_receipts(run, [entry.partition for entry in plan.entries]):
        entry = entries[receipt.partition]
        fits = (entry.state != DONE and entry.action != "work") or receipt.key == entry.ingredients.key()
        paths = [f"{product}/{entry.partition.leaf}" for product in config.products]
        whole = [leaf.path for leaf in receipt.leaves] == paths and all(
            leaf.path in files and files[leaf.path].bytes == leaf.bytes for leaf in receipt.leaves
        )
        if fits and (whole or receipt.status == "failed"):
            sound.append(receipt)
    return sound


def _outcome(plan: Plan, config: RunConfig, receipts: Sequence[Receipt], partial: bool) -> RunRecord:
    """The record of a run that ends with these receipts."""
    run = run_folder(UPath(config.out), plan.run_id)
    done = {receipt.partition: receipt for receipt in receipts if receipt.status == "done"}
    errors = {receipt.partition: receipt.attempts[-1].error for receipt in receipts}
    names = [entry.partition.name for entry in plan.entries if entry.partition.name not in done]
    failed = {name: errors.get(name) or "not worked on" for name in names}
    own = [receipt for receipt in done.values() if receipt.run_id == plan.run_id]
    ended = Status.PARTIAL if partial else Status.INCOMPLETE
    return read_record(run).model_copy(
        update={
            "status": ended if failed else Status.COMPLETE,
            "ended": utc_now(),
            "failed": failed,
            "linked": len(done) - len(own),
            "model": next((receipt.model for receipt in own or receipts), config.model),
            "rows_out": sum(receipt.rows_out for receipt in done.values()),
            "bytes": sum(leaf.bytes for receipt in done.values() for leaf in receipt.leaves),
            "mixture": _mixture(list(done.values())),
            "rows_per_worker_second": worker_rate(own or list(done.values())),
        }
    )


def _mixture(done: Sequence[Receipt]) -> dict[str, dict[str, int]]:
    names = [name for name in Fingerprint.model_fields if name != "input_sha256"]
    counts = {name: Counter(getattr(receipt.ingredients, name) for receipt in done) for name in names}
    return {name: dict(values) for name, values in counts.items() if len(values) > 1}


def _published(out: UPath, record: RunRecord) -> tuple[UPath, list[Receipt]] | None:
    """The release that readers have now of the run's product, unless it is the run itself."""
    run_id = pointers(out).get(record.main)
    if run_id is None or run_id == record.run_id:
        return None
    run = run_folder(out, run_id)
    return run, all_receipts(run)


def _finalise_catalogues(
    run: UPath,
    record: RunRecord,
    receipts: Sequence[Receipt],
    photometry: UPath,
    missing: Sequence[Partition],
) -> None:
    weights = record.mixture.get("weights_sha256", {record.weights_sha256: 0})
    extra = {
        "hats_creation_date": record.ended or "",
        "prov_progenitor": " ".join(filter(None, (str(photometry), record.beside))),
        "ojala_run_id": record.run_id,
        "ojala_weights_sha256": " ".join(sorted(weights)),
    }
    skymap = _without(read_counts(photometry), missing, photometry)
    for product in record.products:
        leaves = {
            Partition.parse(receipt.partition): LeafRecord(leaf.path, leaf.rows, leaf.bytes, leaf.sha256)
            for receipt in receipts
            if receipt.status == "done"
            for leaf in receipt.leaves
            if leaf.product == product
        }
        contract, partial = record.contract(product), dict[str, str]()
        if missing:
            partial = {
                "obs_description": f"{contract.description} Partial: {len(missing):,} partitions of "
                f"the photometry are missing, see {MISSING_MOC}.",
                "ojala_missing_partitions": str(len(missing)),
            }
        finalise_catalogue(
            run / product, contract, leaves, name=product, skymap=skymap, extra=extra | partial
        )


def _without(counts: np.ndarray, missing: Sequence[Partition], photometry: UPath) -> np.ndarray:
    """The map of row counts without the rows of missing partitions."""
    if not missing:
        return counts
    counts = counts.copy()
    rows = read_leaves(photometry)
    for partition in missing:
        shift = 2 * (SKYMAP_ORDER - partition.order)
        if shift >= 0:
            counts[partition.pixel << shift : (partition.pixel + 1) << shift] = 0
        else:
            counts[partition.pixel >> -shift] -= rows[partition].rows
    return counts


def _facts(record: RunRecord, config: RunConfig) -> RunFacts:
    origin = ""
    if record.region is not None:
        origin = f"region {record.region} of run {record.base} done again; "
    if record.linked:
        origin += f"{record.linked:,} of {record.partitions:,} partitions linked as earlier runs made them"
    return RunFacts(
        run_id=record.run_id,
        product=config.products[0],
        source=config.source,
        reads=config.adapter.reads.name,
        beside=config.auxiliary or "",
        atlas_sha256=record.atlas_sha256,
        started=record.started,
        ended=record.ended or "",
        engine=config.engine,
        workers=config.workers,
        device=config.spec().device,
        model=record.model,
        weights_sha256=record.weights_sha256,
        code_version=record.code_version,
        contract_version=config.adapter.main.version,
        versions=record.packages,
        config={name: str(value) for name, value in record.config.items()},
        origin=origin,
    )
