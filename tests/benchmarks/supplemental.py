"""What margins, index and statistics of a catalogue cost: made at once, and after one leaf has changed.

    python -m tests.benchmarks.supplemental [--partitions 100] [--rows 33600]

Objects have the density of J-PAS on the sky, 40,000 per square degree, in partitions of order 6. Processor
time counts all threads.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
from upath import UPath

from ojala.catalogs_schema.ojala import OJALA
from ojala.pipeline.storage.files import list_files
from ojala.pipeline.storage.hats import SKYMAP_ORDER, finalise_catalogue, read_leaves
from ojala.pipeline.storage.healpix import Partition
from ojala.pipeline.storage.margins import write_margins
from ojala.pipeline.storage.object_index import write_object_index
from ojala.pipeline.storage.parquet import LeafRecord, write_leaf
from ojala.pipeline.storage.statistics import STATISTICS, THUMBNAIL, write_statistics
from tests.benchmarks.catalogues import answers_for_the_mock_sky, replica_leaf

ORDER, FIRST = 6, 4096
"""Order of the partitions, and the first of them."""


def leaf(root: UPath, answers: pa.Table, pixel: int, rows: int) -> tuple[Partition, LeafRecord]:
    """Write a leaf of replicas."""
    partition = Partition(ORDER, pixel)
    record = write_leaf(root / partition.leaf, replica_leaf(answers, partition, rows), OJALA, {})
    return partition, replace(record, path=partition.leaf)


def finalise(root: UPath, leaves: dict[Partition, LeafRecord]) -> None:
    """Make a catalogue of the leaves; its map of the sky is empty."""
    skymap = np.zeros(12 * 4**SKYMAP_ORDER, np.int64)
    finalise_catalogue(root, OJALA, leaves, name="ojala", skymap=skymap)


def cost(name: str, work: Callable[[], object], folder: UPath, files: tuple[str, ...] = ()) -> None:
    """Print the time of a piece of work and the size of what it wrote."""
    begin, processor = time.perf_counter(), time.process_time()
    work()
    seconds, cpu = time.perf_counter() - begin, time.process_time() - processor
    found = list_files(folder)
    size = sum(found[name].bytes for name in files or found)
    print(f"| {name} | {cpu:.1f} | {seconds:.1f} | {size / 2**20:.1f} |", flush=True)


def main() -> None:
    """Print the costs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partitions", type=int, default=100)
    parser.add_argument("--rows", type=int, default=33_600, help="rows of a partition")
    asked = parser.parse_args()
    with TemporaryDirectory() as place:
        folder = UPath(place)
        (Path(place) / "mock").mkdir()
        answers = answers_for_the_mock_sky(Path(place) / "mock", 300)
        root, then = folder / "ojala", folder / "then"
        leaves = dict(leaf(root, answers, FIRST + i, asked.rows) for i in range(asked.partitions))
        finalise(root, leaves)
        size = sum(one.bytes for one in leaves.values()) / 2**20
        print(f"{asked.partitions * asked.rows:,} rows in {asked.partitions} partitions, {size:.0f} MiB")
        print("| | processor time [s] | time [s] | size [MiB] |\n|---|---|---|---|")
        for when, base in (("whole", None), ("after one leaf has changed", then)):
            if base is not None:
                Path(place, "ojala").rename(base.path)
                partition, record = leaf(root, answers.slice(1), FIRST + asked.partitions // 2, asked.rows)
                leaves = leaves | {partition: record}
                for other in leaves:
                    target = Path((root / other.leaf).path)
                    if other != partition:
                        target.parent.mkdir(parents=True, exist_ok=True)
                        target.hardlink_to((base / other.leaf).path)
                finalise(root, leaves)
            margin, index = folder / f"{when} margin", folder / f"{when} index"
            old = {"margin": folder / "whole margin", "index": folder / "whole index"} if base else {}
            now = read_leaves(root)
            margins = partial(write_margins, root, margin, now, name="ojala", base=old.get("margin"))
            cost(f"margins, {when}", margins, margin)
            keys = partial(write_object_index, root, index, now, name="index", primary="ojala")
            cost(f"index of object_id, {when}", partial(keys, base=old.get("index")), index)
            statistics = partial(write_statistics, root, now, base=base)
            cost(f"statistics and thumbnail, {when}", statistics, root, (STATISTICS, THUMBNAIL))


if __name__ == "__main__":
    main()
