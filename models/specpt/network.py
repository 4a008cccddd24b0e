"""SpecPT: a convolutional stem and a transformer that reconstruct a spectrum, and its redshift.

After Pattnaik et al. (arXiv:2501.01070), with these deliberate differences: the transformer encodes the
sequence of the stem's outputs instead of one token, and attends within a spectrum, not across a batch;
learned queries, one per output patch, replace a last layer of a billion parameters; inverse variance and mask
are inputs; there is no batch normalisation. Next to the published head (a residual network with a softplus)
there is one with a PDF: on pixels even in ln(wavelength) a redshift is a shift, and the logit of each shift
is a learned correlation. Features that move with the redshift are reconstructed from learned rest-frame
spectra.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ojala.models.layers.attention import Block
from ojala.models.layers.redshift_pdf import LOG1PZ_STEP
from ojala.models.settings import checked
from ojala.models.specpt.wavelength_grid import GRIDS, Grid

CHANNELS = 4
"""Number of channels of `input_channels`."""

N_BINS = 1000
"""Bins of the redshift PDF; bin i covers ln(1 + z) from i to i + 1 steps of 0.001, to z = 1.718."""


@checked
@dataclass(frozen=True)
class SpecPTConfig:
    """Shape of the network; `PRESETS` has the named ones.

    Attributes
    ----------
    grid : str
        Wavelength grid of input and output, a key of `GRIDS`.
    channels, kernels, strides : tuple of int
        Outputs, kernel and stride of the stem's convolutions; a pooling by 2 follows them.
    width, heads, hidden : int
        Token width, attention heads and width of the feed-forward layers of the transformer.
    encoder, decoder : int
        Number of blocks.
    redshift : tuple of str
        Heads: "softplus" as published, or "bins"; the catalogue takes the first one.
    evidence : int
        Input channels of the correlation of "bins"; 0 without it.
    rest : int
        Rest-frame spectra in a reconstruction; 0 as published.
    """

    grid: str
    channels: tuple[int, ...]
    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    width: int
    heads: int
    hidden: int
    encoder: int
    decoder: int
    redshift: tuple[str, ...]
    evidence: int = 0
    rest: int = 0

    @property
    def patch(self) -> int:
        """Pixels per token."""
        return 2 * math.prod(self.strides)

    @property
    def tokens(self) -> int:
        """Tokens per spectrum."""
        return math.ceil(GRIDS[self.grid].size / self.patch)


PRESETS: Mapping[str, SpecPTConfig] = MappingProxyType(
    {
        # Widths, kernels and layers as published, a sequence instead of one token.
        "published": SpecPTConfig(
            grid="desi",
            channels=(64, 128, 256),
            kernels=(41, 21, 11),
            strides=(2, 2, 2),
            width=512,
            heads=8,
            hidden=2048,
            encoder=3,
            decoder=3,
            redshift=("softplus",),
        ),
        # Shape of the bundled weights.
        "base": SpecPTConfig(
            grid="log",
            channels=(24, 48, 128),
            kernels=(41, 21, 11),
            strides=(2, 2, 4),
            width=128,
            heads=4,
            hidden=512,
            encoder=3,
            decoder=3,
            redshift=("bins", "softplus"),
            evidence=24,
            rest=24,
        ),
    }
)
"""Named shapes of the network."""


class Stem(nn.Module):
    """Strided convolutions, pooling by 2 and projection to tokens."""

    def __init__(self, config: SpecPTConfig) -> None:
        super().__init__()
        sizes = pairwise((CHANNELS, *config.channels))
        self.convolutions = nn.ModuleList(
            nn.Sequential(nn.Conv1d(a, b, kernel, stride, kernel // 2), nn.ReLU())
            for (a, b), kernel, stride in zip(sizes, config.kernels, config.strides, strict=True)
        )
        self.project = nn.Linear(config.channels[-1], config.width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Input (N, 4, P) -> features before the last convolution (N, C, P / s), tokens (N, T, d)."""
        before = x
        for convolution in self.convolutions:
            before, x = x, convolution(x)
        pooled = F.max_pool1d(x, 3, 2, 1)
        return before, self.project(pooled.transpose(1, 2))


