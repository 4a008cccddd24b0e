"""Record of a run: one JSON file in its folder with its configuration, state and totals."""

from __future__ import annotations

import enum
import re
from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator
from upath import UPath

from ojala.catalogs_schema.contract import Contract
from ojala.catalogs_schema.errors import InputError
from ojala.catalogs_schema.finetuned import FinetunedHead
from ojala.pipeline.inference.adapters.base import ModelAdapter
from ojala.pipeline.inference.adapters.registry import ADAPTERS, DEFAULT_MODEL
from ojala.pipeline.storage.files import write_whole

RECORD = "run.json"

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""Names of runs are names of folders, and cannot lead out of theirs."""

GATES, MARGINS, REPORT, CHECKSUMS = "gates", "margins", "report", "checksums"
"""Steps of the assessment of a run, each a key of `RunRecord.problems` while it is pending or failed."""

PENDING = "not done yet"
"""Problem of a step of the assessment that was not reached."""


class RecordError(InputError):
    """A run that is not there, or whose record cannot be read."""


class Status(enum.StrEnum):
    """State of a run. A complete or partial run has ended, and its catalogues are never changed."""

    RUNNING = "running"
    INCOMPLETE = "incomplete"
    COMPLETE = "complete"
    PARTIAL = "partial"


ENDED = (Status.COMPLETE, Status.PARTIAL)
"""States of a run that has catalogues."""


class RunRecord(BaseModel):
    """Configuration, state and totals of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    run_id: str = Field(description="name of the run and of its folder")
    status: Status = Field(description="its state; `partial`: complete but for the partitions in `failed`")
    started: str = Field(description="UTC time of its first start")
    ended: str | None = Field(default=None, description="UTC time of its end")
    config: dict[str, str | int | float | bool | None] = Field(description="the resolved configuration")
    products: tuple[str, ...] = Field(default=(), description="products that it writes, the main one first")
    heads: tuple[FinetunedHead, ...] = Field(
        default=(), description="fine-tuned heads of the user that predicted too"
    )
    code_version: str = Field(description="version of the code")
    packages: dict[str, str] = Field(description="versions of the packages it ran with")
    model: str = Field(default="", description="name and version of the model")
    weights_sha256: str = Field(description="SHA-256 of the weights")
    assets: dict[str, str] = Field(
        default={}, description="SHA-256 of further files of the model, by role: head.NAME, atlas"
    )
    config_sha256: str = Field(default="", description="SHA-256 of the settings that change numbers")
    base: str | None = Field(default=None, description="run whose up-to-date leaves it links")
    region: str | None = Field(default=None, description="reprocessed part of the sky; null for all of it")
    partitions: int = Field(description="partitions of the input")
    linked: int = Field(default=0, description="partitions whose leaves were made by earlier runs")
    failed: dict[str, str] = Field(default={}, description="partitions that failed, with the error")
    rows_in: int = Field(description="rows of the input")
    rows_out: int = Field(default=0, description="rows of the main product")
    bytes: int = Field(default=0, description="size of all leaves")
    mixed_versions: dict[str, dict[str, int]] = Field(
        default={},
        validation_alias=AliasChoices("mixed_versions", "mixture"),
        description="partitions per weights, configuration, code and contract, where these are not the "
        "same everywhere; only a reprocessed region mixes them",
    )
    rows_per_worker_second: float = Field(default=0.0, description="rate of one worker, from the receipts")
    problems: dict[str, str] = Field(
        default={},
        description="steps of the assessment (gates, margins, report, checksums) that failed or are pending, "
        "with the error; the catalogues are whole all the same",
    )

    @model_validator(mode="before")
    @classmethod
    def _read_older_form(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Move the hash of the atlas, a field of its own before version 0.5, to `assets`."""
        atlas = values.pop("atlas_sha256", "") if "atlas_sha256" in values else ""
        return values | {"assets": {"atlas": atlas}} if atlas else values

    @property
    def adapter(self) -> ModelAdapter[Any]:
        """Adapter of the model.

        Raises
        ------
        ModelError
            If this version of the program has no such model.
        """
        return ADAPTERS.find(str(self.config["model"]))

    @property
    def main(self) -> str:
        """Name of the main product; runs of one main product follow each other."""
        return self.products[0] if self.products else DEFAULT_MODEL

    def contract(self, product: str) -> Contract:
        """Contract of one of the run's products."""
        return self.adapter.contract(product, self.heads)

    @property
    def source(self) -> str:
        """Root of the input catalogue."""
        return str(self.config[self.adapter.reads.name])

    @property
    def auxiliary(self) -> str | None:
        """Root of the auxiliary input catalogue; None if it had none."""
        contract = self.adapter.auxiliary
        root = self.config.get(contract.name) if contract else None
        return None if root is None else str(root)


def runs_folder(out: UPath) -> UPath:
    """Where the runs of a collection lie."""
    return out / "runs"


def run_folder(out: UPath, run_id: str) -> UPath:
    """Where a run lies.

    Raises
    ------
    RecordError
        If that is no name of a run.
    """
    if not _RUN_ID.fullmatch(run_id):
        raise RecordError(f"{run_id!r} is no name of a run: letters, digits, '-', '_' and '.' make one")
    return runs_folder(out) / run_id


def write_record(run: UPath, record: RunRecord) -> None:
    """Write the record of a run into its folder, replacing the one before."""
    write_whole(run / RECORD, record.model_dump_json(indent=1).encode())


def read_record(run: UPath) -> RunRecord:
    """The record of a run.

    Raises
    ------
    RecordError
        If there is none or it cannot be read; says where.
    """
    try:
        record = RunRecord.model_validate_json((run / RECORD).read_bytes())
    except FileNotFoundError:
        raise RecordError(f"{run} is no run: it has no {RECORD}") from None
    except ValidationError as problem:
        raise RecordError(
            f"{run / RECORD} cannot be read: {problem.errors()[0]['msg']}; its leaves are taken over by the "
            "next run where they are whole"
        ) from problem
    if record.run_id != run.name:
        raise RecordError(f"{run / RECORD} is the record of {record.run_id!r}, not of this folder's run")
    return record


def find_runs(out: UPath) -> list[UPath]:
    """Folders of all runs of a collection, in the order of their first start."""
    folder = runs_folder(out)
    if not folder.exists():
        return []
    return sorted((run for run in folder.iterdir() if _RUN_ID.fullmatch(run.name)), key=lambda run: run.name)
