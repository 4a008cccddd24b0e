"""The plan of a run: which partitions have to be worked on, and why. Planning writes nothing."""

from __future__ import annotations

import datetime
import secrets
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from upath import UPath

from ojala.catalogs_schema.receipt import Fingerprint
from ojala.pipeline.inference.model_spec import ModelSpec, require_device
from ojala.pipeline.runs.config import RunConfig
from ojala.pipeline.runs.receipts import Known, load_partition_status
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
from ojala.pipeline.runs.releases import ReleaseError, published_run, was_published
from ojala.pipeline.storage.files import FileStat, list_files
from ojala.pipeline.storage.hats import CatalogueError, read_leaves, read_names
from ojala.pipeline.storage.healpix import Partition

DONE = "done"

REPROCESS = "reprocess"
"""State of a partition that is done again because its region was asked for."""

_CHANGED = {
    "input_sha256": "input",
    "weights_sha256": "weights",
    "config_sha256": "configuration",
    "code_version": "code",
    "contract_version": "contract",
}
"""Ingredient -> what is said of a partition when it differs, after ``stale:``."""

Action = Literal["keep", "link", "work", "leave"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One partition in a plan.

    Attributes
    ----------
    partition : Partition
        Which.
    rows : int
        Rows of its photometry leaf.
    ingredients : Ingredients
        What its numbers depend on if it is worked on now.
    state : str
        How what there is compares with what is asked: ``done``, ``missing``, ``failed``, ``damaged``,
        ``stale: ...`` or ``reprocess``.
    action : str
        ``keep``: it lies in the run; ``link``: its leaves are taken from the run's base; ``work``: it is to
        do; ``leave``: it is neither there nor asked for.
    """

    partition: Partition
    rows: int
    ingredients: Fingerprint
    state: str
    action: Action


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do.

    Attributes
    ----------
    run_id : str
        The run that the results belong to.
    resumes : bool
        Whether that run exists.
    entries : tuple of Entry
        All partitions of the photometry, in order of the sky.
    base : str or None
        Run from which whole leaves are linked.
    region : str or None
        The part of the sky that is done again, as it was given; None for a run over all of it.
    remarks : tuple of str
        What a person should know before it starts.
    """

    run_id: str
    resumes: bool
    entries: tuple[Entry, ...]
    base: str | None = None
    region: str | None = None
    remarks: tuple[str, ...] = ()

    @property
    def to_do(self) -> list[Entry]:
        """The partitions that have to be worked on."""
        return [entry for entry in self.entries if entry.action == "work"]

    @property
    def to_link(self) -> list[Entry]:
        """The partitions whose leaves are taken from the base."""
        return [entry for entry in self.entries if entry.action == "link"]

    @property
    def rows(self) -> int:
        """Rows in all partitions."""
        return sum(entry.rows for entry in self.entries)

    @property
    def rows_to_do(self) -> int:
        """Rows in the partitions that have to be worked on."""
        return sum(entry.rows for entry in self.to_do)

    def states(self) -> dict[str, int]:
        """Partitions per state."""
        return dict(Counter(entry.state for entry in self.entries))


@dataclass(frozen=True, slots=True)
class RunState:
    """What lies in a run's folder."""

    run: UPath
    files: dict[str, FileStat]
    known: dict[Partition, Known]
    record: RunRecord | None

    def state(self, partition: Partition, wanted: Fingerprint, products: tuple[str, ...], check: bool) -> str:
        """State of a partition against the fingerprint that it should have."""
        known = self.known.get(partition)
        if known is None:
            return "missing"
        if known.status != "done":
            return known.status
        if known.ingredients is None:
            return "damaged"
        if known.key != wanted.key():
            have, want = known.ingredients.model_dump(), wanted.model_dump()
            return "stale: " + ", ".join(text for name, text in _CHANGED.items() if have[name] != want[name])
        return DONE if self.whole(partition, products, check) else "damaged"

    def whole(self, partition: Partition, products: tuple[str, ...], check: bool) -> bool:
        """Whether a done partition has the leaves of these products, and they are as they were written."""
        known = self.known.get(partition)
        return (
            known is not None
            and known.status == DONE
            and tuple(leaf.product for leaf in known.leaves) == products
            and known.whole(self.run, self.files, check=check)
        )


def make_plan(config: RunConfig, region: Region | None = None, *, check: bool = False) -> Plan:
    """Compare what is asked for with what there is.

    Without a region an unfinished run is resumed. A finished run that holds all that is asked for is left
    as it is, and the plan has nothing to do; otherwise a new run is planned, since a finished run is never
    written to. Whatever the latest run has under the same key is linked and not done again.

    With a region the published run is done again where the region touches it, in a new run; everything
    else is linked as it is, also where its key is not that of today.

    Parameters
    ----------
    config : RunConfig
        What is asked for.
    region : Region, optional
        The part of the sky to do again.
    check : bool
        Read every leaf and compare its SHA-256, where otherwise size and time of change are trusted.

    Raises
    ------
    CatalogueError
        If there is no catalogue to read, or the second one was not made for the first.
    RegionError
        If the region touches nothing.
    ReleaseError
        If there is nothing to reprocess.
    """
    wanted = _wanted(config)
    if region is None:
        return _plan_all(config, wanted, check)
    return _plan_region(config, wanted, region, check)


def _wanted(config: RunConfig) -> dict[Partition, tuple[int, Fingerprint]]:
    weights_sha256 = config.spec().read_assets()[0].sha256
    code_version = config.adapter.code_version
    config_sha256 = config.numbers_sha256()
    contracts = " ".join(f"{name} {contract.version}" for name, contract in config.contracts().items())
    return {
        partition: (
            rows,
            Fingerprint(
                input_sha256=sha256,
                weights_sha256=weights_sha256,
                config_sha256=config_sha256,
                code_version=code_version,
                contract_version=contracts,
            ),
        )
        for partition, (rows, sha256) in _inputs(config).items()
    }


def _inputs(config: RunConfig) -> dict[Partition, tuple[int, str]]:
    """Rows of each partition and the hashes of the leaves that are read for it, of one or two catalogues."""
    leaves = read_leaves(UPath(config.source))
    if config.auxiliary is None or config.adapter.auxiliary is None:
        return {partition: (leaf.rows, leaf.sha256) for partition, leaf in leaves.items()}
    beside, contract = UPath(config.auxiliary), config.adapter.auxiliary
    others = read_leaves(beside)
    if missing := sorted(set(contract.names) - read_names(beside)):
        raise CatalogueError(f"{beside} is no catalogue of {contract.name}: it has no column {missing[0]}")
    if apart := sorted(leaves.keys() ^ others.keys()):
        raise CatalogueError(
            f"{beside} has other partitions than {config.source}: {apart[0].name} is in one of them only. "
            f"The right one is made by: ojala cutouts IMAGES --objects {config.source} --out FOLDER"
        )
    return {p: (leaf.rows, f"{leaf.sha256} {others[p].sha256}") for p, leaf in leaves.items()}


def _plan_all(config: RunConfig, wanted: dict[Partition, tuple[int, Fingerprint]], check: bool) -> Plan:
    out = UPath(config.out)
    latest = _latest(out, config.products[0])
    if latest is None:
        entries = tuple(Entry(p, rows, i, "missing", "work") for p, (rows, i) in wanted.items())
        return Plan(_new_run_id(out), False, entries)
    run, record, remarks = latest
    held = _held(run, record, wanted)
    states = {p: held.state(p, i, config.products, check) for p, (_, i) in wanted.items()}
    ended = record is not None and record.status in ENDED
    if ended and record is not None and record.status == Status.COMPLETE and set(states.values()) == {DONE}:
        entries = tuple(Entry(p, rows, i, DONE, "keep") for p, (rows, i) in wanted.items())
        return Plan(run.name, True, entries, record.base, remarks=remarks)
    if ended or record is None or was_published(out, run.name):
        entries = tuple(
            Entry(p, rows, i, states[p], "link" if states[p] == DONE else "work")
            for p, (rows, i) in wanted.items()
        )
        return Plan(_new_run_id(out), False, entries, base=run.name, remarks=remarks)
    base = _base_of(out, record, wanted)
    found = []
    for p, (rows, i) in wanted.items():
        state = states[p]
        action: Action = "keep" if state == DONE else "work"
        if state != DONE and base is not None and base.state(p, i, config.products, check) == DONE:
            state, action = DONE, "link"
        found.append(Entry(p, rows, i, state, action))
    return Plan(run.name, True, tuple(found), base=record.base, remarks=remarks)


def _plan_region(
    config: RunConfig, wanted: dict[Partition, tuple[int, Fingerprint]], region: Region, check: bool
) -> Plan:
    out, products = UPath(config.out), config.products
    run = published_run(out, products[0])
    record = read_record(run)
    if record.products and record.products != products:
        raise ReleaseError(
            f"run {run.name} has {', '.join(record.products)}, asked for are {', '.join(products)}: give or "
            "leave out --vectors and --head as it was there"
        )
    if {name: record.contract(name) for name in products} != config.contracts():
        names = ", ".join(head.name for head in record.heads)
        raise ReleaseError(
            f"the heads of run {run.name} ({names}) have other columns than those asked for: a region cannot "
            "have columns of its own, run the whole catalogue"
        )
    if record.atlas_sha256 != config.atlas_sha256():
        raise ReleaseError(
            f"run {run.name} was placed in another atlas than asked for: a region cannot have clusters and "
            "maps of its own, run the whole catalogue"
        )
    base = _held(run, record, wanted)
    touched = region.touched(wanted, base.known)
    begun = _begun(out, products[0], run.name, region.text)
    mine = _held(begun, read_record(begun), wanted) if begun is not None else None
    entries, other, absent = [], 0, 0
    for p, (rows, i) in wanted.items():
        state = base.state(p, i, products, check)
        action: Action
        if p in touched:
            own = mine is not None and mine.state(p, i, products, check) == DONE
            own = own and mine is not None and mine.known[p].run_id == mine.run.name
            state, action = (DONE, "keep") if own else (REPROCESS, "work")
        elif mine is not None and mine.whole(p, products, check):
            action = "keep"
        elif base.whole(p, products, check):
            action = "link"
        else:
            action, absent = "leave", absent + 1
        other += state.startswith("stale") and action in ("keep", "link")
        entries.append(Entry(p, rows, i, state, action))
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
    return Plan(run_id, begun is not None, tuple(entries), run.name, region.text, tuple(remarks))


def _latest(out: UPath, product: str) -> tuple[UPath, RunRecord | None, tuple[str, ...]] | None:
    """The run of a product to go on with: an unfinished one over all of the sky, else the last that ended.

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
    """The run that was started last for this region of this base, unless it was published."""
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
        return _held(base, read_record(base), wanted)
    except RecordError:
        return _held(base, None, wanted)


def _held(run: UPath, record: RunRecord | None, wanted: Mapping[Partition, object]) -> RunState:
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


def rows_per_second(plan: Plan, config: RunConfig) -> float:
    """Rows a second that all workers together can be expected to do.

    Taken from the record of the latest run with the same model where there is one, else measured by
    asking the model about one batch twice; 0 if that is not known.
    """
    for run in reversed(find_runs(UPath(config.out))):
        try:
            record = read_record(run)
        except RecordError:
            continue
        if record.rows_per_worker_second and record.config.get("model") == config.model:
            return record.rows_per_worker_second * config.workers
    try:
        require_device(config.device)
    except ValueError:
        return 0.0  # the workers have such a device, this machine has none
    return measure_rate(config.spec())


def measure_rate(spec: ModelSpec) -> float:
    """Rows a second of the bare model in this process."""
    adapter, model = spec.adapter, spec.load()
    rows = adapter.example(spec.batch_size)
    adapter.predict(model, rows)
    begin = time.perf_counter()
    adapter.predict(model, rows)
    return spec.batch_size / (time.perf_counter() - begin)
