"""AVIS' weights on disk."""

from __future__ import annotations

from pathlib import Path

from ojala.models.avis.network import Avis, AvisConfig
from ojala.models.checkpoint import NetworkInfo, fill, read_network, write_network

FORMAT = "avis-weights/1"
"""Written into every file of weights; another value is refused."""

AvisInfo = NetworkInfo[AvisConfig]
"""What a file of weights says of itself."""


def save_avis(path: Path, model: Avis, *, name: str, version: str, training: dict[str, object]) -> None:
    """Write the weights of a network in half precision, whole or not at all."""
    config = model.config.to_json()
    tensors = {name: tensor.half() for name, tensor in model.state_dict().items()}
    write_network(path, tensors, form=FORMAT, name=name, version=version, config=config, training=training)


def load_avis(path: Path) -> tuple[Avis, AvisInfo]:
    """Read weights and build their network, in evaluation mode on the CPU.

    Raises
    ------
    WeightsError
        If the file is damaged, was not written by `save_avis`, or its tensors are not exactly those of the
        network that its configuration describes.
    """
    tensors, info = read_network(path, FORMAT, AvisConfig.from_json)
    model = Avis(info.config)
    fill(path, model, tensors)
    return model, info
