"""What a run costs on this machine: the flow against the bare network, partitions, memory.

All figures of one call are taken in one go on the same rows, so that their ratios hold on a noisy machine.
"""

from __future__ import annotations

import datetime as dt
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from upath import UPath

from flows.demo import PATCH
from pipeline import run as survey_run
from pipeline.catalogue import read_leaves
from pipeline.config import RunConfig
from pipeline.crew import keep_freed_memory
from pipeline.ingest import ingest
from pipeline.photometry import read_photometry
from pipeline.plan import make_plan

MEMORY_ROWS = (1_000, 10_000, 30_000)
"""Rows of a partition for which the worker's memory is measured."""

MOCK_ROWS = 6_000
"""Rows of the bundled mock sky."""

SMALL_ROWS = 60
"""Most rows of a partition in the run that measures what one costs without a network."""

REPEATS = 3


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured.

    Attributes
    ----------
    rows, partitions, workers : int
        Size of the run that the rates are of.
    bare_rows_per_second : list of float
        The network alone, in one process with one thread per worker; one entry per repeat.
    flow_rows_per_second : list of float
        The same rows from photometry leaves to written leaves, without the start of the workers.
    flow_over_bare : float
        Ratio of the medians.
    startup_seconds : float
        Start of the workers with the model loaded: until the first task could run.
    partition_milliseconds : list of float
        Wall-clock time per partition of the empty model, all workers together.
    partition_cpu_milliseconds : float
        Processor time of one such partition in one process.
    peak_memory : dict of int to int
        Peak resident memory of a worker [MiB] by rows of its partition.
    """

    rows: int
    partitions: int
    workers: int
    bare_rows_per_second: list[float]
    flow_rows_per_second: list[float]
    flow_over_bare: float
    startup_seconds: float
    partition_milliseconds: list[float]
    partition_cpu_milliseconds: float
    peak_memory: dict[int, int]

    def table(self) -> str:
        """The figures as a Markdown table."""
        partition = f"a partition without a network, {self.workers} workers"
        lines = [
            ("bare network", f"{_spread(self.bare_rows_per_second)} rows/s"),
            (f"flow, {self.workers} workers", f"{_spread(self.flow_rows_per_second)} rows/s"),
            ("flow / bare network", f"{self.flow_over_bare:.2f}"),
            ("start of the workers", f"{self.startup_seconds:.1f} s"),
            (partition, f"{_spread(self.partition_milliseconds)} ms"),
            ("the same, processor time in one process", f"{self.partition_cpu_milliseconds:.1f} ms"),
        ]
        lines += [
            (f"peak memory of a worker, partition of {rows:,} rows", f"{mib:,} MiB")
            for rows, mib in self.peak_memory.items()
        ]
        rows = [f"| {name} | {value} |" for name, value in lines]
        return "\n".join(["| what | measured |", "|---|---|", *rows])


def bench(report: Callable[[str], None] = lambda line: None, copies: int = 2) -> Figures:
    """Measure on copies of the bundled mock sky.

    Parameters
    ----------
    report : callable
        Is told what is being measured.
    copies : int
        How many times its 6,000 rows are taken.
    """
    workers = os.cpu_count() or 1
    with TemporaryDirectory(prefix="ojala-bench-") as name:
        folder = Path(name)
        large = _survey(folder / "large", copies * MOCK_ROWS, tile_rows=2_000)
        leaves = read_leaves(large)
        bare, flows = [], []
        for repeat in range(REPEATS):
            report(
                f"{copies * MOCK_ROWS:,} rows: the network alone, then the flow; {repeat + 1} of {REPEATS}"
            )
            bare.append(_bare_rate(large, workers))
            flows.append(_flow(_config(large, folder / f"flow-{repeat}", "ojala", workers)))
        small = _survey(folder / "small", MOCK_ROWS, tile_rows=SMALL_ROWS)
        report(f"{len(read_leaves(small))} partitions without a network")
        empty = [_flow(_config(small, folder / f"empty-{r}", "empty", workers)) for r in range(REPEATS)]
        cpu = _cpu_seconds(_config(small, folder / "empty-cpu", "empty", 1))
        memory = {}
        for rows in MEMORY_ROWS:
            report(f"memory for a partition of {rows:,} rows")
            survey = _survey(folder / f"survey-{rows}", rows, tile_rows=rows)
            memory[rows] = _peak_memory(_config(survey, folder / f"memory-{rows}", "ojala", 1)) >> 20
    rates = [timing.rows / timing.seconds for timing in flows]
    return Figures(
        rows=copies * MOCK_ROWS,
        partitions=len(leaves),
        workers=workers,
        bare_rows_per_second=bare,
        flow_rows_per_second=rates,
        flow_over_bare=statistics.median(rates) / statistics.median(bare),
        startup_seconds=statistics.median(timing.startup for timing in flows),
        partition_milliseconds=[1e3 * timing.seconds / timing.partitions for timing in empty],
        partition_cpu_milliseconds=1e3 * cpu / empty[0].partitions,
        peak_memory=memory,
    )


@dataclass(frozen=True, slots=True)
class Timing:
    """What one run took: seconds from the start of its first partition to its last receipt."""

    rows: int
    partitions: int
    seconds: float
    startup: float


def _survey(folder: Path, rows: int, tile_rows: int) -> UPath:
    """A photometry catalogue of so many rows of the mock sky, over and over."""
    sky = pd.read_parquet(PATCH / "mock_sky.parquet")
    copies = pd.concat([sky] * -(-rows // len(sky)), ignore_index=True).head(rows)
    copies["number"] = np.arange(1, rows + 1, dtype=np.int32)
    folder.mkdir()
    pq.write_table(pa.Table.from_pandas(copies, preserve_index=False), folder / "sky.parquet")
    ingest([UPath(folder / "sky.parquet")], UPath(folder / "photometry"), tile_rows=tile_rows)
    return UPath(folder / "photometry")


def _config(photometry: UPath, out: Path, model: str, workers: int) -> RunConfig:
    return RunConfig.model_validate(
        {"photometry": str(photometry), "out": str(out), "model": model, "workers": workers}
    )


def _bare_rate(photometry: UPath, threads: int) -> float:
    """Rows a second of the network alone, in this process."""
    paths = [photometry / partition.leaf for partition in read_leaves(photometry)]
    arrays = read_photometry(pa.concat_tables([pq.ParquetFile(path.path).read() for path in paths]))
    keep_freed_memory()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    model = _config(photometry, Path("unused"), "ojala", threads).spec().load()
    model.predict(arrays.flux[:512], arrays.error[:512], arrays.ebv[:512])
    begin = time.perf_counter()
    model.predict(arrays.flux, arrays.error, arrays.ebv)
    seconds = time.perf_counter() - begin
    torch.set_num_threads(before)
    return len(arrays.flux) / seconds


def _flow(config: RunConfig) -> Timing:
    """Plan and work on all partitions; the leaves are written as in any run."""
    plan = make_plan(config)
    survey_run.begin(plan, config)
    begun = time.time()
    receipts = []
    for receipt in survey_run.execute(plan, config):
        receipts.append(receipt)
        ended = time.time()
    failed = [receipt.attempts[-1].error for receipt in receipts if receipt.status == "failed"]
    if failed:
        raise RuntimeError(f"{len(failed)} partitions failed: {failed[0]}")
    first = min(dt.datetime.fromisoformat(receipt.attempts[-1].started) for receipt in receipts).timestamp()
    return Timing(sum(r.rows_out for r in receipts), len(receipts), ended - first, first - begun)


def _cpu_seconds(config: RunConfig) -> float:
    """Processor seconds of all partitions in this process."""
    config = config.model_copy(update={"engine": "serial"})
    begin = time.process_time()
    _flow(config)
    return time.process_time() - begin


def _peak_memory(config: RunConfig) -> int:
    """Peak memory [bytes] of a worker that does one partition."""
    plan = make_plan(config)
    survey_run.begin(plan, config)
    (receipt,) = survey_run.execute(plan, config)
    return receipt.peak_rss


def _spread(values: list[float]) -> str:
    """Median with the least and the largest."""
    digits = 0 if statistics.median(values) >= 100 else 1
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"
