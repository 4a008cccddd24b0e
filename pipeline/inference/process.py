"""One partition: read its rows, predict, derive, write its leaves and its receipt.

This is what runs on a worker. It takes paths and returns a small receipt.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import platform
import resource
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError
from upath import UPath

from ojala.catalogs_schema.finetuned import OWN_HEADS, FinetunedHead, own_heads_contract
from ojala.catalogs_schema.receipt import Attempt, Fingerprint, Leaf, Receipt, Summary
from ojala.pipeline.inference.adapters.base import ConcurrentModel, Inputs, Model, System
from ojala.pipeline.inference.adapters.registry import ADAPTERS, PRODUCTS
from ojala.pipeline.inference.failures import Cause, cause_of
from ojala.pipeline.inference.join import join_auxiliary
from ojala.pipeline.inference.model_spec import ModelSpec
from ojala.pipeline.storage.files import write_whole
from ojala.pipeline.storage.healpix import Partition
from ojala.pipeline.storage.parquet import DamagedInput, write_leaf


@dataclass(frozen=True, slots=True)
class Task:
    """One partition's work order; small, since it travels through the scheduler.

    Attributes
    ----------
    partition : Partition
        Which part of the sky.
    system : str
        Name of the system in `ojala.pipeline.inference.adapters.registry.ADAPTERS`.
    source, run : str
        Roots of the catalogue that is read and of the run's folder.
    rows : int
        Rows that the catalogue lists for the partition.
    ingredients : Ingredients
        What the numbers depend on.
    products : tuple of str
        Names of the products to write.
    heads : tuple of FinetunedHead
        What the user's own heads say of themselves.
    metadata : tuple of (str, str)
        Provenance for the leaves' footers.
    attempts : tuple of Attempt
        Earlier attempts where the receipt on disk does not hold them, or may not.
    beside : str
        Root of the second catalogue that is read; empty if there is none.
    """

    partition: Partition
    system: str
    source: str
    run: str
    rows: int
    ingredients: Fingerprint
    products: tuple[str, ...]
    heads: tuple[FinetunedHead, ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()
    attempts: tuple[Attempt, ...] = ()
    beside: str = ""


def receipt_path(run: UPath, partition: Partition) -> UPath:
    """Where the receipt of a partition lies in a run's folder."""
    return run / "receipts" / f"Norder={partition.order}" / f"Npix={partition.pixel}.json"


def process(task: Task, model: Model, turns: AbstractContextManager[object] | None = None) -> Receipt:
    """Do one partition. Whatever goes wrong ends in the receipt, which is written last.

    Several threads may each do one, with the same model: while it answers for one partition, others are read,
    derived and written. As many partitions are in memory as there are threads.

    Parameters
    ----------
    task : Task
        What to do.
    model : Model
        Model, loaded.
    turns : context manager, optional
        Is held while the model is asked, by one partition after another. The wait for it is a stage of its
        own in the receipt, so that the other stages hold what they cost and add up to the whole.

    Returns
    -------
    Receipt
        With status ``failed`` and the exception if anything raised.
    """
    stages = Stages()
    draft = partial(_receipt, task, f"{model.name} {model.version}", model.device, stages)
    try:
        leaves, summary, batch_size = _work(task, model, turns, stages)
        receipt = draft(stages.attempt(), leaves=leaves, summary=summary, batch_size=batch_size)
        _write_receipt(task, receipt)
    except Exception as problem:  # noqa: BLE001 - any failure is this partition's alone, and is recorded
        receipt = draft(stages.attempt(problem), batch_size=model.batch_size)
        with suppress(OSError):  # where it cannot be written either, the run still hears of it
            _write_receipt(task, receipt)
    return receipt


def failed_receipt(
    task: Task, spec: ModelSpec, problem: BaseException, *, host: str, seconds: float
) -> Receipt:
    """The receipt of a partition whose worker was lost before it could write one.

    Parameters
    ----------
    task : Task
        What was to be done.
    spec : ModelSpec
        The model that the worker had.
    problem : BaseException
        What became of the worker.
    host : str
        Where it was.
    seconds : float
        How long it had the task.
    """
    started = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds)
    attempt = Attempt(
        host=host,
        pid=0,
        started=started.isoformat(timespec="milliseconds"),
        seconds=round(seconds, 6),
        error=f"{type(problem).__name__}: {problem}",
        cause=cause_of(problem),
    )
    receipt = _receipt(task, spec.name, spec.device, Stages(), attempt)
    with suppress(OSError):
        _write_receipt(task, receipt)
    return receipt


def _receipt(
    task: Task,
    model: str,
    device: str,
    stages: Stages,
    attempt: Attempt,
    *,
    leaves: Sequence[Leaf] = (),
    summary: Summary | None = None,
    batch_size: int | None = None,
) -> Receipt:
    return Receipt(
        partition=task.partition.name,
        run_id=UPath(task.run).name,
        status="failed" if attempt.error else "done",
        key=task.ingredients.key(),
        ingredients=task.ingredients,
        model=model,
        rows_in=task.rows,
        rows_out=leaves[0].rows if leaves else 0,
        leaves=list(leaves),
        summary=summary,
        attempts=[*(task.attempts or _attempts_before(task)), attempt],
        device=device,
        batch_size=batch_size,
        seconds=stages.seconds,
        peak_rss=peak_memory(),
    )


