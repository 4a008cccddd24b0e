"""What becomes of a partition that fails: whether it is tried again, when and where.

This is bookkeeping alone, without clocks, Dask or files of its own, so that every case can be played
through in a test; the engines ask it what to do next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NoReturn

from ojala.catalogs_schema.receipt import Receipt
from ojala.pipeline.inference.failures import Cause
from ojala.pipeline.inference.process import Task
from ojala.pipeline.storage.files import OutputError

FIRST_PAUSE = 0.5
"""Seconds before a partition is tried a second time; each further pause is twice as long."""

LONGEST_PAUSE = 30.0
"""Longest pause between two attempts [s]."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How much patience a run has with one partition.

    Attributes
    ----------
    attempts : int
        How often a partition is tried in one start of the run before it is set aside.
    seconds : float
        How long one attempt may take; only engines with worker processes can end one that takes longer.
    """

    attempts: int = 3
    seconds: float = 3600.0


@dataclass(slots=True)
class QueuedTask:
    """A task on its way through the engine.

    Attributes
    ----------
    task : Task
        What to do.
    failures : int
        Attempts that failed in this start of the run.
    due : float
        When it may be tried next, on the engine's clock [s].
    avoid : str
        Worker on which it failed last; empty for none.
    suspect : bool
        Whether it was with a worker that died, among others: it is tried alone, to tell which did it.
    """

    task: Task
    failures: int = 0
    due: float = 0.0
    avoid: str = ""
    quarantined: bool = False


class TaskQueue:
    """The orders of a run that no worker has at present."""

    def __init__(self, tasks: Iterable[Task], attempts: int) -> None:
        self._new = deque(QueuedTask(task) for task in tasks)
        self._again: list[QueuedTask] = []
        self._attempts = attempts

    def __len__(self) -> int:
        return len(self._new) + len(self._again)

    def take(self, worker: str, now: float, *, idle: bool, others: bool) -> QueuedTask | None:
        """The next order for a worker, if there is one.

        Parameters
        ----------
        worker : str
            Name of the worker.
        now : float
            Time on the engine's clock [s].
        idle : bool
            Whether it has no other order; only then it gets a suspect.
        others : bool
            Whether there are other workers, which can take what failed on this one.
        """
        for at, order in enumerate(self._again):
            if (
                order.due <= now
                and (idle or not order.quarantined)
                and not (others and order.avoid == worker)
            ):
                return self._again.pop(at)
        return self._new.popleft() if self._new else None

    def requeue(self, order: QueuedTask, *, quarantined: bool) -> None:
        """Take back the order of a worker that was lost, at no cost to the order."""
        order.quarantined = quarantined
        self._again.append(order)

    def is_final(self, order: QueuedTask, receipt: Receipt, worker: str, now: float) -> bool:
        """Whether a receipt is the last of its task; if not, the task is tried again later.

        Parameters
        ----------
        order : Order
            What was tried.
        receipt : Receipt
            What came of it.
        worker : str
            Name of the worker.
        now : float
            Time on the engine's clock [s].
        """
        if receipt.status == "done":
            return True
        order.failures += 1
        cause = Cause(receipt.attempts[-1].cause or Cause.PROGRAM)
        if not cause.transient or order.failures >= self._attempts:
            return True
        order.task = replace(order.task, attempts=tuple(receipt.attempts))
        order.due = now + min(FIRST_PAUSE * 2 ** (order.failures - 1), LONGEST_PAUSE)
        order.avoid = worker
        order.quarantined = cause is Cause.WORKER
        self._again.append(order)
        return False

    def wait(self, now: float) -> float | None:
        """Seconds until the next order is due; None if nothing waits for its time."""
        times = [order.due for order in self._again if order.due > now]
        return min(times) - now if times else None


def is_fatal(receipt: Receipt) -> bool:
    """Whether a partition failed because nothing can be written, as all others would."""
    return receipt.status == "failed" and receipt.attempts[-1].cause == Cause.OUTPUT


def stop(receipt: Receipt) -> NoReturn:
    """End a run with what the receipt of a partition says of the output."""
    raise OutputError(f"partition {receipt.partition}: {receipt.attempts[-1].error}; what is done is kept")
