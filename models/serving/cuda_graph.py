"""CUDA graphs of batches of one size, with copies that overlap the computation.

A CUDA graph starts all kernels of a batch with one call, which threads that read and write files do not
delay. It reads and writes the same memory at each replay; batches are copied to and from that memory through
buffers, pinned on the host, by separate streams.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ojala.models.serving.batching import Compute

WARM_UPS = 3
"""Calls before the capture, in which kernels are compiled and chosen."""


class CudaGraphRunner:
    """Captured CUDA graph of a function of batches.

    Parameters
    ----------
    compute : callable
        See `ojala.models.serving.batching.Compute`; without copies between host and device and without
        synchronisation.
    shapes : sequence of tuple of int
        Shapes of a row of each column; () for one number.
    size : int
        Rows of a batch.

    Attributes
    ----------
    columns : list of Tensor
        Inputs of the graph.
    outputs : dict of str to Tensor
        Outputs of the graph.
    busy : float
        Computing time of the GPU for all fetched batches [s].

    Raises
    ------
    torch.OutOfMemoryError
        A batch of this size does not fit into the GPU's memory.
    """

    @torch.no_grad()
    def __init__(self, compute: Compute, shapes: Sequence[tuple[int, ...]], size: int) -> None:
        self.size, self.busy = size, 0.0
        self.columns = [torch.full((size, *shape), torch.nan, device="cuda") for shape in shapes]
        # Constructors of streams and events are not typed.
        self.stream, self.copy_in, self.copy_out = (
            torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's
            for _ in range(3)
        )
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            for _ in range(WARM_UPS):
                compute(*self.columns)
        self.stream.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        # Other threads may copy at the same time, for a batch of another size.
        with torch.cuda.graph(self._graph, stream=self.stream, capture_error_mode="thread_local"):
            self.outputs = compute(*self.columns)
        self._lock = threading.Lock()

    def send(self, buffer: CudaBuffer) -> None:
        """Enqueue a batch: copy it in, compute, copy the outputs out; returns at once."""
        with self._lock:
            with torch.cuda.stream(self.copy_in):
                for column, pinned in zip(buffer.columns, buffer.pinned_columns, strict=True):
                    column.copy_(pinned, non_blocking=True)
                buffer.copied_in.record()
            with torch.cuda.stream(self.stream):
                self.stream.wait_event(buffer.copied_in)
                buffer.started.record()
                for own, column in zip(self.columns, buffer.columns, strict=True):
                    own.copy_(column)
                self._graph.replay()
                for name, output in self.outputs.items():
                    buffer.outputs[name].copy_(output)
                buffer.finished.record()
            with torch.cuda.stream(self.copy_out):
                self.copy_out.wait_event(buffer.finished)
                for name, output in buffer.outputs.items():
                    buffer.pinned_outputs[name].copy_(output, non_blocking=True)
                buffer.copied_out.record()

    def add_busy_time(self, buffer: CudaBuffer) -> None:
        """Add the computing time of a finished batch to `busy`."""
        with self._lock:
            self.busy += 1e-3 * buffer.started.elapsed_time(buffer.finished)


class CudaBuffer:
    """Buffers of a batch on host and device; see `ojala.models.serving.batching.BatchBuffer`."""

    @torch.no_grad()
    def __init__(self, runner: CudaGraphRunner) -> None:
        self._runner = runner
        self._rows = 0
        self.columns = [torch.empty_like(column) for column in runner.columns]
        self.outputs = {name: torch.empty_like(output) for name, output in runner.outputs.items()}
        self.pinned_columns = [_pinned(column) for column in self.columns]
        self.pinned_outputs = {name: _pinned(output) for name, output in self.outputs.items()}
        # Threads that wait for a blocking event sleep and leave the CPU to reading and writing.
        self.copied_in, self.copied_out = (
            torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # torch's
            for _ in range(2)
        )
        self.started, self.finished = (
            torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch's
            for _ in range(2)
        )

    @torch.no_grad()
    def send(self, columns: Sequence[np.ndarray]) -> None:
        """See `ojala.models.serving.batching.BatchBuffer`."""
        self.copied_out.synchronize()  # of an earlier batch that was not fetched
        self._rows = len(columns[0])
        for pinned, column in zip(self.pinned_columns, columns, strict=True):
            rows = pinned.numpy()
            np.copyto(rows[: self._rows], column)
            rows[self._rows :] = np.nan
        self._runner.send(self)

    @torch.no_grad()
    def fetch(self) -> dict[str, np.ndarray]:
        """See `ojala.models.serving.batching.BatchBuffer`."""
        self.copied_out.synchronize()
        self._runner.add_busy_time(self)
        return {name: output[: self._rows].numpy().copy() for name, output in self.pinned_outputs.items()}


def _pinned(like: Tensor) -> Tensor:
    """Page-locked host memory of the same shape and type."""
    return torch.empty(like.shape, dtype=like.dtype, pin_memory=True)