def _attempts_before(task: Task) -> list[Attempt]:
    """What was tried at a partition in earlier starts of the run."""
    path = receipt_path(UPath(task.run), task.partition)
    try:
        return Receipt.model_validate_json(path.read_bytes()).attempts
    except (OSError, ValidationError):  # there is none, or it is torn
        return []


def _write_receipt(task: Task, receipt: Receipt) -> None:
    path = receipt_path(UPath(task.run), task.partition)
    # A receipt that is lost or torn makes its partition be done again, no more.
    write_whole(path, receipt.model_dump_json(indent=1).encode(), durable=False)


def _work(
    task: Task, model: Model, turns: AbstractContextManager[object] | None, stages: Stages
) -> tuple[list[Leaf], Summary, int]:
    """Leaves, counts over their rows, and how many rows a batch had."""
    system = ADAPTERS[task.system]
    with stages.measure("read"):
        table = _read(task, system)
        inputs = system.inputs(table)
    with ExitStack() as turn:
        if turns is not None:
            with stages.measure("wait"):
                turn.enter_context(turns)
        with stages.measure("predict"):
            answers, batch_size = _predict(system, model, inputs)
    with stages.measure("derive"):
        tables = system.tables(model, table, inputs, answers, task.products)
        main = tables[task.products[0]]
        if task.heads:
            from ojala.pipeline.inference.products.ojala import own_heads_table

            tables[OWN_HEADS] = own_heads_table(task.heads, main, answers)
        summary = system.summary(main, inputs)
    with stages.measure("write"):
        leaves = [_write(task, product, tables[product]) for product in task.products]
    return leaves, summary, batch_size


def _predict(system: System[Inputs], model: Model, inputs: Inputs) -> tuple[dict[str, np.ndarray], int]:
    """The model's answers, in smaller batches from here on if memory does not suffice; rows of a batch."""
    while True:
        size = model.batch_size
        try:
            return system.ask(model, inputs), size
        except (MemoryError, RuntimeError) as problem:
            if cause_of(problem) is not Cause.MEMORY or size == 1:
                raise
        with _halving:
            if model.batch_size == size:  # else another partition of this worker has done it
                model.halve_batch()


_halving = threading.Lock()


def warm_up(model: Model) -> None:
    """Let a model make ready what its first batch needs, if it needs anything."""
    if not isinstance(model, ConcurrentModel):
        return
    try:
        model.warm_up()
    except (MemoryError, RuntimeError) as problem:
        if cause_of(problem) is not Cause.MEMORY:  # else the first partition finds the batch that fits
            raise


def _read(task: Task, system: System[Inputs]) -> pa.Table:
    """The partition's rows, with what a second catalogue has of them beside."""
    first, *second = task.ingredients.input_sha256.split()
    path = UPath(task.source) / task.partition.leaf
    table = _read_leaf(path, first, system.columns)
    if table.num_rows != task.rows:
        raise DamagedInput(f"{path}: {table.num_rows} rows, its catalogue lists {task.rows}")
    if not task.beside or system.beside is None:
        return table
    path = UPath(task.beside) / task.partition.leaf
    try:
        return join_auxiliary(table, _read_leaf(path, second[0], None), system.beside.name)
    except ValueError as problem:
        raise DamagedInput(f"{path}: {problem}") from problem


def _read_leaf(path: UPath, wanted: str, columns: list[str] | None) -> pa.Table:
    """A leaf, read once and checked against the hash under which it was ingested."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DamagedInput(f"{path} is missing: ingest it again or restore the file") from None
    found = hashlib.sha256(content).hexdigest()
    if found != wanted:
        raise DamagedInput(
            f"{path}: SHA-256 is {found[:12]}..., its catalogue lists "
            f"{wanted[:12]}...: ingest it again or restore the file"
        )
    return pq.ParquetFile(pa.BufferReader(content)).read(columns=columns, use_threads=False)


def _write(task: Task, product: str, table: pa.Table) -> Leaf:
    path = f"{product}/{task.partition.leaf}"
    contract = own_heads_contract(task.heads) if product == OWN_HEADS else PRODUCTS[product]
    written = write_leaf(UPath(task.run) / path, table, contract, dict(task.metadata))
    return Leaf(product=product, path=path, rows=written.rows, bytes=written.bytes, sha256=written.sha256)


def peak_memory() -> int:
    """Peak resident memory of this process [bytes].

    Linux's ``ru_maxrss`` of a new process begins at its parent's, so the kernel's own mark is read there.
    """
    status = Path("/proc/self/status")
    if status.exists():
        marks = [line.split() for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        if marks:
            return int(marks[0][1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Stages:
    """Wall-clock seconds per stage of one attempt."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started = datetime.datetime.now(datetime.UTC)
        self._clock = time.perf_counter()

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to a stage, also when it raises."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = round(time.perf_counter() - begin, 6)

    def attempt(self, problem: BaseException | None = None) -> Attempt:
        """The attempt as it goes into the receipt, with what it failed of."""
        return Attempt(
            host=platform.node(),
            pid=os.getpid(),
            started=self._started.isoformat(timespec="milliseconds"),
            seconds=round(time.perf_counter() - self._clock, 6),
            error=f"{type(problem).__name__}: {problem}" if problem else None,
            cause=cause_of(problem) if problem else None,
        )
