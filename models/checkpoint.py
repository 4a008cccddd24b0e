"""Weights on disk: safetensors with the configuration inside, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.calibration import Calibration
from models.novelty import Novelty
from models.ojala import Ojala, OjalaConfig

FORMAT = "ojala-weights/1"
"""Written into every file of weights; another value is refused."""


@dataclass(frozen=True, slots=True)
class WeightsInfo:
    """What a file of weights says of itself.

    Attributes
    ----------
    name, version : str
        Name of the model and version of its weights.
    config : OjalaConfig
        Shape of the network.
    training : dict
        Summary of the training (budget, draws, metrics), as in the model card.
    sha256 : str
        Of the file.
    calibration : Calibration or None
        Corrections of the network's probabilities and errors; None where none were fitted.
    novelty : Novelty or None
        What the training's objects look like to the network; None where that was not recorded.
    """

    name: str
    version: str
    config: OjalaConfig
    training: dict[str, object]
    sha256: str
    calibration: Calibration | None = None
    novelty: Novelty | None = None


class WeightsError(ValueError):
    """A file that does not hold whole weights of this network."""


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
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


def save_weights(
    path: Path,
    model: Ojala,
    *,
    name: str,
    version: str,
    training: dict[str, object],
    calibration: Calibration | None = None,
    novelty: Novelty | None = None,
) -> None:
    """Write a network's weights and what is known of them, all in one file."""
    metadata = {
        "format": FORMAT,
        "name": name,
        "version": version,
        "config": model.config.to_json(),
        "training": json.dumps(training, sort_keys=True),
    }
    tensors = dict(model.state_dict())
    for part, values in (("calibration", calibration), ("novelty", novelty)):
        if values is not None:
            tensors |= {f"{part}.{field}": tensor for field, tensor in values.tensors().items()}
    write_tensors(path, tensors, metadata)


def load_weights(path: Path) -> tuple[Ojala, WeightsInfo]:
    """Read weights and build their network, in evaluation mode on the CPU.

    Raises
    ------
    WeightsError
        If the file is damaged, was not written by `save_weights`, or its tensors are not exactly those of the
        network that its configuration describes, of its calibration and of its novelty score.
    """
    path = Path(path)
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != FORMAT:
        raise WeightsError(f"{path}: format is {metadata.get('format')!r}, this program reads {FORMAT!r}")
    try:
        config = OjalaConfig.from_json(metadata["config"])
        training = json.loads(metadata["training"])
        name, version = metadata["name"], metadata["version"]
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: its header cannot be read ({error!r}); fetch the file again") from error
    model = Ojala(config)
    try:
        calibration = Calibration.from_tensors(own) if (own := _take(tensors, "calibration")) else None
        novelty = Novelty.from_tensors(own) if (own := _take(tensors, "novelty")) else None
    except ValueError as error:
        raise WeightsError(f"{path}: {error}; fetch the file again") from error
    expected = model.state_dict()
    if problems := differences(tensors, expected):
        raise WeightsError(f"{path}: does not fit the network of its configuration: {'; '.join(problems)}")
    model.load_state_dict(tensors)
    sha256 = file_sha256(path)
    return model.eval(), WeightsInfo(name, version, config, training, sha256, calibration, novelty)


def _take(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
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
