"""Dispatch of partitions to Dask workers, with recovery of the tasks of lost workers.

Every worker has as many running tasks as it has threads, and one that waits. Tasks are bound to their worker,
so that the dispatcher knows which worker runs which task and since when, and which tasks a dead worker had.
Threads of a worker share its model: one partition is read or written while the network predicts another.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from dask.typing import Key
from distributed import Client, Future, KilledWorker, get_worker

from ojala.catalogs_schema.receipt import Receipt
from ojala.pipeline.execution.clusters import WORKER_TIMEOUT, Cluster, ClusterError, fetch
from ojala.pipeline.execution.engines import RetryPolicy
from ojala.pipeline.execution.memory import keep_freed_memory
from ojala.pipeline.execution.retries import QueuedTask, TaskQueue, is_fatal, raise_output_error
from ojala.pipeline.inference.adapters.base import ConcurrentModel, Model
from ojala.pipeline.inference.failures import Cause, WorkerLost
from ojala.pipeline.inference.model_spec import ModelSpec
from ojala.pipeline.inference.process import Task, failed_receipt, process, warm_up
from ojala.pipeline.storage.progress import report, state
from ojala.pipeline.storage.threads import bound_all_starts, start

PREFETCH = 1
"""Tasks that a worker has beyond its running ones."""

POLL_INTERVAL = 1.0
"""Time between two queries of the scheduler for its workers [s]."""

MAX_FAILED_STARTS = 3
"""Workers that may die in a row before their model is loaded, times the number of workers there were."""


@dataclass(slots=True)
class WorkerState:
    """The tasks of one worker.

    Attributes
    ----------
    host : str
        Machine of the worker.
    threads : int
        Number of tasks that run at once.
    tasks : dict of Key to QueuedTask
        Running and waiting tasks, in the order in which they start.
    started : dict of Key to float
        Start times of the running tasks [s].
    """

    host: str
    threads: int = 1
    tasks: dict[Key, QueuedTask] = field(default_factory=dict)
    started: dict[Key, float] = field(default_factory=dict)

    @property
    def has_room(self) -> bool:
        """Whether it may get another task; a quarantined task is alone with its worker."""
        quarantined = any(queued.quarantined for queued in self.tasks.values())
        return not quarantined and len(self.tasks) < self.threads + PREFETCH

    def add(self, key: Key, queued: QueuedTask, now: float) -> None:
        """Add a task."""
        self.tasks[key] = queued
        self._start(now)

    def remove(self, key: Key, now: float) -> tuple[QueuedTask, float]:
        """Remove a finished task; returns it with its run time [s]."""
        started = self.started.pop(key, now)
        queued = self.tasks.pop(key)
        self._start(now)
        return queued, now - started

    def deadline(self, seconds: float) -> float | None:
        """Time at which the oldest running task exceeds a time limit; None if no task runs."""
        return min(self.started.values()) + seconds if self.started else None

    @property
    def running(self) -> list[QueuedTask]:
        """The running tasks, the oldest first."""
        return [self.tasks[key] for key in self.started]

    @property
    def waiting(self) -> list[QueuedTask]:
        """The tasks that have not started."""
        return [queued for key, queued in self.tasks.items() if key not in self.started]

    def _start(self, now: float) -> None:
        """Start waiting tasks on free threads, first come, first served."""
        for key in self.tasks:
            if len(self.started) >= self.threads:
                break
            self.started.setdefault(key, now)


def run_on_workers(
    cluster: Cluster, tasks: Sequence[Task], spec: ModelSpec, policy: RetryPolicy
) -> Iterator[Receipt]:
    """Process the tasks on the workers of a cluster.

    Each result is released when it arrives, so that the memory of scheduler and driver does not grow with
    the number of partitions. The tasks of a dead worker are tried again one at a time, to find which of them
    killed it; only that one fails.

    Parameters
    ----------
    cluster : Cluster
        The cluster; workers may come and go.
    tasks : sequence of Task
        Partitions to process.
    spec : ModelSpec
        Recipe by which each worker loads the model.
    policy : RetryPolicy
        Limits of the attempts at one partition.

    Yields
    ------
    Receipt
        The final receipt of each task, in any order.

    Raises
    ------
    OutputError
        If the results cannot be written; running tasks are finished first.
    ClusterError
        If no worker can load the model, one after another dies of it, or all are lost and none comes back.
    """
    task_queue = TaskQueue(tasks, policy.attempts)
    dispatcher = Dispatcher(cluster, task_queue, spec, policy)
    fatal: Receipt | None = None
    while dispatcher.busy or (task_queue and fatal is None):
        if fatal is None:
            dispatcher.submit_tasks()
        for receipt in dispatcher.wait():
            yield receipt
            if is_fatal(receipt):
                fatal = receipt
    if fatal is not None:
        raise_output_error(fatal)


class Dispatcher:
    """The workers of a cluster with their tasks.

    Parameters
    ----------
    cluster : Cluster
        The cluster.
    task_queue : TaskQueue
        Tasks to process.
    spec : ModelSpec
        Recipe by which each worker loads the model.
    policy : RetryPolicy
        Limits of the attempts at one partition.
    """

    def __init__(self, cluster: Cluster, task_queue: TaskQueue, spec: ModelSpec, policy: RetryPolicy) -> None:
        self._cluster = cluster
        self._client = cluster.client
        self._task_queue = task_queue
        self._spec = spec
        self._policy = policy
        self._workers: dict[str, WorkerState] = {}
        self._model_loads: dict[str, Future[None]] = {}
        self._futures: dict[Key, Future[Receipt]] = {}
        self._dropped: set[str] = set()
        self._finished: queue.SimpleQueue[Future[Receipt]] = queue.SimpleQueue()
        self._next_poll = 0.0
        self._last_seen = time.monotonic()
        self._most_workers = 0
        self._failed_starts = 0

    @property
    def busy(self) -> bool:
        """Whether any worker has a task."""
        return any(worker.tasks for worker in self._workers.values())

    def submit_tasks(self) -> None:
        """Fill all workers, round robin."""
        submitted = True
        while submitted:
            submitted = False
            for address, worker in self._workers.items():
                if self._model_loads[address].status == "finished" and worker.has_room:
                    submitted |= self._submit(address, worker)

    def wait(self) -> Iterator[Receipt]:
        """Wait for the next event; yields the receipts that became final."""
        now = time.monotonic()
        moments = [worker.deadline(self._policy.seconds) for worker in self._workers.values()]
        pause = self._task_queue.pause(now)
        wakeups = [self._next_poll, *(moment for moment in moments if moment is not None)]
        if pause is not None:
            wakeups.append(now + pause)
        try:
            future = self._finished.get(timeout=max(0.001, min(wakeups) - now))
        except queue.Empty:
            pass
        else:
            yield from self._on_finished(future)
        yield from self._drop_overtime()
        yield from self._poll_workers()

    def _submit(self, address: str, worker: WorkerState) -> bool:
        """Submit the next task that a worker may have; returns whether there was one."""
        now = time.monotonic()
        queued = self._task_queue.take(address, now, idle=not worker.tasks, others=len(self._workers) > 1)
        if queued is None:
            return False
        future = self._client.submit(
            _process_on_worker, queued.task, workers=[address], allow_other_workers=False, pure=False
        )
        worker.add(future.key, queued, now)
        self._futures[future.key] = future
        self._failed_starts = 0
        future.add_done_callback(self._finished.put)
        return True

    def _on_finished(self, future: Future[Receipt]) -> Iterator[Receipt]:
        """Handle a finished or failed future; those of dropped workers are ignored."""
        address = next((a for a, worker in self._workers.items() if future.key in worker.tasks), None)
        if address is None:
            self._drop_unready()
            return
        problem = None if future.status == "finished" else future.exception()
        if future.status == "cancelled" or isinstance(problem, KilledWorker):
            yield from self._on_worker_lost(address)
            return
        receipt: Receipt | None = None
        if problem is None:
            try:
                receipt = fetch(future)
            except (OSError, KilledWorker) as unfetched:
                # Without its receipt the task may be done, but nobody can know.
                problem = TimeoutError(f"its receipt could not be fetched from {address}: {unfetched}")
        worker = self._workers[address]
        queued, seconds = worker.remove(future.key, time.monotonic())
        self._futures.pop(future.key).release()
        if problem is not None:
            receipt = self._failed_receipt(queued, worker, problem, seconds)
        if receipt is not None:
            yield from self._settle(queued, receipt, address)

    def _drop_unready(self) -> None:
        """Drop the workers whose model cannot be loaded, while there are others."""
        for address, model_load in list(self._model_loads.items()):
            if model_load.status == "error":
                problem = model_load.exception()
                if isinstance(problem, KilledWorker):
                    self._on_unready_worker_lost(address)
                    continue
                self._drop_worker(address)
                self._dropped.add(address)
                if not self._workers:
                    raise ClusterError(f"no worker can make the model ready: {problem}") from problem
                logging.getLogger(__name__).warning("no work for the worker at %s: %s", address, problem)

    def _on_unready_worker_lost(self, address: str) -> None:
        """Count a worker that died before its model was loaded; another may be started in its place.

        Raises
        ------
        ClusterError
            If too many did so in a row.
        """
        self._drop_worker(address)
        self._count_failed_starts(1, f"the last at {address}")

    def _count_failed_starts(self, count: int, where: str) -> None:
        self._failed_starts += count
        if self._failed_starts >= MAX_FAILED_STARTS * max(self._most_workers, 1):
            raise ClusterError(
                f"{self._failed_starts} workers in a row died before they had loaded the model, {where}: is "
                "there memory for it (try fewer workers), and can the model be loaded there? What is done is "
                "kept; the same command goes on from there"
            )

    def _on_worker_lost(self, address: str) -> Iterator[Receipt]:
        """Drop a lost worker: a task that was alone with it failed; several are quarantined."""
        if not self._workers[address].tasks and self._model_loads[address].status != "finished":
            self._on_unready_worker_lost(address)
            return
        worker = self._drop_worker(address)
        tasks = list(worker.tasks.values())
        if len(tasks) == 1:
            lost = WorkerLost(f"the worker at {address} died of this partition, or with it")
            yield from self._fail(tasks[0], worker, lost, address)
        else:
            for queued in tasks:
                self._task_queue.requeue(queued, quarantined=True)

    def _drop_overtime(self) -> Iterator[Receipt]:
        """Drop and restart the workers with a task beyond its time limit.

        Of several running tasks one may have held up the others: all are quarantined.
        """
        now = time.monotonic()
        for address, worker in list(self._workers.items()):
            deadline = worker.deadline(self._policy.seconds)
            if deadline is None or now < deadline:
                continue
            self._drop_worker(address)
            self._dropped.add(address)
            start(threading.Thread(target=_restart, args=(self._client, address), daemon=True))
            for queued in worker.waiting:
                self._task_queue.requeue(queued, quarantined=False)
            if len(worker.running) == 1:
                late = TimeoutError(f"took longer than {self._policy.seconds:g} s; its worker was ended")
                yield from self._fail(worker.running[0], worker, late, address)
            else:
                for queued in worker.running:
                    self._task_queue.requeue(queued, quarantined=True)

    def _drop_worker(self, address: str) -> WorkerState:
        """Forget a worker and release all its futures."""
        worker = self._workers.pop(address)
        del self._model_loads[address]
        report(f"the worker at {address} is given up; {len(self._workers):,} are left")
        for key in worker.tasks:
            self._futures.pop(key).release()
        return worker

    def _poll_workers(self) -> Iterator[Receipt]:
        """Ask the scheduler for its workers; new ones start to load the model."""
        now = time.monotonic()
        if now < self._next_poll:
            return
        present = self._client.scheduler_info()["workers"]
        self._next_poll = time.monotonic() + POLL_INTERVAL
        for address in [address for address in self._workers if address not in present]:
            yield from self._on_worker_lost(address)
        for address, info in present.items():
            if address not in self._dropped and address not in self._workers:
                threads = self._cluster.threads
                model_load = self._client.submit(
                    _load, self._spec, threads, workers=[address], allow_other_workers=False, pure=False
                )
                self._workers[address] = WorkerState(info["host"], info["nthreads"])
                self._model_loads[address] = model_load
                model_load.add_done_callback(self._finished.put)
        if self._workers:
            self._last_seen = now
            self._most_workers = max(self._most_workers, len(self._workers))
        if replaced := self._cluster.replace_lost():
            report(f"{replaced:,} workers died while they started; others are started in their place")
            self._count_failed_starts(replaced, "while they started")
        timeout = WORKER_TIMEOUT if self._most_workers else self._cluster.first_worker_timeout
        if now - self._last_seen > timeout:
            gone = "all workers have gone, and none has come" if self._most_workers else "no worker has come"
            raise ClusterError(
                f"{gone} for {timeout:g} s: start workers, then give the same command again; what is done is "
                "kept"
            )
        self._set_state()

    def _set_state(self) -> None:
        """Set the state of the work that is shown while nothing happens."""
        left = len(self._task_queue) + len(self._futures)
        ready = sum(load.status == "finished" for load in self._model_loads.values())
        loading = len(self._workers) - ready
        if not self._workers:
            waits = "all workers are lost, " if self._most_workers else ""
            waits += "waiting for workers"
        elif not ready:
            waits = f"{loading:,} workers are loading the model"
        else:
            waits = f"{ready:,} workers are at work" + (f", {loading:,} load the model" if loading else "")
        state(f"{waits}; {left:,} partitions are left")

    def _settle(self, queued: QueuedTask, receipt: Receipt, address: str) -> Iterator[Receipt]:
        if self._task_queue.is_final(queued, receipt, address, time.monotonic()):
            yield receipt

    def _fail(
        self, queued: QueuedTask, worker: WorkerState, problem: BaseException, address: str
    ) -> Iterator[Receipt]:
        """Settle a task whose worker is gone."""
        seconds = time.monotonic() - min(worker.started.values(), default=time.monotonic())
        yield from self._settle(queued, self._failed_receipt(queued, worker, problem, seconds), address)

    def _failed_receipt(
        self, queued: QueuedTask, worker: WorkerState, problem: BaseException, seconds: float
    ) -> Receipt:
        return failed_receipt(queued.task, self._spec, problem, host=worker.host, seconds=seconds)


def _restart(client: Client, address: str) -> None:
    """Kill a worker; its nanny starts another in its place, unless the cluster closes first."""
    with contextlib.suppress(OSError, KeyError):  # KeyError: of a worker that is gone already
        client.restart_workers([address], raise_for_error=False)


_loaded: dict[object, tuple[Model, AbstractContextManager[object] | None]] = {}
"""The model of each worker in this process, and the semaphore of its threads, if there are several."""


def _load(spec: ModelSpec, threads: int | None) -> None:
    """Load the model of this worker and warm it up."""
    bound_all_starts()
    keep_freed_memory()
    worker = get_worker()
    model = spec.load()
    if threads is not None and (torch := sys.modules.get("torch")):  # not loaded for models without a network
        torch.set_num_threads(threads)
    warm_up(model)
    max_concurrency = model.max_concurrency if isinstance(model, ConcurrentModel) else 1
    _loaded[worker.name] = model, threading.Semaphore(max_concurrency) if worker.state.nthreads > 1 else None


def _process_on_worker(task: Task) -> Receipt:
    model, gpu_semaphore = _loaded[get_worker().name]
    receipt = process(task, model, gpu_semaphore)
    if receipt.attempts[-1].cause == Cause.WORKER:
        os._exit(1)  # the device is broken: all further results would fail or be wrong
    return receipt
