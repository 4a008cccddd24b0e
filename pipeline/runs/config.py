"""The configuration of a run: one TOML file, flags over it, resolved once and kept with the results."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ojala.catalogs_schema.contract import Contract
from ojala.catalogs_schema.errors import OjalaError
from ojala.catalogs_schema.finetuned import FinetunedHead
from ojala.pipeline.execution import ENGINES
from ojala.pipeline.inference.adapters.base import ModelAdapter
from ojala.pipeline.inference.adapters.registry import ADAPTERS, DEFAULT_MODEL
from ojala.pipeline.inference.model_spec import ModelSpec

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(?:([^/?#@:]*)(?::(?!\d+/)([^@]*))?@)?(.*)", re.DOTALL)
"""Scheme, user, password and the rest of a URL; keys of object stores often hold a slash, ports never do."""


class ConfigError(OjalaError, ValueError):
    """A configuration that cannot be understood."""


class GateLimits(BaseModel):
    """When a quality gate warns and when it keeps a run from being published.

    Shares are of rows. A drift is the change against the published release over the partitions that were
    made anew, beyond what the numbers of rows make likely by chance.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    few_rows: int = Field(default=1000, ge=0, description="below so many rows, shares and drifts only warn")
    unanswered_warn: float = Field(default=0.05, ge=0, description="share of rows without a class")
    unanswered_fail: float = Field(default=0.5, ge=0, description="share of rows without a class")
    flagged_warn: float = Field(default=0.7, ge=0, description="share of rows with any flag")
    flagged_fail: float = Field(default=0.98, ge=0, description="share of rows with any flag")
    flag_drift_warn: float = Field(default=0.05, ge=0, description="change of the share of any one flag")
    flag_drift_fail: float = Field(default=0.3, ge=0, description="change of the share of any one flag")
    null_drift_warn: float = Field(default=0.05, ge=0, description="change of a column's share of nulls")
    null_drift_fail: float = Field(default=0.3, ge=0, description="change of a column's share of nulls")
    class_drift_warn: float = Field(default=0.03, ge=0, description="change of the share of a class")
    class_drift_fail: float = Field(default=0.15, ge=0, description="change of the share of a class")
    redshift_drift_warn: float = Field(
        default=0.05, ge=0, description="largest distance of the cumulative N(z) of a class"
    )
    redshift_drift_fail: float = Field(
        default=0.2, ge=0, description="largest distance of the cumulative N(z) of a class"
    )


