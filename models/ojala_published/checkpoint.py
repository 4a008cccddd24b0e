"""Files of the published weights: ``weights.pt`` with its ``config.json``, or one safetensors file.

The safetensors file that `convert` writes has the authors' names of the tensors and, in its header, the
vocabulary and standardisation, so that workers need neither pickle nor a second file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from ojala.models.checkpoint import CheckpointFormat, NetworkInfo, differences, read_tensors, write_tensors
from ojala.models.header import WeightsError, file_sha256
from ojala.models.ojala_published.network import (
    CLASSES,
    DECODER_HEADS,
    DECODER_HIDDEN,
    HEADS,
    HIDDEN,
    META_WIDTH,
    MORPHOLOGIES,
    TRUNK,
    WIDTH,
    PublishedConfig,
    PublishedOjala,
)
from ojala.models.settings import from_mapping

NAME = "ojala-published"
"""Name of the weights."""

SOURCE = "https://github.com/gimarso/OJALA (folder model_OJALA; arXiv:2604.00661)"
"""Where the authors publish weights and configuration."""

CONFIG = "config.json"
"""Name of the configuration beside the authors' weights."""

COMPILED = "_orig_mod."
"""Prefix of the names of a network that was compiled for its training."""

LEAST_GAIN = 0.05
"""Below this gain the published mask does not hide padding, and the network is another function."""

_ENCODER = "torch_encoder.encoder_transformer_block_{}"
_DECODER = "torch_decoder.decoder_transformer_block_{}"
_SCALARS = ("log_sigma_narrow", "log_sigma_broad", "w_narrow", "w_broad", "rpb_gain1", "rpb_gain2")


@dataclass(frozen=True)
class PublishedInfo(NetworkInfo[PublishedConfig]):
    """Header of the published weights.

    Attributes
    ----------
    config_sha256 : str
        SHA-256 of ``config.json``; empty for a converted file, which holds it.
    """

    config_sha256: str = ""


