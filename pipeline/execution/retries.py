"""Queue of the partitions of a run, with further attempts at those that failed.

Pure bookkeeping without clocks, Dask or files, so that tests can play through every case.
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
"""Pause before the second attempt at a partition [s]; each further pause is twice as long."""

LONGEST_PAUSE = 30.0
"""Longest pause between two attempts [s]."""


@dataclass(slots=True)
class QueuedTask:
    """A task with the state of its attempts.

    Attributes
    ----------
    task : Task
        The partition to process.
    failures : int
        Failed attempts in this start of the run.
    due : float
        Earliest time of the next attempt, on the engine's clock [s].
    avoid : str
        Worker on which the last attempt failed; empty for none.
    quarantined : bool
        Whether it may have killed its worker; it is then tried alone, to find which of several did.
    """

    task: Task
    failures: int = 0
    due: float = 0.0
    avoid: str = ""
    quarantined: bool = False


class TaskQueue:
    """The tasks of a run that no worker has at present."""

    def __init__(self, tasks: Iterable[Task], attempts: int) -> None:
        self._new = deque(QueuedTask(task) for task in tasks)
        self._again: list[QueuedTask] = []
        self._attempts = attempts

    def __len__(self) -> int:
        return len(self._new) + len(self._again)

    def take(self, worker: str, now: float, *, idle: bool, others: bool) -> QueuedTask | None:
        """Take the next task for a worker, if there is one.

        Parameters
        ----------
        worker : str
            Name of the worker.
        now : float
            Time on the engine's clock [s].
        idle : bool
            Whether it has no other task; only then it gets a quarantined one.
        others : bool
            Whether there are other workers, which can take the tasks that failed on this one.
        """
        for at, queued in enumerate(self._again):
            if (
                queued.due <= now
                and (idle or not queued.quarantined)
                and not (others and queued.avoid == worker)
            ):
                return self._again.pop(at)
        return self._new.popleft() if self._new else None

    def requeue(self, queued: QueuedTask, *, quarantined: bool) -> None:
        """Put back the task of a lost worker, without counting a failure."""
        queued.quarantined = quarantined
        self._again.append(queued)

    def is_final(self, queued: QueuedTask, receipt: Receipt, worker: str, now: float) -> bool:
        """Return whether a receipt is the last of its task; if not, queue the task for another attempt.

        Parameters
        ----------
        queued : QueuedTask
            The task.
        receipt : Receipt
            Outcome of the attempt.
        worker : str
            Name of the worker.
        now : float
            Time on the engine's clock [s].
        """
        if receipt.status == "done":
            return True
        queued.failures += 1
        cause = Cause(receipt.attempts[-1].cause or Cause.PROGRAM)
        if not cause.transient or queued.failures >= self._attempts:
            return True
        queued.task = replace(queued.task, attempts=tuple(receipt.attempts))
        queued.due = now + min(FIRST_PAUSE * 2 ** (queued.failures - 1), LONGEST_PAUSE)
        queued.avoid = worker
        queued.quarantined = cause is Cause.WORKER
        self._again.append(queued)
        return False

    def pause(self, now: float) -> float | None:
        """Time until the next paused task is due [s]; None if no task is paused."""
        times = [queued.due for queued in self._again if queued.due > now]
        return min(times) - now if times else None


def is_fatal(receipt: Receipt) -> bool:
    """Whether a partition failed because no results can be written, as all others would."""
    return receipt.status == "failed" and receipt.attempts[-1].cause == Cause.OUTPUT


def raise_output_error(receipt: Receipt) -> NoReturn:
    """End a run with the output error in the receipt of a partition."""
    raise OutputError(f"partition {receipt.partition}: {receipt.attempts[-1].error}; what is done is kept")
