"""Receipt of a partition: its input, model, configuration, attempts and leaves."""

from __future__ import annotations

import hashlib
import json
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ojala.catalogs_schema.ojala import Z_MAX

RECEIPT_VERSION = "1.2.0"


class _Record(BaseModel):
    """Frozen, and closed to unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Fingerprint(_Record):
    """Everything that a partition's numbers depend on. Its hash is the partition's key."""

    input_sha256: str = Field(description="SHA-256 of the leaf that was read; of two leaves, both of them")
    weights_sha256: str = Field(description="SHA-256 of the model's weights")
    config_sha256: str = Field(description="SHA-256 of the configuration that changes numbers")
    code_version: str = Field(description="version of the code, with its commit where known")
    contract_version: str = Field(description="versions of the contracts written")

    def key(self) -> str:
        """SHA-256 over all ingredients: equal keys mean equal numbers."""
        text = json.dumps(self.model_dump(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class Leaf(_Record):
    """One file that was written for the partition."""

    product: str = Field(description="name of the product's contract")
    path: str = Field(description="path under the run's folder")
    rows: int = Field(description="rows in the file")
    bytes: int = Field(description="size of the file")
    sha256: str = Field(description="SHA-256 of the file")


class Attempt(_Record):
    """One try at the partition."""

    host: str = Field(description="machine it ran on")
    pid: int = Field(description="process it ran in; 0 if the worker was lost")
    started: str = Field(description="UTC time of its start, ISO 8601")
    seconds: float = Field(description="wall-clock seconds it took")
    error: str | None = Field(default=None, description="exception type and message; null if it succeeded")
    cause: str | None = Field(
        default=None,
        description="kind of the failure: `worker lost`, `out of memory`, `timeout` and `storage` are tried "
        "again; `data`, `program` and `output` are not",
    )


class BandResiduals(_Record):
    """Measured against predicted fluxes of the rows of one tile of the survey, per model band.

    Only measurements whose prediction stands out of both errors three times count. Null where too few do.
    """

    rows: int = Field(description="rows of the tile in the partition")
    ra: float = Field(description="mean right ascension of them [deg]")
    dec: float = Field(description="mean declination of them [deg]")
    n: list[int] = Field(description="measurements")
    offset: list[float | None] = Field(
        description="median of measured / predicted - 1, weighted by the inverse error"
    )
    offset_err: list[float | None] = Field(description="its standard error, from the scatter")
    pull: list[float | None] = Field(description="median of (measured - predicted) / error")
    pull_err: list[float | None] = Field(description="its standard error, from the scatter")


class Summary(_Record):
    """Counts over the rows of a partition, enough for the run's report."""

    classes: dict[str, int] = Field(description="rows per most probable class; key 'none' for no class")
    expected: dict[str, float] = Field(description="per class, its probability summed over the rows")
    flags: dict[str, int] = Field(description="rows per flag")
    flagged: int = Field(description="rows with any flag")
    redshifts: dict[str, list[int]] = Field(
        description="per class, rows per redshift bin of width 0.05 from 0 to 5.2"
    )
    bands: list[int] = Field(description="rows with a usable value, per model band")
    band_residuals: dict[str, BandResiduals] = Field(
        default={},
        description="per tile of the survey, measured against predicted bands; empty where not asked for",
    )


class Receipt(_Record):
    """What became of one partition.

    ``Receipt.model_validate_json`` reads one back and refuses fields it does not know.
    """

    version: str = Field(default=RECEIPT_VERSION, description="version of this form")
    partition: str = Field(description="HEALPix order and pixel, `5/1234`")
    run_id: str = Field(default="", description="run that did the work; later runs link its leaves")
    status: Literal["done", "failed"] = Field(description="`done` only if every leaf was written whole")
    key: str = Field(description="hash of the ingredients; equal keys mean equal numbers")
    ingredients: Fingerprint = Field(
        description="hashes of input leaf, weights and configuration, code version, contract version"
    )
    model: str = Field(description="name and version of the model")
    rows_in: int = Field(description="rows of the leaf that was read")
    rows_out: int = Field(description="rows of the leaf written; equal to rows_in when done")
    leaves: list[Leaf] = Field(description="files written: product, path, rows, bytes, SHA-256")
    summary: Summary | None = Field(description="counts of classes, flags, redshifts and usable bands")
    attempts: list[Attempt] = Field(
        description="every try in all starts of the run: host, process, start, seconds, error, its cause"
    )
    device: str = Field(description="device the network ran on")
    batch_size: int | None = Field(
        default=None,
        description="objects per forward pass; smaller than asked for if the memory did not suffice",
    )
    seconds: dict[str, float] = Field(description="wall-clock seconds per stage")
    peak_rss: int = Field(description="peak resident memory of the worker process so far [bytes]")


REDSHIFT_BIN = 0.05
"""Width of the redshift bins in a receipt's summary."""

REDSHIFT_EDGES = np.linspace(0.0, Z_MAX, round(Z_MAX / REDSHIFT_BIN) + 1)
"""Edges of those bins."""
