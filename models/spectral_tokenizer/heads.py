"""Heads on the encoding: class, redshift and stellar parameters.

Learned queries attend to the encoded patches (attentive pooling), and small networks predict from them. The
encoding is detached: the encoder has no gradient of the heads.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ojala.models.layers.attention import Block
from ojala.models.layers.distributions import LOG_SCALE_RANGE, MEAN_LIMIT, STUDENT_T3_HALF_WIDTH
from ojala.models.layers.redshift_pdf import N_REDSHIFT_BINS
from ojala.models.quantities import BY_NAME, CLASSES, Quantity
from ojala.models.spectral_tokenizer.network import SpectralTokenizer, TokenizerConfig, attention_mask

STELLAR: tuple[Quantity, ...] = tuple(BY_NAME[name] for name in ("teff", "logg", "fe_h"))
"""Parameters of stars with their standardisation."""

REDSHIFT_QUERIES = 6
"""Queries of the redshift head; class and stellar parameters have one each."""

_HIDDEN, _SMALL = 384, 128  # hidden width of the redshift head, and of the others


class HeadOutputs(NamedTuple):
    """Outputs of the heads for N spectra.

    Attributes
    ----------
    object_class : Tensor, shape (N, 3)
        Logits in the order of `CLASSES`.
    redshift : Tensor, shape (N, 1825)
        Logits over bins of 0.001 in ln(1 + z), under the assumption of a galaxy or quasar.
    stellar : Tensor, shape (N, 3, 2)
        Location and log-scale of a Student-t distribution (nu = 3) of each standardised parameter of
        `STELLAR`, under the assumption of a star.
    pooled : Tensor, shape (N, 8, d)
        What the queries of class, stellar parameters and redshift found in the encoding.
    """

    object_class: Tensor
    redshift: Tensor
    stellar: Tensor
    pooled: Tensor


def decode_stellar(stellar: Tensor) -> dict[str, np.ndarray]:
    """Parameters of stars and their errors in physical units (N,), from `HeadOutputs.stellar` (N, 3, 2)."""
    found = {}
    for index, quantity in enumerate(STELLAR):
        mean, log_scale = stellar[:, index].double().cpu().numpy().T
        half_width = STUDENT_T3_HALF_WIDTH * np.exp(log_scale)
        interval = quantity.restore(mean + half_width) - quantity.restore(mean - half_width)
        found[quantity.name] = quantity.restore(mean)
        found[f"{quantity.name}_err"] = 0.5 * interval
    return found


class Heads(nn.Module):
    """Heads on encodings of a width."""

    def __init__(self, width: int, attention_heads: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(0.5 * torch.randn(REDSHIFT_QUERIES + 2, width))
        self.blocks = nn.ModuleList(
            Block(width, attention_heads, 2 * width, cross=True, pre_norm=True) for _ in range(2)
        )
        self.norm = nn.LayerNorm(width)
        self.object_class = _mlp(width, _SMALL, len(CLASSES))
        self.stellar = _mlp(width, _SMALL, 2 * len(STELLAR))
        self.redshift = _mlp(REDSHIFT_QUERIES * width, _HIDDEN, N_REDSHIFT_BINS)

    def forward(self, encoded: Tensor, valid: Tensor) -> HeadOutputs:
        """Encoding (N, S, d) and validity of the patches (N, S) -> outputs."""
        encoded, mask = encoded.detach(), attention_mask(valid)
        x = self.queries.expand(len(encoded), -1, -1)
        for block in self.blocks:
            x = block(x, encoded, mask)
        x = self.norm(x)
        mean, log_scale = self.stellar(x[:, 1]).float().unflatten(-1, (-1, 2)).unbind(-1)
        bounded = (mean.clamp(-MEAN_LIMIT, MEAN_LIMIT), log_scale.clamp(*LOG_SCALE_RANGE))
        return HeadOutputs(
            self.object_class(x[:, 0]).float(),
            self.redshift(x[:, 2:].flatten(1)).float(),
            torch.stack(bounded, dim=-1),
            x.float(),
        )


class TokenizerWithHeads(nn.Module):
    """Tokenizer with heads.

    Attributes
    ----------
    config : TokenizerConfig
        Shape of the tokenizer.
    network : SpectralTokenizer
        Tokenizer.
    heads : Heads
        Heads on its encodings.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.network, self.heads = SpectralTokenizer(config), Heads(config.width, config.heads)


def _mlp(width: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, out))
