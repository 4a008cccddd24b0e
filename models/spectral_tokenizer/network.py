"""The universal spectral tokenizer after Shen et al. (arXiv:2510.17959).

Patches of flux and error on a spectrum's own wavelengths, with a sinusoidal code of these wavelengths, are
encoded by self-attention; a decoder reconstructs the spectrum on any grid from the wavelength code of that
grid. The mean of the encoded patches is the embedding.

The published description of the decoder ends there. Here each patch of the grid is a query that attends to
the encoded patches, so that a reconstructed patch does not depend on the others, and the cost is proportional
to their number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ojala.models.layers.attention import Block
from ojala.models.settings import checked
from ojala.models.spectral_tokenizer.patches import Patches


@checked
@dataclass(frozen=True)
class TokenizerConfig:
    """Shape of the network; `PRESETS` has the named ones.

    Attributes
    ----------
    width : int
        Width of a token, of the wavelength code and of the embedding.
    heads : int
        Attention heads of each block.
    encoder, decoder : int
        Numbers of blocks.
    patch : int
        Pixels in a patch.
    """

    width: int
    heads: int
    encoder: int
    decoder: int
    patch: int


PRESETS: dict[str, TokenizerConfig] = {
    "published": TokenizerConfig(width=512, heads=8, encoder=6, decoder=6, patch=32),
    "base": TokenizerConfig(width=192, heads=6, encoder=4, decoder=2, patch=64),
}
"""Named shapes: published (38 M parameters, 20 GFLOP for a DESI spectrum and its reconstruction), and that of
the bundled weights (2.8 M, 0.74 GFLOP)."""


class SpectralTokenizer(nn.Module):
    """Network on `Patches`, with `encode`, `embed` (mean of the encoding) and `reconstruct` on any grid.

    Rows do not depend on each other.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.read = nn.Linear(2 * config.patch, width)
        self.place = nn.Linear(width, width)
        self.encoder = nn.ModuleList(
            Block(width, config.heads, 4 * width, cross=False, pre_norm=True) for _ in range(config.encoder)
        )
        self.norm_encoded = nn.LayerNorm(width)
        self.ask = nn.Linear(width, width)
        self.decoder = nn.ModuleList(
            Block(width, config.heads, 4 * width, cross=True, pre_norm=True) for _ in range(config.decoder)
        )
        self.norm_decoded = nn.LayerNorm(width)
        self.write = nn.Linear(width, config.patch)

    def encode(self, patches: Patches) -> Tensor:
        """Patches (N, S, ...) -> encoding (N, S, d); each row needs at least one valid patch."""
        mask = attention_mask(patches.valid)
        x = self.read(patches.pixels) + self.place(patches.code)
        for block in self.encoder:
            x = block(x, None, mask)
        out: Tensor = self.norm_encoded(x)
        return out

    def embed(self, encoded: Tensor, valid: Tensor) -> Tensor:
        """Mean of the encoding over the valid patches (N, d)."""
        weight = valid.unsqueeze(-1).float()
        return (encoded.float() * weight).sum(dim=1) / weight.sum(dim=1)

    def reconstruct(self, encoded: Tensor, valid: Tensor, code: Tensor) -> Tensor:
        """Encoding (N, S, d) and wavelength codes of T patches (N, T, d) -> flux (N, T, P).

        The flux is in units of the brightness of the encoded spectrum.
        """
        mask, x = attention_mask(valid), self.ask(code)
        for block in self.decoder:
            x = block(x, encoded, mask)
        out: Tensor = self.write(self.norm_decoded(x)).float()
        return out


def attention_mask(valid: Tensor) -> Tensor:
    """Additive mask of attention (N, 1, 1, S): 0 for valid patches, -inf for the rest."""
    return torch.zeros(valid.shape, device=valid.device).masked_fill(~valid, -math.inf)[:, None, None, :]
