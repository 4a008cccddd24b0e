"""Benchmark of a GPU: its limits, the network, and the whole flow with the engine cuda."""

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
"""Size of the matrices of the timed products."""

COPY_BYTES = 1 << 30
"""Size of the copied array [bytes], larger than the caches."""

TIMES = 10
"""Calls between synchronisations."""

SAMPLE = 0.1
"""Interval of samples of the GPU utilisation [s]."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """Measurements on one GPU.

    Attributes
    ----------
    name, torch : str
        Names of the GPU and version of torch.
    batch : int
        Objects per batch.
    matrix, copy : float
        Rate of matrix products in bf16 [FLOP/s]; rate of reading and writing its memory [bytes/s].
    roofline : float
        Limit of the network [objects/s], see `ojala.flows.bench.report.roofline`.
    forward : dict of str to float
        Rate of the network in bf16 [objects/s], ``eager`` and ``compiled``.
    predict : float
        Rate of the predictor with one thread [rows/s].
    predict_busy : float
        Fraction of that time with computations of the GPU, from CUDA events.
    flow : float
        Rate of the whole flow [rows/s].
    flow_busy : float
        Fraction of that time with computations of the GPU, from its driver.
    rows, partitions, workers : int
        Rows, partitions and GPUs of the flow.
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
        """Render the measurements as a Markdown table."""
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
        Rows of the flow, and largest partition.
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
        config = RunConfig.model_validate(settings)
        with utilisation() as shares:
            timing = flow.run_flow(config)
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
        # Without the start of the workers.
        flow_busy=statistics.mean(shares[int(timing.startup / SAMPLE) :] or [0.0]),
        rows=timing.rows,
        partitions=len(timing.receipts),
        workers=config.workers,
    )


@torch.inference_mode()
def multiply(size: int, seconds: float = 1.0) -> float:
    """Measure the rate of products of square bf16 matrices [FLOP/s]."""
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    calls, taken = repeat(_synchronised(lambda: a @ b), seconds)
    return 2.0 * size**3 * TIMES * calls / taken


@torch.inference_mode()
def copy(size: int, seconds: float = 1.0) -> float:
    """Measure the rate of reading and writing the GPU's memory [bytes/s]."""
    source = torch.ones(size, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    calls, taken = repeat(_synchronised(lambda: target.copy_(source)), seconds)
    return 2.0 * size * TIMES * calls / taken


def _synchronised(act: Callable[[], object]) -> Callable[[], None]:
    """Wrap a call: `TIMES` calls, then a synchronisation."""

    def acts() -> None:
        for _ in range(TIMES):
            act()
        torch.cuda.synchronize()

    return acts


@torch.inference_mode()
def _forward(model: OjalaPredictor, columns: tuple[np.ndarray, ...], how: str) -> float:
    flux, error, ebv = (column[: model.batch_size] for column in columns)
    tokens = tokenise(flux, error, ebv).to("cuda")
    forward = (
        model.predict_uncalibrated
        if how == "eager"
        else torch.compile(model.predict_uncalibrated, dynamic=False, fullgraph=True)
    )
    forward(tokens)
    calls, taken = repeat(_synchronised(lambda: forward(tokens)), 2.0)
    return TIMES * model.batch_size * calls / taken


def _predict(model: OjalaPredictor, columns: tuple[np.ndarray, ...]) -> tuple[float, float]:
    """Measure the rate of the predictor [rows/s], and the fraction of time with computations."""
    recorded = CudaGraphRunner(model._predict_batch, ((N_BANDS,), (N_BANDS,), ()), model.batch_size)
    pipeline = BatchPipeline(lambda: CudaBuffer(recorded), model.batch_size)
    pipeline.run(*columns)
    before, begin = recorded.busy, time.perf_counter()
    calls, _ = repeat(lambda: pipeline.run(*columns), 2.0)
    taken = time.perf_counter() - begin
    return (calls + 1) * len(columns[0]) / taken, (recorded.busy - before) / taken


@contextmanager
def utilisation() -> Iterator[list[float]]:
    """Sample the utilisation of the first GPU every `SAMPLE` seconds in the block."""
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
