"""The same for a GPU: what it can do at most, the network on it, and the whole flow with the engine cuda."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from ojala.flows.bench import flow, network
from ojala.flows.bench.machine import repeat
from ojala.flows.bench.report import roofline
from ojala.models.ojala.predictor import OjalaPredictor
from ojala.models.ojala.tokens import N_BANDS, tokenise
from ojala.models.serving.batching import BatchPipeline
from ojala.models.serving.cuda_graph import CudaBuffer, CudaGraphRunner
from ojala.pipeline.inference.adapters.ojala import OjalaAdapter
from ojala.pipeline.runs.config import RunConfig

SQUARE = 8192
"""Size of the matrices whose product is timed."""

COPY_BYTES = 1 << 30
"""Size of the array that is copied on the GPU: more than its caches hold."""

TIMES = 10
"""Calls in line before the GPU is waited for."""

SAMPLE = 0.1
"""Seconds between two looks at how busy the GPU is."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """What was measured on one GPU.

    Attributes
    ----------
    name, torch : str
        The GPU, and torch's version.
    batch : int
        Objects of a batch.
    matrix, copy : float
        Rate of matrix products in bf16 [FLOP/s]; rate of reading and writing its memory [bytes/s].
    roofline : float
        Objects a second that both allow the network: see `ojala.flows.bench.report.roofline`.
    forward : dict of str to float
        Objects a second of the network alone in bf16, ``eager`` and ``compiled``.
    predict : float
        Rows a second from photometry to a catalogue's numbers, by one thread.
    predict_busy : float
        Share of that time in which the GPU computed, by its own clock.
    flow : float
        Rows a second of the whole flow, from leaves to leaves.
    flow_busy : float
        Share of that time in which the GPU computed, as its driver says.
    rows, partitions, workers : int
        Size of the flow; workers are GPUs.
    """

    name: str
    torch: str
    batch: int
    matrix: float
    copy: float
    roofline: float
    forward: dict[str, float]
    predict: float
    predict_busy: float
    flow: float
    flow_busy: float
    rows: int
    partitions: int
    workers: int

    def table(self) -> str:
        """The figures as a Markdown table."""
        rows = [
            ("matrix products, bf16", f"{self.matrix / 1e12:,.0f} TFLOP/s"),
            ("memory, read and written", f"{self.copy / 1e12:,.2f} TB/s"),
            ("what these allow the network", f"{self.roofline:,.0f} objects/s"),
            *(
                (f"network alone, {how}", f"{rate:,.0f} objects/s ({rate / self.roofline:.0%} of it)")
                for how, rate in self.forward.items()
            ),
            ("photometry to numbers", f"{self.predict:,.0f} rows/s, GPU busy {self.predict_busy:.0%}"),
            (
                f"flow, {self.workers} GPU{'s' if self.workers > 1 else ''}",
                f"{self.flow:,.0f} rows/s, GPU busy {self.flow_busy:.0%}",
            ),
        ]
        head = f"{self.name}, torch {self.torch}, {self.batch:,} objects a batch"
        return "\n".join([f"| {head} | measured |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows)])


def bench_gpu(
    rows: int = 1_000_000, tile_rows: int = 50_000, report: Callable[[str], None] = lambda line: None
) -> Gpu | None:
    """Measure on copies of the bundled mock sky; None where torch finds no GPU.

    Parameters
    ----------
    rows, tile_rows : int
        Rows of the flow, and most of one partition.
    report : callable
        Receives a line on each measurement.
    """
    if not torch.cuda.is_available():
        return None
    batch = OjalaAdapter.gpu_batch
    with TemporaryDirectory(prefix="ojala-bench-gpu-") as name:
        folder = Path(name)
        report(f"GPU: a sky of {rows:,} rows")
        sky = flow.survey(folder / "sky", rows, tile_rows)
        flops, _, least, _ = network.count(str(sky))
        report("GPU: its limits and the network")
        matrix, copied = multiply(SQUARE), copy(COPY_BYTES)
        of = network.photometry(str(sky))
        columns = tuple(np.ascontiguousarray(part[: 8 * batch]) for part in (of.flux, of.error, of.ebv))
        model = OjalaPredictor.load(device="cuda", precision="bf16", batch_size=batch)
        forward = {how: _forward(model, columns, how) for how in ("eager", "compiled")}
        predict, busy = _predict(model, columns)
        report("GPU: the flow")
        settings = {"photometry": str(sky), "out": str(folder / "out"), "engine": "cuda"}
        asked = RunConfig.model_validate(settings)
        with utilisation() as shares:
            timing = flow.run_flow(asked)
    return Gpu(
        name=torch.cuda.get_device_name(),
        torch=torch.__version__,
        batch=batch,
        matrix=matrix,
        copy=copied,
        roofline=roofline(flops, least, matrix, copied),
        forward=forward,
        predict=predict,
        predict_busy=busy,
        flow=timing.rows / timing.seconds,
        # The start of the workers, when nothing is asked of the GPU, is not counted.
        flow_busy=statistics.mean(shares[int(timing.startup / SAMPLE) :] or [0.0]),
        rows=timing.rows,
        partitions=len(timing.receipts),
        workers=asked.workers,
    )


@torch.inference_mode()
def multiply(size: int, seconds: float = 1.0) -> float:
    """Floating-point operations a second of products of square bf16 matrices."""
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    calls, taken = repeat(_waited(lambda: a @ b), seconds)
    return 2.0 * size**3 * TIMES * calls / taken


@torch.inference_mode()
def copy(size: int, seconds: float = 1.0) -> float:
    """Bytes a second that the GPU reads from and writes to its own memory."""
    source = torch.ones(size, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    calls, taken = repeat(_waited(lambda: target.copy_(source)), seconds)
    return 2.0 * size * TIMES * calls / taken


def _waited(act: Callable[[], object]) -> Callable[[], None]:
    """The act `TIMES` over, until the GPU is done."""

    def acts() -> None:
        for _ in range(TIMES):
            act()
        torch.cuda.synchronize()

    return acts


@torch.inference_mode()
def _forward(model: OjalaPredictor, columns: tuple[np.ndarray, ...], how: str) -> float:
    flux, error, ebv = (column[: model.batch_size] for column in columns)
    tokens = tokenise(flux, error, ebv).to("cuda")
    ask = model.ask if how == "eager" else torch.compile(model.ask, dynamic=False, fullgraph=True)
    ask(tokens)
    calls, taken = repeat(_waited(lambda: ask(tokens)), 2.0)
    return TIMES * model.batch_size * calls / taken


def _predict(model: OjalaPredictor, columns: tuple[np.ndarray, ...]) -> tuple[float, float]:
    """Rows a second, and the share of the time in which the GPU computed."""
    recorded = CudaGraphRunner(model._answer, ((N_BANDS,), (N_BANDS,), ()), model.batch_size)
    pipeline = BatchPipeline(lambda: CudaBuffer(recorded), model.batch_size)
    pipeline.run(*columns)
    before, begin = recorded.busy, time.perf_counter()
    calls, _ = repeat(lambda: pipeline.run(*columns), 2.0)
    taken = time.perf_counter() - begin
    return (calls + 1) * len(columns[0]) / taken, (recorded.busy - before) / taken


@contextmanager
def utilisation() -> Iterator[list[float]]:
    """Shares of time in which the first GPU computed, one for each `SAMPLE`, while it is in force."""
    shares: list[float] = []
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(SAMPLE):
            shares.append(torch.cuda.utilization() / 100.0)

    watcher = threading.Thread(target=sample, daemon=True)
    watcher.start()
    try:
        yield shares
    finally:
        ended.set()
        watcher.join()
