"""A function of batches on an NVIDIA GPU: recorded once, then played back while copies run beside it.

A CUDA graph starts all kernels of a batch with one call, which the threads that read and write files
meanwhile do not hold up. It reads and writes the same memory each time; so a batch comes in and leaves by the
buffers of a tray, pinned on the host's side, and is copied by streams of their own.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ojala.models.serving.batching import Compute

WARM_UPS = 3
"""Calls before the recording, in which kernels are compiled and chosen."""


class CudaGraphRunner:
    """A function of batches of one size, as a CUDA graph.

    Parameters
    ----------
    compute : callable
        See `ojala.models.serving.batching.Compute`. It copies nothing between host and device and waits for
        nothing.
    shapes : sequence of tuple of int
        Shapes of a row of each column; () for one number.
    size : int
        Rows of a batch.

    Attributes
    ----------
    columns : list of Tensor
        Where it reads.
    answers : dict of str to Tensor
        Where it writes.
    busy : float
        Seconds that the GPU has computed for batches that were fetched.

    Raises
    ------
    torch.OutOfMemoryError
        If the GPU's memory does not suffice for a batch of this size.
    """

    @torch.no_grad()
    def __init__(self, compute: Compute, shapes: Sequence[tuple[int, ...]], size: int) -> None:
        self.size, self.busy = size, 0.0
        self.columns = [torch.full((size, *shape), torch.nan, device="cuda") for shape in shapes]
        # torch's types leave the makers of streams and events out.
        self.stream, self.inwards, self.outwards = (
            torch.cuda.Stream()  # type: ignore[no-untyped-call]
            for _ in range(3)
        )
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            for _ in range(WARM_UPS):
                compute(*self.columns)
        self.stream.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        # Other threads may copy meanwhile, for a batch of another size.
        with torch.cuda.graph(self._graph, stream=self.stream, capture_error_mode="thread_local"):
            self.answers = compute(*self.columns)
        self._turn = threading.Lock()

    def send(self, tray: CudaBuffer) -> None:
        """Put a batch in line: copy it in, compute, copy the answers out; returns at once."""
        with self._turn:
            with torch.cuda.stream(self.inwards):
                for there, here in zip(tray.columns, tray.pinned_columns, strict=True):
                    there.copy_(here, non_blocking=True)
                tray.came.record()
            with torch.cuda.stream(self.stream):
                self.stream.wait_event(tray.came)
                tray.began.record()
                for read, column in zip(self.columns, tray.columns, strict=True):
                    read.copy_(column)
                self._graph.replay()
                for name, answer in self.answers.items():
                    tray.answers[name].copy_(answer)
                tray.ended.record()
            with torch.cuda.stream(self.outwards):
                self.outwards.wait_event(tray.ended)
                for name, answer in tray.answers.items():
                    tray.pinned_answers[name].copy_(answer, non_blocking=True)
                tray.left.record()

    def count(self, tray: CudaBuffer) -> None:
        """Add what a batch that has left has cost."""
        with self._turn:
            self.busy += 1e-3 * tray.began.elapsed_time(tray.ended)


class CudaBuffer:
    """Buffers of a batch on both sides; see `ojala.models.serving.batching.BatchBuffer`."""

    @torch.no_grad()
    def __init__(self, function: CudaGraphRunner) -> None:
        self._function = function
        self._rows = 0
        self.columns = [torch.empty_like(column) for column in function.columns]
        self.answers = {name: torch.empty_like(answer) for name, answer in function.answers.items()}
        self.pinned_columns = [_pinned(column) for column in self.columns]
        self.pinned_answers = {name: _pinned(answer) for name, answer in self.answers.items()}
        # Who waits for an event sleeps, and leaves the processor to who reads and writes.
        self.came, self.left = (
            torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            for _ in range(2)
        )
        self.began, self.ended = (
            torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            for _ in range(2)
        )

    @torch.no_grad()
    def send(self, columns: Sequence[np.ndarray]) -> None:
        """See `ojala.models.serving.batching.BatchBuffer`."""
        self.left.synchronize()  # of a batch that nobody fetched
        self._rows = len(columns[0])
        for pinned, column in zip(self.pinned_columns, columns, strict=True):
            there = pinned.numpy()
            np.copyto(there[: self._rows], column)
            there[self._rows :] = np.nan
        self._function.send(self)

    @torch.no_grad()
    def fetch(self) -> dict[str, np.ndarray]:
        """See `ojala.models.serving.batching.BatchBuffer`."""
        self.left.synchronize()
        self._function.count(self)
        return {name: answer[: self._rows].numpy().copy() for name, answer in self.pinned_answers.items()}


def _pinned(like: Tensor) -> Tensor:
    """Memory of the host that the GPU copies from and to by itself."""
    return torch.empty(like.shape, dtype=like.dtype, pin_memory=True)