class ResidualRedshift(nn.Module):
    """Published redshift head: attentive pooling, five residual layers of 512, softplus."""

    def __init__(self, width: int, hidden: int = 512, depth: int = 5) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)
        self.first = nn.Linear(width, hidden)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, hidden), nn.SiLU(), nn.Dropout(0.2))
            for _ in range(depth)
        )
        self.last = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, 256), nn.SiLU(), nn.Linear(256, 1))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (N, T, d) -> redshift (N,)."""
        x = self.first((self.score(tokens).float().softmax(dim=1).to(tokens.dtype) * tokens).sum(dim=1))
        for block in self.blocks:
            x = x + block(x)
        return F.softplus(self.last(x).float())[:, 0]


class CorrelationRedshift(nn.Module):
    """PDF head over bins of ln(1 + z): correlation with a learned rest-frame pattern.

    Evidence channels at each observed wavelength, in steps of 0.001 in ln(wavelength), come from the stem and
    the tokens. The logit of a redshift is their product with the pattern shifted by that redshift, plus a
    term from the mean token.
    """

    def __init__(self, config: SpecPTConfig, positions: int) -> None:
        super().__init__()
        self.channels = config.evidence
        self.per_token = positions // config.tokens
        self.local = nn.Linear(config.channels[-2], config.evidence)
        self.context = nn.Linear(config.width, config.evidence * self.per_token)
        # Element k is the pattern k steps from the blue end of the grid; bluer elements wrap around.
        self.size = 1 << (positions + N_BINS - 1).bit_length()
        self.pattern = nn.Parameter(0.03 * torch.randn(config.evidence, self.size))
        self.whole = nn.Sequential(nn.Linear(config.width, 128), nn.GELU(), nn.Linear(128, N_BINS))

    def forward(self, local: Tensor, tokens: Tensor) -> Tensor:
        """Features (N, C, X) and tokens (N, T, d) -> logits (N, N_BINS)."""
        context = self.context(tokens).unflatten(-1, (self.per_token, self.channels)).flatten(1, 2)
        evidence = F.gelu(self.local(local.transpose(1, 2)) + context).transpose(1, 2).float()
        with torch.autocast(evidence.device.type, enabled=False):
            spectrum = torch.fft.rfft(evidence, self.size) * torch.fft.rfft(self.pattern).conj()
            logits = torch.fft.irfft(spectrum.sum(dim=1), self.size)[:, :N_BINS]
        out: Tensor = logits + self.whole(tokens.mean(dim=1)).float()
        return out


class RestFrame(nn.Module):
    """Sum of learned rest-frame spectra, shifted to a redshift.

    Patches alone learn continua within minutes and lines hardly at all. This sum can fit neither noise nor
    the lines of the night sky, which do not shift.
    """

    def __init__(self, config: SpecPTConfig) -> None:
        super().__init__()
        self.grid = GRIDS[config.grid]
        reach = math.ceil(N_BINS * LOG1PZ_STEP / self.grid.step)
        # Element k is the spectrum k pixels from the blue end of the grid; bluer elements wrap around.
        self.size = 1 << (self.grid.size + reach - 1).bit_length()
        self.spectra = nn.Parameter(0.003 * torch.randn(config.rest, self.size))
        self.score = nn.Linear(config.width, 1)
        self.amount = nn.Sequential(nn.Linear(config.width, 128), nn.GELU(), nn.Linear(128, config.rest))

    def forward(self, tokens: Tensor, z: Tensor) -> Tensor:
        """Tokens (N, T, d) and redshifts (N,) -> flux over its median (N, P)."""
        pooled = (self.score(tokens).float().softmax(dim=1).to(tokens.dtype) * tokens).sum(dim=1)
        amount = self.amount(pooled).float()
        with torch.autocast(amount.device.type, enabled=False):
            waves = torch.fft.rfft(10.0 * self.spectra)
            mixed = torch.complex(amount @ waves.real, amount @ waves.imag)
            turn = 2.0 * math.pi / self.size * torch.arange(mixed.shape[1], device=z.device)
            angle = -turn * (torch.log1p(z.float()) / self.grid.step)[:, None]
            shifted = mixed * torch.complex(angle.cos(), angle.sin())
            out: Tensor = torch.fft.irfft(shifted, self.size)[:, : self.grid.size]
        return out


class SpecPT(nn.Module):
    """Network on spectra of its grid (`input_channels`), with `encode`, `reconstruct` and `redshift`.

    Rows do not depend on each other.
    """

    def __init__(self, config: SpecPTConfig) -> None:
        super().__init__()
        self.config = config
        width, shape = config.width, (config.width, config.heads, config.hidden)
        self.stem = Stem(config)
        self.place = nn.Parameter(0.02 * torch.randn(config.tokens, width))
        self.encoder = nn.ModuleList(Block(*shape, cross=False, pre_norm=True) for _ in range(config.encoder))
        self.norm = nn.LayerNorm(width)
        self.query = nn.Parameter(0.5 * torch.randn(config.tokens, width))
        self.decoder = nn.ModuleList(Block(*shape, cross=True, pre_norm=True) for _ in range(config.decoder))
        self.patch = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, config.patch))
        self.rest = RestFrame(config) if config.rest else None
        heads: dict[str, nn.Module] = {}
        if "softplus" in config.redshift:
            heads["softplus"] = ResidualRedshift(width)
        if "bins" in config.redshift:
            grid, stride = self.grid, math.prod(config.strides[:-1])
            if not grid.logarithmic or not math.isclose(stride * grid.step, LOG1PZ_STEP):
                raise ValueError(
                    f"bins need steps of {LOG1PZ_STEP} in ln(wavelength) before the last convolution"
                )
            heads["bins"] = CorrelationRedshift(config, grid.size // stride)
        if config.rest and not self.grid.logarithmic:
            raise ValueError("rest-frame spectra need pixels even in ln(wavelength)")
        self.heads = nn.ModuleDict(heads)

    @property
    def grid(self) -> Grid:
        """Wavelength grid of input and output."""
        return GRIDS[self.config.grid]

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Input (N, 4, P) -> local features (N, C, X) and encoded tokens (N, T, d)."""
        local, tokens = self.stem(x)
        tokens = tokens + self.place
        bias = torch.zeros(1, 1, 1, tokens.shape[1], device=x.device)
        for block in self.encoder:
            tokens = block(tokens, None, bias)
        return local, self.norm(tokens)

    def reconstruct(self, tokens: Tensor, z: Tensor) -> Tensor:
        """Encoded tokens (N, T, d) -> flux over its median (N, P).

        ``z`` (N,) is the redshift: the true one in training, the predicted one in inference.
        """
        x = self.query.expand(len(tokens), -1, -1)
        bias = torch.zeros(1, 1, 1, tokens.shape[1], device=x.device)
        for block in self.decoder:
            x = block(x, tokens, bias)
        out: Tensor = self.patch(x).flatten(1)[:, : self.grid.size].float()
        return out if self.rest is None else out + self.rest(tokens, z)

    def redshift(self, local: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        """Outputs of the heads: "bins" logits (N, N_BINS), "softplus" redshifts (N,)."""
        outputs = {}
        if "bins" in self.heads:
            outputs["bins"] = self.heads["bins"](local, tokens)
        if "softplus" in self.heads:
            outputs["softplus"] = self.heads["softplus"](tokens)
        return outputs


def input_channels(flux: Tensor, ivar: Tensor) -> Tensor:
    """Compute the input of the network.

    Parameters
    ----------
    flux, ivar : Tensor, shape (N, P)
        Flux over its median, and its inverse variance, 0 for unused pixels.

    Returns
    -------
    Tensor, shape (N, 4, P)
        asinh of flux, signal-to-noise ratio and inverse error, and 1 for used pixels.
    """
    inverse_error = ivar.sqrt()
    channels = (flux.asinh(), (flux * inverse_error).asinh(), inverse_error.asinh(), (ivar > 0.0).float())
    return torch.stack(channels, dim=1) * (ivar > 0.0)[:, None]


def standardise(flux: np.ndarray, ivar: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Divide spectra by the median of their usable pixels.

    Parameters
    ----------
    flux, ivar : ndarray of float32, shape (N, P)
        Spectra on the grid of a network, 0 for unused pixels.

    Returns
    -------
    flux, ivar : ndarray of float32, shape (N, P)
        In units of the median; 0 without a median.
    median : ndarray of float32, shape (N,)
        Median, NaN where it is not positive or no pixel is usable.
    """
    used = ivar > 0.0
    count = used.sum(axis=1)
    ordered = np.sort(np.where(used, flux, np.float32(np.inf)), axis=1)
    median = ordered[np.arange(len(flux)), np.maximum(count - 1, 0) // 2]
    known = (count > 0) & (median > 0.0) & np.isfinite(median)
    unit = np.where(known, median, np.float32(1.0))[:, None]
    zero = np.float32(0.0)
    scaled = np.where(known[:, None], flux / unit, zero), np.where(known[:, None], ivar * unit * unit, zero)
    return *scaled, np.where(known, median, np.float32(np.nan))