class RunConfig(BaseModel):
    """What a run is asked to do. Unknown names are refused.

    Credentials do not belong in a URL. Where one holds them, they are taken out before anything is kept or
    said; those of an ``s3://`` URL are handed to the environment of this process, where they belong.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    photometry: str | None = Field(
        default=None, description="root of the photometry catalogue, for models that read photometry"
    )
    spectra: str | None = Field(
        default=None, description="root of the spectra catalogue, for models that read spectra"
    )
    cutouts: str | None = Field(
        default=None,
        description="root of the catalogue of cut-outs of these spectra, for models that read both",
    )
    out: str = Field(description="root of the collection that the results go into")
    model: str = Field(
        default=DEFAULT_MODEL, description="model to run", json_schema_extra={"enum": list(ADAPTERS)}
    )
    weights: str = Field(
        default="", description="weights of the model (safetensors); empty: those that come with the program"
    )
    weights_sha256: str | None = Field(
        default=None, pattern="^[0-9a-f]{64}$", description="SHA-256 that the weights must have"
    )
    heads: tuple[str, ...] = Field(
        default=(), description="heads made by `ojala finetune`, whose quantities make a product of their own"
    )
    atlas: str = Field(
        default="",
        description="atlas that AVIS places embeddings in; empty: the one beside the weights, if any",
    )
    engine: str = Field(
        default="local",
        description="where partitions are processed: one of " + ", ".join(ENGINES),
        json_schema_extra={"enum": list(ENGINES)},
    )
    device: Literal["cpu", "cuda"] = Field(
        default="cpu", description="what the network runs on; default: cuda for the engine cuda, else cpu"
    )
    scheduler: str | None = Field(
        default=None, description="Dask scheduler of the engine address, as in tls://HOST:8786"
    )
    workers: int = Field(
        default_factory=lambda: os.cpu_count() or 1, ge=1, description="worker processes, Slurm jobs, or GPUs"
    )
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32",
        description="arithmetic of the network; default: bf16 on a GPU, and for OJALA where this machine's "
        "processor multiplies it, else fp32",
    )
    batch_size: int = Field(
        default=128,
        ge=1,
        description="objects per forward pass; default: 128 (16 spectra), on a GPU 16,384 (256 spectra)",
    )
    vectors: bool = Field(
        default=False,
        description="also write the large products: PDFs and embeddings, or reconstructed spectra",
    )
    attempts: int = Field(
        default=3, ge=1, description="how often a partition is tried before it is set aside"
    )
    partition_seconds: float = Field(
        default=3600.0, gt=0, description="longest that one attempt at a partition may take [s]"
    )
    truth: str | None = Field(default=None, description="known classes and redshifts, for the report")
    gates: GateLimits = Field(default=GateLimits(), description="limits of the quality gates")

    @field_validator(
        "photometry",
        "spectra",
        "cutouts",
        "out",
        "weights",
        "heads",
        "atlas",
        "scheduler",
        "truth",
        mode="before",
    )
    @classmethod
    def _take_credentials_out(cls, value: object) -> object:
        if isinstance(value, list | tuple):
            return tuple(without_credentials(one) if isinstance(one, str) else one for one in value)
        return without_credentials(value) if isinstance(value, str) else value

    @field_validator("model")
    @classmethod
    def _know_the_model(cls, name: str) -> str:
        return ADAPTERS.find(name).name

    @model_validator(mode="before")
    @classmethod
    def _find_weights(cls, values: object) -> object:
        """Also files that belong to them, such as an atlas."""
        adapter = ADAPTERS.get(values.get("model", DEFAULT_MODEL)) if isinstance(values, dict) else None
        if adapter is None or not isinstance(values, dict):
            return values
        given = {name: value for name, value in values.items() if value}
        weights = given.get("weights", adapter.weights)
        return values | {"weights": weights, **adapter.companions(weights)} | given

    @model_validator(mode="before")
    @classmethod
    def _apply_device_defaults(cls, values: object) -> object:
        """Settle what was not asked for by the device, so that keys and records hold what was used."""
        if not isinstance(values, dict):
            return values
        engine = values.get("engine", "local")
        if engine not in ENGINES:
            raise ValueError(f"there is no engine {engine!r}: choose from {', '.join(ENGINES)}")
        devices = ENGINES[engine].devices
        device = values.get("device") or devices[0]
        if "cpu" not in devices and device != "cuda":
            raise ValueError(f"the engine {engine} runs the network on cuda: leave --device {device} out")
        adapter = ADAPTERS.get(values.get("model", DEFAULT_MODEL))
        usual: dict[str, object] = adapter.device_defaults(device) if adapter else {}
        if device != "cuda":
            return usual | values
        if "cuda" not in devices:
            raise ValueError(
                f"processes of the engine {engine} would share one GPU: take --engine cuda, which has one "
                "per GPU"
            )
        if "cpu" not in devices:
            usual["workers"] = visible_gpus()
        return usual | values | {"device": device}

    @model_validator(mode="after")
    def _read_one_catalogue(self) -> RunConfig:
        reads = self.adapter.reads.name
        other = "photometry" if reads == "spectra" else "spectra"
        if getattr(self, reads) is None:
            raise ValueError(f"model {self.model} reads {reads}: say with --{reads} where they are")
        if getattr(self, other) is not None:
            raise ValueError(f"model {self.model} reads {reads}, not {other}: leave --{other} out")
        if self.cutouts is not None and self.adapter.auxiliary is None:
            raise ValueError(f"model {self.model} reads {reads}, not cutouts: leave --cutouts out")
        return self

    @model_validator(mode="after")
    def _refuse_what_the_model_does_not_use(self) -> RunConfig:
        for setting, option in (("atlas", "--atlas"), ("heads", "--head")):
            if getattr(self, setting) and setting not in self.adapter.accepts:
                raise ValueError(f"model {self.model} has no use for {setting}: leave {option} out")
        if self.truth and self.adapter.validation is None:
            raise ValueError(f"model {self.model} has no validation against true values: leave --truth out")
        return self

    @property
    def adapter(self) -> ModelAdapter[Any]:
        """Adapter of the model."""
        return ADAPTERS[self.model]

    @property
    def source(self) -> str:
        """Root of the catalogue that the model reads."""
        return str(getattr(self, self.adapter.reads.name))

    @property
    def auxiliary(self) -> str | None:
        """Root of the auxiliary catalogue that the model reads; None if there is none."""
        return self.cutouts

    @property
    def products(self) -> tuple[str, ...]:
        """Names of the products that the run writes."""
        names = [contract.name for contract in self.adapter.products(extended=self.vectors)]
        return (*names, *((self.adapter.heads_product,) if self.heads else ()))

    def contracts(self) -> dict[str, Contract]:
        """Contracts of those products, by name."""
        products = self.adapter.products(extended=self.vectors, heads=self.finetuned_heads())
        return {contract.name: contract for contract in products}

    def finetuned_heads(self) -> tuple[FinetunedHead, ...]:
        """Descriptions of the user's fine-tuned heads."""
        if not self.heads:
            return ()
        return self.adapter.heads(self.spec(), self.spec().read_assets()[0].sha256)

    def atlas_sha256(self) -> str:
        """SHA-256 of the atlas; empty if there is none."""
        return {asset.role: asset.sha256 for asset in self.spec().read_assets()}.get("atlas", "")

    def spec(self) -> ModelSpec:
        """How workers load the model."""
        return ModelSpec(
            name=self.model,
            weights=self.weights,
            device=self.device,
            precision=self.precision,
            batch_size=self.batch_size,
            sha256=self.weights_sha256 or "",
            heads=self.heads,
            atlas=self.atlas,
            extended=self.vectors,
        )

    def to_record(self) -> dict[str, str | int | float | bool | None]:
        """All settings, without nesting: what a run's record keeps. `from_record` reads it.

        Paths on this machine are absolute, so that they hold in whatever folder a later command is given.
        """
        settings = self.model_dump()
        for name in ("photometry", "spectra", "cutouts", "out", "weights", "atlas", "truth"):
            if settings[name] and "://" not in settings[name]:
                settings[name] = os.path.abspath(settings[name])
        heads = [head if "://" in head else os.path.abspath(head) for head in settings.pop("heads")]
        settings |= {f"heads.{k}": head for k, head in enumerate(heads)}
        gates = settings.pop("gates")
        return settings | {f"gates.{name}": value for name, value in gates.items()}

    @classmethod
    def from_record(cls, settings: Mapping[str, object]) -> RunConfig:
        """The configuration that a record keeps; settings that there are no more are left out."""
        gates = {name.removeprefix("gates."): v for name, v in settings.items() if name.startswith("gates.")}
        known = {name: value for name, value in settings.items() if name in cls.model_fields}
        heads = [value for name, value in settings.items() if name.startswith("heads.")]
        limits = {name: value for name, value in gates.items() if name in GateLimits.model_fields}
        return cls.model_validate(known | {"heads": heads, "gates": limits})

    def numbers_sha256(self) -> str:
        """Hash of those settings that change numbers or columns; where and how fast do not."""
        settings = {
            "model": self.model,
            "device": self.device,
            "precision": self.precision,
            "batch_size": self.batch_size,
            "products": self.products,
            "assets": [(asset.role, asset.sha256) for asset in self.spec().read_assets()[1:]],
        }
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def visible_gpus() -> int:
    """How many GPUs this process may use, as ``CUDA_VISIBLE_DEVICES`` says; 1 where none can be seen."""
    import torch

    return torch.cuda.device_count() or 1


def without_credentials(url: str) -> str:
    """A URL without user, password and query; anything else as it is.

    What an ``s3://`` URL held goes to the environment, unless credentials are there already.
    """
    match = _URL.fullmatch(url)
    if match is None:
        return url
    scheme, user, password, rest = match.groups()
    if user and password and scheme in ("s3", "s3a"):
        os.environ.setdefault("AWS_ACCESS_KEY_ID", unquote(user))
        os.environ.setdefault("AWS_SECRET_ACCESS_KEY", unquote(password))
    return f"{scheme}://{rest.partition('?')[0]}"


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
            ": ".join([*filter(None, [".".join(map(str, f["loc"]))]), f["msg"].removeprefix("Value error, ")])
            for f in problem.errors()
        )
        raise ConfigError(f"{file or 'configuration'}: {faults}") from problem
