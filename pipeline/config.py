"""The configuration of a run: one TOML file, flags over it, resolved once and kept with the results."""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from catalogs_schema.value_added import OJALA, OJALA_VECTORS
from pipeline.model import EMPTY, ModelSpec

WEIGHTS = Path(__file__).parents[1] / "models" / "weights" / "ojala-base.safetensors"
"""The weights that come with the program."""


class ConfigError(ValueError):
    """A configuration that cannot be understood."""


class RunConfig(BaseModel):
    """What a run is asked to do. Unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    photometry: str = Field(description="root of the photometry catalogue")
    out: str = Field(description="root of the collection that the results go into")
    model: Literal["ojala", "empty"] = Field(default="ojala", description="model to run")
    weights: str = Field(default=str(WEIGHTS), description="weights of the model (safetensors)")
    engine: Literal["serial", "local"] = Field(default="local", description="where partitions are worked on")
    workers: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1, description="worker processes")
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="arithmetic of the network")
    batch_size: int = Field(default=128, ge=1, description="objects per forward pass")
    vectors: bool = Field(default=False, description="also write redshift PDFs and embeddings")
    attempts: int = Field(
        default=3, ge=1, description="how often a partition is tried before it is set aside"
    )
    partition_seconds: float = Field(
        default=3600.0, gt=0, description="longest that one attempt at a partition may take [s]"
    )
    truth: str | None = Field(default=None, description="known classes and redshifts, for the report")

    @property
    def products(self) -> tuple[str, ...]:
        """Names of the products that the run writes."""
        return (OJALA.name, OJALA_VECTORS.name) if self.vectors else (OJALA.name,)

    def spec(self) -> ModelSpec:
        """How workers load the model."""
        return ModelSpec(
            name=self.model,
            weights="" if self.model == EMPTY else self.weights,
            precision=self.precision,
            batch_size=self.batch_size,
        )

    def numbers_sha256(self) -> str:
        """Hash of those settings that change numbers or columns; where and how fast do not."""
        settings = {
            "model": self.model,
            "precision": self.precision,
            "batch_size": self.batch_size,
            "products": self.products,
        }
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def read_config(file: Path | None, flags: dict[str, Any]) -> RunConfig:
    """The configuration of a file with flags over it.

    Parameters
    ----------
    file : Path or None
        TOML file with the names of `RunConfig`.
    flags : dict
        Values that override the file; None means not given.

    Raises
    ------
    ConfigError
        If the file cannot be read as TOML, or a name or value is not understood.
    """
    settings: dict[str, Any] = {}
    if file is not None:
        try:
            settings = tomllib.loads(file.read_text())
        except (OSError, tomllib.TOMLDecodeError) as problem:
            raise ConfigError(f"{file}: {problem}") from problem
    settings |= {name: value for name, value in flags.items() if value is not None}
    try:
        return RunConfig.model_validate(settings)
    except ValidationError as problem:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in problem.errors()
        )
        raise ConfigError(f"{file or 'configuration'}: {faults}") from problem
