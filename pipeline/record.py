"""The record of a run: one JSON file in its folder that says what it is and how far it came."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field
from upath import UPath

from catalogs_schema.receipt import Receipt
from pipeline.leaf import write_whole

RECORD = "run.json"


class Status(enum.StrEnum):
    """How far a run came. Only a complete run can be published, and it is never written to again."""

    RUNNING = "running"
    INCOMPLETE = "incomplete"
    COMPLETE = "complete"


class RunRecord(BaseModel):
    """What a run is and how far it came."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str = Field(description="name of the run and of its folder")
    status: Status = Field(description="how far it came")
    started: str = Field(description="UTC time of its first start")
    ended: str | None = Field(default=None, description="UTC time of its end")
    config: dict[str, str | int | float | bool | None] = Field(description="the resolved configuration")
    code_version: str = Field(description="version of the code")
    packages: dict[str, str] = Field(description="versions of the packages it ran with")
    model: str = Field(default="", description="name and version of the model")
    weights_sha256: str = Field(description="SHA-256 of the weights")
    partitions: int = Field(description="partitions of the photometry")
    failed: dict[str, str] = Field(default={}, description="partitions that failed, with the error")
    rows_in: int = Field(description="rows of the photometry")
    rows_out: int = Field(default=0, description="rows of the value-added catalogue")
    rows_per_worker_second: float = Field(default=0.0, description="rate of one worker, from the receipts")


def utc_now() -> str:
    """The time, ISO 8601 in UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def runs_folder(out: UPath) -> UPath:
    """Where the runs of a collection lie."""
    return out / "runs"


def write_record(run: UPath, record: RunRecord) -> None:
    """Write the record of a run into its folder, replacing the one before."""
    write_whole(run / RECORD, record.model_dump_json(indent=1).encode())


def read_record(run: UPath) -> RunRecord:
    """The record of a run."""
    return RunRecord.model_validate_json((run / RECORD).read_bytes())


def latest_run(out: UPath) -> UPath | None:
    """The folder of the run of a collection that was started last; None if there is none."""
    folder = runs_folder(out)
    if not folder.exists():
        return None
    runs = sorted((run for run in folder.iterdir() if (run / RECORD).exists()), key=lambda run: run.name)
    return runs[-1] if runs else None


def worker_rate(receipts: Sequence[Receipt]) -> float:
    """Rows a second of one worker over all partitions that were done."""
    done = [receipt for receipt in receipts if receipt.status == "done"]
    seconds = sum(receipt.attempts[-1].seconds for receipt in done)
    return sum(receipt.rows_out for receipt in done) / seconds if seconds else 0.0
