"""AVIS: two towers, of images and of spectra, that lead into one space.

Nothing of the architecture of the system of this name is published. Here the spectrum's tower is the
universal tokenizer's network, the image's tower reads patches of 8 x 8 pixels in all bands in the same way,
and learned queries pool each tower's encoding into a unit vector. The same object's two vectors shall agree;
the joint embedding is the direction of their sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ojala.models.avis.inputs import EXPOSURE, N_PATCHES, NUMBERS, PATCH_PIXELS, ImagePatches
from ojala.models.layers.attention import Block
from ojala.models.settings import checked
from ojala.models.spectral_tokenizer.network import SpectralTokenizer, TokenizerConfig, hide
from ojala.models.spectral_tokenizer.patches import Patches

QUERIES = 4
"""Learned queries by which each tower is pooled."""


@checked
@dataclass(frozen=True)
class AvisConfig:
    """Shape of the network; `PRESETS` has the named ones.

    Attributes
    ----------
    spectrum : TokenizerConfig
        Of the spectrum's tower.
    image_width, image_heads, image_encoder, image_decoder : int
        Width of a token of the image's tower, its attention heads, its blocks.
    size : int
        Numbers in an embedding.
    """

    spectrum: TokenizerConfig
    image_width: int
    image_heads: int
    image_encoder: int
    image_decoder: int
    size: int


PRESETS: dict[str, AvisConfig] = {
    "base": AvisConfig(
        TokenizerConfig(width=192, heads=6, encoder=4, decoder=1, patch=64),
        image_width=192,
        image_heads=6,
        image_encoder=4,
        image_decoder=1,
        size=128,
    ),
}
"""Named shapes."""


class Pool(nn.Module):
    """From a tower's encoding, and what else is known, to a unit vector.

    Parameters
    ----------
    width, heads : int
        Of the tower.
    facts : int
        Numbers that are known beside the encoding.
    size : int
        Of the vector.
    """

    def __init__(self, width: int, heads: int, facts: int, size: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(0.5 * torch.randn(QUERIES, width))
        self.blocks = nn.ModuleList([Block(width, heads, 2 * width, cross=True, pre_norm=True)])
        self.norm = nn.LayerNorm(width)
        self.project = nn.Sequential(
            nn.Linear(QUERIES * width + facts, 2 * width), nn.GELU(), nn.Linear(2 * width, size)
        )
        self.back = nn.Linear(size, width)

    def forward(self, encoded: Tensor, valid: Tensor, facts: Tensor) -> Tensor:
        """Encoding (N, S, d), its validity (N, S) and facts (N, F) -> vectors (N, E), not yet of length 1."""
        hidden, x = hide(valid), self.queries.expand(len(encoded), -1, -1)
        for block in self.blocks:
            x = block(x, encoded, hidden)
        pooled = self.norm(x).flatten(1)
        out: Tensor = self.project(torch.cat([pooled, facts.to(pooled.dtype)], dim=1)).float()
        return out

    def alone(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (N, E) as an encoding (N, 1, d) with its validity, from which to reconstruct."""
        context = self.back(F.normalize(vector, dim=1)).unsqueeze(1)
        return context, torch.ones(len(vector), 1, dtype=torch.bool, device=vector.device)


class ImageTower(nn.Module):
    """Encoder of image patches and its decoder."""

    def __init__(self, config: AvisConfig) -> None:
        super().__init__()
        width, heads = config.image_width, config.image_heads
        self.read = nn.Linear(NUMBERS, width)
        self.place = nn.Parameter(0.5 * torch.randn(N_PATCHES, width))
        self.exposure = nn.Linear(EXPOSURE, width)
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
        """Patches (N, S, ...) -> their encoding (N, S + 1, d), the exposure's last, and its validity."""
        x = self.read(patches.pixels) + self.place[patches.place]
        exposure = self.exposure(patches.exposure).unsqueeze(1)
        x = torch.cat([x, exposure.to(x.dtype)], dim=1)
        valid = F.pad(patches.valid, (0, 1), value=True)
        hidden = hide(valid)
        for block in self.encoder:
            x = block(x, None, hidden)
        return self.norm_encoded(x), valid

    def reconstruct(self, encoded: Tensor, valid: Tensor, place: Tensor) -> Tensor:
        """Encoding (N, S, d), its validity and places of T patches (N, T) -> their pixels (N, T, 3 * 64).

        In asinh of the flux over `ojala.models.avis.inputs.UNIT`.
        """
        hidden, x = hide(valid), self.ask[place]
        for block in self.decoder:
            x = block(x, encoded, hidden)
        out: Tensor = self.write(self.norm_decoded(x)).float()
        return out


class Avis(nn.Module):
    """The network.

    ``spectrum`` and ``image`` are the towers, ``pool_spectrum`` and ``pool_image`` lead from them into the
    common space. No row depends on another.
    """

    def __init__(self, config: AvisConfig) -> None:
        super().__init__()
        self.config = config
        shape = config.spectrum
        self.spectrum = SpectralTokenizer(shape)
        self.image = ImageTower(config)
        self.pool_spectrum = Pool(shape.width, shape.heads, 2, config.size)
        self.pool_image = Pool(config.image_width, config.image_heads, 0, config.size)

    def see_spectra(self, patches: Patches, brightness: Tensor) -> tuple[Tensor, Tensor]:
        """Encoding (N, S, d) and vectors (N, E) of spectra.

        Their brightness (N, 2) is what `ojala.models.avis.inputs.brightness_features` gives.
        """
        encoded = self.spectrum.encode(patches)
        return encoded, self.pool_spectrum(encoded, patches.valid, brightness)

    def see_images(self, patches: ImagePatches) -> tuple[Tensor, Tensor, Tensor]:
        """Encoding (N, S + 1, d), its validity and vectors (N, E) of images."""
        encoded, valid = self.image.encode(patches)
        return encoded, valid, self.pool_image(encoded, valid, encoded.new_zeros(len(encoded), 0))
