"""Weights of a network on disk: one safetensors file with the configuration inside, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ojala.catalogs_schema.errors import OjalaError

Config = TypeVar("Config")
"""What describes the shape of a network."""


@dataclass(frozen=True)  # no slots: with them, an alias with its type argument cannot be called
class NetworkInfo(Generic[Config]):
    """What a file of weights says of itself.

    Attributes
    ----------
    name, version : str
        Name of the model and version of its weights.
    config : Config
        Shape of the network.
    training : dict
        Summary of the training (budget, draws, metrics), as in the model card.
    sha256 : str
        Of the file.
    """

    name: str
    version: str
    config: Config
    training: dict[str, object]
    sha256: str


class WeightsError(OjalaError, ValueError):
    """A file that does not hold whole weights of this network."""


def write_network(
    path: Path,
    tensors: Mapping[str, Tensor],
    *,
    form: str,
    name: str,
    version: str,
    config: str,
    training: Mapping[str, object],
) -> None:
    """Write a network's weights under a header; ``form`` names the kind of file, ``config`` is JSON."""
    header = {
        "format": form,
        "name": name,
        "version": version,
        "config": config,
        "training": json.dumps(training, sort_keys=True),
    }
    write_tensors(path, tensors, header)


def read_network(
    path: Path, form: str, config_from: Callable[[str], Config]
) -> tuple[dict[str, Tensor], NetworkInfo[Config]]:
    """Tensors of a file that `write_network` wrote, and what it says of itself.

    Raises
    ------
    WeightsError
        If the file is missing or damaged, of another form, or its header cannot be read.
    """
    tensors, header = read_tensors(path)
    if header.get("format") != form:
        raise WeightsError(f"{path}: format is {header.get('format')!r}, this program reads {form!r}")
    try:
        info = NetworkInfo(
            header["name"],
            header["version"],
            config_from(header["config"]),
            json.loads(header["training"]),
            file_sha256(path),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: its header cannot be read ({error!r}); fetch the file again") from error
    return tensors, info


def fill(path: Path, network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put tensors of a file into their network, and set it to evaluation.

    Raises
    ------
    WeightsError
        If they are not exactly the network's.
    """
    if problems := differences(tensors, network.state_dict()):
        raise WeightsError(f"{path}: does not fit the network of its configuration: {'; '.join(problems)}")
    network.load_state_dict(tensors)
    network.eval()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file under a temporary name, flush it to disk, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            unfinished,
            metadata,
        )
        with open(unfinished, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises
    ------
    WeightsError
        If the file is missing, cut short or something else.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; train weights first or give the path of existing ones")
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except SafetensorError as error:
        raise WeightsError(f"{path}: not a whole safetensors file ({error}); fetch it again") from error


def take_part(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    """Take the tensors of a part out of all."""
    begin = f"{part}."
    return {name.removeprefix(begin): tensors.pop(name) for name in list(tensors) if name.startswith(begin)}


def differences(tensors: dict[str, Tensor], expected: dict[str, Tensor]) -> list[str]:
    """What is unknown, missing, of another shape or not finite, as text; at most five of them."""
    found = [f"unknown tensor {name}" for name in sorted(set(tensors) - set(expected))]
    found += [f"missing tensor {name}" for name in sorted(set(expected) - set(tensors))]
    for name in sorted(set(expected) & set(tensors)):
        if tensors[name].shape != expected[name].shape:
            found.append(f"{name} is {tuple(tensors[name].shape)}, not {tuple(expected[name].shape)}")
        elif not bool(torch.isfinite(tensors[name]).all()):
            found.append(f"{name} holds values that are not finite")
    return found[:5] + ([f"and {len(found) - 5} more"] if len(found) > 5 else [])


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal text."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
