"""Engines: where partitions are worked on. Each takes tasks and yields receipts as they come."""

from __future__ import annotations

import ctypes
import itertools
import logging
import os
import platform
from collections.abc import Callable, Iterator, Sequence

import dask
import torch
from dask.typing import Key
from distributed import Client, Future, LocalCluster, WorkerPlugin, as_completed, get_worker
from distributed.worker import Worker

from catalogs_schema.receipt import Receipt
from pipeline.model import Model, ModelSpec
from pipeline.partition import Task, failed_receipt, process

Engine = Callable[[Sequence[Task], ModelSpec, int], Iterator[Receipt]]
"""Tasks, how to load the model, and the number of workers -> receipts, in any order."""

IN_FLIGHT = 2
"""Tasks per worker that are handed out at a time: one being worked on, one waiting."""

DASK_SETTINGS = {
    # A worker that dies takes all its tasks with it; which of them did it is found out by trying each alone.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.worker-saturation": 1.0,
    # Models hold their memory outside of what Dask can spill.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
}


def serial(tasks: Sequence[Task], spec: ModelSpec, workers: int) -> Iterator[Receipt]:
    """Work on the tasks one after another in this process, with the processor's cores for the network."""
    keep_freed_memory()
    model = spec.load()
    for task in tasks:
        yield process(task, model)


def local(tasks: Sequence[Task], spec: ModelSpec, workers: int) -> Iterator[Receipt]:
    """Work on the tasks in Dask processes on this machine, which share its cores evenly."""
    threads = max(1, (os.cpu_count() or 1) // workers)
    # What happens to a partition is in its receipt; the comings and goings of workers are noise.
    logging.getLogger("distributed").setLevel(logging.ERROR)
    with (
        dask.config.set(DASK_SETTINGS),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            memory_limit=0,
            silence_logs=40,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield from on_client(client, tasks, spec, workers, threads)


ENGINES: dict[str, Engine] = {"serial": serial, "local": local}
"""Engines by the name under which a run asks for them."""


def on_client(
    client: Client, tasks: Sequence[Task], spec: ModelSpec, workers: int, threads: int
) -> Iterator[Receipt]:
    """Work on the tasks with the workers of a Dask client.

    A few tasks are in flight at a time and each result is released when it comes, so that the memory of
    scheduler and driver does not grow with the number of partitions. The tasks of a worker that died are
    tried again at the end, one at a time; the one that kills its worker once more ends in a receipt with
    status ``failed``.
    """
    client.register_plugin(ModelPlugin(spec, threads))
    waiting = iter(tasks)
    orders: dict[Key, Task] = {}
    suspects: list[Task] = []

    def submit(task: Task) -> Future[Receipt]:
        future = client.submit(_process_on_worker, task, pure=False)
        orders[future.key] = task
        return future

    futures = as_completed([submit(task) for task in itertools.islice(waiting, IN_FLIGHT * workers)])
    for future in futures:
        task = orders.pop(future.key)
        if future.status == "finished":
            yield future.result()
        else:
            suspects.append(task)
        future.release()
        for task in itertools.islice(waiting, 1):
            futures.add(submit(task))
    for task in suspects:
        future = submit(task)
        problem = future.exception()
        yield future.result() if problem is None else failed_receipt(task, spec, problem)


def keep_freed_memory() -> None:
    """Ask glibc to keep freed memory for the next batch instead of giving it back to the kernel.

    Each batch needs the same arrays again, and the kernel clears every page that it hands out: that took
    up to half of the network's time. Other C libraries are left as they are.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, _KEEP)
    libc.mallopt(_M_TRIM_THRESHOLD, _KEEP)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt, from <malloc.h>."""

_KEEP = 1 << 30
"""Blocks up to this size, and this much free memory in all, are kept [bytes]."""

_loaded: dict[object, Model] = {}
"""The model of each worker in this process."""


class ModelPlugin(WorkerPlugin):
    """Loads the model once per worker, also on one that is started anew."""

    name = "ojala-model"

    def __init__(self, spec: ModelSpec, threads: int) -> None:
        self._spec = spec
        self._threads = threads

    def setup(self, worker: Worker) -> None:
        """Called by Dask when the worker starts."""
        keep_freed_memory()
        torch.set_num_threads(self._threads)
        _loaded[worker.name] = self._spec.load()


def _process_on_worker(task: Task) -> Receipt:
    return process(task, _loaded[get_worker().name])
