"""Timing of partitions and whole runs on copies of the bundled mock sky."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from ojala.catalogs_schema.ojala import OJALA
from ojala.catalogs_schema.receipt import Receipt
from ojala.flows.bench.machine import repeat
from ojala.flows.demo.run import PATCH
from ojala.pipeline import run as survey_run
from ojala.pipeline.inference.adapters.dummy import DummyModel
from ojala.pipeline.inference.photometry import read_photometry
from ojala.pipeline.inference.products.ojala import value_added_table
from ojala.pipeline.ingest.photometry import ingest_photometry
from ojala.pipeline.runs.config import RunConfig
from ojala.pipeline.runs.plan import make_plan
from ojala.pipeline.runs.resolved import resolve_run
from ojala.pipeline.storage.hats import read_leaves
from ojala.pipeline.storage.parquet import write_leaf


def survey(folder: Path, rows: int, tile_rows: int) -> UPath:
    """Ingest ``rows`` rows of repeated copies of the mock sky; returns the photometry catalogue."""
    sky = pd.read_parquet(PATCH / "mock_sky.parquet")
    copies = pd.concat([sky] * -(-rows // len(sky)), ignore_index=True).head(rows)
    copies["number"] = np.arange(1, rows + 1, dtype=np.int32)
    folder.mkdir()
    pq.write_table(pa.Table.from_pandas(copies, preserve_index=False), folder / "sky.parquet")
    ingest_photometry([UPath(folder / "sky.parquet")], UPath(folder / "photometry"), tile_rows=tile_rows)
    return UPath(folder / "photometry")


def config(photometry: UPath, out: Path, model: str, workers: int, engine: str = "local") -> RunConfig:
    """Make the configuration of a run."""
    return RunConfig.model_validate(
        {"photometry": str(photometry), "out": str(out), "model": model, "workers": workers, "engine": engine}
    )


@dataclass(frozen=True, slots=True)
class Timing:
    """Timing of a run: ``seconds`` from the start of its first partition to its last receipt."""

    receipts: Sequence[Receipt]
    seconds: float
    startup: float
    cpu: float

    @property
    def rows(self) -> int:
        """Number of written rows."""
        return sum(receipt.rows_out for receipt in self.receipts)


def run_flow(settings: RunConfig) -> Timing:
    """Plan and process all partitions.

    Raises
    ------
    RuntimeError
        A partition failed.
    """
    plan = make_plan(resolve_run(settings))
    survey_run.begin(plan)
    begun, busy = time.time(), time.process_time()
    receipts = []
    for receipt in survey_run.execute(plan):
        receipts.append(receipt)
        ended = time.time()
    cpu = time.process_time() - busy
    failed = [receipt.attempts[-1].error for receipt in receipts if receipt.status == "failed"]
    if failed:
        raise RuntimeError(f"{len(failed)} partitions failed: {failed[0]}")
    first = min(dt.datetime.fromisoformat(receipt.attempts[-1].started) for receipt in receipts).timestamp()
    return Timing(receipts, ended - first, first - begun, cpu)


def read_leaf(root: str, seconds: float) -> tuple[int, int, float]:
    """Time reading of the largest photometry leaf: rows, bytes, seconds."""
    catalogue = UPath(root)
    leaf = max(read_leaves(catalogue).values(), key=lambda leaf: leaf.rows)
    content = pa.BufferReader((catalogue / leaf.path).read_bytes())
    calls, taken = repeat(lambda: pq.ParquetFile(content).read(use_threads=False), seconds)
    return leaf.rows, leaf.bytes, taken / calls


def write_leaves(root: str, folder: str, seconds: float) -> tuple[int, int, float]:
    """Time writing of the value-added leaf of that photometry: rows, bytes, seconds."""
    catalogue = UPath(root)
    leaf = max(read_leaves(catalogue).values(), key=lambda leaf: leaf.rows)
    table = pq.ParquetFile((catalogue / leaf.path).path).read()
    inputs = read_photometry(table)
    made = value_added_table(table, inputs, DummyModel().predict(inputs.flux, inputs.error, inputs.ebv))
    path = UPath(folder) / "leaf.parquet"
    size = write_leaf(path, made, OJALA, {}).bytes
    calls, taken = repeat(lambda: write_leaf(path, made, OJALA, {}), seconds)
    return leaf.rows, size, taken / calls
