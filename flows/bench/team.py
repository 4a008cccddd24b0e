"""Processes that all do the same at the same time, each with its share of the cores.

That is how a run's workers have the machine, so it is also how its limits are measured: caches, memory and
clock rate are shared with the neighbours.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

import torch

from ojala.pipeline.execution.dispatcher import keep_freed_memory

P = ParamSpec("P")
T = TypeVar("T")

Work = Callable[P, tuple[float, float]]
"""What a member measures: units of work done, and the seconds that they took."""


class ProcessPool:
    """So many processes on this machine, to be used as a context."""

    def __init__(self, size: int) -> None:
        # Forked, as the workers of a run are, from one process that has paid the imports.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["ojala.flows.bench"])
        threads = max(1, (os.cpu_count() or 1) // size)
        self._members = []
        for _ in range(size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, threads), daemon=True)
            process.start()
            theirs.close()
            self._members.append((process, ours))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process, connection in self._members:
            connection.close()
            process.join()

    def rate(self, work: Work[P], *args: P.args, **kwargs: P.kwargs) -> float:
        """Units a second of all members together."""
        done = self.all(work, *args, **kwargs)
        return sum(units for units, _ in done) / max(seconds for _, seconds in done)

    def all(self, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> list[T]:
        """What each member's call returns; all call at the same time.

        Raises
        ------
        RuntimeError
            With the first error that a member met.
        """
        for _, connection in self._members:
            connection.send((act, args, kwargs))
        answers = [connection.recv() for _, connection in self._members]
        for problem, _ in answers:
            if problem is not None:
                raise RuntimeError(f"a measuring process failed: {problem}")
        return [answer for _, answer in answers]

    def one(self, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the call returns of the first member, the others being idle."""
        _, connection = self._members[0]
        connection.send((act, args, kwargs))
        problem, answer = connection.recv()
        if problem is not None:
            raise RuntimeError(f"a measuring process failed: {problem}")
        return answer  # type: ignore[no-any-return]  # a pipe does not know what goes through it


def _serve(connection: Connection, threads: int) -> None:
    """Do what comes through the pipe until it is closed."""
    keep_freed_memory()
    torch.set_num_threads(threads)
    while True:
        try:
            act, args, kwargs = connection.recv()
        except EOFError:
            return
        try:
            connection.send((None, act(*args, **kwargs)))
        except Exception as problem:  # noqa: BLE001 - whatever it is, the one who asked must hear of it
            connection.send((f"{type(problem).__name__}: {problem}", None))
