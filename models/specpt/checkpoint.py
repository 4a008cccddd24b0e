"""SpecPT's weights on disk."""

from __future__ import annotations

from pathlib import Path

from ojala.models.checkpoint import NetworkInfo, fill, read_network, write_network
from ojala.models.specpt.network import SpecPT, SpecPTConfig

FORMAT = "specpt-weights/1"
"""Written into every file of weights; another value is refused."""

SpecPTInfo = NetworkInfo[SpecPTConfig]
"""What a file of weights says of itself."""


def save_specpt(path: Path, model: SpecPT, *, name: str, version: str, training: dict[str, object]) -> None:
    """Write the weights of a network, whole or not at all."""
    tensors, config = model.state_dict(), model.config.to_json()
    write_network(path, tensors, form=FORMAT, name=name, version=version, config=config, training=training)


def load_specpt(path: Path) -> tuple[SpecPT, SpecPTInfo]:
    """Read weights and build their network, in evaluation mode on the CPU.

    Raises
    ------
    WeightsError
        If the file is damaged, was not written by `save_specpt`, or its tensors are not exactly those of the
        network that its configuration describes.
    """
    tensors, info = read_network(path, FORMAT, SpecPTConfig.from_json)
    model = SpecPT(info.config)
    fill(path, model, tensors)
    return model, info
