"""Inference on one partition, on a worker: read its rows, predict, derive, write leaves and receipt."""

from __future__ import annotations

import datetime
import functools
import hashlib
import os
import platform
import resource
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError
from upath import UPath

from ojala.catalogs_schema.finetuned import FinetunedHead
from ojala.catalogs_schema.receipt import Attempt, Fingerprint, Leaf, Receipt, Summary
from ojala.catalogs_schema.urls import redact
from ojala.pipeline.inference.adapters.base import ConcurrentModel, Inputs, Model, ModelAdapter
from ojala.pipeline.inference.failures import Cause, cause_of
from ojala.pipeline.inference.join import join_auxiliary
from ojala.pipeline.storage.files import write_whole
from ojala.pipeline.storage.healpix import Partition
from ojala.pipeline.storage.parquet import ContractError, DamagedInput, conform, write_leaf

if TYPE_CHECKING:
    from ojala.pipeline.inference.model_spec import ModelSpec


@dataclass(frozen=True, slots=True)
class Task:
    """Description of the work on one partition; small, since it travels through the scheduler.

    Attributes
    ----------
    partition : Partition
        Part of the sky.
    adapter : ModelAdapter
        Adapter of the model.
    source, run : str
        Roots of the input catalogue and of the run's folder.
    rows : int
        Rows that the input catalogue lists for the partition.
    fingerprint : Fingerprint
        Everything that the numbers depend on.
    products : tuple of str
        Names of the products to write, the main one first.
    heads : tuple of FinetunedHead
        Fine-tuned heads of the user.
    metadata : tuple of (str, str)
        Provenance for the leaves' footers.
    attempts : tuple of Attempt
        Earlier attempts where the receipt on disk does not hold them, or may not.
    auxiliary : str
        Root of the auxiliary catalogue; empty if there is none.
    """

    partition: Partition
    adapter: ModelAdapter[Any]
    source: str
    run: str
    rows: int
    fingerprint: Fingerprint
    products: tuple[str, ...]
    heads: tuple[FinetunedHead, ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()
    attempts: tuple[Attempt, ...] = ()
    auxiliary: str = ""


def receipt_path(run: UPath, partition: Partition) -> UPath:
    """Path of a partition's receipt in a run's folder."""
    return run / f"receipts/Norder={partition.order}/Npix={partition.pixel}.json"


@functools.lru_cache(maxsize=16)
def _root(path: str) -> UPath:
    """Root of a catalogue or of a run, made once for all partitions."""
    return UPath(path)


def process(task: Task, model: Model, model_lock: AbstractContextManager[object] | None = None) -> Receipt:
    """Process one partition. Any failure ends in the receipt, which is written last.

    Several threads may each process one with the same model: while it predicts for one partition, others are
    read, derived and written. As many partitions are in memory as there are threads.

    Parameters
    ----------
    task : Task
        Description of the work.
    model : Model
        Loaded model.
    model_lock : context manager, optional
        Held during prediction, by one partition after another. The wait for it is a stage of its own in the
        receipt, so that the other stages hold their own cost and add up to the whole.

    Returns
    -------
    Receipt
        With status ``failed`` and the exception if anything raised.
    """
    stages = Stages()
    draft = functools.partial(_receipt, task, f"{model.name} {model.version}", model.device, stages)
    try:
        leaves, summary, batch_size = _work(task, model, model_lock, stages)
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
    """Write the receipt of a partition whose worker was lost before it could write one.

    Parameters
    ----------
    task : Task
        Description of the work.
    spec : ModelSpec
        Model of the worker.
    problem : BaseException
        Reason of the loss.
    host : str
        Machine of the worker.
    seconds : float
        Time that it had the task.
    """
    started = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds)
    attempt = Attempt(
        host=host,
        pid=0,
        started=started.isoformat(timespec="milliseconds"),
        seconds=round(seconds, 6),
        error=redact(f"{type(problem).__name__}: {problem}"),
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
        run_id=_root(task.run).name,
        status="failed" if attempt.error else "done",
        key=task.fingerprint.key(),
        ingredients=task.fingerprint,
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
    """Attempts at a partition in earlier starts of the run."""
    path = receipt_path(_root(task.run), task.partition)
    try:
        return Receipt.model_validate_json(path.read_bytes()).attempts
    except (OSError, ValidationError):  # there is none, or it is torn
        return []


def _write_receipt(task: Task, receipt: Receipt) -> None:
    path = receipt_path(_root(task.run), task.partition)
    # A receipt that is lost or torn makes its partition be done again, no more.
    write_whole(path, receipt.model_dump_json(indent=1).encode(), durable=False)


def _work(
    task: Task, model: Model, model_lock: AbstractContextManager[object] | None, stages: Stages
) -> tuple[list[Leaf], Summary, int]:
    """Leaves, counts over their rows, and rows of a batch."""
    adapter = task.adapter
    with stages.measure("read"):
        table = _read(task)
        inputs = adapter.read_inputs(table)
    with ExitStack() as held:
        if model_lock is not None:
            with stages.measure("wait"):
                held.enter_context(model_lock)
        with stages.measure("predict"):
            predictions, batch_size = _predict(adapter, model, inputs)
    with stages.measure("derive"):
        tables = adapter.build_products(model, table, inputs, predictions, task.products, task.heads)
        summary = adapter.summarise(tables[task.products[0]], inputs)
        if residuals := adapter.band_residuals(tables, inputs):
            summary = summary.model_copy(update={"band_residuals": residuals})
    with stages.measure("write"):
        leaves = [_write(task, product, tables[product]) for product in task.products]
    return leaves, summary, batch_size


def _predict(
    adapter: ModelAdapter[Inputs], model: Model, inputs: Inputs
) -> tuple[dict[str, np.ndarray], int]:
    """Predictions, in smaller batches from here on if memory does not suffice; rows of a batch."""
    while True:
        size = model.batch_size
        try:
            return adapter.predict(model, inputs), size
        except (MemoryError, RuntimeError) as problem:
            if cause_of(problem) is not Cause.MEMORY or size == 1:
                raise
        with _halving:
            if model.batch_size == size:  # else another partition of this worker has done it
                model.halve_batch()


_halving = threading.Lock()


def warm_up(model: Model) -> None:
    """Allocate and compile what the model's first batch needs, if it needs anything."""
    if not isinstance(model, ConcurrentModel):
        return
    try:
        model.warm_up()
    except (MemoryError, RuntimeError) as problem:
        if cause_of(problem) is not Cause.MEMORY:  # else the first partition finds the batch that fits
            raise


def _read(task: Task) -> pa.Table:
    """Rows of the partition, with the columns of the auxiliary catalogue."""
    first, *second = task.fingerprint.input_sha256.split()
    path, auxiliary = _root(task.source) / task.partition.leaf, task.adapter.auxiliary
    table = _read_leaf(path, first, task.adapter.columns)
    if table.num_rows != task.rows:
        raise DamagedInput(f"{path}: {table.num_rows} rows, its catalogue lists {task.rows}")
    try:
        table = conform(table, task.adapter.reads, task.adapter.columns)
    except ContractError as problem:
        raise DamagedInput(f"{path}: {problem}") from problem
    if not task.auxiliary or auxiliary is None:
        return table
    path = _root(task.auxiliary) / task.partition.leaf
    try:
        return join_auxiliary(table, _read_leaf(path, second[0], None), auxiliary.name)
    except ValueError as problem:
        raise DamagedInput(f"{path}: {problem}") from problem


def _read_leaf(path: UPath, wanted: str, columns: Sequence[str] | None) -> pa.Table:
    """A leaf, read once and checked against the hash from its ingest."""
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
    return pq.ParquetFile(pa.BufferReader(content)).read(
        columns=None if columns is None else list(columns), use_threads=False
    )


def _write(task: Task, product: str, table: pa.Table) -> Leaf:
    path = f"{product}/{task.partition.leaf}"
    contract = task.adapter.contract(product, task.heads)
    written = write_leaf(_root(task.run) / path, table, contract, dict(task.metadata))
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
        """The attempt as it goes into the receipt, with the reason of its failure."""
        return Attempt(
            host=platform.node(),
            pid=os.getpid(),
            started=self._started.isoformat(timespec="milliseconds"),
            seconds=round(time.perf_counter() - self._clock, 6),
            error=redact(f"{type(problem).__name__}: {problem}") if problem else None,
            cause=cause_of(problem) if problem else None,
        )
