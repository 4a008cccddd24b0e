"""Batches computed in a background thread ahead of the training step that uses them."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Batch = TypeVar("Batch")


def prefetch(make: Callable[[int], Batch], first_step: int, *, ahead: int = 4) -> Iterator[Batch]:
    """Iterate endlessly over the batches of consecutive steps.

    Parameters
    ----------
    make : callable
        Computes the batch of a step; it runs in one background thread.
    first_step : int
        Step of the first batch.
    ahead : int
        Batches that are computed or queued at a time.

    Raises
    ------
    Exception
        The error of ``make``, at its step.
    """
    steps = itertools.count(first_step)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch") as pool:
        pending = deque(pool.submit(make, step) for step in itertools.islice(steps, ahead))
        try:
            while True:
                batch = pending.popleft().result()
                pending.append(pool.submit(make, next(steps)))
                yield batch
        finally:
            for future in pending:
                future.cancel()
