"""Configuration of a run: a TOML file and options over it, validated and kept in the run's record."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from upath import UPath

from ojala.catalogs_schema.errors import ExitCode, OjalaError
from ojala.catalogs_schema.urls import without_credentials
from ojala.pipeline.execution import ENGINES
from ojala.pipeline.inference.adapters.base import ModelAdapter
from ojala.pipeline.inference.adapters.registry import ADAPTERS, DEFAULT_MODEL
from ojala.pipeline.inference.model_spec import ModelSpec
from ojala.pipeline.runs.gates import GateLimits
from ojala.pipeline.runs.publication import PublicationInfo


class ConfigError(OjalaError, ValueError):
    """A configuration that cannot be understood."""

    exit_code = ExitCode.USAGE


DECIDED = ("device", "workers", "precision", "batch_size")
"""Settings that the program decides by model and machine where they are not given, or null."""


def _decided_where_null(schema: dict[str, Any]) -> None:
    """Make null the default of `DECIDED` in a JSON schema, so that a form does not send another as a wish."""
    for name in DECIDED:
        described = schema["properties"][name]
        kind = {key: described.pop(key) for key in list(described) if key not in ("title", "description")}
        kind.pop("default", None)
        described |= {"anyOf": [kind, {"type": "null"}], "default": None}


class RunConfig(BaseModel):
    """Settings of a run. Unknown names are refused.

    Credentials do not belong in a URL. They are removed before anything is kept or printed; those of an
    ``s3://`` URL are set in the environment of this process.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=_decided_where_null)

    photometry: str | None = Field(
        default=None,
        min_length=1,
        description="root of the photometry catalogue, for models that read photometry",
    )
    spectra: str | None = Field(
        default=None,
        min_length=1,
        description="root of the spectra catalogue, for models that read spectra",
    )
    cutouts: str | None = Field(
        default=None,
        description="root of the catalogue of cut-outs of these spectra, for models that read both",
    )
    out: str = Field(min_length=1, description="output collection; created if missing")
    model: str = Field(
        default=DEFAULT_MODEL, description="model to run", json_schema_extra={"enum": list(ADAPTERS)}
    )
    weights: str = Field(
        default="", description="weights of the model (safetensors); default: the bundled ones"
    )
    weights_sha256: str | None = Field(
        default=None, pattern="^[0-9a-f]{64}$", description="SHA-256 that the weights must have"
    )
    heads: tuple[str, ...] = Field(
        default=(),
        description="head made by `ojala finetune`, for the product ojala_heads; repeatable",
    )
    atlas: str = Field(
        default="",
        description="atlas that AVIS places embeddings in; default: the one next to the weights, if any",
    )
    options: tuple[str, ...] = Field(
        default=(),
        description="option of the model, NAME=VALUE; repeatable",
    )
    engine: str = Field(
        default="local",
        description="execution engine, where partitions are processed: one of " + ", ".join(ENGINES),
        json_schema_extra={"enum": list(ENGINES)},
    )
    device: Literal["cpu", "cuda"] = Field(
        default="cpu", description="device of the network; default: cuda for the engine cuda, else cpu"
    )
    scheduler: str | None = Field(
        default=None, description="Dask scheduler of the engine address, as in tls://HOST:8786"
    )
    workers: int = Field(
        default_factory=lambda: os.cpu_count() or 1,
        ge=1,
        le=100_000,
        description="worker processes, jobs of the queue, or GPUs; default: one for each core",
    )
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32",
        description="arithmetic of the network; default: bf16 on a GPU, and for OJALA where this machine's "
        "processor multiplies it, else fp32",
    )
    batch_size: int = Field(
        default=128,
        ge=1,
        le=2**24,
        description="objects per forward pass; default: 128 (16 spectra), on a GPU 16,384 (256 spectra)",
    )
    vectors: bool = Field(
        default=False,
        description="also write the large products: PDFs and embeddings, or reconstructed spectra",
    )
    bands: bool = Field(
        default=False,
        description="also predict the flux in each band from the others, compare it with the measurement and "
        "write the predictions, for models that can be asked for bands",
    )
    attempts: int = Field(default=3, ge=1, description="attempts at a partition before it is set aside")
    partition_seconds: float = Field(
        default=3600.0,
        gt=0,
        allow_inf_nan=False,
        description="time limit of one attempt at a partition [s]",
    )
    truth: str | None = Field(
        default=None,
        description="file of known classes and redshifts, for measures of accuracy in the report",
    )
    gates: GateLimits = Field(default=GateLimits(), description="limits of the quality gates")
    publication: PublicationInfo = Field(
        default=PublicationInfo(), description="authors, licence and acknowledgement of the catalogue"
    )

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
    def _remove_credentials(cls, value: object) -> object:
        if isinstance(value, list | tuple):
            return tuple(without_credentials(one) if isinstance(one, str) else one for one in value)
        return without_credentials(value) if isinstance(value, str) else value

    @field_validator("model")
    @classmethod
    def _check_model(cls, name: str) -> str:
        return ADAPTERS.find(name).name

    @model_validator(mode="after")
    def _check_options(self) -> RunConfig:
        known = self.adapter.options
        for option in self.options:
            name, _, value = option.partition("=")
            if value not in known.get(name, ()):
                choices = "; ".join(f"{one}={' or '.join(values)}" for one, values in known.items())
                raise ValueError(
                    f"model {self.model} has no option {option!r}: "
                    + (f"choose from {choices}" if known else "leave --option out")
                )
        if len({option.partition("=")[0] for option in self.options}) < len(self.options):
            raise ValueError(f"an option is given twice: {', '.join(self.options)}")
        return self

    @model_validator(mode="before")
    @classmethod
    def _fill_in_defaults(cls, values: object) -> object:
        """Fill in the defaults of the model and of the device, so that records hold the settings used."""
        if isinstance(values, dict):
            values = {name: one for name, one in values.items() if one is not None or name not in DECIDED}
        if not isinstance(values, dict) or not all(
            isinstance(values.get(name, ""), str) for name in ("model", "weights", "engine", "device")
        ):
            return values  # refused by the types of the fields
        if values.get("model", DEFAULT_MODEL) not in ADAPTERS:
            return values
        adapter = ADAPTERS[values.get("model", DEFAULT_MODEL)]
        values = values | {"weights": values.get("weights") or adapter.weights}
        for name, path in adapter.companions(values["weights"]).items():
            values |= {name: values.get(name) or path}
        engine = values.get("engine", "local")
        if engine not in ENGINES:
            raise ValueError(f"there is no engine {engine!r}: choose from {', '.join(ENGINES)}")
        devices = ENGINES[engine].devices
        device = values.get("device") or devices[0]
        if "cpu" not in devices and device != "cuda":
            raise ValueError(f"the engine {engine} runs the network on cuda: leave --device {device} out")
        if "cuda" not in devices and device == "cuda":
            raise ValueError(
                f"processes of the engine {engine} would share one GPU: take --engine cuda, which has one "
                "per GPU"
            )
        defaults = adapter.device_defaults(device)
        if "cpu" not in devices:
            defaults |= {"workers": visible_gpus()}
        return defaults | values | {"device": device}

    @model_validator(mode="after")
    def _refuse_what_the_model_has_no_use_for(self) -> RunConfig:
        adapter, reads = self.adapter, self.adapter.reads.name
        if getattr(self, reads) is None:
            raise ValueError(f"model {self.model} reads {reads}: give --{reads}")
        inputs = {reads, adapter.auxiliary.name if adapter.auxiliary else reads}
        for name in ("photometry", "spectra", "cutouts"):
            if name not in inputs and getattr(self, name) is not None:
                raise ValueError(f"model {self.model} reads {reads}, not {name}: leave --{name} out")
        for name, option in (("atlas", "atlas"), ("heads", "head"), ("bands", "bands")):
            if name not in adapter.accepts and getattr(self, name):
                raise ValueError(f"model {self.model} has no use for {name}: leave --{option} out")
        if self.truth and adapter.validation is None:
            raise ValueError(
                f"model {self.model} has no column that true values can judge: leave --truth out"
            )
        return self

    @property
    def adapter(self) -> ModelAdapter[Any]:
        """Adapter of the model."""
        return ADAPTERS[self.model]

    @property
    def source(self) -> str:
        """Root of the input catalogue."""
        return str(getattr(self, self.adapter.reads.name))

    @property
    def auxiliary(self) -> str | None:
        """Root of the auxiliary input catalogue; None without one."""
        contract = self.adapter.auxiliary
        return getattr(self, contract.name) if contract else None

    def spec(self) -> ModelSpec:
        """Files, device and arithmetic of the model, not yet read; `ResolvedRun.spec` has their hashes."""
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
            bands=self.bands,
            options=tuple(sorted(option for option in self.options if not self._is_default(option))),
        )

    def _is_default(self, option: str) -> bool:
        name, _, value = option.partition("=")
        return self.adapter.options[name][0] == value

    def absolute(self) -> RunConfig:
        """The same with absolute paths, which hold in whatever folder a later command is given."""
        changed = {name: _absolute(getattr(self, name)) for name in _PATHS}
        return self.model_copy(update=changed | {"heads": tuple(map(_absolute, self.heads))})

    def pinned(self) -> RunConfig:
        """The same with the current release of an input that grows, which a run keeps to until its end."""
        from ojala.pipeline.storage.hats import current_release  # a second, which `--help` does not need

        return self.model_copy(update={self.adapter.reads.name: str(current_release(UPath(self.source)))})

    def to_record(self) -> dict[str, str | int | float | bool | None]:
        """All settings by name, nested ones as ``gates.few_rows`` and ``heads.0``: the form in records."""
        settings = self.model_dump()
        nested = {kind: settings.pop(kind) for kind in _NESTED}
        for name in ("heads", "options"):
            settings |= {f"{name}.{k}": value for k, value in enumerate(settings.pop(name))}
        return settings | {f"{kind}.{name}": v for kind, of in nested.items() for name, v in of.items()}

    @classmethod
    def from_record(cls, settings: Mapping[str, object]) -> RunConfig:
        """The configuration in a record; settings that this version does not have are left out."""
        nested = {
            kind: {n.removeprefix(f"{kind}."): v for n, v in settings.items() if n.startswith(f"{kind}.")}
            for kind in _NESTED
        }
        lists = {
            kind: [value for name, value in settings.items() if name.startswith(f"{kind}.")]
            for kind in ("heads", "options")
        }
        kept = {name: value for name, value in settings.items() if name in cls.model_fields}
        limits = {"gates": GateLimits.known(nested.pop("gates"))}
        return cls.model_validate(kept | lists | limits | nested)


