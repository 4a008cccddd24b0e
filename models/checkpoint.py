"""Checkpoints: safetensors files with the weights, name, shape and training of a network."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
from safetensors.torch import save
from torch import Tensor, nn

from ojala.catalogs_schema.files import atomic_file
from ojala.models.header import WeightsError, file_sha256, opened, read_header
from ojala.models.settings import from_mapping, present_names

MODELS = ("avis", "ojala", "specpt", "spectral_tokenizer")
"""Packages of `ojala.models` whose module ``checkpoint`` defines a `CheckpointFormat` named ``FORMAT``."""


@dataclass(frozen=True)
class StoredPart:
    """Fitted numbers that are stored with a network, such as a calibration; each field is a tensor."""

    __slots__ = ()
    TITLE: ClassVar[str] = "the stored part"

    def tensors(self) -> dict[str, Tensor]:
        """Tensors by field."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def to(self, device: torch.device | str) -> Self:
        """The same numbers on another device."""
        return type(self)(**{name: tensor.to(device) for name, tensor in self.tensors().items()})

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Make the inverse of `tensors`.

        Raises
        ------
        ValueError
            A field is missing or unknown, the shapes do not fit, or a value is not finite.
        """
        if set(tensors) != {field.name for field in fields(cls)}:
            raise ValueError(f"{cls.TITLE} lacks a tensor or has one too many")
        found = cls(**tensors)
        found.check_shapes()
        for name, tensor in tensors.items():
            if not bool(tensor.isfinite().all()):
                raise ValueError(f"{name} of {cls.TITLE} has a value that is not finite")
        return found

    def check_shapes(self) -> None:
        """Check that the shapes fit each other; ValueError where they do not."""


Config = TypeVar("Config")
Network = TypeVar("Network", bound=nn.Module)
Info = TypeVar("Info", bound="NetworkInfo[Any]")


@dataclass(frozen=True)  # no slots: with them, an alias with its type argument cannot be called
class NetworkInfo(Generic[Config]):
    """Header of a file of weights.

    Attributes
    ----------
    name, version : str
        Name of the model and version of its weights.
    config : Config
        Shape of the network.
    training : dict
        Summary of the training (budget, draws, metrics).
    sha256 : str
        SHA-256 of the file.
    """

    name: str
    version: str
    config: Config
    training: dict[str, Any]
    sha256: str


@dataclass(frozen=True)
class CheckpointFormat(Generic[Network, Info]):
    """File format of one model's weights.

    Attributes
    ----------
    name : str
        Name of the format in the header; files with another name are refused.
    config : type
        Dataclass of the network's shape.
    build : callable
        Builds the network of a shape.
    info : type
        `NetworkInfo`, or a subclass with a field for each of ``parts``.
    parts : mapping of str to type
        Stored parts by name; a file may lack any of them.
    half : bool
        Store the network in half precision.
    """

    name: str
    config: type[Any]
    build: Callable[[Any], Network]
    info: type[Info]
    parts: Mapping[str, type[StoredPart]] = field(default_factory=dict)
    half: bool = False

    def save(
        self,
        path: Path,
        network: Network,
        *,
        name: str,
        version: str,
        training: Mapping[str, object],
        **parts: StoredPart | None,
    ) -> None:
        """Write weights atomically.

        Parameters
        ----------
        path : Path
            File to write.
        network : Module
            The network, with its shape as attribute ``config``.
        name, version : str
            Name of the model and version of its weights.
        training : mapping
            Summary of the training, stored in the header as JSON.
        **parts : StoredPart or None
            Parts to store, by the names of `parts`.
        """
        tensors = network.state_dict()
        if self.half:
            tensors = {tensor_name: tensor.half() for tensor_name, tensor in tensors.items()}
        for part, values in parts.items():
            if values is not None:
                tensors |= {f"{part}.{array}": tensor for array, tensor in values.tensors().items()}
        config: Any = network.config
        header = {
            "format": self.name,
            "name": name,
            "version": version,
            "config": json.dumps(asdict(config), sort_keys=True),
            "training": json.dumps(training, sort_keys=True),
        }
        write_tensors(path, tensors, header)

    def load(self, path: Path | str) -> tuple[Network, Info]:
        """Read weights and build their network, in evaluation mode on the CPU.

        Raises
        ------
        WeightsError
            The file is missing or damaged, has another format, or its tensors are not exactly those of the
            network that its header describes and of the stored parts.
        """
        path = Path(path)
        tensors, header = read_tensors(path)
        if header.get("format") != self.name:
            raise WeightsError(
                f"{path}: format is {header.get('format')!r}, this program reads {self.name!r}"
            )
        try:
            config = from_mapping(self.config, json.loads(header["config"]))
            fields = (header["name"], header["version"], config, _training(header["training"]))
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError(
                f"{path}: its header cannot be read ({error!r}); fetch the file again"
            ) from error
        try:
            parts: dict[str, Any] = {
                name: kind.from_tensors(own)
                for name, kind in self.parts.items()
                if (own := take_part(tensors, name))
            }
        except ValueError as error:
            raise WeightsError(f"{path}: {error}; fetch the file again") from error
        network = self.build(config)
        if problems := differences(tensors, network.state_dict()):
            raise WeightsError(
                f"{path}: does not fit the network of its configuration: {'; '.join(problems)}"
            )
        network.load_state_dict(tensors)
        return network.eval(), self.info(*fields, file_sha256(path), **parts)


def formats() -> dict[str, tuple[str, CheckpointFormat[Any, Any]]]:
    """Formats of all models by the name in their files, each with its package in `ojala.models`."""
    modules = {model: importlib.import_module(f"ojala.models.{model}.checkpoint") for model in MODELS}
    return {module.FORMAT.name: (model, module.FORMAT) for model, module in modules.items()}


def load(path: Path | str) -> tuple[str, nn.Module, NetworkInfo[Any]]:
    """Read weights of any model.

    Returns
    -------
    model : str
        Package of `ojala.models`.
    network : Module
        The network, in evaluation mode on the CPU.
    info : NetworkInfo
        Header of the file.

    Raises
    ------
    WeightsError
        See `CheckpointFormat.load`.
    """
    name, registered = read_header(Path(path)).get("format"), formats()
    if name not in registered:
        raise WeightsError(
            f"{path}: format is {name!r}, this program reads {', '.join(map(repr, registered))}"
        )
    model, form = registered[name]
    return (model, *form.load(path))


def _training(text: str) -> dict[str, Any]:
    """Decode the summary of a training and of its earlier stages, with the present names of settings."""

    def renamed(summary: Mapping[str, Any]) -> dict[str, Any]:
        changed = {"config": present_names, "before": renamed}
        return {
            ("draws" if name == "pairs" else name): changed.get(name, lambda value: value)(value)
            for name, value in summary.items()
        }

    return renamed(json.loads(text))


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file atomically."""
    arrays = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_file(path) as file:
        file.write(save(arrays, metadata))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata of a safetensors file.

    Raises
    ------
    WeightsError
        The file is missing, cannot be opened, is truncated or no safetensors file.
    """
    with opened(path, "pt") as file:
        names = file.keys()
        return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})


def take_part(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    """Remove the tensors of a part and return them, by their names in the part."""
    begin = f"{part}."
    return {name.removeprefix(begin): tensors.pop(name) for name in list(tensors) if name.startswith(begin)}


def differences(tensors: dict[str, Tensor], expected: dict[str, Tensor]) -> list[str]:
    """Describe unknown, missing, misshapen and non-finite tensors; at most five of them."""
    problems = [f"unknown tensor {name}" for name in sorted(set(tensors) - set(expected))]
    problems += [f"missing tensor {name}" for name in sorted(set(expected) - set(tensors))]
    for name in sorted(set(expected) & set(tensors)):
        if tensors[name].shape != expected[name].shape:
            problems.append(f"{name} is {tuple(tensors[name].shape)}, not {tuple(expected[name].shape)}")
        elif not bool(torch.isfinite(tensors[name]).all()):
            problems.append(f"{name} holds values that are not finite")
    return problems[:5] + ([f"and {len(problems) - 5} more"] if len(problems) > 5 else [])
