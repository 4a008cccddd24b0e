"""AVIS: encoders ("towers") of images and of spectra with a common embedding space.

The architecture of the system of this name is not published. Here the tower of spectra is the universal
spectral tokenizer, the tower of images encodes patches of 8 x 8 pixels in all bands in the same way, and
learned queries pool each encoding into a unit vector. Training aligns the two vectors of an object; the joint
embedding is the direction of their sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ojala.models.avis.inputs import EXPOSURE_FEATURES, N_PATCHES, PATCH_FEATURES, PATCH_PIXELS, ImagePatches
from ojala.models.layers.attention import Block
from ojala.models.settings import checked
from ojala.models.spectral_tokenizer.network import SpectralTokenizer, TokenizerConfig, attention_mask
from ojala.models.spectral_tokenizer.patches import Patches


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
    queries, pooling : int
        Learned queries and blocks of the pooling of spectra; that of images has `IMAGE_QUERIES` and one
        block.
    """

    spectrum: TokenizerConfig
    image_width: int
    image_heads: int
    image_encoder: int
    image_decoder: int
    size: int
    queries: int = 4
    pooling: int = 1


PRESETS: dict[str, AvisConfig] = {
    "base": AvisConfig(
        TokenizerConfig(width=192, heads=6, encoder=4, decoder=1, patch=64),
        image_width=192,
        image_heads=6,
        image_encoder=4,
        image_decoder=1,
        size=128,
        queries=8,
        pooling=2,
    ),
}
"""Named shapes."""

IMAGE_QUERIES = 4
"""Learned queries of the pooling of images."""


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
    queries, blocks : int
        Learned queries and blocks.
    """

    def __init__(
        self, width: int, heads: int, features: int, size: int, *, queries: int, blocks: int
    ) -> None:
        super().__init__()
        self.queries = nn.Parameter(0.5 * torch.randn(queries, width))
        self.blocks = nn.ModuleList(
            Block(width, heads, 2 * width, cross=True, pre_norm=True) for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.project = nn.Sequential(
            nn.Linear(queries * width + features, 2 * width), nn.GELU(), nn.Linear(2 * width, size)
        )
        self.back = nn.Linear(size, width)

    def forward(self, encoded: Tensor, valid: Tensor, features: Tensor) -> Tensor:
        """Encoding (N, S, d), its validity (N, S) and features (N, F) -> unnormalised vectors (N, E)."""
        mask, x = attention_mask(valid), self.queries.expand(len(encoded), -1, -1)
        for block in self.blocks:
            x = block(x, encoded, mask)
        pooled = self.norm(x).flatten(1)
        out: Tensor = self.project(torch.cat([pooled, features.to(pooled.dtype)], dim=1)).float()
        return out

    def as_context(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (N, E) -> encoding (N, 1, d) and its validity, as the context of a reconstruction."""
        context = self.back(F.normalize(vector, dim=1)).unsqueeze(1)
        return context, torch.ones(len(vector), 1, dtype=torch.bool, device=vector.device)


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
        self.pool_spectrum = Pool(
            shape.width, shape.heads, 2, config.size, queries=config.queries, blocks=config.pooling
        )
        self.pool_image = Pool(
            config.image_width, config.image_heads, 0, config.size, queries=IMAGE_QUERIES, blocks=1
        )

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
