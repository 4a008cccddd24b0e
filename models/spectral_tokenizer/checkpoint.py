"""The tokenizer's weights on disk: network, heads and the scales of their errors in one safetensors file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ojala.models.checkpoint import NetworkInfo, WeightsError, fill, read_network, take_part, write_network
from ojala.models.spectral_tokenizer.calibration import ErrorScales
from ojala.models.spectral_tokenizer.heads import Heads
from ojala.models.spectral_tokenizer.network import SpectralTokenizer, TokenizerConfig

FORMAT = "spectral-tokenizer-weights/1"
"""Written into every file of weights; another value is refused."""


@dataclass(frozen=True)
class TokenizerInfo(NetworkInfo[TokenizerConfig]):
    """What a file of weights says of itself.

    Attributes
    ----------
    scales : ErrorScales or None
        Corrections of the stated errors; None where none were fitted.
    """

    scales: ErrorScales | None = None


def save_tokenizer(
    path: Path,
    model: SpectralTokenizer,
    heads: Heads,
    *,
    name: str,
    version: str,
    training: dict[str, object],
    scales: ErrorScales | None = None,
) -> None:
    """Write the weights of a network and its heads, whole or not at all."""
    tensors = nn.ModuleDict({"network": model, "heads": heads}).state_dict()
    if scales is not None:
        tensors["error_scales.factor"] = scales.factor
    config = model.config.to_json()
    write_network(path, tensors, form=FORMAT, name=name, version=version, config=config, training=training)


def load_tokenizer(path: Path) -> tuple[SpectralTokenizer, Heads, TokenizerInfo]:
    """Read weights and build network and heads, in evaluation mode on the CPU.

    Raises
    ------
    WeightsError
        If the file is damaged, was not written by `save_tokenizer`, or its tensors are not exactly those of
        the network that its configuration describes, of its heads and of the scales of their errors.
    """
    tensors, info = read_network(path, FORMAT, lambda text: TokenizerConfig(**json.loads(text)))
    try:
        scales = ErrorScales.from_tensors(own) if (own := take_part(tensors, "error_scales")) else None
    except ValueError as error:
        raise WeightsError(f"{path}: {error}; fetch the file again") from error
    model, heads = SpectralTokenizer(info.config), Heads(info.config.width, info.config.heads)
    fill(path, nn.ModuleDict({"network": model, "heads": heads}), tensors)
    return (
        model,
        heads,
        TokenizerInfo(info.name, info.version, info.config, info.training, info.sha256, scales),
    )
