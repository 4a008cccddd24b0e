"""Plan of a run: which partitions have to be processed, and why. Planning writes nothing."""

from __future__ import annotations

import datetime
import secrets
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from upath import UPath

from ojala.catalogs_schema.receipt import Fingerprint
from ojala.pipeline.inference.adapters.base import ModelError
from ojala.pipeline.inference.model_spec import ModelSpec, require_device
from ojala.pipeline.runs.coverage import find_loss
from ojala.pipeline.runs.diff import CAUSES
from ojala.pipeline.runs.gates import read_gates
from ojala.pipeline.runs.receipts import PartitionStatus, load_partition_status
from ojala.pipeline.runs.record import (
    ENDED,
    RecordError,
    RunRecord,
    Status,
    find_runs,
    read_record,
    run_folder,
)
from ojala.pipeline.runs.region import Region
from ojala.pipeline.runs.releases import ReleaseError, pointers, published_run, was_published
from ojala.pipeline.runs.resolved import ResolvedRun
from ojala.pipeline.storage.files import FileStat, list_files
from ojala.pipeline.storage.hats import CatalogueError, check_foreign, read_leaves, read_names
from ojala.pipeline.storage.healpix import Partition

DONE = "done"

REPROCESS = "reprocess"
"""State of a partition that is processed again because it lies in the region to reprocess."""

