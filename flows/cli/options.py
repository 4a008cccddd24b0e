"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ojala.pipeline.inference.adapters.registry import ADAPTERS

if TYPE_CHECKING:
    from ojala.pipeline.runs.config import RunConfig


class EngineName(StrEnum):
    """Engines that `run` can use."""

    SERIAL = "serial"
    LOCAL = "local"
    CUDA = "cuda"
    ADDRESS = "address"
    SLURM = "slurm"


class DeviceName(StrEnum):
    """What a network runs on."""

    CPU = "cpu"
    CUDA = "cuda"


Photometry = Annotated[str | None, typer.Option(help="Photometry catalogue, made by `ojala ingest`.")]
Spectra = Annotated[
    str | None, typer.Option(help="Spectra catalogue, made by `ojala spectra`, for models that read spectra.")
]
Cutouts = Annotated[
    str | None, typer.Option(help="Cut-outs of these spectra, made by `ojala cutouts`, for models of both.")
]
Out = Annotated[str, typer.Option(help="Collection that the results go into; made if it is not there.")]
ModelName = Annotated[
    str | None, typer.Option(help=f"Model to run: {', '.join(ADAPTERS)}; empty has no network.")
]
Weights = Annotated[str | None, typer.Option(help="Weights of the model; default: those that come along.")]
Engine = Annotated[EngineName | None, typer.Option(help="Where partitions are worked on; default: local.")]
Device = Annotated[
    DeviceName | None, typer.Option(help="What the network runs on; default: cuda for engine cuda, else cpu.")
]
Scheduler = Annotated[str | None, typer.Option(help="Dask scheduler of engine address: tls://HOST:PORT.")]
Workers = Annotated[
    int | None,
    typer.Option(help="Worker processes, Slurm jobs or GPUs; default: one per core or GPU.", min=1),
]
Vectors = Annotated[
    bool | None, typer.Option("--vectors", help="Also write the large products: PDFs, embeddings, spectra.")
]
Heads = Annotated[
    list[str] | None,
    typer.Option("--head", help="Head made by `ojala finetune`, for a product of one's own; repeatable."),
]
Atlas = Annotated[
    str | None, typer.Option(help="Atlas made by `ojala atlas`; default: the one beside the weights, if any.")
]
Truth = Annotated[str | None, typer.Option(help="Known classes and redshifts, for the report.")]
Check = Annotated[
    bool, typer.Option("--check", help="Read all leaves that are there and compare their SHA-256.")
]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file; options override it.")]


def resolve(context: typer.Context) -> RunConfig:
    """The configuration that a command's options ask for; they have the names of its fields."""
    from ojala.pipeline.runs.config import read_config

    others = ("config", "as_json", "region", "publish", "check")
    options = {name: value for name, value in context.params.items() if name not in others and value != ()}
    return read_config(context.params["config"], options)
