"""Network of the published OJALÁ (arXiv:2604.00661), with one slot for each input.

The published network reads a list of (token, value) pairs whose order has no effect; here each input has its
slot, which is the same function. Its two encoder blocks and three decoder blocks normalise after each part;
the decoder's keys and values are made once for all requests, which do not see each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ojala.models.layers.attention import Block, ValidSlots
from ojala.models.ojala_published.inputs import INPUTS, NARROW

WIDTH = 128
HEADS, HIDDEN = (16, 8), (1024, 512)
"""Attention heads and feed-forward widths of the encoder blocks."""

DECODER_HEADS, DECODER_HIDDEN = (16, 8, 4), (2048, 1024, 512)
"""The same of the decoder blocks."""

TRUNK = (2048, 1024, 512, 256)
"""Widths of the layers between decoder and heads."""

CONTEXT = 75
"""Tokens of the published network's input; further ones than the 60 inputs are padding."""

META_WIDTH = 64
"""Width of the hidden layer between a token's wavelength and its embedding."""

MASKED = -1e30
"""Bias of a missing input; finite, so that a row without any input has no NaN."""

WAVELENGTHS = {
    "MAG_G": 477.0,
    "MAG_R": 623.0,
    "MAG_i": 748.0,
    "MAG_Z": 893.0,
    "MAG_W1": 3368.0,
    "MAG_W2": 4618.0,
}
"""Wavelengths of the broad bands [nm]; that of a narrow band is the number in its name."""

SCALARS = (
    "HALPHA_CONT",
    "HBETA_CONT",
    "Z_GAL",
    "Z_QSO",
    "HBETA_4861_EW",
    "HALPHA_6562_EW",
    "OIII_5007_EW",
    "NII_6584_EW",
    "LOGM",
    "LOGSFR",
    "TEFF",
    "LOGG",
    "ALPHAFE",
    "FEH",
)
"""Quantities with a mean and a log variance, in the published order."""

REQUESTS = ("SPECTYPE", *SCALARS)
"""Requested tokens in the published order; the first has three class logits."""

CLASSES = ("GALAXY", "STAR", "QSO")
"""Classes in the order of the logits."""

MORPHOLOGIES = 6
"""Morphological classes of the published network, which are never requested."""


@dataclass(frozen=True)
class PublishedConfig:
    """Vocabulary and standardisation of the published network, from its ``config.json``.

    Attributes
    ----------
    vocabulary : tuple of str
        Names of the tokens; the id of a token is its place, from 1. Id 0 is padding.
    centre, scale : tuple of float
        Standardisation by token id, one more than there are names.
    """

    vocabulary: tuple[str, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]

    def __post_init__(self) -> None:
        missing = [name for name in (*INPUTS, *REQUESTS) if name not in self.vocabulary]
        if missing:
            raise ValueError(f"the vocabulary lacks {', '.join(missing)}")
        if len(set(self.vocabulary)) < len(self.vocabulary):
            raise ValueError("the vocabulary names a token twice")
        if not len(self.centre) == len(self.scale) == len(self.vocabulary) + 1:
            raise ValueError(
                f"{len(self.centre)} centres and {len(self.scale)} scales for {len(self.vocabulary)} tokens "
                "and padding"
            )
        if not all(map(math.isfinite, self.centre)) or not all(0 < scale < math.inf for scale in self.scale):
            raise ValueError("a centre is not finite, or a scale not positive")

    def ids(self, names: tuple[str, ...]) -> Tensor:
        """Token ids of names, (len(names),)."""
        return torch.tensor([self.vocabulary.index(name) + 1 for name in names])


def positions() -> tuple[Tensor, Tensor]:
    """Position in log wavelength (0 at 378 nm, 1 at 4618 nm) and whether narrow, of each input (60,)."""
    nm = [WAVELENGTHS.get(name) or float(name[1:]) for name in INPUTS]
    low, high = math.log10(378.0), math.log10(4618.0)
    place = torch.tensor([(math.log10(x) - low) / (high - low) for x in nm], dtype=torch.float64)
    return place.float(), torch.tensor([name in NARROW for name in INPUTS])


