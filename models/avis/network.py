"""AVIS: encoders ("towers") of images and of spectra with a common embedding space.

The architecture of the system of this name is not published. Here the tower of spectra is the universal
spectral tokenizer, the tower of images encodes patches of 8 x 8 pixels in all bands in the same way. Learned
queries pool the encoding of an image into a unit vector; that of a spectrum is pooled likewise, or is
a linear projection of the tokenizer's own embedding. Training aligns the two vectors of an object; the joint
embedding is the direction of their weighted sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ojala.models.avis.inputs import EXPOSURE_FEATURES, N_PATCHES, PATCH_FEATURES, PATCH_PIXELS, ImagePatches
from ojala.models.layers.attention import Block
from ojala.models.settings import checked
from ojala.models.spectral_tokenizer.network import SpectralTokenizer, TokenizerConfig, attention_mask
from ojala.models.spectral_tokenizer.patches import Patches

QUERIES = 4
"""Learned queries of each pooling."""


@checked
@dataclass(frozen=True)
class AvisConfig:
    """Shape of the network; `PRESETS` has the named ones.

    Attributes
    ----------
    spectrum : TokenizerConfig
        Shape of the tower of spectra.
    image_width, image_heads, image_encoder, image_decoder : int
        Token width, attention heads and numbers of blocks of the tower of images.
    size : int
        Length of an embedding.
    pooling : {"queries", "mean"}
        Pooling of a spectrum's encoding: by learned queries, or its mean over the patches.
    image_weight : float
        Weight of the image's unit vector in the joint embedding; that of the spectrum's is 1.
    """

    spectrum: TokenizerConfig
    image_width: int
    image_heads: int
    image_encoder: int
    image_decoder: int
    size: int
    pooling: Literal["queries", "mean"] = "queries"
    image_weight: float = 1.0


PRESETS: dict[str, AvisConfig] = {
    "base": AvisConfig(
        TokenizerConfig(width=192, heads=6, encoder=4, decoder=2, patch=64),
        image_width=192,
        image_heads=6,
        image_encoder=4,
        image_decoder=1,
        size=128,
        pooling="mean",
        image_weight=0.5,
    ),
}
"""Named shapes."""


class Pool(nn.Module):
    """Attentive pooling of a tower's encoding and further features into a vector.

    Parameters
    ----------
    width, heads : int
        Token width and attention heads of the tower.
    features : int
        Number of further features.
    size : int
        Length of the vector.
    """

    def __init__(self, width: int, heads: int, features: int, size: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(0.5 * torch.randn(QUERIES, width))
        self.blocks = nn.ModuleList([Block(width, heads, 2 * width, cross=True, pre_norm=True)])
        self.norm = nn.LayerNorm(width)
        self.project = nn.Sequential(
            nn.Linear(QUERIES * width + features, 2 * width), nn.GELU(), nn.Linear(2 * width, size)
        )
        self.back = nn.Linear(size, width)

    def forward(self, encoded: Tensor, valid: Tensor, features: Tensor) -> Tensor:
        """Encoding (N, S, d), its validity (N, S) and features (N, F) -> unnormalised vectors (N, E)."""
        out: Tensor = self.project[-1](self.hidden(encoded, valid, features)).float()
        return out

    def hidden(self, encoded: Tensor, valid: Tensor, features: Tensor) -> Tensor:
        """Input of the last layer (N, 2 d), for the inputs of `forward`."""
        mask, x = attention_mask(valid), self.queries.expand(len(encoded), -1, -1)
        for block in self.blocks:
            x = block(x, encoded, mask)
        pooled = self.norm(x).flatten(1)
        out: Tensor = self.project[:-1](torch.cat([pooled, features.to(pooled.dtype)], dim=1))
        return out

    def as_context(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (N, E) -> encoding (N, 1, d) and its validity, as the context of a reconstruction."""
        return _as_context(self.back, vector)


def _as_context(back: nn.Linear, vector: Tensor) -> tuple[Tensor, Tensor]:
    context = back(F.normalize(vector, dim=1)).unsqueeze(1)
    return context, torch.ones(len(vector), 1, dtype=torch.bool, device=vector.device)