def shapes(tokens: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the published tensors by name, in the order of the file, for a number of tokens."""
    found: dict[str, tuple[int, ...]] = {}

    def linear(name: str, inner: int, outer: int) -> None:
        found.update({f"{name}.weight": (outer, inner), f"{name}.bias": (outer,)})

    def feed_forward(block: str, hidden: int) -> None:
        linear(f"{block}.dense_1", WIDTH, hidden)
        linear(f"{block}.dense_2", hidden, WIDTH)
        for norm in ("layernorm_1", "layernorm_2"):
            found.update({f"{block}.{norm}.weight": (WIDTH,), f"{block}.{norm}.bias": (WIDTH,)})

    for table in ("embeddings", "bias"):
        found[f"embedding_layer.{table}"] = (tokens + 1, WIDTH)
    linear("embedding_layer.meta_mlp.0", 3, META_WIDTH)
    linear("embedding_layer.meta_mlp.2", META_WIDTH, WIDTH)
    found |= {f"torch_encoder.{name}": () for name in _SCALARS}
    for k, hidden in enumerate(HIDDEN, 1):
        linear(f"{_ENCODER.format(k)}.attention.qkv_proj", WIDTH, 3 * WIDTH)
        linear(f"{_ENCODER.format(k)}.attention.out_proj", WIDTH, WIDTH)
        feed_forward(_ENCODER.format(k), hidden)
    linear("torch_decoder.classification_out", TRUNK[-1], len(CLASSES))
    linear("torch_decoder.morph_classification_out", TRUNK[-1], MORPHOLOGIES)
    for k, (heads, hidden) in enumerate(zip(DECODER_HEADS, DECODER_HIDDEN, strict=True), 1):
        attention = f"{_DECODER.format(k)}.attention"
        found |= {f"{attention}.{part}_bias": (1, heads, 1, WIDTH // heads) for part in "kv"}
        for part in ("q", "k", "v", "out"):
            linear(f"{attention}.{part}_proj", WIDTH, WIDTH)
        feed_forward(_DECODER.format(k), hidden)
    for k, (inner, outer) in enumerate(zip((WIDTH, *TRUNK), TRUNK, strict=False), 3):
        linear(f"torch_decoder.decoder_dense_{k}", inner, outer)
    linear("torch_decoder.decoder_out", TRUNK[-1], 1)
    linear("torch_decoder.decoder_logvar_out", TRUNK[-1], 1)
    return found


def to_state(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of `PublishedOjala` from the published ones."""
    state = {
        "embeddings": published["embedding_layer.embeddings"],
        "offsets": published["embedding_layer.bias"],
    }

    def linear(name: str, *sources: str) -> None:
        for part in ("weight", "bias"):
            state[f"{name}.{part}"] = torch.cat([published[f"{source}.{part}"] for source in sources])

    def feed_forward(name: str, block: str) -> None:
        linear(f"{name}.attention.out", f"{block}.attention.out_proj")
        linear(f"{name}.feed_forward.0", f"{block}.dense_1")
        linear(f"{name}.feed_forward.2", f"{block}.dense_2")
        linear(f"{name}.norm_attention", f"{block}.layernorm_1")
        linear(f"{name}.norm_feed_forward", f"{block}.layernorm_2")

    for k in (0, 2):
        linear(f"meta_mlp.{k}", f"embedding_layer.meta_mlp.{k}")
    scalars = [published[f"torch_encoder.{name}"] for name in _SCALARS]
    for name, pair in zip(
        ("log_sigma", "amplitude", "gain"), (scalars[:2], scalars[2:4], scalars[4:]), strict=True
    ):
        state[name] = torch.stack(pair)
    for k in range(len(HEADS)):
        name, block = f"encoder.{k}", _ENCODER.format(k + 1)
        for part in ("weight", "bias"):
            joined = published[f"{block}.attention.qkv_proj.{part}"]
            state[f"{name}.attention.query.{part}"] = joined[:WIDTH]
            state[f"{name}.attention.key_value.{part}"] = joined[WIDTH:]
        feed_forward(name, block)
    for k in range(len(DECODER_HEADS)):
        name, block = f"decoder.{k}", _DECODER.format(k + 1)
        linear(f"{name}.attention.query", f"{block}.attention.q_proj")
        linear(f"{name}.attention.key_value", f"{block}.attention.k_proj", f"{block}.attention.v_proj")
        extra = [published[f"{block}.attention.{part}_bias"].reshape(-1) for part in "kv"]
        state[f"{name}.attention.extra"] = torch.cat(extra)
        feed_forward(name, block)
    for k in range(len(TRUNK)):
        linear(f"trunk.{2 * k}", f"torch_decoder.decoder_dense_{k + 3}")
    for head, source in {
        "mean_head": "decoder_out",
        "logvar_head": "decoder_logvar_out",
        "class_head": "classification_out",
        "morphology_head": "morph_classification_out",
    }.items():
        linear(head, f"torch_decoder.{source}")
    return state


def read_config(path: Path) -> PublishedConfig:
    """Read the authors' ``config.json``.

    Raises
    ------
    WeightsError
        If there is none, or it is not the configuration of the published network.
    """
    try:
        found = json.loads(path.read_bytes())
        names, ids = found["tokenizer_config"]["vocabs"], found["tokenizer_config"]["vocab_tokens"]
        norm = found["norm_config"]
        settings = {"vocabulary": names, "centre": norm["_input_mean"], "scale": norm["_input_std"]}
        config = from_mapping(PublishedConfig, settings)
    except FileNotFoundError:
        raise WeightsError(
            f"{path}: no such file; the standardisation of the published network is in it: put the authors' "
            f"{CONFIG} beside the weights, from {SOURCE}"
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{path}: is not the configuration of the published network ({error}); fetch it again from "
            f"{SOURCE}"
        ) from error
    if ids != list(range(1, len(names) + 1)):
        raise WeightsError(f"{path}: the ids of its vocabulary are not 1, 2, 3, ...; fetch it from {SOURCE}")
    return config


def read_published(path: Path) -> tuple[dict[str, Tensor], PublishedConfig, str]:
    """Tensors of published weights by the authors' names, their configuration, and the SHA-256 of its file.

    Parameters
    ----------
    path : Path
        The authors' ``weights.pt``, with ``config.json`` beside it, or what `convert` made of it.

    Raises
    ------
    WeightsError
        If a file is missing or damaged, or a tensor is missing, unknown, of another shape or not finite;
        names it.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; the authors publish weights.pt and {CONFIG} at {SOURCE}")
    config_sha256 = ""
    if path.suffix == ".safetensors":
        tensors, header = read_tensors(path)
        if header.get("format") != FORMAT.name:
            raise WeightsError(
                f"{path}: format is {header.get('format')!r}, expected {FORMAT.name!r}: make it with "
                "`ojala convert-weights weights.pt --out FILE.safetensors`"
            )
        config = from_mapping(PublishedConfig, json.loads(header["config"]))
    else:
        tensors = _read_torch(path)
        config = read_config(path.with_name(CONFIG))
        config_sha256 = file_sha256(path.with_name(CONFIG))
    expected = {name: torch.empty(shape) for name, shape in shapes(len(config.vocabulary)).items()}
    if problems := differences(tensors, expected):
        raise WeightsError(f"{path}: does not fit the published network: {'; '.join(problems)}")
    for name in ("rpb_gain1", "rpb_gain2"):
        if (gain := float(tensors[f"torch_encoder.{name}"])) < LEAST_GAIN:
            raise WeightsError(
                f"{path}: torch_encoder.{name} is {gain:.3g}; below {LEAST_GAIN} the published mask does not "
                "hide missing inputs, which this program cannot reproduce"
            )
    return tensors, config, config_sha256


def _read_torch(path: Path) -> dict[str, Tensor]:
    """Tensors of ``torch.save``'s file by the authors' names, contiguous, on the CPU."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise WeightsError(
            f"{path}: cannot be read as weights of torch ({str(error).splitlines()[0]}); fetch it again from "
            f"{SOURCE}"
        ) from error
    state = saved.get("model_state_dict", saved) if isinstance(saved, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path}: holds no tensors under 'model_state_dict'; fetch it again from {SOURCE}")
    return {name.replace(COMPILED, "", 1): value.float().contiguous() for name, value in state.items()}