def _absolute(path: str | None) -> str | None:
    return os.path.abspath(path) if path and "://" not in path else path


_NESTED = ("gates", "publication")
"""Settings that are tables of their own."""

_PATHS = ("photometry", "spectra", "cutouts", "out", "weights", "atlas", "truth")
"""Settings that are paths, besides the heads."""


def visible_gpus() -> int:
    """Number of GPUs that ``CUDA_VISIBLE_DEVICES`` leaves to this process; 1 where none is visible."""
    import torch

    return torch.cuda.device_count() or 1


def read_settings(file: Path | None, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Read the settings of a file with flags over them, without checking them; see `read_config`."""
    settings: dict[str, Any] = {}
    if file is not None:
        try:
            settings = tomllib.loads(file.read_text())
        except (OSError, ValueError, RecursionError) as problem:
            raise ConfigError(f"{file}: {problem}") from problem
    return settings | {name: value for name, value in flags.items() if value is not None}


def read_config(file: Path | None, flags: Mapping[str, Any]) -> RunConfig:
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
    try:
        return RunConfig.model_validate(read_settings(file, flags))
    except ValidationError as problem:
        faults = "; ".join(
            ": ".join([*filter(None, [".".join(map(str, f["loc"]))]), f["msg"].removeprefix("Value error, ")])
            for f in problem.errors()
        )
        raise ConfigError(f"{file or 'configuration'}: {faults}") from problem