class MeanPool(nn.Module):
    """Linear projection of the mean encoding and of further features, for the tower of spectra.

    Parameters
    ----------
    width : int
        Token width of the tower.
    features : int
        Number of further features.
    size : int
        Length of the vector.
    """

    def __init__(self, width: int, features: int, size: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, size)
        self.features = nn.Linear(features, size, bias=False)
        self.back = nn.Linear(size, width)

    def forward(self, encoded: Tensor, valid: Tensor, features: Tensor) -> Tensor:
        """As `Pool.forward`."""
        weight = valid.unsqueeze(-1).float()
        mean = (encoded.float() * weight).sum(dim=1) / weight.sum(dim=1)
        out: Tensor = self.project(mean).float() + self.features(features).float()
        return out

    def as_context(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """As `Pool.as_context`."""
        return _as_context(self.back, vector)


class ImageTower(nn.Module):
    """Encoder and decoder of image patches."""

    def __init__(self, config: AvisConfig) -> None:
        super().__init__()
        width, heads = config.image_width, config.image_heads
        self.read = nn.Linear(PATCH_FEATURES, width)
        self.place = nn.Parameter(0.5 * torch.randn(N_PATCHES, width))
        self.exposure = nn.Linear(EXPOSURE_FEATURES, width)
        self.encoder = nn.ModuleList(
            Block(width, heads, 4 * width, cross=False, pre_norm=True) for _ in range(config.image_encoder)
        )
        self.norm_encoded = nn.LayerNorm(width)
        self.ask = nn.Parameter(0.5 * torch.randn(N_PATCHES, width))
        self.decoder = nn.ModuleList(
            Block(width, heads, 4 * width, cross=True, pre_norm=True) for _ in range(config.image_decoder)
        )
        self.norm_decoded = nn.LayerNorm(width)
        self.write = nn.Linear(width, PATCH_PIXELS)

    def encode(self, patches: ImagePatches) -> tuple[Tensor, Tensor]:
        """Patches (N, S, ...) -> encoding (N, S + 1, d), the token of the exposure last, and its validity."""
        x = self.read(patches.pixels) + self.place[patches.place]
        exposure = self.exposure(patches.exposure).unsqueeze(1)
        x = torch.cat([x, exposure.to(x.dtype)], dim=1)
        valid = F.pad(patches.valid, (0, 1), value=True)
        mask = attention_mask(valid)
        for block in self.encoder:
            x = block(x, None, mask)
        return self.norm_encoded(x), valid

    def reconstruct(self, encoded: Tensor, valid: Tensor, place: Tensor) -> Tensor:
        """Encoding (N, S, d), its validity and positions of T patches (N, T) -> pixels (N, T, 3 * 64).

        Pixels are asinh of the flux over `ojala.models.avis.inputs.UNIT`.
        """
        mask, x = attention_mask(valid), self.ask[place]
        for block in self.decoder:
            x = block(x, encoded, mask)
        out: Tensor = self.write(self.norm_decoded(x)).float()
        return out


class Avis(nn.Module):
    """Network with the towers ``spectrum`` and ``image`` and their poolings.

    Rows do not depend on each other.
    """

    def __init__(self, config: AvisConfig) -> None:
        super().__init__()
        self.config = config
        shape = config.spectrum
        self.spectrum = SpectralTokenizer(shape)
        self.image = ImageTower(config)
        self.pool_spectrum: Pool | MeanPool = (
            MeanPool(shape.width, 2, config.size)
            if config.pooling == "mean"
            else Pool(shape.width, shape.heads, 2, config.size)
        )
        self.pool_image = Pool(config.image_width, config.image_heads, 0, config.size)

    def encode_spectra(self, patches: Patches, brightness: Tensor) -> tuple[Tensor, Tensor]:
        """Encode spectra: encoding (N, S, d) and vectors (N, E).

        ``brightness`` (N, 2) comes from `ojala.models.avis.inputs.brightness_features`.
        """
        encoded = self.spectrum.encode(patches)
        return encoded, self.pool_spectrum(encoded, patches.valid, brightness)

    def encode_images(self, patches: ImagePatches) -> tuple[Tensor, Tensor, Tensor]:
        """Encode images: encoding (N, S + 1, d), its validity and vectors (N, E)."""
        encoded, valid = self.image.encode(patches)
        return encoded, valid, self.pool_image(encoded, valid, encoded.new_zeros(len(encoded), 0))
