"""Resolved form of a run: its configuration with the adapter, contracts and hashes that follow from it."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from upath import UPath

from ojala.catalogs_schema.contract import Contract
from ojala.catalogs_schema.finetuned import FinetunedHead
from ojala.catalogs_schema.receipt import Fingerprint
from ojala.pipeline.inference.adapters.base import WEIGHTS, ModelAdapter
from ojala.pipeline.inference.model_spec import ModelSpec
from ojala.pipeline.runs.config import RunConfig
from ojala.pipeline.runs.record import RunRecord, run_folder


@dataclass(frozen=True, slots=True)
class ResolvedRun:
    """Everything that a run needs besides its partitions; made once, by `resolve_run`.

    Attributes
    ----------
    config : RunConfig
        Settings, with absolute paths.
    spec : ModelSpec
        Files, device and arithmetic of the model, with the hashes that workers must find.
    heads : tuple of FinetunedHead
        Fine-tuned heads of the user.
    contracts : tuple of Contract
        Contracts of the products, the main one first.
    code_version : str
        Version of the code that workers run.
    config_sha256 : str
        SHA-256 of the settings that change numbers or columns.
    """

    config: RunConfig
    spec: ModelSpec
    heads: tuple[FinetunedHead, ...]
    contracts: tuple[Contract, ...]
    code_version: str
    config_sha256: str

    @property
    def adapter(self) -> ModelAdapter[Any]:
        """Adapter of the model."""
        return self.spec.adapter

    @property
    def out(self) -> UPath:
        """Root of the collection."""
        return UPath(self.config.out)

    @property
    def source(self) -> UPath:
        """Root of the input catalogue."""
        return UPath(self.config.source)

    @property
    def auxiliary(self) -> UPath | None:
        """Root of the auxiliary input catalogue; None without one."""
        return UPath(self.config.auxiliary) if self.config.auxiliary else None

    @property
    def products(self) -> tuple[str, ...]:
        """Names of the products, the main one first."""
        return tuple(contract.name for contract in self.contracts)

    @property
    def assets(self) -> dict[str, str]:
        """SHA-256 of the files on which predictions depend, by role, the weights first."""
        return dict(self.spec.assets or ())

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights."""
        return self.spec.sha256

    def folder(self, run_id: str) -> UPath:
        """Folder of a run of the collection."""
        return run_folder(self.out, run_id)

    def fingerprint(self, input_sha256: str) -> Fingerprint:
        """Fingerprint of a partition whose input has this hash."""
        return Fingerprint(
            input_sha256=input_sha256,
            weights_sha256=self.weights_sha256,
            config_sha256=self.config_sha256,
            code_version=self.code_version,
            contract_version=" ".join(f"{contract.name} {contract.version}" for contract in self.contracts),
        )

    @classmethod
    def from_record(cls, record: RunRecord) -> ResolvedRun:
        """Resolved form of a run of the past, without its files: the record has the hashes."""
        config = RunConfig.from_record(record.config)
        assets = {WEIGHTS: record.weights_sha256, **record.assets}
        spec = replace(config.spec(), sha256=record.weights_sha256, assets=tuple(assets.items()))
        contracts = tuple(record.contract(product) for product in record.products)
        return cls(config, spec, record.heads, contracts, record.code_version, record.config_sha256)


def resolve_run(config: RunConfig) -> ResolvedRun:
    """Resolve a configuration. The weights and other files of the model are read and hashed here, once.

    A second call with the same configuration and unchanged files returns the first result, so that a command
    can check a request before its flow begins.

    Raises
    ------
    OjalaError
        If a file is missing, not of its kind or not the one wanted.
    """
    config = config.absolute().pinned()
    files = [Path(path) for path in (config.weights, config.atlas, *config.heads) if path]
    folder = Path(config.weights).parent
    kinds = ("*.safetensors", "*.json") if config.weights else ()
    siblings = sorted(file for kind in kinds for file in folder.glob(kind))
    return _resolve(config, tuple(_stat(file) for file in (*files, *siblings)))


@functools.lru_cache(maxsize=4)
def _resolve(config: RunConfig, files: tuple[tuple[str, int, int], ...]) -> ResolvedRun:
    spec = config.spec()
    adapter = spec.adapter
    assets = {asset.role: asset.sha256 for asset in spec.read_assets()}
    heads = adapter.heads(spec, assets[WEIGHTS])
    contracts = adapter.products(extended=config.vectors, bands=config.bands, heads=heads)
    settings: dict[str, object] = {
        "model": config.model,
        "device": config.device,
        "precision": config.precision,
        "batch_size": config.batch_size,
        "products": [contract.name for contract in contracts],
        "assets": {role: sha256 for role, sha256 in assets.items() if role != WEIGHTS},
    }
    if spec.options:
        settings["options"] = list(spec.options)
    return ResolvedRun(
        config=config,
        spec=replace(spec, sha256=assets[WEIGHTS], assets=tuple(assets.items())),
        heads=heads,
        contracts=contracts,
        code_version=adapter.code_version,
        config_sha256=hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(),
    )


def _stat(file: Path) -> tuple[str, int, int]:
    """Path, size and time of change of a file; zeros where there is none."""
    try:
        found = file.stat()
    except OSError:
        return str(file), 0, 0
    return str(file), found.st_size, found.st_mtime_ns
