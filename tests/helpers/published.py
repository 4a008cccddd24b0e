"""Stand-in weights of the published OJALÁ, made by a rule, and golden data where they are present."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from ojala.models.ojala_published.checkpoint import COMPILED, shapes
from ojala.models.ojala_published.inputs import INPUTS, NARROW
from ojala.models.ojala_published.network import REQUESTS

_BESIDE = Path(__file__).parents[3] / "shared" / "data" / "ojala_published"
GOLDEN = Path(os.environ.get("OJALA_PUBLISHED_GOLDEN", _BESIDE))
"""What the authors' code makes of 64 rows with these weights; not part of the project."""

SHA256 = "ba37f35ddb7a935778b733da1e190eaf5a2b19395ac9258e694de3e0894542fa"
"""SHA-256 over all tensors of `stand_in`, little-endian float32, in the order of the file."""

VOCABULARY = (
    *INPUTS[:58],
    "MORPHTYPE",
    *(
        "LOGM",
        "LOGG",
        "TEFF",
        "ALPHAFE",
        "FEH",
        "OIII_5007_EW",
        "NII_6584_EW",
        "HBETA_4861_EW",
        "HALPHA_6562_EW",
    ),
    *("HBETA_CONT", "HALPHA_CONT", "Z_GAL", "Z_QSO", "SPECTYPE", "MAG_W1", "MAG_W2", "LOGSFR"),
)
"""Tokens in the order of their ids."""

_OFFSETS = {
    "log_sigma_narrow": -2.3,
    "log_sigma_broad": -1.61,
    "w_narrow": 1.0,
    "w_broad": 1.0,
    "rpb_gain1": 1.0,
    "rpb_gain2": 1.0,
    "torch_decoder.classification_out.bias": [0.0, -2.0, 3.5],
    "torch_decoder.decoder_out.bias": -1.2,
}


def _scale(name: str, shape: list[int]) -> float:
    if name.endswith(("embeddings", "embedding_layer.bias", "k_bias", "v_bias")):
        return 0.5
    if len(shape) < 2:
        return 0.1
    gain = {"proj.weight": 1.0, "decoder_logvar_out.weight": 1.0}
    gain |= dict.fromkeys(("classification_out.weight", "decoder_out.weight"), 12.5)
    return math.sqrt(next((g for end, g in gain.items() if name.endswith(end)), 2.0) / shape[1])


def stand_in() -> dict[str, torch.Tensor]:
    """Numbers that follow from the names of the tensors; they mean nothing about the sky."""
    tensors = {}
    for name, shape in shapes(len(VOCABULARY)).items():
        offset = next((value for end, value in _OFFSETS.items() if name.endswith(end)), 0.0)
        offset = 1.0 if "layernorm" in name and name.endswith("weight") else offset
        seed = int(hashlib.sha256(name.encode()).hexdigest()[:16], 16)
        normal = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape)
        values = np.asarray(np.asarray(offset) + _scale(name, shape) * normal, np.float32)
        if name in ("embedding_layer.embeddings", "embedding_layer.bias"):
            values[0] = 0.0
        tensors[name] = torch.from_numpy(np.array(values))
    return tensors


def config(centre: float = 0.5, scale: float = 2.0) -> dict[str, object]:
    """A ``config.json`` with one centre and one scale for all tokens but padding and classes."""
    standardised = [name not in ("MORPHTYPE", "SPECTYPE") for name in VOCABULARY]
    return {
        "tokenizer_config": {"vocabs": VOCABULARY, "vocab_tokens": list(range(1, len(VOCABULARY) + 1))},
        "norm_config": {
            "_input_mean": [0.0, *(centre * one for one in standardised)],
            "_input_std": [1.0, *(scale if one else 1.0 for one in standardised)],
        },
    }


def write_checkpoint(folder: Path, tensors: dict[str, torch.Tensor], *, prefix: str = COMPILED) -> Path:
    """The authors' ``weights.pt``, and the golden ``config.json`` or the one of `config`, in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {prefix + name: tensor for name, tensor in tensors.items()}
    for name, tensor in state.items():
        if tensor.ndim == 4:
            state[name] = tensor.to(memory_format=torch.channels_last)
    saved = {
        "model_state_dict": state,
        "da_state_dict": {},
        "optimizer": "AdamW",
        "epoch": 3,
        "da_hparams": {},
    }
    torch.save(saved, folder / "weights.pt")
    golden = GOLDEN / "config.json"
    text = golden.read_text() if golden.exists() else json.dumps(config())
    (folder / "config.json").write_text(text)
    return folder / "weights.pt"


def golden_inputs() -> np.ndarray:
    """`INPUTS` of the golden rows (64, 60) as the authors' script reads them."""
    table = pq.read_table(GOLDEN / "inputs.parquet")
    names = [f"APER_COR_3_0_{name}" if name in NARROW else name for name in INPUTS]
    return np.stack([table[name].to_numpy() for name in names], axis=1)


def golden_requests() -> list[str]:
    """Names of the requests in the golden arrays."""
    found = list(np.load(GOLDEN / "raw.npz")["requests"])
    assert found == list(REQUESTS)
    return found
