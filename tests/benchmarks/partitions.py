"""What many partitions cost the driver: seconds and memory of plan and end of a run, without a network.

    python -m tests.benchmarks.partitions [--rows 34000] 1266 2532 5064 10128

works for each number on one partition with the empty model, lets its photometry, its leaf and its receipt
stand for all the others, and prints a table. So there are as many real receipts and files as in a survey,
but only one partition had to be done. What is measured runs in a process that imports what a driver imports.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
import psutil
from upath import UPath

from ojala.catalogs_schema.receipt import Receipt
from ojala.pipeline import run as survey_run
from ojala.pipeline.inference.process import peak_memory, receipt_path
from ojala.pipeline.runs.config import RunConfig
from ojala.pipeline.runs.plan import Plan, make_plan
from ojala.pipeline.runs.resolved import resolve_run

T = TypeVar("T")

ROWS = 3
"""Rows of a partition where nothing else is asked for."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What so many partitions cost.

    Attributes
    ----------
    partitions : int
        How many.
    seconds : dict of str to float
        Processor seconds by step; on a machine that others use too, the clock tells of them.
    memory : dict of str to float
        The process's memory after its imports, and its peak [MiB].
    """

    partitions: int
    seconds: dict[str, float]
    memory: dict[str, float]


def stand_for_all(run: Path, plan: Plan, receipt: Receipt) -> None:
    """Give every partition of a plan the leaf and the receipt of the one that was done."""
    for entry in plan.entries[1:]:
        (leaf,) = receipt.leaves
        other = leaf.model_copy(update={"path": f"{leaf.product}/{entry.partition.leaf}"})
        (run / other.path).parent.mkdir(parents=True, exist_ok=True)
        (run / other.path).hardlink_to(run / leaf.path)
        same = receipt.model_copy(update={"partition": entry.partition.name, "leaves": [other]})
        path = receipt_path(UPath(run), entry.partition)
        path.write_text(same.model_dump_json(indent=1))


def measure(photometry: Path, out: Path) -> dict[str, float]:
    """Processor seconds of the steps of a run."""
    config = RunConfig(photometry=str(photometry), out=str(out), model="empty", engine="serial")

    def plan_run(config: RunConfig, *, check: bool = False) -> Plan:
        return make_plan(resolve_run(config), check=check)

    steps: dict[str, float] = {}

    def step(name: str, act: Callable[[], T]) -> T:
        begin, busy = time.perf_counter(), time.process_time()
        outcome = act()
        steps[name] = time.process_time() - busy
        took = time.perf_counter() - begin
        print(f"{name}: {took:.2f} s, {steps[name]:.2f} s of a processor", file=sys.stderr, flush=True)
        return outcome

    plan = step("plan of a new run", lambda: plan_run(config))
    step("begin", lambda: survey_run.begin(plan))
    (receipt,) = survey_run.execute(replace(plan, entries=plan.entries[:1]))
    stand_for_all(out / "runs" / plan.run_id, plan, receipt)
    step("plan of an unfinished run", lambda: plan_run(config))
    step("catalogues and provenance", lambda: survey_run.make_catalogues(plan))
    step("quality, report, checksums", lambda: survey_run.assess(plan.resolved, plan.run_id))
    step("publish", lambda: survey_run.publish(plan))
    step("plan when all is done", lambda: plan_run(config))
    step("plan when all is done, --check", lambda: plan_run(config, check=True))
    other = config.model_copy(update={"precision": "bf16"})
    step("plan when all is stale", lambda: plan_run(other))
    return steps


def costs(photometry: Path, partitions: int) -> Costs:
    """What the runs over a catalogue of so many partitions cost this process."""
    begin = psutil.Process().memory_info().rss / 2**20
    seconds = measure(photometry, photometry.parent / "out")
    return Costs(partitions, seconds, {"after imports": begin, "peak": peak_memory() / 2**20})


def straight_line(found: Sequence[Costs], values: Sequence[float]) -> tuple[float, float]:
    """Rise of a quantity per 1,000 partitions, and its largest departure from the line over its maximum."""
    counts = np.array([cost.partitions for cost in found])
    slope, start = np.polyfit(counts, values, 1)
    departure = np.abs(slope * counts + start - values).max() / max(values)
    return float(1e3 * slope), float(departure)


def table(found: Sequence[Costs]) -> str:
    """The costs of several numbers of partitions, with the straight lines through them."""
    lines = ["partitions", *(f"{cost.partitions:,}" for cost in found), "per 1,000 more", "off the line"]
    rows = [lines, ["---"] * len(lines)]
    steps = {f"{name} [s]": [cost.seconds[name] for cost in found] for name in found[0].seconds}
    memory = {f"memory, {name} [MiB]": [cost.memory[name] for cost in found] for name in found[0].memory}
    for name, values in (steps | memory).items():
        slope, departure = straight_line(found, values)
        cells = [f"{value:.0f}" if name in memory else f"{value:.2f}" for value in values]
        rows.append([name, *cells, f"{slope:.2f}", f"{100 * departure:.0f} %"])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def alone(partitions: int, rows: int) -> Costs:
    """What so many partitions cost a process of their own."""
    from tests.benchmarks.catalogues import simulate  # needs torch

    command = [sys.executable, "-m", "tests.benchmarks.partitions", str(partitions), "--photometry"]
    with TemporaryDirectory(prefix="ojala-bench-") as name:
        photometry = simulate(Path(name), partitions, rows)
        done = subprocess.run([*command, str(photometry)], stdout=subprocess.PIPE, text=True, check=True)
    return Costs(**json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=ROWS, help="rows of a partition")
    parser.add_argument("--photometry", type=Path, help="catalogue that is there, in this process")
    parser.add_argument("partitions", type=int, nargs="+")
    asked = parser.parse_args()
    if asked.photometry:
        print(json.dumps(asdict(costs(asked.photometry, asked.partitions[0]))))
    else:
        print(table([alone(count, asked.rows) for count in asked.partitions]))
