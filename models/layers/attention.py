"""Attention with an additive bias, for small widths and short sequences of any tokens.

Scores are a plain matrix product with an additive bias: with bfloat16 weights, some sixty tokens and a dense
bias this is twice as fast as a fused kernel. In single precision a CPU is faster with the fused one.

The weights of matrix products may be bfloat16; normalisation, softmax and residual sums are in single
precision.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ValidSlots:
    """Slots of N rows that hold a token: products with weights need no others.

    Parameters
    ----------
    valid : Tensor of bool, shape (N, S)
        Which slots hold a token, T in all.
    """

    def __init__(self, valid: Tensor) -> None:
        self.shape = valid.shape
        self.places = valid.flatten().nonzero()[:, 0]

    @classmethod
    def where_faster(cls, valid: Tensor, weights: torch.dtype) -> Self | None:
        """On a CPU in inference in single precision, else None.

        Shapes that depend on the data would make a device wait; rounding to bfloat16 would make predictions
        of a row depend on the others of its batch.
        """
        faster = valid.is_cpu and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
        return cls(valid) if faster and weights == torch.float32 else None

    def pick(self, x: Tensor) -> Tensor:
        """Tokens of the slots (T, d), of all slots (N, S, d)."""
        return x.flatten(0, 1).index_select(0, self.places)

    def spread(self, x: Tensor) -> Tensor:
        """All slots (N, S, d) from tokens (T, d); zeros in those without a token."""
        spread = x.new_zeros(self.shape.numel(), x.shape[-1])
        return spread.index_copy_(0, self.places, x).view(*self.shape, x.shape[-1])


class Attention(nn.Module):
    """Multi-head attention of Q queries over S keys with an additive bias.

    Parameters
    ----------
    width, heads : int
        Model width and number of heads; ``width`` must be a multiple of ``heads``.
    extra_key : bool
        Add one learned key and value, so that a query can attend to nothing.
    """

    def __init__(self, width: int, heads: int, *, extra_key: bool = False) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of {heads} heads")
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.extra = nn.Parameter(0.02 * torch.randn(2 * width)) if extra_key else None

    def forward(self, x: Tensor, context: Tensor, bias: Tensor) -> Tensor:
        """Attend; x (N, Q, d), context (N, S, d), bias broadcastable to (N, heads, Q, S) -> (N, Q, d)."""
        return self.cross_attend(x, self.precompute_kv(context), bias)

    def precompute_kv(self, context: Tensor, slots: ValidSlots | None = None) -> Tensor:
        """Compute keys and values of a context (N, S, d) for `cross_attend`: (2, N, heads, S, c).

        With an extra key there are S + 1. Of a context in valid slots only the tokens (T, d) are given.
        """
        key_value = self.key_value(context.to(self.key_value.weight.dtype))
        if slots is not None:
            key_value = slots.spread(key_value)
        if self.extra is not None:
            extra = self.extra.to(key_value.dtype).expand(len(key_value), 1, -1)
            key_value = torch.cat([key_value, extra], dim=1)
        memory: Tensor = key_value.unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # Contiguous: products would otherwise copy the keys element by element; a fused kernel does not.
        return memory.contiguous() if slots is None else memory

    def cross_attend(
        self, x: Tensor, memory: Tensor, bias: Tensor, slots: ValidSlots | None = None
    ) -> Tensor:
        """Attend to keys and values of `precompute_kv`; the bias does not include the extra key.

        Of queries in valid slots only the tokens (T, d) are given, and returned.
        """
        if self.extra is not None:
            bias = F.pad(bias, (0, 1))
        query = self.query(x.to(self.query.weight.dtype))
        if slots is not None:
            query = slots.spread(query)
        query = query.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = memory
        if slots is not None:
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        else:
            scores = torch.add(bias, query @ key.transpose(-1, -2), alpha=query.shape[-1] ** -0.5)
            mixed = scores.softmax(dim=-1).to(value.dtype) @ value
        mixed = mixed.transpose(1, 2).flatten(2)
        out: Tensor = self.out(mixed if slots is None else slots.pick(mixed))
        return out


class Block(nn.Module):
    """Attention then a two-layer GELU network, each with a residual path.

    Parameters
    ----------
    width, heads, hidden : int
        Model width, attention heads, width of the feed-forward layer.
    cross : bool
        Attend to a context (with one extra learned key) instead of to the input itself.
    pre_norm : bool
        Normalise the input of each part (stable training), or the sum after it (Vaswani et al. 2017).
    """

    def __init__(self, width: int, heads: int, hidden: int, *, cross: bool, pre_norm: bool) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.attention = Attention(width, heads, extra_key=cross)
        self.feed_forward = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.norm_attention = nn.LayerNorm(width)
        self.norm_feed_forward = nn.LayerNorm(width)

    def forward(self, x: Tensor, context: Tensor | None, bias: Tensor) -> Tensor:
        """Apply the block; x (N, Q, d), context (N, S, d) if cross, bias as in `Attention` -> (N, Q, d)."""
        return self.cross_attend(x, None if context is None else self.attention.precompute_kv(context), bias)

    def cross_attend(
        self, x: Tensor, memory: Tensor | None, bias: Tensor, slots: ValidSlots | None = None
    ) -> Tensor:
        """Apply the block to keys and values of `precompute_kv`; None for self-attention.

        Of queries in valid slots only the tokens (T, d) are given, and returned.
        """
        if self.pre_norm:
            x = x + self._attend(self.norm_attention(x), memory, bias, slots)
            return x + self._feed(self.norm_feed_forward(x))
        x = self.norm_attention(x + self._attend(x, memory, bias, slots))
        out: Tensor = self.norm_feed_forward(x + self._feed(x))
        return out

    def _attend(self, x: Tensor, memory: Tensor | None, bias: Tensor, slots: ValidSlots | None) -> Tensor:
        attention = self.attention
        if memory is None:
            memory = attention.precompute_kv(x, slots)
        return attention.cross_attend(x, memory, bias, slots)

    def _feed(self, x: Tensor) -> Tensor:
        out: Tensor = self.feed_forward(x.to(self.attention.query.weight.dtype))
        return out


class WavelengthBias(nn.Module):
    """Additive attention bias that falls off with the distance in ln(wavelength).

    ``gain[layer, head] * amplitude * exp(-(d ln(lambda) / width)^2)``, with separately learned amplitude and
    width for pairs of narrow bands and for all other pairs. Distances in ln(wavelength) do not depend on
    redshift. The last slot is the brightness token, which has no wavelength and a bias of zero.

    Parameters
    ----------
    log_wavelength : Tensor, shape (B,)
        ln(pivot wavelength / Angstrom) of the bands.
    is_narrow : Tensor of bool, shape (B,)
        Which bands are narrow.
    heads : tuple of int
        Heads of each encoder layer.
    """

    log_wavelength: Tensor
    is_narrow: Tensor

    def __init__(self, log_wavelength: Tensor, is_narrow: Tensor, heads: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("log_wavelength", log_wavelength)
        self.register_buffer("is_narrow", is_narrow)
        self.amplitude = nn.Parameter(torch.ones(2))
        self.log_width = nn.Parameter(torch.tensor([0.05, 0.3]).log())
        self.gain = nn.ParameterList(nn.Parameter(torch.linspace(0.0, 2.0, n)) for n in heads)

    def forward(self, bands: Tensor) -> list[Tensor]:
        """Compute the bias of each layer (..., heads, S + 1, S + 1) for slots with the bands (..., S)."""
        return self.scaled(F.pad(self.kernel(bands, bands), (0, 1, 0, 1)))

    def scaled(self, kernel: Tensor) -> list[Tensor]:
        """Multiply the kernel (..., Q, S) by the gains: bias of each layer (..., heads, Q, S)."""
        return [gain[:, None, None] * kernel.unsqueeze(-3) for gain in self.gain]

    def kernel(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Compute the bias before its gain, (..., Q, S), of bands (..., Q) that attend to bands (..., S)."""
        distance = self.log_wavelength[queries].unsqueeze(-1) - self.log_wavelength[keys].unsqueeze(-2)
        both = self.is_narrow[queries].unsqueeze(-1) & self.is_narrow[keys].unsqueeze(-2)
        narrow_width, other_width = self.log_width.exp()
        fall = torch.exp(-((distance / torch.where(both, narrow_width, other_width)) ** 2))
        return torch.where(both, self.amplitude[0], self.amplitude[1]) * fall
