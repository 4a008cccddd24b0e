"""SpecPT's weights on disk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from models.checkpoint import WeightsError, differences, file_sha256, read_tensors, write_tensors
from models.specpt import SpecPT, SpecPTConfig

FORMAT = "specpt-weights/1"
"""Written into every file of weights; another value is refused."""


@dataclass(frozen=True, slots=True)
class SpecPTInfo:
    """What a file of weights says of itself.

    Attributes
    ----------
    name, version : str
        Name of the model and version of its weights.
    config : SpecPTConfig
        Shape of the network.
    training : dict
        Summary of the training, as in the model card.
    sha256 : str
        Of the file.
    """

    name: str
    version: str
    config: SpecPTConfig
    training: dict[str, object]
    sha256: str


def save_specpt(path: Path, model: SpecPT, *, name: str, version: str, training: dict[str, object]) -> None:
    """Write the weights of a network, whole or not at all."""
    metadata = {
        "format": FORMAT,
        "name": name,
        "version": version,
        "config": model.config.to_json(),
        "training": json.dumps(training, sort_keys=True),
    }
    write_tensors(path, dict(model.state_dict()), metadata)


def load_specpt(path: Path) -> tuple[SpecPT, SpecPTInfo]:
    """Read weights and build their network, in evaluation mode on the CPU.

    Raises
    ------
    WeightsError
        If the file is damaged, was not written by `save_specpt`, or its tensors are not exactly those of the
        network that its configuration describes.
    """
    path = Path(path)
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != FORMAT:
        raise WeightsError(f"{path}: format is {metadata.get('format')!r}, this program reads {FORMAT!r}")
    try:
        config = SpecPTConfig.from_json(metadata["config"])
        training = json.loads(metadata["training"])
        name, version = metadata["name"], metadata["version"]
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: its header cannot be read ({error!r}); fetch the file again") from error
    model = SpecPT(config)
    if problems := differences(tensors, model.state_dict()):
        raise WeightsError(f"{path}: does not fit the network of its configuration: {'; '.join(problems)}")
    model.load_state_dict(tensors)
    return model.eval(), SpecPTInfo(name, version, config, training, file_sha256(path))