@dataclass(frozen=True)
class PublishedFormat(CheckpointFormat[PublishedOjala, PublishedInfo]):
    """File format of the published weights, of either kind."""

    def load(self, path: Path | str) -> tuple[PublishedOjala, PublishedInfo]:
        """Read weights and build their network, in evaluation mode on the CPU.

        Raises
        ------
        WeightsError
            See `read_published`.
        """
        path = Path(path)
        tensors, config, config_sha256 = read_published(path)
        network = self.build(config)
        network.load_state_dict(to_state(tensors))
        sha256 = file_sha256(path)
        return network.eval(), self.info(NAME, sha256[:12], config, {}, sha256, config_sha256)


FORMAT = PublishedFormat("ojala-published-weights/1", PublishedConfig, PublishedOjala, PublishedInfo)
"""Format of the files; `CheckpointFormat.save` has no use here, see `convert`."""

load = FORMAT.load


def convert(weights: Path, out: Path) -> dict[str, Any]:
    """Write the authors' weights and configuration as one safetensors file; numbers and names stay.

    Parameters
    ----------
    weights : Path
        The authors' ``weights.pt``, with ``config.json`` beside it.
    out : Path
        File to write; its name ends in ``.safetensors``.

    Returns
    -------
    dict
        ``weights_sha256`` and ``config_sha256`` of the sources, ``sha256`` of the new file, ``tensors`` and
        ``numbers`` in it.

    Raises
    ------
    WeightsError
        See `read_published`; also if the file exists or has another ending.
    """
    if out.suffix != ".safetensors":
        raise WeightsError(f"{out}: the name of a file of weights ends in .safetensors: name one that does")
    if out.exists():
        raise WeightsError(f"{out} exists: remove it or name another file")
    tensors, config, config_sha256 = read_published(weights)
    source = file_sha256(weights)
    header = {
        "format": FORMAT.name,
        "name": NAME,
        "config": json.dumps(asdict(config)),
        "weights_sha256": source,
        "config_sha256": config_sha256,
        "source": SOURCE,
        "licence": "CC BY 4.0",
    }
    write_tensors(out, tensors, header)
    return {
        "weights_sha256": source,
        "config_sha256": config_sha256,
        "sha256": file_sha256(out),
        "tensors": len(tensors),
        "numbers": sum(tensor.numel() for tensor in tensors.values()),
    }
