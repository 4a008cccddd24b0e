"""Estimate of time, memory and disk of a survey from measured rates: ``ojala plan --what-if ROWS``."""

from __future__ import annotations

from dataclasses import dataclass

from ojala.catalogs_schema.errors import InputError
from ojala.flows.cli.output import duration, size_text
from ojala.pipeline.inference.adapters.registry import DEFAULT_MODEL
from ojala.pipeline.ingest.photometry import TILE_ROWS
from ojala.pipeline.runs.config import RunConfig

ROWS_PER_SECOND = {"bf16": 869.0, "fp32": 464.0}
"""Rows a second of one core, from photometry to written catalogues, by arithmetic (`ojala bench`: half of
what two cores reach)."""

WORKER_MIB, MIB_PER_ROW, MEMORY_MARGIN = 650.0, 0.022, 1.5
"""Memory of a worker: a constant, a part by the rows of its partition, and a margin (`ojala bench`)."""

DRIVER_MIB = 1024.0
"""Memory of the command itself, with 10,000 partitions (`python -m tests.benchmarks.partitions`)."""

BYTES_PER_ROW = {"photometry": 540, "ojala": 280, "ojala_vectors": 1400, "ojala_bands": 504}
"""Bytes a row of each product with its receipts (`ojala demo`); of the bands before compression."""


@dataclass(frozen=True, slots=True)
class Sizing:
    """Time, memory and disk of a run of OJALÁ over a survey.

    Attributes
    ----------
    rows, workers : int
        The survey and the machine.
    precision : str
        Arithmetic of the network.
    tile_rows : int
        Rows of the largest partition.
    seconds, rows_per_second : float
        Time of the run, and its rate.
    worker_bytes, memory_bytes : float
        Memory of a worker; of all workers and the command.
    disk_bytes : dict of str to float
        Disk space by product, photometry included.
    """

    rows: int
    workers: int
    precision: str
    tile_rows: int
    seconds: float
    rows_per_second: float
    worker_bytes: float
    memory_bytes: float
    disk_bytes: dict[str, float]

    def __str__(self) -> str:
        disk = ", ".join(f"{name} {size_text(value)}" for name, value in self.disk_bytes.items())
        workers = f"{self.workers:,} worker{'s' if self.workers > 1 else ''}"
        return (
            f"{self.rows:,} rows with {workers} of one core each, {self.precision}:\n"
            f"  time    {duration(self.seconds)} at {self.rows_per_second:,.0f} rows/s\n"
            f"  memory  {size_text(self.memory_bytes)}: {size_text(self.worker_bytes)} a worker, "
            f"for partitions of {self.tile_rows:,} rows\n"
            f"  disk    {size_text(sum(self.disk_bytes.values()))}: {disk}\n"
            "An estimate from measurements of two cores, scaled in proportion. `ojala bench` measures this "
            "machine, and `ojala plan` without --what-if reads the rate from your own receipts."
        )


def estimate(rows: int, config: RunConfig, tile_rows: int = TILE_ROWS) -> Sizing:
    """Estimate time, memory and disk space of a run of OJALÁ over so many rows.

    Parameters
    ----------
    rows : int
        Rows of the survey.
    config : RunConfig
        Workers, arithmetic and products.
    tile_rows : int
        Rows of the largest partition.

    Raises
    ------
    InputError
        The model is another one, or runs on a GPU: their rates were not measured for surveys.
    """
    if config.model != DEFAULT_MODEL or config.device != "cpu":
        raise InputError(
            f"--what-if knows the rates of {DEFAULT_MODEL} on processors alone, not of {config.model} on "
            f"{config.device}: `ojala bench` measures this machine"
        )
    rate = ROWS_PER_SECOND[config.precision] * config.workers
    worker = (WORKER_MIB + MIB_PER_ROW * min(rows, tile_rows)) * MEMORY_MARGIN * 2**20
    products = ["photometry", "ojala"]
    products += ["ojala_vectors"] * config.vectors + ["ojala_bands"] * config.bands
    return Sizing(
        rows=rows,
        workers=config.workers,
        precision=config.precision,
        tile_rows=min(rows, tile_rows),
        seconds=rows / rate,
        rows_per_second=rate,
        worker_bytes=worker,
        memory_bytes=worker * config.workers + DRIVER_MIB * 2**20,
        disk_bytes={name: float(BYTES_PER_ROW[name] * rows) for name in products},
    )
