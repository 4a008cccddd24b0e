"""The tokenizer's weights on disk: network and heads in one safetensors file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from models.checkpoint import WeightsError, differences, file_sha256, read_tensors, write_tensors
from models.spectral_tokenizer.heads import Heads
from models.spectral_tokenizer.network import SpectralTokenizer, TokenizerConfig

FORMAT = "spectral-tokenizer-weights/1"
"""Written into every file of weights; another value is refused."""


@dataclass(frozen=True, slots=True)
class TokenizerInfo:
    """What a file of weights says of itself.

    Attributes
    ----------
    name, version : str
        Name of the model and version of its weights.
    config : TokenizerConfig
        Shape of the network.
    training : dict
        Summary of the training, as in the model card.
    sha256 : str
        Of the file.
    """

    name: str
    version: str
    config: TokenizerConfig
    training: dict[str, object]
    sha256: str


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
    tensors = {f"network.{key}": tensor for key, tensor in model.state_dict().items()}
    tensors |= {f"heads.{key}": tensor for key, tensor in heads.state_dict().items()}
    metadata = {
        "format": FORMAT,
        "name": name,
        "version": version,
        "config": model.config.to_json(),
        "training": json.dumps(training, sort_keys=True),
    }
    write_tensors(path, tensors, metadata)


def load_tokenizer(path: Path) -> tuple[SpectralTokenizer, Heads, TokenizerInfo]:
    """Read weights and build network and heads, in evaluation mode on the CPU.

    Raises
    ------
    WeightsError
        If the file is damaged, was not written by `save_tokenizer`, or its tensors are not exactly those of
        the network that its configuration describes and of its heads.
    """
    path = Path(path)
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != FORMAT:
        raise WeightsError(f"{path}: format is {metadata.get('format')!r}, this program reads {FORMAT!r}")
    try:
        config = TokenizerConfig(**json.loads(metadata["config"]))
        training = json.loads(metadata["training"])
        name, version = metadata["name"], metadata["version"]
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: its header cannot be read ({error!r}); fetch the file again") from error
    model, heads = SpectralTokenizer(config), Heads(config.width, config.heads)
    parts = {"network": model, "heads": heads}
    expected = {
        f"{part}.{key}": t for part, module in parts.items() for key, t in module.state_dict().items()
    }
    if problems := differences(tensors, expected):
        raise WeightsError(f"{path}: does not fit the network of its configuration: {'; '.join(problems)}")
    for part, module in parts.items():
        own = {key.partition(".")[2]: t for key, t in tensors.items() if key.startswith(f"{part}.")}
        module.load_state_dict(own)
        module.eval()
    return model, heads, TokenizerInfo(name, version, config, training, file_sha256(path))
