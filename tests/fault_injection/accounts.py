"""What must be the same after every fault: the rows, and each byte of the data columns."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from ojala.pipeline import run as survey_run
from ojala.pipeline.runs.config import RunConfig
from ojala.pipeline.runs.record import ENDED, read_record, run_folder
from ojala.pipeline.storage.hats import read_leaves
from tests.helpers.survey import Finished, photometry_table, plan_run, run_and_publish


@dataclass
class Fault:
    """One line of the table of faults."""

    name: str
    partitions: int = 0
    rows: int = 0
    injected: int = 0
    survived: int = 0
    rows_lost: int = 0
    recovery: list[float] = field(default_factory=list)

    @contextmanager
    def recovered(self) -> Iterator[None]:
        """Measure the seconds from the fault until everything is as it was to be."""
        begin = time.monotonic()
        yield
        self.recovery.append(time.monotonic() - begin)


Ledger = Callable[[str], Fault]


def data_of(run: UPath, product: str = "ojala") -> dict[str, str]:
    """SHA-256 of all data columns of each leaf of a run, without footers, which name the run."""
    return {
        partition.name: columns_of(run / product / partition.leaf) for partition in read_leaves(run / product)
    }


def photometry_of(root: UPath) -> dict[str, str]:
    """The same for a photometry catalogue."""
    return {partition.name: columns_of(root / partition.leaf) for partition in read_leaves(root)}


def columns_of(leaf: UPath) -> str:
    """SHA-256 of all data columns of a leaf."""
    table = pq.ParquetFile(pa.BufferReader(leaf.read_bytes())).read().replace_schema_metadata(None)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return hashlib.sha256(sink.getvalue()).hexdigest()


def rows_of(run: UPath, product: str = "ojala") -> int:
    """Rows that lie in the leaves of a run, counted in the files themselves."""
    root = run / product
    return sum(
        pq.ParquetFile(pa.BufferReader((root / partition.leaf).read_bytes())).metadata.num_rows
        for partition in read_leaves(root)
    )


def settle(fault: Fault, config: RunConfig, expected: dict[str, str]) -> Finished:
    """Carry a run through after a fault, and check that nothing tells that there was one."""
    with fault.recovered():
        finished = go_on(config)
    check(fault, finished, expected)
    return finished


def go_on(config: RunConfig) -> Finished:
    """What the same command does when it is given again: a run that has ended is only published."""
    plan = plan_run(config)
    run = run_folder(UPath(config.out), plan.run_id)
    if not plan.resumes or read_record(run).status not in ENDED:
        return run_and_publish(config)
    survey_run.publish(plan)
    return Finished(config, plan, read_record(run))


def check(fault: Fault, finished: Finished, expected: dict[str, str]) -> None:
    """Row accounts and bytes of a run against an undisturbed one."""
    record = finished.record
    assert record.status == "complete", record.failed
    fault.partitions, fault.rows = len(finished.plan.entries), record.rows_in
    fault.rows_lost += record.rows_in - rows_of(finished.run)
    assert fault.rows_lost == 0
    assert data_of(finished.run) == expected
    fault.survived = fault.injected


def wide_table(n: int, side: float, seed: int = 5) -> pa.Table:
    """Photometry of n objects over a square of the sky [deg], for many partitions."""
    rng = np.random.default_rng(seed)
    table = photometry_table(n, seed)
    for name, center in (("ra", 180.0), ("dec", 0.0)):
        column = table.schema.get_field_index(name)
        table = table.set_column(column, name, pa.array(center + rng.uniform(-side / 2, side / 2, n)))
    return table
