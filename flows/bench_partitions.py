"""What many partitions cost the driver: seconds and memory of plan and end of a run, without a network.

    python -m flows.bench_partitions 10128

works on one partition of a few rows with the empty model, lets its photometry, its leaf and its receipt stand
for all the others, and prints a table. So there are as many real receipts and files as in a survey, but only
one partition had to be done.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
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


def measure(photometry: UPath, out: Path) -> list[tuple[str, float, float, float]]:
    """Steps of a run: seconds, of these on a processor, and the driver's memory afterwards [MiB]."""
    config = RunConfig(photometry=str(photometry), out=str(out), model="empty", engine="serial")
    steps: list[tuple[str, float, float, float]] = []

    def step(name: str, act: Callable[[], T]) -> T:
        begin, busy = time.perf_counter(), time.process_time()
        outcome = act()
        seconds, busy = time.perf_counter() - begin, time.process_time() - busy
        steps.append((name, seconds, busy, psutil.Process().memory_info().rss / 2**20))
        print(f"{name}: {seconds:.2f} s", file=sys.stderr, flush=True)
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


if __name__ == "__main__":
    count = int(sys.argv[1])
    with TemporaryDirectory(prefix="ojala-bench-", dir=sys.argv[2] if len(sys.argv) > 2 else None) as name:
        catalogue = simulate(Path(name), count)
        print(f"| {count:,} partitions | seconds | on a processor | memory afterwards |\n|---|---|---|---|")
        for what, seconds, busy, memory in measure(catalogue, Path(name) / "out"):
            print(f"| {what} | {seconds:.2f} | {busy:.2f} | {memory:,.0f} MiB |")
        print(f"| largest memory | | | {peak_memory() / 2**20:,.0f} MiB |")