Action = Literal["keep", "link", "work", "skip"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One partition in a plan.

    Attributes
    ----------
    partition : Partition
        Part of the sky.
    rows : int
        Rows of its input.
    fingerprint : Fingerprint
        Everything that its numbers depend on if it is processed now.
    state : str
        Comparison of the files with the request: ``done``, ``missing``, ``failed``, ``damaged``,
        ``stale: ...`` or ``reprocess``.
    action : str
        ``keep``: its leaves lie in the run; ``link``: its leaves are linked from the run's base; ``work``: it
        is processed; ``skip``: it has no leaves and is not processed.
    """

    partition: Partition
    rows: int
    fingerprint: Fingerprint
    state: str
    action: Action


@dataclass(frozen=True, slots=True)
class Plan:
    """Work of a run.

    Attributes
    ----------
    resolved : ResolvedRun
        Resolved configuration of the run.
    run_id : str
        The run that the results belong to.
    resumes : bool
        Whether that run exists.
    entries : tuple of Entry
        All partitions of the input, in order of the sky.
    base : str or None
        Run from which intact leaves are linked.
    region : str or None
        Region to reprocess, as it was given; None for a run over all of the sky.
    remarks : tuple of str
        Remarks for the user before it starts.
    """

    resolved: ResolvedRun
    run_id: str
    resumes: bool
    entries: tuple[Entry, ...]
    base: str | None = None
    region: str | None = None
    remarks: tuple[str, ...] = ()

    @property
    def folder(self) -> UPath:
        """Folder of the run."""
        return self.resolved.folder(self.run_id)

    @property
    def to_do(self) -> list[Entry]:
        """Partitions to process."""
        return [entry for entry in self.entries if entry.action == "work"]

    @property
    def to_link(self) -> list[Entry]:
        """Partitions whose leaves are linked from the base."""
        return [entry for entry in self.entries if entry.action == "link"]

    @property
    def rows(self) -> int:
        """Rows in all partitions."""
        return sum(entry.rows for entry in self.entries)

    @property
    def rows_to_do(self) -> int:
        """Rows of the partitions to process."""
        return sum(entry.rows for entry in self.to_do)

    def states(self) -> dict[str, int]:
        """Partitions per state."""
        return dict(Counter(entry.state for entry in self.entries))


@dataclass(frozen=True, slots=True)
class RunState:
    """Files and partitions of a run's folder."""

    run: UPath
    files: dict[str, FileStat]
    partitions: dict[Partition, PartitionStatus]
    record: RunRecord | None

    def state(self, partition: Partition, wanted: Fingerprint, products: tuple[str, ...], check: bool) -> str:
        """State of a partition against the fingerprint that it should have."""
        status = self.partitions.get(partition)
        if status is None:
            return "missing"
        if status.status != "done":
            return status.status
        if status.fingerprint is None:
            return "damaged"
        if status.key != wanted.key():
            have, want = status.fingerprint.model_dump(), wanted.model_dump()
            return "stale: " + ", ".join(text for name, text in CAUSES.items() if have[name] != want[name])
        return DONE if self.is_intact(partition, products, check) else "damaged"

    def is_intact(self, partition: Partition, products: tuple[str, ...], check: bool) -> bool:
        """Whether a done partition has the leaves of these products, unchanged since they were written."""
        status = self.partitions.get(partition)
        return (
            status is not None
            and status.status == DONE
            and tuple(leaf.product for leaf in status.leaves) == products
            and status.is_intact(self.run, self.files, check=check)
        )


Inputs = dict[Partition, tuple[int, Fingerprint]]
"""Rows and fingerprint of each partition of the input."""


def make_plan(resolved: ResolvedRun, region: Region | None = None, *, check: bool = False) -> Plan:
    """Compare the request with the files of earlier runs.

    Without a region an unfinished run is resumed. A finished run that has everything requested is kept as it
    is, and the plan has nothing to do; otherwise a new run is planned, since a finished run is never written
    to. Partitions of the latest run with the same key are linked and not processed again.

    With a region the published run is processed again where the region touches it, in a new run; everything
    else is linked as it is, also where its key is another one today.

    Parameters
    ----------
    resolved : ResolvedRun
        Resolved configuration of the run.
    region : Region, optional
        Region to reprocess.
    check : bool
        Read every leaf and compare its SHA-256, where otherwise size and time of change are trusted.

    Raises
    ------
    CatalogueError
        If there is no input catalogue, or the auxiliary one was not made for it.
    RegionError
        If the region touches nothing.
    ReleaseError
        If there is nothing to reprocess.
    """
    inputs = read_inputs(resolved)
    wanted = {p: (rows, resolved.fingerprint(sha256)) for p, (rows, sha256) in inputs.items()}
    plan = (
        _plan_all(resolved, wanted, check)
        if region is None
        else _plan_region(resolved, wanted, region, check)
    )
    return replace(plan, remarks=(*plan.remarks, *_losses(resolved)))


def _losses(resolved: ResolvedRun) -> list[str]:
    """A remark where the input has lost rows of the published release, so that a gate will refuse the run."""
    published = pointers(resolved.out).get(resolved.products[0])
    if published is None:
        return []
    try:
        loss = find_loss(resolved.folder(published), resolved.source)
    except (OSError, ValueError):
        return []  # damage of the release does not concern the plan; the gate reports it
    if loss.share <= resolved.config.gates.of("coverage")[1]:
        return []
    return [
        f"the run will not be published, the gate coverage refuses it: {loss.text}. {resolved.source} has to "
        f"hold the whole survey; new rows are added to a catalogue with `ojala ingest --add FILE... --to "
        f"{loss.source}`"
    ]


def read_inputs(resolved: ResolvedRun) -> dict[Partition, tuple[int, str]]:
    """Rows of each partition and the SHA-256 of its leaf, of both leaves with an auxiliary catalogue.

    Raises
    ------
    CatalogueError
        If there is no input catalogue, or the auxiliary one was not made for it.
    """
    source, auxiliary, contract = resolved.source, resolved.auxiliary, resolved.adapter.auxiliary
    leaves = read_leaves(source)
    check_foreign(source, resolved.adapter.reads, resolved.adapter.columns)
    if auxiliary is None or contract is None:
        return {partition: (leaf.rows, leaf.sha256) for partition, leaf in leaves.items()}
    others = read_leaves(auxiliary)
    if missing := sorted(set(contract.names) - read_names(auxiliary)):
        raise CatalogueError(f"{auxiliary} is no catalogue of {contract.name}: it has no column {missing[0]}")
    if different := sorted(leaves.keys() ^ others.keys()):
        raise CatalogueError(
            f"{auxiliary} has other partitions than {source}: {different[0].name} is in one of them only. "
            f"The right one is made by: ojala {contract.name} IMAGES --objects {source} --out FOLDER"
        )
    return {p: (leaf.rows, f"{leaf.sha256} {others[p].sha256}") for p, leaf in leaves.items()}


def _plan_all(resolved: ResolvedRun, wanted: Inputs, check: bool) -> Plan:
    out, products = resolved.out, resolved.products
    latest = _latest(out, products[0])
    if latest is None:
        entries = tuple(Entry(p, rows, key, "missing", "work") for p, (rows, key) in wanted.items())
        return Plan(resolved, _new_run_id(out), False, entries)
    run, record, remarks = latest
    check = check or _has_damaged_leaves(run)
    current = _run_state(run, record, wanted)
    states = {p: current.state(p, key, products, check) for p, (_, key) in wanted.items()}
    ended = record is not None and record.status in ENDED
    if record is not None and record.status == Status.COMPLETE and set(states.values()) == {DONE}:
        entries = tuple(Entry(p, rows, key, DONE, "keep") for p, (rows, key) in wanted.items())
        return Plan(resolved, run.name, True, entries, record.base, remarks=remarks)
    if ended or record is None or was_published(out, run.name):
        entries = tuple(
            Entry(p, rows, key, states[p], "link" if states[p] == DONE else "work")
            for p, (rows, key) in wanted.items()
        )
        return Plan(resolved, _new_run_id(out), False, entries, base=run.name, remarks=remarks)
    base = _base_of(out, record, wanted)
    entries_of_both = []
    for p, (rows, key) in wanted.items():
        state = states[p]
        action: Action = "keep" if state == DONE else "work"
        if state != DONE and base is not None and base.state(p, key, products, check) == DONE:
            state, action = DONE, "link"
        entries_of_both.append(Entry(p, rows, key, state, action))
    return Plan(resolved, run.name, True, tuple(entries_of_both), base=record.base, remarks=remarks)


def _has_damaged_leaves(run: UPath) -> bool:
    """Whether a gate found leaves that differ from their receipts, so that none is trusted unread."""
    try:
        return read_gates(run).outcomes().get("checksums") == "fail"
    except (FileNotFoundError, ValueError):
        return False


def _plan_region(resolved: ResolvedRun, wanted: Inputs, region: Region, check: bool) -> Plan:
    out, products = resolved.out, resolved.products
    run = published_run(out, products[0])
    record = read_record(run)
    _check_same_columns(resolved, record)
    base = _run_state(run, record, wanted)
    touched = region.touched(wanted, base.partitions)
    begun = _begun(out, products[0], run.name, region.text)
    own = _run_state(begun, read_record(begun), wanted) if begun is not None else None
    entries, other, absent = [], 0, 0
    for p, (rows, key) in wanted.items():
        state = base.state(p, key, products, check)
        action: Action
        if p in touched:
            done = own is not None and own.state(p, key, products, check) == DONE
            done = done and own is not None and own.partitions[p].run_id == own.run.name
            state, action = (DONE, "keep") if done else (REPROCESS, "work")
        elif own is not None and own.is_intact(p, products, check):
            action = "keep"
        elif base.is_intact(p, products, check):
            action = "link"
        else:
            action, absent = "skip", absent + 1
        other += state.startswith("stale") and action in ("keep", "link")
        entries.append(Entry(p, rows, key, state, action))
    remarks = []
    if other:
        remarks.append(
            f"{other:,} partitions outside of the region were made from something else than what is asked "
            "for now; they are kept as they are"
        )
    if absent:
        remarks.append(
            f"{absent:,} partitions outside of the region are not whole in run {run.name}; without them the "
            "new run is incomplete"
        )
    run_id = begun.name if begun is not None else _new_run_id(out)
    return Plan(resolved, run_id, begun is not None, tuple(entries), run.name, region.text, tuple(remarks))


def _check_same_columns(resolved: ResolvedRun, record: RunRecord) -> None:
    """Refuse to reprocess a region with other products, columns or files than the rest of the run has."""
    run_id = record.run_id
    if record.products and record.products != resolved.products:
        raise ReleaseError(
            f"run {run_id} has {', '.join(record.products)}, asked for are {', '.join(resolved.products)}: "
            "give or leave out --vectors, --bands and --head as it was there"
        )
    if tuple(record.contract(product) for product in record.products or ()) != resolved.contracts:
        names = ", ".join(head.name for head in record.heads)
        raise ReleaseError(
            f"the heads of run {run_id} ({names}) have other columns than those asked for: a region cannot "
            "have columns of its own, run the whole catalogue"
        )
    for role in sorted(resolved.adapter.accepts - {"heads"}):
        if record.assets.get(role) != resolved.assets.get(role):
            raise ReleaseError(
                f"run {run_id} was made with another {role} than asked for: its columns would mean something "
                "else in the region, run the whole catalogue"
            )


def _latest(out: UPath, product: str) -> tuple[UPath, RunRecord | None, tuple[str, ...]] | None:
    """Run of a product to continue: an unfinished one over all of the sky, else the last that ended.

    Its record is None if it cannot be read; then a remark says so.
    """
    ended = None
    for run in reversed(find_runs(out)):
        try:
            record = read_record(run)
        except RecordError as problem:
            if ended is None and (run / product).exists():
                return run, None, (str(problem),)
            continue
        if record.main != product:
            continue
        if record.status not in ENDED and record.region is None:
            return run, record, ()
        if record.status in ENDED:
            ended = ended or (run, record, ())
            if record.region is None:
                break
    return ended


def _begun(out: UPath, product: str, base: str, region: str) -> UPath | None:
    """Run that was started last for this region of this base, unless it was published."""
    for run in reversed(find_runs(out)):
        try:
            record = read_record(run)
        except RecordError:
            continue
        if (record.main, record.base, record.region) == (product, base, region):
            return None if record.status == Status.PARTIAL or was_published(out, run.name) else run
    return None


def _base_of(out: UPath, record: RunRecord, wanted: Mapping[Partition, object]) -> RunState | None:
    if record.base is None:
        return None
    base = run_folder(out, record.base)
    if not base.exists():
        return None
    try:
        return _run_state(base, read_record(base), wanted)
    except RecordError:
        return _run_state(base, None, wanted)


def _run_state(run: UPath, record: RunRecord | None, wanted: Mapping[Partition, object]) -> RunState:
    files = list_files(run)
    ended = record is not None and record.status != Status.RUNNING
    return RunState(run, files, load_partition_status(run, wanted.keys(), files, ended=ended), record)


def _new_run_id(out: UPath) -> str:
    """A name that sorts behind all others, also when the clock was set back."""
    now = datetime.datetime.now(datetime.UTC)
    runs = find_runs(out)
    if runs:
        try:
            last = datetime.datetime.strptime(runs[-1].name[:16], _STAMP).replace(tzinfo=datetime.UTC)
            now = max(now, last + datetime.timedelta(seconds=1))
        except ValueError:
            pass  # a run that somebody named differently
    return f"{now.strftime(_STAMP)}-{secrets.token_hex(2)}"


_STAMP = "%Y%m%dT%H%M%SZ"


def rows_per_second(plan: Plan) -> float:
    """Estimate the rows per second of all workers together.

    From the record of the latest run with the same model where there is one, else measured by predicting one
    batch twice; 0 if this machine cannot measure it.
    """
    config = plan.resolved.config
    for run in reversed(find_runs(plan.resolved.out)):
        try:
            record = read_record(run)
        except RecordError:
            continue
        if record.rows_per_worker_second and record.config.get("model") == config.model:
            return record.rows_per_worker_second * config.workers
    try:
        require_device(config.device)
    except ModelError:
        return 0.0  # the workers have such a device, this machine has none
    return measure_rate(plan.resolved.spec)


def measure_rate(spec: ModelSpec) -> float:
    """Rows per second of the bare model in this process."""
    adapter, model = spec.adapter, spec.load()
    rows = adapter.example(spec.batch_size)
    adapter.predict(model, rows)
    begin = time.perf_counter()
    adapter.predict(model, rows)
    return spec.batch_size / (time.perf_counter() - begin)
