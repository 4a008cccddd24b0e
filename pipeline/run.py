"""A run: work on the planned partitions, then make a catalogue of them and publish it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from upath import UPath

from catalogs_schema.receipt import Receipt
from pipeline.attempts import Limits
from pipeline.catalogue import catalogue_name, finalise_catalogue, read_counts, write_collection
from pipeline.config import RunConfig
from pipeline.engine import ENGINES
from pipeline.leaf import LeafRecord, remove_unfinished
from pipeline.partition import PRODUCTS, Task, receipt_path
from pipeline.plan import Plan
from pipeline.provenance import write_checksums, write_provenance
from pipeline.record import (
    RunRecord,
    Status,
    read_record,
    runs_folder,
    utc_now,
    worker_rate,
    write_record,
)
from pipeline.report import RunFacts, write_report
from pipeline.sky import Partition
from pipeline.versions import code_version, package_versions


def begin(plan: Plan, config: RunConfig) -> UPath:
    """Make the folder of a planned run, with its record, and return it."""
    run = runs_folder(UPath(config.out)) / plan.run_id
    started = read_record(run).started if plan.resumes else utc_now()
    remove_unfinished(run)
    record = RunRecord(
        run_id=plan.run_id,
        status=Status.RUNNING,
        started=started,
        config=config.model_dump(),
        code_version=code_version(),
        packages=package_versions(),
        weights_sha256=config.spec().weights_sha256(),
        partitions=len(plan.entries),
        rows_in=plan.rows,
    )
    write_record(run, record)
    return run


def execute(plan: Plan, config: RunConfig) -> Iterator[Receipt]:
    """Work on the partitions that are to do; yields a receipt as each one ends, in any order."""
    run = runs_folder(UPath(config.out)) / plan.run_id
    metadata = {
        "ojala.run_id": plan.run_id,
        "ojala.code_version": code_version(),
        "ojala.model": config.model,
        "ojala.photometry": catalogue_name(UPath(config.photometry)),
    }
    tasks = [
        Task(
            partition=entry.partition,
            photometry=config.photometry,
            run=str(run),
            rows=entry.rows,
            ingredients=entry.ingredients,
            products=config.products,
            metadata=(
                *metadata.items(),
                ("ojala.partition", entry.partition.name),
                ("ojala.key", entry.ingredients.key()),
                *((f"ojala.{name}", value) for name, value in entry.ingredients.model_dump().items()),
            ),
        )
        for entry in plan.to_do
    ]
    limits = Limits(config.attempts, config.partition_seconds)
    yield from ENGINES[config.engine](tasks, config.spec(), config.workers, limits)


def read_receipts(run: UPath, plan: Plan) -> list[Receipt]:
    """The receipts of all partitions of a plan that have one."""
    paths = (receipt_path(run, entry.partition) for entry in plan.entries)
    return [Receipt.model_validate_json(path.read_bytes()) for path in paths if path.exists()]


def finalise(plan: Plan, config: RunConfig) -> RunRecord:
    """Make catalogues of the leaves of a run, with provenance, report and checksums.

    A run with a failed or missing partition is recorded as incomplete, with a report, and its catalogues
    are not made.

    Returns
    -------
    RunRecord
        The record as written; its status is ``complete`` or ``incomplete``.
    """
    run = runs_folder(UPath(config.out)) / plan.run_id
    receipts = read_receipts(run, plan)
    done = {Partition.parse(receipt.partition) for receipt in receipts if receipt.status == "done"}
    errors = {receipt.partition: receipt.attempts[-1].error for receipt in receipts}
    names = [entry.partition.name for entry in plan.entries if entry.partition not in done]
    failed = {name: errors.get(name) or "not worked on" for name in names}
    record = read_record(run).model_copy(
        update={
            "status": Status.INCOMPLETE if failed else Status.COMPLETE,
            "ended": utc_now(),
            "failed": failed,
            "model": next((receipt.model for receipt in receipts), config.model),
            "rows_out": sum(receipt.rows_out for receipt in receipts),
            "rows_per_worker_second": worker_rate(receipts),
        }
    )
    photometry = UPath(config.photometry)
    products = {name: PRODUCTS[name] for name in config.products}
    if not failed:
        _finalise_catalogues(run, record, receipts, photometry, config.products)
    write_provenance(run, record, config.photometry, products, receipts)
    truth = UPath(config.truth) if config.truth else None
    write_report(run, photometry, receipts, _facts(record, config), truth)
    write_checksums(run, receipts)
    write_record(run, record)
    return record


def publish(plan: Plan, config: RunConfig) -> None:
    """Point the collection at a complete run."""
    out, photometry = UPath(config.out), UPath(config.photometry)
    run = runs_folder(out) / plan.run_id
    if read_record(run).status != Status.COMPLETE:
        raise ValueError(f"run {plan.run_id} is not complete and cannot be published")
    write_collection(
        out, photometry, {name: run / name for name in config.products}, name=catalogue_name(photometry)
    )


def _finalise_catalogues(
    run: UPath,
    record: RunRecord,
    receipts: Sequence[Receipt],
    photometry: UPath,
    products: Sequence[str],
) -> None:
    skymap = read_counts(photometry)
    for product in products:
        leaves = {
            Partition.parse(receipt.partition): LeafRecord(leaf.path, leaf.rows, leaf.bytes, leaf.sha256)
            for receipt in receipts
            for leaf in receipt.leaves
            if leaf.product == product
        }
        finalise_catalogue(
            run / product,
            PRODUCTS[product],
            leaves,
            name=product,
            skymap=skymap,
            extra={
                "hats_creation_date": record.ended or "",
                "prov_progenitor": str(photometry),
                "ojala_run_id": record.run_id,
                "ojala_weights_sha256": record.weights_sha256,
            },
        )


def _facts(record: RunRecord, config: RunConfig) -> RunFacts:
    return RunFacts(
        run_id=record.run_id,
        product=config.products[0],
        photometry=config.photometry,
        started=record.started,
        ended=record.ended or "",
        engine=config.engine,
        workers=config.workers,
        device=config.spec().device,
        model=record.model,
        weights_sha256=record.weights_sha256,
        code_version=record.code_version,
        contract_version=PRODUCTS[config.products[0]].version,
        versions=record.packages,
        config={name: str(value) for name, value in record.config.items()},
    )
