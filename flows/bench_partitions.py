"""What many partitions cost the driver: seconds and memory of plan and end of a run, without a network.

    python -m flows.bench_partitions 1266 2532 5064 10128

works for each number on one partition of a few rows with the empty model, lets its photometry, its leaf and
its receipt stand for all the others, and prints a table. So there are as many real receipts and files as in
a survey, but only one partition had to be done.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import healpy
import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from catalogs_schema.photometry import PHOTOMETRY
from catalogs_schema.receipt import Receipt
from flows.demo import PATCH
from pipeline import run as survey_run
from pipeline.catalogue import SKYMAP_ORDER, finalise_catalogue, read_leaves
from pipeline.config import RunConfig
from pipeline.ingest import ingest
from pipeline.leaf import LeafRecord
from pipeline.partition import peak_memory, receipt_path
from pipeline.plan import Plan, make_plan
from pipeline.sky import Partition

T = TypeVar("T")

ORDER = 6
"""Order of the partitions: 10,128 of them are the sky of J-PAS."""

ROWS = 3
"""Rows of a partition."""


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


def simulate(folder: Path, partitions: int) -> UPath:
    """A photometry catalogue of so many partitions, all of them with the same few objects."""
    sky = pd.read_parquet(PATCH / "mock_sky.parquet").head(ROWS)
    pq.write_table(pa.Table.from_pandas(sky, preserve_index=False), folder / "sky.parquet")
    ingest([UPath(folder / "sky.parquet")], UPath(folder / "few"), tile_rows=ROWS)
    ((partition, leaf),) = read_leaves(UPath(folder / "few")).items()
    root = UPath(folder / "photometry")
    places = [Partition(ORDER, pixel) for pixel in range(partitions)]
    for place in places:
        double(folder / "few" / partition.leaf, Path(root.path, place.leaf))
    leaves = {place: LeafRecord(place.leaf, leaf.rows, leaf.bytes, leaf.sha256) for place in places}
    counts = np.zeros(healpy.order2npix(SKYMAP_ORDER), dtype=np.int64)
    counts[[place.pixel << 2 * (SKYMAP_ORDER - ORDER) for place in places]] = ROWS
    finalise_catalogue(root, PHOTOMETRY, leaves, name="simulated", skymap=counts)
    return root


def double(source: Path, target: Path) -> None:
    """A file of its own with the content of another, as cheaply as the file system can."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def stand_for_all(run: Path, plan: Plan, receipt: Receipt) -> None:
    """Give every partition of a plan the leaf and the receipt of the one that was done."""
    for entry in plan.entries[1:]:
        (leaf,) = receipt.leaves
        other = leaf.model_copy(update={"path": f"{leaf.product}/{entry.partition.leaf}"})
        double(run / leaf.path, run / other.path)
        same = receipt.model_copy(update={"partition": entry.partition.name, "leaves": [other]})
        path = receipt_path(UPath(run), entry.partition)
        path.write_text(same.model_dump_json(indent=1))


def measure(photometry: UPath, out: Path) -> dict[str, float]:
    """Processor seconds of the steps of a run."""
    config = RunConfig(photometry=str(photometry), out=str(out), model="empty", engine="serial")
    steps: dict[str, float] = {}

    def step(name: str, act: Callable[[], T]) -> T:
        begin, busy = time.perf_counter(), time.process_time()
        outcome = act()
        steps[name] = time.process_time() - busy
        took = time.perf_counter() - begin
        print(f"{name}: {took:.2f} s, {steps[name]:.2f} s of a processor", file=sys.stderr, flush=True)
        return outcome

    plan = step("plan of a new run", lambda: make_plan(config))
    step("begin", lambda: survey_run.begin(plan, config))
    (receipt,) = survey_run.execute(replace(plan, entries=plan.entries[:1]), config)
    stand_for_all(out / "runs" / plan.run_id, plan, receipt)
    step("plan of an unfinished run", lambda: make_plan(config))
    step("catalogues and provenance", lambda: survey_run.make_catalogues(plan, config))
    step("quality, report, checksums", lambda: survey_run.assess(plan, config))
    step("publish", lambda: survey_run.publish(plan, config))
    step("plan when all is done", lambda: make_plan(config))
    step("plan when all is done, --check", lambda: make_plan(config, check=True))
    other = config.model_copy(update={"precision": "bf16"})
    step("plan when all is stale", lambda: make_plan(other))
    return steps


def costs(partitions: int) -> Costs:
    """What so many partitions cost this process."""
    begin = psutil.Process().memory_info().rss / 2**20
    with TemporaryDirectory(prefix="ojala-bench-") as name:
        seconds = measure(simulate(Path(name), partitions), Path(name, "out"))
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


def alone(partitions: int) -> Costs:
    """What so many partitions cost a process of their own."""
    command = [sys.executable, "-m", "flows.bench_partitions", "--alone", str(partitions)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Costs(**json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    if sys.argv[1] == "--alone":
        print(json.dumps(asdict(costs(int(sys.argv[2])))))
    else:
        print(table([alone(int(count)) for count in sys.argv[1:]]))
