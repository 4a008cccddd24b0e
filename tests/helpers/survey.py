"""Small surveys for tests: objects, their photometry catalogue, and runs over it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from ojala.catalogs_schema.bands import BANDS
from ojala.catalogs_schema.receipt import Fingerprint
from ojala.pipeline import run as survey_run
from ojala.pipeline.inference.adapters.registry import ADAPTERS
from ojala.pipeline.inference.process import Task
from ojala.pipeline.ingest.photometry import ingest_photometry
from ojala.pipeline.runs.config import RunConfig
from ojala.pipeline.runs.plan import Plan, make_plan
from ojala.pipeline.runs.record import RunRecord
from ojala.pipeline.runs.region import Region
from ojala.pipeline.runs.resolved import resolve_run
from ojala.pipeline.storage.hats import read_leaves


def photometry_table(n: int, seed: int = 1, *, tile_id: int = 7) -> pa.Table:
    """Photometry of n plausible objects near ra 245.5, dec 43.9, with a missing band here and there.

    Key, position and fluxes only: what a person hands in. Colours are those of power laws.
    """
    rng = np.random.default_rng(seed)
    pivot = np.array([band.pivot for band in BANDS])
    slope = rng.uniform(-1.0, 3.0, n)
    level = 10.0 ** rng.uniform(0.0, 2.5, n)
    flux = level[:, None] * (pivot / 7500.0) ** slope[:, None]
    error = 0.5 + 0.02 * flux
    flux = (flux + error * rng.standard_normal(flux.shape)).astype(np.float32)
    error = error.astype(np.float32)
    missing = rng.random(flux.shape) < 0.1
    columns: dict[str, pa.Array] = {
        "tile_id": pa.array(np.full(n, tile_id, np.int32)),
        "number": pa.array(np.arange(1, n + 1, dtype=np.int32)),
        "ra": pa.array(245.5 + rng.uniform(-0.7, 0.7, n)),
        "dec": pa.array(43.9 + rng.uniform(-0.5, 0.5, n)),
        "ebv": pa.array(rng.uniform(0.0, 0.1, n).astype(np.float32)),
        "flags": pa.array(np.zeros(n, np.int32)),
        "mask_flags": pa.array(np.zeros(n, np.int32)),
    }
    for index, band in enumerate(BANDS):
        columns[band.flux_column] = pa.array(flux[:, index], mask=missing[:, index])
        columns[band.error_column] = pa.array(error[:, index], mask=missing[:, index])
    return pa.table(columns)


def replace(table: pa.Table, column: str, row: int, value: object) -> pa.Table:
    """The table with one cell replaced."""
    values = table[column].to_pylist()
    values[row] = value
    index = table.schema.get_field_index(column)
    return table.set_column(index, column, pa.array(values, table.schema.field(column).type))


def ingest_table(table: pa.Table, folder: Path, tile_rows: int = 80) -> UPath:
    """A photometry catalogue made from a table by way of a Parquet file."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "input.parquet")
    ingest_photometry([UPath(folder / "input.parquet")], UPath(folder / "photometry"), tile_rows=tile_rows)
    return UPath(folder / "photometry")


@dataclass(frozen=True)
class Finished:
    """A run that was carried through without Prefect."""

    config: RunConfig
    plan: Plan
    record: RunRecord

    @property
    def out(self) -> UPath:
        return UPath(self.config.out)

    @property
    def run(self) -> UPath:
        return self.out / "runs" / self.plan.run_id

    @property
    def photometry(self) -> UPath:
        return UPath(self.config.photometry)


_WRITE_REPORT = survey_run.write_report


def without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the report out of runs, which takes most of their time; it has tests of its own."""
    monkeypatch.setattr(survey_run, "write_report", lambda *of_the_run: None)


def with_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the report of all runs of this process, also where `run_and_publish` would leave it out."""
    monkeypatch.setattr(survey_run, "write_report", partial(_WRITE_REPORT))


def plan_run(config: RunConfig, region: Region | None = None, *, check: bool = False) -> Plan:
    """Plan of a run with this configuration."""
    return make_plan(resolve_run(config), region, check=check)


def run_and_publish(config: RunConfig, *, report: bool = False) -> Finished:
    """Plan, run, finalise and publish.

    The report, which takes seconds, and margins, which take half a second, only where they are asked for.
    """
    if "margins" not in config.model_fields_set:
        config = config.model_copy(update={"margins": False})
    plan = plan_run(config)
    survey_run.begin(plan)
    for _ in survey_run.execute(plan):
        pass
    with pytest.MonkeyPatch.context() as patch:
        if not report and survey_run.write_report is _WRITE_REPORT:  # which is no test's own
            without_report(patch)
        record = survey_run.finalise(plan)
    if record.status == "complete":
        survey_run.publish(plan)
    return Finished(config, plan, record)


def orders(photometry: UPath, run: Path, products: tuple[str, ...] = ("ojala",)) -> list[Task]:
    """Work orders for all partitions of a photometry catalogue."""
    return [
        Task(
            partition=partition,
            adapter=ADAPTERS["empty"],
            source=str(photometry),
            run=str(run),
            rows=leaf.rows,
            fingerprint=Fingerprint(
                input_sha256=leaf.sha256,
                weights_sha256="w",
                config_sha256="c",
                code_version="1",
                contract_version="1",
            ),
            products=products,
            metadata=(("ojala.run_id", "r1"),),
        )
        for partition, leaf in read_leaves(photometry).items()
    ]
