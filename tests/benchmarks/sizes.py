"""What a whole run costs by the number of its rows: seconds by step, and memory of driver and workers.

    python -m tests.benchmarks.sizes [--model empty] [--workers 2] 10000 100000 1000000

works through partitions of 5,000 rows of the mock sky, Parquet to published catalogue, each size in a
process of its own, and prints a table. With OJALA the bare network is measured before and after each run, in
as many processes, on the same rows.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from upath import UPath

from ojala.catalogs_schema.receipt import Receipt
from ojala.flows.bench import network
from ojala.flows.bench.flow import config, run_flow
from ojala.flows.bench.process_pool import ProcessPool
from ojala.models.serving.precision import Precision
from ojala.pipeline import run as survey_run
from ojala.pipeline.inference.process import peak_memory
from tests.benchmarks.catalogues import simulate
from tests.helpers.survey import plan_run

ROWS = 5_000
"""Rows of a partition."""

BARE_ROWS = 2_048
"""Rows per process in a measurement of the bare network."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run over so many rows cost.

    Attributes
    ----------
    rows, partitions : int
        How many.
    startup, work, end : float
        Seconds until the first partition begins; from then to the last receipt; catalogues, quality, report
        and publication.
    driver : float
        Peak memory of the process that drives the run [MiB].
    workers : float
        Largest peak memory of a worker [MiB].
    growth : float
        Median over the workers: by how much their peak memory rose from the end of the first tenth of their
        partitions to the last [MiB].
    bare : float
        Rate of the bare network in the run's precision [rows/s]: the mean of one measurement before the run
        and one after it; NaN without OJALA.
    """

    rows: int
    partitions: int
    startup: float
    work: float
    end: float
    driver: float
    workers: float
    growth: float
    bare: float = math.nan


def worker_memory(receipts: Sequence[Receipt]) -> tuple[float, float]:
    """Largest peak memory of the workers, and its median rise after the first tenth of their work [MiB]."""
    peaks: dict[int, list[tuple[str, float]]] = defaultdict(list)
    for receipt in receipts:
        attempt = receipt.attempts[-1]
        peaks[attempt.pid].append((attempt.started, receipt.peak_rss / 2**20))
    in_time = [[peak for _, peak in sorted(of_worker)] for of_worker in peaks.values()]
    return max(one[-1] for one in in_time), float(
        np.median([one[-1] - one[len(one) // 10] for one in in_time])
    )


def bare_network(photometry: UPath, workers: int, precision: Precision) -> float:
    """Rate of the bare network in so many processes [rows/s]."""
    with ProcessPool(workers) as pool:
        return pool.rate(network.forward, str(photometry), BARE_ROWS, precision)


def cost(rows: int, model: str, workers: int) -> Cost:
    """Run over so many rows, in this process."""
    partitions = max(1, round(rows / ROWS))
    with TemporaryDirectory(prefix="ojala-bench-") as name:
        photometry = simulate(Path(name), partitions, ROWS)
        asked = config(photometry, Path(name, "out"), model, workers)
        bare = [math.nan]
        if model == "ojala":
            bare = [bare_network(photometry, workers, asked.precision)]
        timing = run_flow(asked)
        if model == "ojala":
            bare.append(bare_network(photometry, workers, asked.precision))
        begin, plan = time.perf_counter(), plan_run(asked)
        survey_run.make_catalogues(plan)
        survey_run.assess(plan.resolved, plan.run_id)
        survey_run.publish(plan)
        end = time.perf_counter() - begin
    largest, growth = worker_memory(timing.receipts)
    driver = peak_memory() / 2**20
    return Cost(
        *(timing.rows, partitions, timing.startup, timing.seconds, end, driver, largest, growth),
        bare=float(np.mean(bare)),
    )


HEADS = (
    *("rows", "partitions", "start [s]", "work [s]", "rows/s", "end [s]"),
    *("driver [MiB]", "worker [MiB]", "its rise after a tenth [MiB]", "bare network [rows/s]", "of it"),
)


def table(found: Sequence[Cost]) -> str:
    """The costs, one line each."""
    lines = [HEADS, ("---",) * len(HEADS)]
    for one in found:
        counts = (f"{one.rows:,}", f"{one.partitions:,}")
        times = (f"{one.startup:.1f}", f"{one.work:.1f}", f"{one.rows / one.work:,.0f}", f"{one.end:.1f}")
        memory = (f"{one.driver:.0f}", f"{one.workers:.0f}", f"{one.growth:.0f}")
        bare = (
            ("", "")
            if math.isnan(one.bare)
            else (f"{one.bare:,.0f}", f"{one.rows / one.work / one.bare:.2f}")
        )
        lines.append((*counts, *times, *memory, *bare))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def alone(rows: int, model: str, workers: int) -> Cost:
    """What so many rows cost in a process of their own."""
    asked = ["--alone", "--model", model, "--workers", str(workers), str(rows)]
    command = [sys.executable, "-m", "tests.benchmarks.sizes", *asked]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="ojala", help="ojala, or empty for a run without a network")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--alone", action="store_true", help="one size, in this process")
    parser.add_argument("rows", type=int, nargs="+")
    given = parser.parse_args()
    if given.alone:
        print(json.dumps(asdict(cost(given.rows[0], given.model, given.workers))))
    else:
        print(table([alone(rows, given.model, given.workers) for rows in given.rows]))
