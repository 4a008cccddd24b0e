"""Rows through a device in batches of one size, several batches on their way at a time.

While the device computes one batch, the next is copied to it and the answers of the one before are copied
back. Each thread that hands in rows has trays of its own, and a batch needs a tray: so much memory is taken,
and no more, however many rows come.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

BUFFERS_IN_FLIGHT = 2
"""Batches that each thread has on their way: one that is computed, one that is copied."""

MAX_CONCURRENCY = 2
"""Threads whose batches are under way at a time: one begins as the other comes to its end."""

Compute = Callable[..., dict[str, Tensor]]
"""Columns of a batch, N rows each, as tensors on the device -> answers, N rows each, on the device."""


class BatchBuffer(Protocol):
    """The buffers of one batch on its way through a device."""

    def send(self, columns: Sequence[np.ndarray]) -> None:
        """Send a batch of at most the tray's rows on its way; returns before it is done."""

    def fetch(self) -> dict[str, np.ndarray]:
        """Wait for the batch and give its answers, as many rows as were sent; the tray is free then."""


class BatchPipeline:
    """Carries rows through a device; may be used by as many threads as there are lanes.

    Parameters
    ----------
    make_tray : callable
        Makes one tray.
    size : int
        Rows of a batch.
    lanes : int
        Threads at a time; further ones wait.
    pack : callable, optional
        Applied to the answers of each batch on the host, before those of all batches are joined.
    """

    def __init__(
        self,
        make_tray: Callable[[], BatchBuffer],
        size: int,
        max_concurrency: int = MAX_CONCURRENCY,
        pack: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] = lambda answers: answers,
    ) -> None:
        self.size = size
        self._pack = pack
        self._lanes: queue.SimpleQueue[list[BatchBuffer]] = queue.SimpleQueue()
        for _ in range(max_concurrency):
            self._lanes.put([make_tray() for _ in range(BUFFERS_IN_FLIGHT)])

    def carry(self, *columns: np.ndarray) -> dict[str, np.ndarray]:
        """Answers for N rows.

        Parameters
        ----------
        *columns : ndarray, N rows each
            What the device reads.
        """
        trays = self._lanes.get()
        under_way: deque[BatchBuffer] = deque()
        parts = []
        try:
            for number, start in enumerate(range(0, max(1, len(columns[0])), self.size)):
                if len(under_way) == BUFFERS_IN_FLIGHT:
                    parts.append(self._pack(under_way.popleft().fetch()))
                tray = trays[number % BUFFERS_IN_FLIGHT]
                tray.send([column[start : start + self.size] for column in columns])
                under_way.append(tray)
            parts += [self._pack(tray.fetch()) for tray in under_way]
        finally:
            self._lanes.put(trays)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class CpuBuffer:
    """A batch that the processor computes, when it is sent.

    Parameters
    ----------
    compute : callable
        See `Compute`.
    size : int
        Rows that it is given, whatever was sent: the rest is NaN, so that a row's answer does not depend on
        how many rows come with it.
    """

    def __init__(self, compute: Compute, size: int) -> None:
        self._compute, self._size = compute, size
        self._answers: dict[str, np.ndarray] = {}

    def send(self, columns: Sequence[np.ndarray]) -> None:
        """See `BatchBuffer`."""
        rows = len(columns[0])
        answers = self._compute(*(torch.from_numpy(_filled(column, self._size)) for column in columns))
        self._answers = {name: answer[:rows].numpy() for name, answer in answers.items()}

    def fetch(self) -> dict[str, np.ndarray]:
        """See `BatchBuffer`."""
        answers, self._answers = self._answers, {}
        return answers


def _filled(column: np.ndarray, size: int) -> np.ndarray:
    """The column as float32, with rows of NaN to make it so many rows."""
    filled = np.full((size, *column.shape[1:]), np.nan, np.float32)
    filled[: len(column)] = column
    return filled