class PublishedOjala(nn.Module):
    """The published network. Single precision; 4.7 million parameters.

    Parameters
    ----------
    config : PublishedConfig
        Vocabulary and standardisation.
    wavelength_bias : bool
        Add the wavelength bias in the encoder, as the published training does and the published inference
        does not.
    """

    input_ids: Tensor
    request_ids: Tensor
    centre: Tensor
    scale: Tensor
    position: Tensor
    is_narrow: Tensor
    meta: Tensor

    def __init__(self, config: PublishedConfig, *, wavelength_bias: bool = False) -> None:
        super().__init__()
        self.config, self.wavelength_bias = config, wavelength_bias
        position, is_narrow = positions()
        ids = config.ids(INPUTS)
        for name, constant in {
            "input_ids": ids,
            "request_ids": config.ids(REQUESTS),
            "centre": torch.tensor(config.centre, dtype=torch.float64).float(),
            "scale": torch.tensor(config.scale, dtype=torch.float64).float(),
            "position": position,
            "is_narrow": is_narrow,
            "meta": torch.stack([position, torch.ones_like(position), is_narrow.float()], dim=-1),
        }.items():
            self.register_buffer(name, constant, persistent=False)
        tokens = len(config.vocabulary) + 1
        self.embeddings = nn.Parameter(torch.zeros(tokens, WIDTH))
        self.offsets = nn.Parameter(torch.zeros(tokens, WIDTH))
        self.meta_mlp = nn.Sequential(nn.Linear(3, META_WIDTH), nn.SiLU(), nn.Linear(META_WIDTH, WIDTH))
        self.log_sigma = nn.Parameter(torch.tensor([-2.30, -1.61]))  # of pairs of narrow bands, and of others
        self.amplitude = nn.Parameter(torch.tensor([0.10, 0.10]))
        self.gain = nn.Parameter(torch.ones(len(HEADS)))  # of each encoder block
        self.encoder = nn.ModuleList(
            Block(WIDTH, heads, hidden, cross=False, pre_norm=False)
            for heads, hidden in zip(HEADS, HIDDEN, strict=True)
        )
        self.decoder = nn.ModuleList(
            Block(WIDTH, heads, hidden, cross=True, pre_norm=False)
            for heads, hidden in zip(DECODER_HEADS, DECODER_HIDDEN, strict=True)
        )
        layers: list[nn.Module] = []
        for inner, outer in zip((WIDTH, *TRUNK), TRUNK, strict=False):
            layers += [nn.Linear(inner, outer), nn.GELU()]
        self.trunk = nn.Sequential(*layers)
        self.mean_head, self.logvar_head = nn.Linear(TRUNK[-1], 1), nn.Linear(TRUNK[-1], 1)
        self.class_head = nn.Linear(TRUNK[-1], len(CLASSES))
        self.morphology_head = nn.Linear(TRUNK[-1], MORPHOLOGIES)

    def forward(self, values: Tensor) -> dict[str, Tensor]:
        """Outputs of all requests.

        Parameters
        ----------
        values : Tensor of float32, shape (N, 60)
            `INPUTS` as they are, not standardised; one that is not finite is missing.

        Returns
        -------
        dict of str to Tensor
            ``mean`` and ``logvar`` (N, 15), standardised, in the order of `REQUESTS`; ``logits`` (N, 3).
        """
        standardised, valid = self.standardise(values)
        encoded = self.encode(self.embed(standardised), valid)
        return self.head_outputs(self.decode(encoded, valid, self.request_ids))

    def standardise(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised values, 0 where missing, and which inputs are valid; (N, 60) each."""
        valid = torch.isfinite(values)
        ids = self.input_ids
        return torch.where(valid, (values - self.centre[ids]) / self.scale[ids], 0.0), valid

    def embed(self, standardised: Tensor) -> Tensor:
        """Embeddings (N, 60, 128) of standardised values (N, 60)."""
        gate = self.embeddings[self.input_ids] + self.meta_mlp(self.meta)
        return nn.functional.gelu(gate * standardised[..., None] + self.offsets[self.input_ids])

    def encode(self, x: Tensor, valid: Tensor) -> Tensor:
        """Encode embeddings (N, 60, 128) of which some are valid (N, 60); undefined where not valid."""
        mask = torch.where(valid, 0.0, MASKED)[:, None, None, :]
        kernel = self.kernel() if self.wavelength_bias else None
        slots = ValidSlots.where_faster(valid, self.gain.dtype)
        x = x if slots is None else slots.pick(x)
        for gain, block in zip(self.gain, cast("Iterable[Block]", self.encoder), strict=True):
            x = block.cross_attend(x, None, mask if kernel is None else mask + gain * kernel, slots)
        return x if slots is None else slots.spread(x)

    def decode(self, encoded: Tensor, valid: Tensor, requests: Tensor) -> Tensor:
        """Features (N, Q, 256) of requested tokens (Q,), from encoded inputs (N, S, 128), valid (N, S)."""
        mask = torch.where(valid, 0.0, MASKED)[:, None, None, :]
        x = self.embeddings[requests][None]
        for block in self.decoder:
            x = block(x, encoded, mask)
        features: Tensor = self.trunk(x)
        return features

    def head_outputs(self, features: Tensor) -> dict[str, Tensor]:
        """See `forward`; from the features (N, Q, 256), those of the class first."""
        return {
            "mean": self.mean_head(features)[..., 0],
            "logvar": self.logvar_head(features)[..., 0],
            "logits": self.class_head(features[:, 0]),
        }

    def kernel(self) -> Tensor:
        """Wavelength bias (60, 60) before the gain of each block."""
        distance = (self.position[:, None] - self.position[None]).abs()
        other = (~(self.is_narrow[:, None] & self.is_narrow[None])).long()
        fall = distance / (self.log_sigma.exp() + 1e-6)[other]
        return self.amplitude[other] * torch.exp(-(fall**2))
