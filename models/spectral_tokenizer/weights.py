"""The tokenizer's weights on disk: network and heads in one safetensors file."""

from __future__ import annotations

import json
from pathlib import Path

from torch import nn

from models.spectral_tokenizer.heads import Heads
from models.spectral_tokenizer.network import SpectralTokenizer, TokenizerConfig
from models.weights_file import NetworkInfo, fill, read_network, write_network

FORMAT = "spectral-tokenizer-weights/1"
"""Written into every file of weights; another value is refused."""

TokenizerInfo = NetworkInfo[TokenizerConfig]
"""What a file of weights says of itself."""


def save_tokenizer(
    path: Path,
    model: SpectralTokenizer,
    heads: Heads,
    *,
    name: str,
    version: str,
    training: dict[str, object],
) -> None:
    """Write the weights of a network and its heads, whole or not at all."""
    tensors = nn.ModuleDict({"network": model, "heads": heads}).state_dict()
    config = model.config.to_json()
    write_network(path, tensors, form=FORMAT, name=name, version=version, config=config, training=training)


def load_tokenizer(path: Path) -> tuple[SpectralTokenizer, Heads, TokenizerInfo]:
    """Read weights and build network and heads, in evaluation mode on the CPU.

    Raises
    ------
    WeightsError
        If the file is damaged, was not written by `save_tokenizer`, or its tensors are not exactly those of
        the network that its configuration describes and of its heads.
    """
    tensors, info = read_network(path, FORMAT, lambda text: TokenizerConfig(**json.loads(text)))
    model, heads = SpectralTokenizer(info.config), Heads(info.config.width, info.config.heads)
    fill(path, nn.ModuleDict({"network": model, "heads": heads}), tensors)
    return model, heads, info
