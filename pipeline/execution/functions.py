"""Calls of a function on the workers of an engine, such as the tasks of an ingest.

Unlike `ojala.pipeline.execution.dispatcher` there is no model, and no receipt of a failure: an exception ends
all calls. Only the death of a worker is no failure of the call that it was at.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from ojala.pipeline.execution.engines import ENGINES
from ojala.pipeline.ingest.tasks import Runner, run_here
from ojala.pipeline.storage.progress import report, state

if TYPE_CHECKING:
    from distributed import Future

    from ojala.pipeline.execution.clusters import Cluster

A = TypeVar("A")
R = TypeVar("R")

CPU_ENGINES = tuple(name for name, engine in ENGINES.items() if "cpu" in engine.devices)
"""Engines that need no GPU."""

ATTEMPTS = 3
"""Calls of a function with an argument of which the worker may die, one after the other."""

POLL_INTERVAL = 1.0
"""Time between two queries of the scheduler for its workers [s]."""


@contextmanager
def open_runner(
    engine: str | None, workers: int, modules: tuple[str, ...], scheduler: str | None = None
) -> Iterator[Runner]:
    """Open a runner on an engine: its workers start at the first call, and end with the block.

    Parameters
    ----------
    engine : str or None
        One of `CPU_ENGINES`; None: several workers are processes of this machine, one is this process.
    workers : int
        Number of worker processes or jobs; engines without workers of their own ignore it.
    modules : tuple of str
        Modules whose code, with all that they import, must be the same on the workers as here.
    scheduler : str, optional
        Address of the scheduler of the engine ``address``.

    Raises
    ------
    ClusterError
        In a call: if the engine cannot start, a worker has other code, all workers are lost and none comes
        back, or one argument kills its worker `ATTEMPTS` times.
    """
    engine = engine or ("local" if workers > 1 else "serial")
    if ENGINES[engine].cluster is None:
        yield run_here
        return
    with ExitStack() as stack:
        yield _WorkerRunner(engine, workers, modules, scheduler, stack)


class _WorkerRunner:
    """Runner on the workers of a cluster."""

    def __init__(
        self, engine: str, workers: int, modules: tuple[str, ...], scheduler: str | None, stack: ExitStack
    ) -> None:
        self._engine, self._workers, self._modules = engine, workers, modules
        self._scheduler, self._stack = scheduler, stack
        self._cluster: Cluster | None = None

    def __call__(self, function: Callable[[A], R], arguments: Sequence[A]) -> Iterator[tuple[int, R]]:
        """Call the function on the workers; see `ojala.pipeline.ingest.tasks.Runner`."""
        if arguments:
            self._cluster = self._cluster or self._start()
            yield from call_on_workers(self._cluster, function, arguments)

    def _start(self) -> Cluster:
        import dask

        from ojala.pipeline.execution import clusters

        self._stack.enter_context(
            dask.config.set({"scheduler-address": self._scheduler} if self._scheduler else {})
        )
        open_cluster = getattr(clusters, str(ENGINES[self._engine].cluster))
        cluster: Cluster = self._stack.enter_context(open_cluster(self._workers))
        if cluster.elsewhere:
            clusters.require_same_code(cluster.client, *self._modules)
        return cluster


def call_on_workers(
    cluster: Cluster, function: Callable[[A], R], arguments: Sequence[A]
) -> Iterator[tuple[int, R]]:
    """Call a function with each argument on the workers of a cluster, one call for each of their threads.

    Parameters
    ----------
    cluster : Cluster
        The cluster; workers may come and go.
    function : callable
        Function of a module.
    arguments : sequence
        Arguments; their texts name them in messages.

    Yields
    ------
    (int, object)
        Number of an argument and its result, in any order.

    Raises
    ------
    ClusterError
        If all workers are lost and none comes back, or one argument kills its worker `ATTEMPTS` times.
        Exceptions of the function are raised as they are.
    """
    from ojala.pipeline.execution.clusters import ClusterError

    waiting = deque(enumerate([0] * len(arguments)))
    running: dict[Any, tuple[Future[R], int, int]] = {}
    finished: queue.SimpleQueue[Future[R]] = queue.SimpleQueue()
    presence = _Presence(cluster)
    try:
        while waiting or running:
            threads = presence.poll()
            while waiting and len(running) < threads:
                number, deaths = waiting.popleft()
                future = cluster.client.submit(
                    _call, function, arguments[number], cluster.threads, pure=False
                )
                running[future.key] = future, number, deaths
                future.add_done_callback(finished.put)
            try:
                future = finished.get(timeout=POLL_INTERVAL)
            except queue.Empty:
                continue
            _, number, deaths = running.pop(future.key)
            lost, result = _result(future)
            if not lost:
                yield number, result
            elif deaths + 1 < ATTEMPTS:
                report(f"a worker died while it was {arguments[number]}; this is done again")
                waiting.append((number, deaths + 1))
            else:
                raise ClusterError(
                    f"{ATTEMPTS} workers in a row died while they were {arguments[number]}: is there memory "
                    "for it (fewer workers leave each more), and do they have time? What is finished is "
                    "kept; the same command goes on from there"
                )
    finally:
        for future, *_ in running.values():
            future.release()


def _result(future: Future[R]) -> tuple[bool, Any]:
    """Whether a call was lost with its worker, and its result.

    Raises
    ------
    Exception
        That of the call.
    """
    from distributed import KilledWorker

    from ojala.pipeline.execution.clusters import fetch

    if future.status not in ("finished", "error"):
        return True, None
    try:
        result = fetch(future)
    except (KilledWorker, TimeoutError):
        return True, None
    future.release()
    return False, result


class _Presence:
    """Watch over the workers of a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._last_seen, self._next_poll = time.monotonic(), 0.0
        self._threads, self._came = 0, False

    def poll(self) -> int:
        """Threads of all workers that are there.

        Raises
        ------
        ClusterError
            If none has come, or come back, for too long.
        """
        from ojala.pipeline.execution.clusters import WORKER_TIMEOUT, ClusterError

        now = time.monotonic()
        if now < self._next_poll:
            return self._threads
        self._next_poll = now + POLL_INTERVAL
        workers = self._cluster.client.scheduler_info()["workers"].values()
        self._threads = sum(worker["nthreads"] for worker in workers)
        if replaced := self._cluster.replace_lost():
            report(f"{replaced:,} workers died while they started; others are started in their place")
        if workers:
            self._last_seen, self._came = now, True
            return self._threads
        state("all workers are lost, waiting for others" if self._came else "waiting for workers")
        timeout = WORKER_TIMEOUT if self._came else self._cluster.first_worker_timeout
        if now - self._last_seen > timeout:
            raise ClusterError(
                f"{'all workers have gone, and none' if self._came else 'no worker'} has come for "
                f"{timeout:g} s: start workers, then give the same command again; what is finished is kept"
            )
        return 0


def _call(function: Callable[[A], R], argument: A, threads: int | None) -> R:
    """Call a function on a worker, whose threads share the cores with other workers."""
    if threads is not None:
        import pyarrow as pa

        pa.set_cpu_count(threads)
    return function(argument)
