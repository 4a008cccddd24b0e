"""A crew of Dask workers: orders are handed out, and the loss of a worker is borne.

Every worker has as many orders as it has threads, and one that waits. Orders are bound to their worker, so
that it is known who has what, how long it has taken, and which orders a dead worker had. Threads of a worker
share its model: one partition is read or written while the network answers for another.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import platform
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from dask.typing import Key
from distributed import Client, Future, KilledWorker, get_worker

from ojala.catalogs_schema.receipt import Receipt
from ojala.pipeline.execution.clusters import ClusterError
from ojala.pipeline.execution.retries import QueuedTask, RetryPolicy, TaskQueue, is_fatal, stop
from ojala.pipeline.inference.adapters.base import ConcurrentModel, Model
from ojala.pipeline.inference.failures import Cause, WorkerLost
from ojala.pipeline.inference.model_spec import ModelSpec
from ojala.pipeline.inference.process import Task, failed_receipt, process, warm_up

WAITING = 1
"""Orders that a worker has beyond those that it is at."""


@dataclass(slots=True)
class WorkerState:
    """The orders of one worker.

    Attributes
    ----------
    host : str
        Machine that it runs on.
    threads : int
        Orders that it is at, at once.
    orders : dict of Key to Order
        What it has to do, in the order in which it begins.
    begun : dict of Key to float
        When it began with those that it is at [s].
    """

    host: str
    threads: int = 1
    orders: dict[Key, QueuedTask] = field(default_factory=dict)
    begun: dict[Key, float] = field(default_factory=dict)

    @property
    def has_room(self) -> bool:
        """Whether it may get another order; a suspect is alone with its worker."""
        suspected = any(order.quarantined for order in self.orders.values())
        return not suspected and len(self.orders) < self.threads + WAITING

    def give(self, key: Key, order: QueuedTask, now: float) -> None:
        """Note that it got an order."""
        self.orders[key] = order
        self._begin(now)

    def end(self, key: Key, now: float) -> tuple[QueuedTask, float]:
        """Note that an order came to its end; gives it, and how long it took [s]."""
        began = self.begun.pop(key, now)
        order = self.orders.pop(key)
        self._begin(now)
        return order, now - began

    def due(self, seconds: float) -> float | None:
        """When one of its orders will have taken too long; None without any."""
        return min(self.begun.values()) + seconds if self.begun else None

    @property
    def at_work(self) -> list[QueuedTask]:
        """The orders that it is at, the one that it has been at for the longest first."""
        return [self.orders[key] for key in self.begun]

    @property
    def waiting(self) -> list[QueuedTask]:
        """The orders that it has not begun."""
        return [order for key, order in self.orders.items() if key not in self.begun]

    def _begin(self, now: float) -> None:
        """Its free threads begin with what waits, first come, first served."""
        for key in self.orders:
            if len(self.begun) >= self.threads:
                break
            self.begun.setdefault(key, now)


POLL_INTERVAL = 1.0
"""Seconds between two looks at which workers there are."""

NO_WORKERS = 300.0
"""Seconds without any worker after which a run gives up; the first may be long in a queue."""

FAILED_STARTS = 3
"""Workers that may die in a row before their model is loaded, times the number of workers there were."""

FETCH = 30.0
"""Seconds that the receipt of a finished order may take to arrive from its worker."""


def on_client(
    client: Client, tasks: Sequence[Task], spec: ModelSpec, threads: int | None, limits: RetryPolicy
) -> Iterator[Receipt]:
    """Work on the tasks with the workers of a Dask client.

    Each result is released when it comes, so that the memory of scheduler and driver does not grow with
    the number of partitions. The orders of a worker that died are tried again one at a time, to tell which
    of them did it; only that one has failed.

    Parameters
    ----------
    client : Client
        Connected to a scheduler; workers may come and go.
    tasks : sequence of Task
        What to do.
    spec : ModelSpec
        How each worker loads the model.
    threads : int or None
        Threads of each worker's network; None leaves them as the worker was started.
    limits : Limits
        How much patience to have with one partition.

    Yields
    ------
    Receipt
        The last of each task, in any order.

    Raises
    ------
    OutputError
        When nothing can be written any more; what the workers have begun is waited for.
    ClusterError
        If no worker can load the model, or one after another dies of it.
    TimeoutError
        If all workers have gone and none comes back.
    """
    agenda = TaskQueue(tasks, limits.attempts)
    crew = Dispatcher(client, agenda, spec, limits, threads)
    refused: Receipt | None = None
    while crew.busy or (agenda and refused is None):
        if refused is None:
            crew.submit_tasks()
        for receipt in crew.wait():
            yield receipt
            if is_fatal(receipt):
                refused = receipt
    if refused is not None:
        stop(refused)


class Dispatcher:
    """The workers of a client and what each has to do."""

    def __init__(
        self,
        client: Client,
        agenda: TaskQueue,
        spec: ModelSpec,
        limits: RetryPolicy,
        threads: int | None = None,
    ) -> None:
        self._client = client
        self._agenda = agenda
        self._spec = spec
        self._limits = limits
        self._threads = threads
        self._workers: dict[str, WorkerState] = {}
        self._model_loads: dict[str, Future[None]] = {}
        self._futures: dict[Key, Future[Receipt]] = {}
        self._dropped: set[str] = set()
        self._ended: queue.SimpleQueue[Future[Receipt]] = queue.SimpleQueue()
        self._next_poll = 0.0
        self._last_seen: float | None = None
        self._most_workers = 0
        self._failed_starts = 0

    @property
    def busy(self) -> bool:
        """Whether any worker has an order."""
        return any(hand.orders for hand in self._workers.values())

    def submit_tasks(self) -> None:
        """Give every worker as many orders as it may have, one each by turns."""
        given = True
        while given:
            given = False
            for address, hand in self._workers.items():
                if self._model_loads[address].status == "finished" and hand.has_room:
                    given |= self._give(address, hand)

    def wait(self) -> Iterator[Receipt]:
        """Wait until something happens; gives the receipts of the tasks that are settled by it."""
        now = time.monotonic()
        dues = [self._agenda.wait(now), *(hand.due(self._limits.seconds) for hand in self._workers.values())]
        pause, *ends = dues
        moments = [self._next_poll, *(end for end in ends if end is not None)]
        if pause is not None:
            moments.append(now + pause)
        try:
            future = self._ended.get(timeout=max(0.001, min(moments) - now))
        except queue.Empty:
            pass
        else:
            yield from self._end(future)
        yield from self._end_overtime()
        yield from self._poll_workers()

    def _give(self, address: str, hand: WorkerState) -> bool:
        """Give a worker the next order that it may have; whether there was one."""
        now = time.monotonic()
        order = self._agenda.take(address, now, idle=not hand.orders, others=len(self._workers) > 1)
        if order is None:
            return False
        future = self._client.submit(
            _process_on_worker, order.task, workers=[address], allow_other_workers=False, pure=False
        )
        hand.give(future.key, order, now)
        self._futures[future.key] = future
        self._failed_starts = 0
        future.add_done_callback(self._ended.put)
        return True

    def _end(self, future: Future[Receipt]) -> Iterator[Receipt]:
        """An order came to an end, good or bad; those of workers that were given up are not heard."""
        address = next((a for a, hand in self._workers.items() if future.key in hand.orders), None)
        if address is None:
            self._drop_unready()
            return
        problem = None if future.status == "finished" else future.exception()
        if future.status == "cancelled" or isinstance(problem, KilledWorker):
            yield from self._on_worker_lost(address)
            return
        receipt: Receipt | None = None
        if problem is None:
            # Else the work may be done, but no one can tell.
            with contextlib.suppress(OSError, KilledWorker):
                receipt = future.result(timeout=FETCH)
        hand = self._workers[address]
        order, seconds = hand.end(future.key, time.monotonic())
        self._futures.pop(future.key).release()
        if problem is not None:
            receipt = self._failed(order, hand, problem, seconds)
        if receipt is None:
            self._agenda.requeue(order, quarantined=False)
        else:
            yield from self._settle(order, receipt, address)

    def _drop_unready(self) -> None:
        """Do without the workers whose model cannot be made ready, while there are others."""
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
        """A worker died before its model was loaded; another may be started in its place, but not for ever.

        Raises
        ------
        ClusterError
            If that happened too often in a row.
        """
        self._drop_worker(address)
        self._failed_starts += 1
        if self._failed_starts >= FAILED_STARTS * self._most_workers:
            raise ClusterError(
                f"{self._failed_starts} workers in a row died before they had loaded the model, the last at "
                f"{address}: is there memory for it (try fewer workers), and can the model be loaded there? "
                "What is done is kept; the same command goes on from there"
            )

    def _on_worker_lost(self, address: str) -> Iterator[Receipt]:
        """A worker is gone. Who was alone with it did it; of several it must be found out."""
        if not self._workers[address].orders and self._model_loads[address].status != "finished":
            self._on_unready_worker_lost(address)
            return
        hand = self._drop_worker(address)
        orders = list(hand.orders.values())
        if len(orders) == 1:
            lost = WorkerLost(f"the worker at {address} died of this partition, or with it")
            yield from self._fail(orders[0], hand, lost, address)
        else:
            for order in orders:
                self._agenda.requeue(order, quarantined=True)

    def _end_overtime(self) -> Iterator[Receipt]:
        """End the workers that take too long with one order, by force.

        Of several orders that a worker was at, one may have held up the others: it must be found out.
        """
        now = time.monotonic()
        for address, hand in list(self._workers.items()):
            due = hand.due(self._limits.seconds)
            if due is None or now < due:
                continue
            self._drop_worker(address)
            self._dropped.add(address)
            threading.Thread(target=_restart, args=(self._client, address), daemon=True).start()
            for order in hand.waiting:
                self._agenda.requeue(order, quarantined=False)
            if len(hand.at_work) == 1:
                late = TimeoutError(f"took longer than {self._limits.seconds:g} s; its worker was ended")
                yield from self._fail(hand.at_work[0], hand, late, address)
            else:
                for order in hand.at_work:
                    self._agenda.requeue(order, quarantined=True)

    def _drop_worker(self, address: str) -> WorkerState:
        """Give up a worker and all that it has to do."""
        hand = self._workers.pop(address)
        del self._model_loads[address]
        for key in hand.orders:
            self._futures.pop(key).release()
        return hand

    def _poll_workers(self) -> Iterator[Receipt]:
        """See who has come and who is gone."""
        now = time.monotonic()
        if now < self._next_poll:
            return
        present = self._client.scheduler_info()["workers"]
        self._next_poll = time.monotonic() + POLL_INTERVAL
        for address in [address for address in self._workers if address not in present]:
            yield from self._on_worker_lost(address)
        for address, facts in present.items():
            if address not in self._dropped and address not in self._workers:
                model_load = self._client.submit(
                    _load, self._spec, self._threads, workers=[address], allow_other_workers=False, pure=False
                )
                self._workers[address] = WorkerState(facts["host"], facts["nthreads"])
                self._model_loads[address] = model_load
                model_load.add_done_callback(self._ended.put)
        if self._workers:
            self._last_seen = now
            self._most_workers = max(self._most_workers, len(self._workers))
        elif self._last_seen is not None and now - self._last_seen > NO_WORKERS:
            raise TimeoutError(
                f"all workers have gone, and none has come for {NO_WORKERS:g} s: start workers, then give "
                "the same command again; what is done is kept"
            )

    def _settle(self, order: QueuedTask, receipt: Receipt, address: str) -> Iterator[Receipt]:
        if self._agenda.is_final(order, receipt, address, time.monotonic()):
            yield receipt

    def _fail(
        self, order: QueuedTask, hand: WorkerState, problem: BaseException, address: str
    ) -> Iterator[Receipt]:
        """Settle an order whose worker is gone."""
        seconds = time.monotonic() - min(hand.begun.values(), default=time.monotonic())
        yield from self._settle(order, self._failed(order, hand, problem, seconds), address)

    def _failed(
        self, order: QueuedTask, hand: WorkerState, problem: BaseException, seconds: float
    ) -> Receipt:
        return failed_receipt(order.task, self._spec, problem, host=hand.host, seconds=seconds)


def _restart(client: Client, address: str) -> None:
    """End a worker; its nanny starts another in its place, unless the whole crew goes home first."""
    with contextlib.suppress(OSError):
        client.restart_workers([address], raise_for_error=False)


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

_loaded: dict[object, tuple[Model, AbstractContextManager[object] | None]] = {}
"""The model of each worker in this process, and the turns in which its threads ask it, if it has several."""


def _load(spec: ModelSpec, threads: int | None) -> None:
    """Load the model of this worker and make ready what its first batch needs."""
    keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)
    worker = get_worker()
    model = spec.load()
    warm_up(model)
    max_concurrency = model.max_concurrency if isinstance(model, ConcurrentModel) else 1
    _loaded[worker.name] = model, threading.Semaphore(max_concurrency) if worker.state.nthreads > 1 else None


def _process_on_worker(task: Task) -> Receipt:
    model, turns = _loaded[get_worker().name]
    receipt = process(task, model, turns)
    if receipt.attempts[-1].cause == Cause.WORKER:
        os._exit(1)  # its device answers no more: all that follows would fail, and what it has may be wrong
    return receipt
