"""Engines: where partitions are worked on. Each takes tasks and yields receipts as they come."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import dask
from distributed import Client, LocalCluster

from ojala.catalogs_schema.receipt import Receipt
from ojala.pipeline.execution.clusters import (
    GPU_THREADS,
    close,
    local_gpus,
    require_same_code,
    running_scheduler,
    slurm_jobs,
)
from ojala.pipeline.execution.dispatcher import keep_freed_memory, on_client
from ojala.pipeline.execution.retries import RetryPolicy, TaskQueue, is_fatal, stop
from ojala.pipeline.inference.model_spec import ModelSpec
from ojala.pipeline.inference.process import Task, process, warm_up

Engine = Callable[[Sequence[Task], ModelSpec, int, RetryPolicy], Iterator[Receipt]]
"""Tasks, how to load the model, the number of workers and how much patience to have with one partition ->
one receipt for each task, in any order. Raises OutputError when nothing can be written any more."""

DASK_SETTINGS = {
    # A worker that dies takes all its tasks with it; which of them did it is found out by trying each alone.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.worker-saturation": 1.0,
    # A worker that dies is started anew by its nanny. Dask would give up the nanny of one that is not back
    # within 15 s, and on a busy machine to start takes longer.
    "distributed.deploy.lost-worker-timeout": "1 day",
    # Models hold their memory outside of what Dask can spill.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
}


def serial(tasks: Sequence[Task], spec: ModelSpec, workers: int, limits: RetryPolicy) -> Iterator[Receipt]:
    """Work on the tasks one after another in this process, with the processor's cores for the network.

    There is no one to end an attempt that takes too long.
    """
    keep_freed_memory()
    model = spec.load()
    warm_up(model)
    agenda = TaskQueue(tasks, limits.attempts)
    while agenda:
        order = agenda.take("", time.monotonic(), idle=True, others=False)
        if order is None:
            time.sleep(agenda.wait(time.monotonic()) or 0.0)
            continue
        receipt = process(order.task, model)
        if agenda.is_final(order, receipt, "", time.monotonic()):
            yield receipt
        if is_fatal(receipt):
            stop(receipt)


def local(tasks: Sequence[Task], spec: ModelSpec, workers: int, limits: RetryPolicy) -> Iterator[Receipt]:
    """Work on the tasks in Dask processes on this machine, which share its cores evenly."""
    threads = max(1, (os.cpu_count() or 1) // workers)
    # What happens to a partition is in its receipt; the comings and goings of workers are noise.
    logging.getLogger("distributed").setLevel(logging.ERROR)
    with dask.config.set(DASK_SETTINGS), _processes(workers) as client:
        yield from on_client(client, tasks, spec, threads, limits)


@contextmanager
def _processes(workers: int) -> Iterator[Client]:
    """Worker processes that only this machine can reach."""
    cluster = LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
        memory_limit=0,
        silence_logs=40,
    )
    try:
        with Client(cluster) as client:
            yield client
    finally:
        close(cluster)


def cuda(tasks: Sequence[Task], spec: ModelSpec, workers: int, limits: RetryPolicy) -> Iterator[Receipt]:
    """Work on the tasks with this machine's GPUs, one worker process each.

    A worker reads, computes and writes several partitions at once, so that its GPU does not wait for files.
    """
    threads = max(1, (os.cpu_count() or 1) // (workers * GPU_THREADS))
    logging.getLogger("distributed").setLevel(logging.ERROR)
    with dask.config.set(DASK_SETTINGS), local_gpus(workers) as client:
        yield from on_client(client, tasks, spec, threads, limits)


def address(tasks: Sequence[Task], spec: ModelSpec, workers: int, limits: RetryPolicy) -> Iterator[Receipt]:
    """Work on the tasks with all workers of a scheduler that runs already."""
    with running_scheduler() as client:
        require_same_code(client, spec.adapter)
        yield from on_client(client, tasks, spec, None, limits)


def slurm(tasks: Sequence[Task], spec: ModelSpec, workers: int, limits: RetryPolicy) -> Iterator[Receipt]:
    """Work on the tasks in jobs of a Slurm queue, each of which is a worker."""
    with dask.config.set(DASK_SETTINGS), slurm_jobs(workers) as client:
        require_same_code(client, spec.adapter)
        yield from on_client(client, tasks, spec, None, limits)


ENGINES: dict[str, Engine] = {
    "serial": serial,
    "local": local,
    "cuda": cuda,
    "address": address,
    "slurm": slurm,
}
"""Engines by the name under which a run asks for them."""
