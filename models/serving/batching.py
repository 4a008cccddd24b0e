"""Pipelined inference in batches of one size.

While the device computes one batch, the next is copied to it and the outputs of the previous one are copied
back. Each calling thread has its own buffers, so that memory does not grow with the number of rows.
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
"""Batches of each thread that are in flight: one is computed, one is copied."""

MAX_CONCURRENCY = 2
"""Threads that may run at a time; one starts its batches while the other finishes."""

Compute = Callable[..., dict[str, Tensor]]
"""Columns of a batch, N rows each, as tensors on the device -> outputs, N rows each, on the device."""


class BatchBuffer(Protocol):
    """Buffers of one batch in flight."""

    def send(self, columns: Sequence[np.ndarray]) -> None:
        """Start a batch of at most the buffer's rows; returns before it is done."""

    def fetch(self) -> dict[str, np.ndarray]:
        """Wait for the batch and return its outputs, as many rows as were sent; frees the buffer."""


class BatchPipeline:
    """Pipeline of batches through a device, for several threads.

    Parameters
    ----------
    make_buffer : callable
        Makes one buffer.
    size : int
        Rows of a batch.
    max_concurrency : int
        Threads at a time; further ones wait.
    pack : callable, optional
        Applied to the outputs of each batch on the host, before all batches are concatenated.
    """

    def __init__(
        self,
        make_buffer: Callable[[], BatchBuffer],
        size: int,
        max_concurrency: int = MAX_CONCURRENCY,
        pack: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] = lambda outputs: outputs,
    ) -> None:
        self.size = size
        self._pack = pack
        self._idle: queue.SimpleQueue[list[BatchBuffer]] = queue.SimpleQueue()
        for _ in range(max_concurrency):
            self._idle.put([make_buffer() for _ in range(BUFFERS_IN_FLIGHT)])

    def run(self, *columns: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the outputs of N rows.

        Parameters
        ----------
        *columns : ndarray, N rows each
            Inputs of the device.
        """
        buffers = self._idle.get()
        in_flight: deque[BatchBuffer] = deque()
        parts = []
        try:
            for number, start in enumerate(range(0, max(1, len(columns[0])), self.size)):
                if len(in_flight) == BUFFERS_IN_FLIGHT:
                    parts.append(self._pack(in_flight.popleft().fetch()))
                buffer = buffers[number % BUFFERS_IN_FLIGHT]
                buffer.send([column[start : start + self.size] for column in columns])
                in_flight.append(buffer)
            parts += [self._pack(buffer.fetch()) for buffer in in_flight]
        finally:
            self._idle.put(buffers)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class CpuBuffer:
    """Buffer of a batch on the CPU, which computes it in `send`.

    Parameters
    ----------
    compute : callable
        See `Compute`.
    size : int
        Rows of every computed batch; missing rows are NaN, so that the outputs of a row do not depend on the
        number of rows sent.
    """

    def __init__(self, compute: Compute, size: int) -> None:
        self._compute, self._size = compute, size
        self._outputs: dict[str, np.ndarray] = {}

    def send(self, columns: Sequence[np.ndarray]) -> None:
        """See `BatchBuffer`."""
        rows = len(columns[0])
        outputs = self._compute(*(torch.from_numpy(_padded(column, self._size)) for column in columns))
        self._outputs = {name: output[:rows].numpy() for name, output in outputs.items()}

    def fetch(self) -> dict[str, np.ndarray]:
        """See `BatchBuffer`."""
        outputs, self._outputs = self._outputs, {}
        return outputs


def _padded(column: np.ndarray, size: int) -> np.ndarray:
    """Pad a column to ``size`` rows with NaN; float32."""
    padded = np.full((size, *column.shape[1:]), np.nan, np.float32)
    padded[: len(column)] = column
    return padded
