"""A crew of Dask workers: orders are handed out, and the loss of a worker is borne.

Every worker has at most two orders: one that it works on and one that waits. Orders are bound to their
worker, so that it is known who has what, how long it has taken, and which orders a dead worker had.
"""

from __future__ import annotations

import contextlib
import ctypes
import platform
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from dask.typing import Key
from distributed import Client, Future, KilledWorker, WorkerPlugin, get_worker
from distributed.worker import Worker

from catalogs_schema.receipt import Receipt
from pipeline.attempts import Agenda, Limits, Order, asks_to_stop, stop
from pipeline.failure import WorkerLost
from pipeline.model import Model, ModelSpec
from pipeline.partition import Task, failed_receipt, process

ORDERS = 2
"""Most orders of a worker at a time."""

ROLL_CALL = 1.0
"""Seconds between two looks at which workers there are."""

NO_WORKERS = 300.0
"""Seconds without any worker after which a run gives up; the first may be long in a queue."""

FETCH = 30.0
"""Seconds that the receipt of a finished order may take to arrive from its worker."""


def on_client(
    client: Client, tasks: Sequence[Task], spec: ModelSpec, threads: int | None, limits: Limits
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
    TimeoutError
        If all workers have gone and none comes back.
    """
    client.register_plugin(ModelPlugin(spec, threads))
    agenda = Agenda(tasks, limits.attempts)
    crew = Crew(client, agenda, spec, limits)
    refused: Receipt | None = None
    while crew.busy or (agenda and refused is None):
        if refused is None:
            crew.hand_out()
        for receipt in crew.wait():
            yield receipt
            if asks_to_stop(receipt):
                refused = receipt
    if refused is not None:
        stop(refused)


@dataclass(slots=True)
class Hand:
    """A worker as the run sees it.

    Attributes
    ----------
    host : str
        Machine that it runs on.
    greeting : Future
        Answered when its model is loaded; before, it gets no orders.
    orders : dict of Key to (Future, Order)
        What it has to do, in the order in which it does it.
    since : float
        When it began with the first of them [s].
    """

    host: str
    greeting: Future[bool]
    orders: dict[Key, tuple[Future[Receipt], Order]] = field(default_factory=dict)
    since: float = 0.0


class Crew:
    """The workers of a client and what each has to do."""

    def __init__(self, client: Client, agenda: Agenda, spec: ModelSpec, limits: Limits) -> None:
        self._client = client
        self._agenda = agenda
        self._spec = spec
        self._limits = limits
        self._hands: dict[str, Hand] = {}
        self._dismissed: set[str] = set()
        self._ended: queue.SimpleQueue[Future[Receipt]] = queue.SimpleQueue()
        self._next_roll_call = 0.0
        self._last_seen: float | None = None

    @property
    def busy(self) -> bool:
        """Whether any worker has an order."""
        return any(hand.orders for hand in self._hands.values())

    def hand_out(self) -> None:
        """Give every worker as many orders as it may have."""
        for _ in range(ORDERS):
            for address, hand in self._hands.items():
                held = [order for _, order in hand.orders.values()]
                ready = hand.greeting.status == "finished"
                if ready and len(held) < ORDERS and not any(order.suspect for order in held):
                    self._give(address, hand)

    def wait(self) -> Iterator[Receipt]:
        """Wait until something happens; gives the receipts of the tasks that are settled by it."""
        now = time.monotonic()
        moments = [self._next_roll_call]
        moments += [hand.since + self._limits.seconds for hand in self._hands.values() if hand.orders]
        moments += [now + pause for pause in [self._agenda.wait(now)] if pause is not None]
        try:
            future = self._ended.get(timeout=max(0.001, min(moments) - now))
        except queue.Empty:
            pass
        else:
            yield from self._end(future)
        yield from self._end_overtime()
        yield from self._call_roll()

    def _give(self, address: str, hand: Hand) -> None:
        now = time.monotonic()
        order = self._agenda.take(address, now, idle=not hand.orders, others=len(self._hands) > 1)
        if order is None:
            return
        future = self._client.submit(
            _process_on_worker, order.task, workers=[address], allow_other_workers=False, pure=False
        )
        if not hand.orders:
            hand.since = now
        hand.orders[future.key] = future, order
        future.add_done_callback(self._ended.put)

    def _end(self, future: Future[Receipt]) -> Iterator[Receipt]:
        """An order came to an end, good or bad; those of workers that were given up are not heard."""
        address = next((a for a, hand in self._hands.items() if future.key in hand.orders), None)
        if address is None:
            return
        hand = self._hands[address]
        problem = None if future.status == "finished" else future.exception()
        if future.status == "cancelled" or isinstance(problem, KilledWorker):
            yield from self._lose(address)
            return
        _, order = hand.orders[future.key]
        if problem is None:
            try:
                receipt = future.result(timeout=FETCH)
            except (OSError, KilledWorker):  # the work may be done, but no one can tell
                del hand.orders[future.key]
                hand.since = time.monotonic()
                future.release()
                self._agenda.put_back(order, suspect=False)
                return
        else:
            receipt = self._failed(order, hand, problem)
        del hand.orders[future.key]
        hand.since = time.monotonic()
        future.release()
        yield from self._settle(order, receipt, address)

    def _lose(self, address: str) -> Iterator[Receipt]:
        """A worker is gone. Who was alone with it did it; of several it must be found out."""
        hand = self._hands.pop(address)
        orders = [order for _, order in hand.orders.values()]
        for future, _ in hand.orders.values():
            future.release()
        if len(orders) == 1:
            lost = WorkerLost(f"the worker at {address} died of this partition, or with it")
            yield from self._settle(orders[0], self._failed(orders[0], hand, lost), address)
        else:
            for order in orders:
                self._agenda.put_back(order, suspect=True)

    def _end_overtime(self) -> Iterator[Receipt]:
        """End the workers that take too long with one order, by force."""
        now = time.monotonic()
        for address, hand in list(self._hands.items()):
            if not hand.orders or now - hand.since < self._limits.seconds:
                continue
            del self._hands[address]
            self._dismissed.add(address)
            threading.Thread(target=_restart, args=(self._client, address), daemon=True).start()
            late, *waiting = [order for _, order in hand.orders.values()]
            for future, _ in hand.orders.values():
                future.release()
            for order in waiting:
                self._agenda.put_back(order, suspect=False)
            problem = TimeoutError(f"took longer than {self._limits.seconds:g} s; its worker was ended")
            yield from self._settle(late, self._failed(late, hand, problem), address)

    def _call_roll(self) -> Iterator[Receipt]:
        """See who has come and who is gone."""
        now = time.monotonic()
        if now < self._next_roll_call:
            return
        present = self._client.scheduler_info()["workers"]
        self._next_roll_call = time.monotonic() + ROLL_CALL
        for address in [address for address in self._hands if address not in present]:
            yield from self._lose(address)
        for address, facts in present.items():
            if address not in self._dismissed and address not in self._hands:
                greeting = self._client.submit(
                    _is_ready, workers=[address], allow_other_workers=False, pure=False
                )
                self._hands[address] = Hand(facts["host"], greeting)
                greeting.add_done_callback(self._ended.put)
        if self._hands:
            self._last_seen = now
        elif self._last_seen is not None and now - self._last_seen > NO_WORKERS:
            raise TimeoutError(
                f"all workers have gone, and none has come for {NO_WORKERS:g} s: start workers, then give "
                "the same command again; what is done is kept"
            )

    def _settle(self, order: Order, receipt: Receipt, address: str) -> Iterator[Receipt]:
        if self._agenda.settles(order, receipt, address, time.monotonic()):
            yield receipt

    def _failed(self, order: Order, hand: Hand, problem: BaseException) -> Receipt:
        seconds = time.monotonic() - hand.since
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

_loaded: dict[object, Model] = {}
"""The model of each worker in this process."""


class ModelPlugin(WorkerPlugin):
    """Loads the model once per worker, also on one that is started anew."""

    name = "ojala-model"

    def __init__(self, spec: ModelSpec, threads: int | None) -> None:
        self._spec = spec
        self._threads = threads

    def setup(self, worker: Worker) -> None:
        """Called by Dask when the worker starts."""
        keep_freed_memory()
        if self._threads is not None:
            torch.set_num_threads(self._threads)
        _loaded[worker.name] = self._spec.load()


def _is_ready() -> bool:
    return get_worker().name in _loaded


def _process_on_worker(task: Task) -> Receipt:
    return process(task, _loaded[get_worker().name])
