"""End of a run: record, catalogues of its leaves, coverage and provenance."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence

import numpy as np
from upath import UPath

from ojala.catalogs_schema.receipt import Fingerprint, Receipt
from ojala.pipeline.runs.plan import DONE, Plan
from ojala.pipeline.runs.provenance import write_provenance
from ojala.pipeline.runs.receipts import read_receipts, worker_rate, write_receipts_table
from ojala.pipeline.runs.record import (
    CHECKSUMS,
    ENDED,
    GATES,
    MARGINS,
    PENDING,
    REPORT,
    RunRecord,
    Status,
    read_record,
    write_record,
)
from ojala.pipeline.runs.resolved import ResolvedRun
from ojala.pipeline.storage.files import list_files, utc_now, write_whole
from ojala.pipeline.storage.hats import (
    SKYMAP_ORDER,
    finalise_catalogue,
    read_counts,
    read_leaves,
)
from ojala.pipeline.storage.healpix import Partition
from ojala.pipeline.storage.parquet import LeafRecord

MOC = "moc.fits"
"""Coverage of the partitions that are there."""

MISSING_MOC = "failed.moc.fits"
"""Coverage of the missing partitions of a run that is not complete."""


def make_catalogues(plan: Plan, *, partial: bool = False) -> RunRecord:
    """Make catalogues of the leaves of a run, with their coverage and provenance, and end the run.

    Of a run with a failed or missing partition no catalogue is made, unless a partial one is requested. The
    record with the state of the run is written last; `assess` may follow at any time.

    Returns
    -------
    RunRecord
        The record as written: ``complete``, ``partial`` or ``incomplete``, its assessment pending.
    """
    from ojala.pipeline.runs.region import coverage

    run, folder = plan.resolved, plan.folder
    receipts = _sound_receipts(plan)
    record = _outcome(plan, receipts, partial)
    done = [Partition.parse(receipt.partition) for receipt in receipts if receipt.status == "done"]
    missing = [Partition.parse(name) for name in record.failed]
    for name, partitions in ((MOC, done), (MISSING_MOC, missing)):
        if partitions:
            content = io.BytesIO()
            coverage(partitions).serialize("fits").writeto(content)
            write_whole(folder / name, content.getvalue())
    if record.status in ENDED:
        _finalise_catalogues(run, record, receipts, missing)
    write_provenance(run, record, receipts)
    write_receipts_table(folder, receipts)
    write_record(folder, record)
    return record


def _sound_receipts(plan: Plan) -> list[Receipt]:
    """Receipts of the plan's partitions, without those that do not fit the plan or their leaves."""
    files = list_files(plan.folder)
    entries = {entry.partition.name: entry for entry in plan.entries}
    sound = []
    for receipt in read_receipts(plan.folder, [entry.partition for entry in plan.entries]):
        entry = entries[receipt.partition]
        fits = (entry.state != DONE and entry.action != "work") or receipt.key == entry.fingerprint.key()
        paths = [f"{product}/{entry.partition.leaf}" for product in plan.resolved.products]
        intact = [leaf.path for leaf in receipt.leaves] == paths and all(
            leaf.path in files and files[leaf.path].bytes == leaf.bytes for leaf in receipt.leaves
        )
        if fits and (intact or receipt.status == "failed"):
            sound.append(receipt)
    return sound


def _outcome(plan: Plan, receipts: Sequence[Receipt], partial: bool) -> RunRecord:
    """Record of a run that ends with these receipts."""
    done = {receipt.partition: receipt for receipt in receipts if receipt.status == "done"}
    errors = {receipt.partition: receipt.attempts[-1].error for receipt in receipts}
    names = [entry.partition.name for entry in plan.entries if entry.partition.name not in done]
    failed = {name: errors.get(name) or "not worked on" for name in names}
    own = [receipt for receipt in done.values() if receipt.run_id == plan.run_id]
    ended = Status.PARTIAL if partial else Status.INCOMPLETE
    return read_record(plan.folder).model_copy(
        update={
            "status": ended if failed else Status.COMPLETE,
            "ended": utc_now(),
            "failed": failed,
            "linked": len(done) - len(own),
            "model": next((receipt.model for receipt in own or receipts), plan.resolved.config.model),
            "rows_out": sum(receipt.rows_out for receipt in done.values()),
            "bytes": sum(leaf.bytes for receipt in done.values() for leaf in receipt.leaves),
            "mixed_versions": _mixed_versions(list(done.values())),
            "rows_per_worker_second": worker_rate(own or list(done.values())),
            "problems": dict.fromkeys((GATES, MARGINS, REPORT, CHECKSUMS), PENDING),
        }
    )


def _mixed_versions(done: Sequence[Receipt]) -> dict[str, dict[str, int]]:
    names = [name for name in Fingerprint.model_fields if name != "input_sha256"]
    counts = {name: Counter(getattr(receipt.ingredients, name) for receipt in done) for name in names}
    return {name: dict(values) for name, values in counts.items() if len(values) > 1}


def _finalise_catalogues(
    run: ResolvedRun, record: RunRecord, receipts: Sequence[Receipt], missing: Sequence[Partition]
) -> None:
    weights = record.mixed_versions.get("weights_sha256", {record.weights_sha256: 0})
    extra = {
        "hats_creation_date": record.ended or "",
        "prov_progenitor": " ".join(str(root) for root in (run.source, run.auxiliary) if root),
        "ojala_run_id": record.run_id,
        "ojala_weights_sha256": " ".join(sorted(weights)),
        **run.config.publication.words(),
    }
    skymap = _without(read_counts(run.source), missing, run.source)
    for contract in run.contracts:
        product = contract.name
        leaves = {
            Partition.parse(receipt.partition): LeafRecord(leaf.path, leaf.rows, leaf.bytes, leaf.sha256)
            for receipt in receipts
            if receipt.status == "done"
            for leaf in receipt.leaves
            if leaf.product == product
        }
        partial = dict[str, str]()
        if missing:
            partial = {
                "obs_description": f"{contract.description} Partial: {len(missing):,} partitions of "
                f"the input are missing, see {MISSING_MOC}.",
                "ojala_missing_partitions": str(len(missing)),
            }
        root = run.folder(record.run_id) / product
        finalise_catalogue(root, contract, leaves, name=product, skymap=skymap, extra=extra | partial)


def _without(counts: np.ndarray, missing: Sequence[Partition], source: UPath) -> np.ndarray:
    """The map of row counts without the rows of missing partitions."""
    if not missing:
        return counts
    counts = counts.copy()
    rows = read_leaves(source)
    for partition in missing:
        shift = 2 * (SKYMAP_ORDER - partition.order)
        if shift >= 0:
            counts[partition.pixel << shift : (partition.pixel + 1) << shift] = 0
        else:
            counts[partition.pixel >> -shift] -= rows[partition].rows
    return counts
