"""Benchmark `ojala bench`: limits of the machine, and rates of the network and the flow against them.

All measurements are of the same rows and alternate in turns, so that ratios hold on a busy machine. Results
are in ``flows/bench/BENCHMARK.md``.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ojala.flows.bench import flow, machine, network, spectra
from ojala.flows.bench.process_pool import ProcessPool
from ojala.flows.bench.report import (
    Flow,
    Leaves,
    Machine,
    MedianRange,
    Network,
    Report,
    Spectral,
    ratios_of,
    roofline,
)
from ojala.pipeline.storage.hats import read_leaves
from ojala.pipeline.storage.progress import counted

SMALL_ROWS = 60
"""Largest partition in the run that measures the cost of partitions without a network [rows]."""


BANDS_SHARE = 8
"""With bands, which cost several times as much, one row of so many is measured."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of the measurements.

    Attributes
    ----------
    repeats : int
        Number of turns.
    minutes : float
        Time limit; turns that would exceed it are left out.
    rows, tile_rows : int
        Rows of the flow, and largest partition.
    network_rows, published_rows : int
        Rows per process and turn of the network, and of the published network in either way of serving.
    small_rows : int
        Rows in partitions of `SMALL_ROWS`.
    spectra : int
        Spectra per process and turn of each model of spectra.
    seconds : float
        Duration of each of the shortest measurements.
    file_bytes : int
        Size of the file for the disk rates.
    memory_rows : tuple of int
        Partition sizes for the memory of a worker.
    """

    repeats: int
    minutes: float
    rows: int
    tile_rows: int
    network_rows: int
    published_rows: int
    small_rows: int
    spectra: int
    seconds: float
    file_bytes: int
    memory_rows: tuple[int, ...]


FULL = Sizes(3, 2.75, 6_000, 1_000, 1_024, 256, 3_000, 64, 0.3, 128 << 20, (1_000, 5_000))
"""Three minutes on two free cores without bf16; on a slow or busy machine fewer turns."""

QUICK = Sizes(3, 0.6, 1_000, 250, 128, 128, 300, 16, 0.05, 64 << 20, ())
"""The same in forty seconds, without the memory of workers."""


def bench(
    sizes: Sizes = FULL, workers: int | None = None, report: Callable[[str], None] = lambda line: None
) -> Report:
    """Measure on copies of the bundled mock sky.

    Parameters
    ----------
    sizes : Sizes
        Sizes.
    workers : int, optional
        Processes; by default one per core.
    report : callable
        Receives a line on each measurement.
    """
    begin = time.monotonic()
    workers = workers or os.cpu_count() or 1
    device = machine.this_device()
    with TemporaryDirectory(prefix="ojala-bench-") as name, ProcessPool(workers) as pool:
        folder = Path(name)
        sky = flow.survey(folder / "sky", sizes.rows, sizes.tile_rows)
        small = flow.survey(folder / "small", sizes.small_rows, SMALL_ROWS)
        root = str(sky)
        flops, moved, least, products = pool.one(network.count, root)
        spectral_flops = {name: pool.one(spectra.count, name) for name in spectra.SPECTRAL}
        turns: dict[str, list[float]] = defaultdict(list)
        memory = {}
        for rows in sizes.memory_rows:
            report(f"memory for a partition of {rows:,} rows")
            one = flow.survey(folder / f"sky-{rows}", rows, rows)
            timing = flow.run_flow(flow.config(one, folder / f"memory-{rows}", "ojala", 1))
            memory[rows] = timing.receipts[0].peak_rss >> 20
        flows, empty, busy = [], [], []
        skipped = [] if device.bf16 else ["bf16: this processor has no instructions for it"]
        if not sizes.memory_rows:
            skipped.append("memory of workers: without --quick")
        for turn in counted(range(sizes.repeats), "turns"):
            if turn and (1.0 + 1.0 / turn) * (time.monotonic() - begin) > 60.0 * sizes.minutes:
                skipped.append(
                    f"turns {turn + 1} to {sizes.repeats}: they would have exceeded the time limit"
                )
                report(f"{turn} of {sizes.repeats} turns, as the machine is slow or busy")
                break
            report(f"turn {turn + 1} of {sizes.repeats}: machine, network, leaves, flow")
            _measure_machine(pool, folder, products, sizes, turns)
            _measure_network(pool, root, sizes, turns)
            _measure_leaves(pool, root, folder, sizes, turns)
            _measure_spectra(pool, sizes, turns)
            flows.append(flow.run_flow(flow.config(sky, folder / f"flow-{turn}", "ojala", workers)))
            empty.append(flow.run_flow(flow.config(small, folder / f"empty-{turn}", "empty", workers)))
            alone = flow.config(small, folder / f"alone-{turn}", "empty", 1, engine="serial")
            busy.append(flow.run_flow(alone).cpu)
        partitions, small_partitions = len(read_leaves(sky)), len(read_leaves(small))
    of = {what: MedianRange.from_values(values) for what, values in turns.items()}
    limits = Machine(
        matrix={p: of[f"matrix {p}"] for p in machine.precisions()},
        matrix_of_network={p: of[f"products {p}"] for p in machine.precisions()},
        copy=of["copy"],
        disk_write=of["disk write"],
        disk_read=of["disk read"],
    )
    bare = Network(
        batch=network.predictor("fp32").batch_size,
        flops=flops,
        bytes_moved=moved,
        bytes_least=least,
        roofline={
            p: roofline(flops, least, limits.matrix[p].median, limits.copy.median)
            for p in machine.precisions()
        },
        forward={p: of[f"forward {p}"] for p in machine.precisions()},
        predict={p: of[f"predict {p}"] for p in machine.precisions()},
        predict_with_bands={p: of[f"bands {p}"] for p in machine.precisions() if f"bands {p}" in of},
        published=of["published"],
        reference=of["reference"],
    )
    whole = Flow(
        rows=sizes.rows,
        partitions=partitions,
        workers=workers,
        precision=flow.config(sky, folder, "ojala", workers).precision,
        rate=MedianRange.from_values([timing.rows / timing.seconds for timing in flows]),
        startup=MedianRange.from_values([timing.startup for timing in flows]),
        stages={
            stage: MedianRange.from_values([r.seconds[stage] for timing in flows for r in timing.receipts])
            for stage in flows[0].receipts[0].seconds
        },
        partition_milliseconds=MedianRange.from_values([1e3 * t.seconds / small_partitions for t in empty]),
        partition_cpu_milliseconds=MedianRange.from_values([1e3 * cpu / small_partitions for cpu in busy]),
        peak_memory=memory,
    )
    leaves = Leaves(sizes.tile_rows, of["read"], of["write"], of["read bytes"], of["write bytes"])
    spectral = {
        name: Spectral(
            flops=count,
            predict={p: of[f"{name} {p}"] for p in machine.precisions()},
            roofline={p: limits.matrix[p].median / count for p in machine.precisions()},
        )
        for name, count in spectral_flops.items()
    }
    ratios = ratios_of(bare, limits, whole)
    return Report(device, limits, bare, leaves, whole, spectral, ratios, len(flows), skipped)


Turns = dict[str, list[float]]
"""One value per turn, by measurement."""


def _measure_machine(
    pool: ProcessPool, folder: Path, products: dict[machine.Shape, int], sizes: Sizes, turns: Turns
) -> None:
    for precision in machine.precisions():
        squares = [{(n, n, n): 1} for n in machine.SQUARES]
        best = max(pool.rate(machine.multiply, square, precision, sizes.seconds) for square in squares)
        turns[f"matrix {precision}"].append(best)
        rate = pool.rate(machine.multiply, products, precision, sizes.seconds)
        turns[f"products {precision}"].append(rate)
    turns["copy"].append(pool.rate(machine.copy, machine.COPY_BYTES, sizes.seconds))
    written, read = machine.write_and_read(folder, sizes.file_bytes)
    turns["disk write"].append(written)
    turns["disk read"].append(read)


def _measure_network(pool: ProcessPool, root: str, sizes: Sizes, turns: Turns) -> None:
    for precision in machine.precisions():
        turns[f"forward {precision}"].append(pool.rate(network.forward, root, sizes.network_rows, precision))
        turns[f"predict {precision}"].append(pool.rate(network.predict, root, sizes.network_rows, precision))
        if network.predicts_bands():
            rows = max(network.predictor(precision).batch_size, sizes.network_rows // BANDS_SHARE)
            turns[f"bands {precision}"].append(pool.rate(network.predict, root, rows, precision, True))
    turns["published"].append(pool.rate(network.forward_published, root, sizes.published_rows))
    turns["reference"].append(pool.rate(network.serve_as_published, root, sizes.published_rows))


def _measure_leaves(pool: ProcessPool, root: str, folder: Path, sizes: Sizes, turns: Turns) -> None:
    rows, size, taken = pool.one(flow.read_leaf, root, sizes.seconds)
    turns["read"].append(rows / taken)
    turns["read bytes"].append(size / taken)
    rows, size, taken = pool.one(flow.write_leaves, root, str(folder), sizes.seconds)
    turns["write"].append(rows / taken)
    turns["write bytes"].append(size / taken)


def _measure_spectra(pool: ProcessPool, sizes: Sizes, turns: Turns) -> None:
    for name in spectra.SPECTRAL:
        for precision in machine.precisions():
            turns[f"{name} {precision}"].append(pool.rate(spectra.predict, name, sizes.spectra, precision))
