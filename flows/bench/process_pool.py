"""Pool of processes that run the same function at the same time, each with its share of the cores.

Workers of a run share caches, memory and clock rate in the same way.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

import torch

from ojala.pipeline.execution.memory import keep_freed_memory

P = ParamSpec("P")
T = TypeVar("T")

Work = Callable[P, tuple[float, float]]
"""Measurement in a process: units of work, and seconds."""


class ProcessPool:
    """Pool of ``size`` processes on this machine; a context manager."""

    def __init__(self, size: int) -> None:
        # Forked, as the workers of a run are, from one process that has paid the imports.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["ojala.flows.bench"])
        threads = max(1, (os.cpu_count() or 1) // size)
        self._processes = []
        for _ in range(size):
            connection, remote = context.Pipe()
            process = context.Process(target=_serve, args=(remote, threads), daemon=True)
            process.start()
            remote.close()
            self._processes.append((process, connection))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process, connection in self._processes:
            connection.close()
            process.join()

    def rate(self, work: Work[P], *args: P.args, **kwargs: P.kwargs) -> float:
        """Sum of the rates of all processes [units/s]."""
        done = self.all(work, *args, **kwargs)
        return sum(units for units, _ in done) / max(seconds for _, seconds in done)

    def all(self, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> list[T]:
        """Call a function in all processes at the same time; returns their results.

        Raises
        ------
        RuntimeError
            A call failed; the message is that of the first error.
        """
        for _, connection in self._processes:
            connection.send((act, args, kwargs))
        results = [connection.recv() for _, connection in self._processes]
        for problem, _ in results:
            if problem is not None:
                raise RuntimeError(f"a measuring process failed: {problem}")
        return [result for _, result in results]

    def one(self, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in the first process while the others are idle; returns its result."""
        _, connection = self._processes[0]
        connection.send((act, args, kwargs))
        problem, result = connection.recv()
        if problem is not None:
            raise RuntimeError(f"a measuring process failed: {problem}")
        return result  # type: ignore[no-any-return]  # pipes are not typed


def _serve(connection: Connection, threads: int) -> None:
    """Run the calls from a pipe until it is closed."""
    keep_freed_memory()
    torch.set_num_threads(threads)
    while True:
        try:
            act, args, kwargs = connection.recv()
        except EOFError:
            return
        try:
            connection.send((None, act(*args, **kwargs)))
        except Exception as problem:  # noqa: BLE001 - reported to the caller
            connection.send((f"{type(problem).__name__}: {problem}", None))
