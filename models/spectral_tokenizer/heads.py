"""What is read from a frozen encoding: class, redshift, stellar parameters.

Learned queries attend to the encoded patches (an attentive pool), and small networks answer from them. No
gradient reaches the encoder: the encoding is detached here, once for training and serving.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ojala.models.layers.attention import Block
from ojala.models.layers.distributions import LOG_SCALE_RANGE, MEAN_LIMIT
from ojala.models.layers.redshift_pdf import N_REDSHIFT_BINS
from ojala.models.quantities import BY_NAME, CLASSES, Quantity
from ojala.models.spectral_tokenizer.network import SpectralTokenizer, TokenizerConfig, hide

STELLAR: tuple[Quantity, ...] = tuple(BY_NAME[name] for name in ("teff", "logg", "fe_h"))
"""The parameters of stars, with the scale in which they are answered."""

REDSHIFT_QUERIES = 6
"""Queries by which the redshift is sought; class and stellar parameters have one each."""

_HIDDEN = 384
_SMALL = 128


class HeadAnswers(NamedTuple):
    """Answers for N spectra.

    Attributes
    ----------
    object_class : Tensor, shape (N, 3)
        Logits in the order of `CLASSES`.
    redshift : Tensor, shape (N, 1825)
        Logits over bins of 0.001 in ln(1 + z), if a galaxy or a quasar.
    stellar : Tensor, shape (N, 3, 2)
        Location and log-scale of a Student-t distribution (nu = 3) of each standardised parameter of
        `STELLAR`, if a star.
    """

    object_class: Tensor
    redshift: Tensor
    stellar: Tensor


class Heads(nn.Module):
    """The heads on encodings of ``width`` numbers a patch."""

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

    def forward(self, encoded: Tensor, valid: Tensor) -> HeadAnswers:
        """Encoding (N, S, d) and validity of the patches (N, S) -> answers."""
        encoded, hidden = encoded.detach(), hide(valid)
        x = self.queries.expand(len(encoded), -1, -1)
        for block in self.blocks:
            x = block(x, encoded, hidden)
        x = self.norm(x)
        mean, log_scale = self.stellar(x[:, 1]).float().unflatten(-1, (-1, 2)).unbind(-1)
        bounded = (mean.clamp(-MEAN_LIMIT, MEAN_LIMIT), log_scale.clamp(*LOG_SCALE_RANGE))
        return HeadAnswers(
            self.object_class(x[:, 0]).float(),
            self.redshift(x[:, 2:].flatten(1)).float(),
            torch.stack(bounded, dim=-1),
        )


class TokenizerWithHeads(nn.Module):
    """A tokenizer and its heads.

    Attributes
    ----------
    config : TokenizerConfig
        Shape of both.
    network : SpectralTokenizer
        The tokenizer.
    heads : Heads
        The heads on its encodings.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.network, self.heads = SpectralTokenizer(config), Heads(config.width, config.heads)


def _mlp(width: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, out))
