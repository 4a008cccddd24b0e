"""Redshift PDFs in bins of ln(1 + z), and their summary statistics.

All functions work row by row on probabilities p of shape (N, B); bin i covers ln(1 + z) from i to i + 1 steps
of 0.001. Positions are in bins: a distance of 30 is 0.03 (1 + z).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

LOG1PZ_STEP = 0.001
"""Width of a redshift bin in ln(1 + z)."""

N_REDSHIFT_BINS = math.ceil(math.log(1.0 + 5.2) / LOG1PZ_STEP)
"""Bins from z = 0 to z = 5.2; bin i covers ln(1 + z) from i to i + 1 steps."""

QUANTILES: tuple[float, ...] = (0.0228, 0.1587, 0.50, 0.8413, 0.9772)
"""Cumulative probabilities of the quantiles z_q02, z_q16, z_q50, z_q84 and z_q98."""

SMOOTHING = 5
"""Half-width of the running sum in which modes are searched [bins]; single bins are noisy."""

LOCAL = 10
"""Half-width of the interval whose mean is the redshift of a mode [bins]."""

ODDS = 30
"""Half-width of the interval whose mass is the odds: 0.03 (1 + z)."""

MIN_MODE_MASS = 0.01
"""Smallest mass of a second mode that is reported."""

_HALVINGS = 8
"""Steps of the bisection for the smallest stored probability; the remaining interval is 0.06 octaves."""


@dataclass(frozen=True, slots=True)
class RedshiftSummary:
    """Summary statistics of N redshift PDFs.

    Attributes
    ----------
    z : Tensor, shape (N,)
        Mean of the PDF within 0.01 (1 + z) of its highest mode.
    quantiles : Tensor, shape (N, 5)
        Redshifts at the cumulative probabilities `QUANTILES` of the whole PDF.
    odds : Tensor, shape (N,)
        Mass within 0.03 (1 + z) of ``z``.
    mode2, mode2_p : Tensor, shape (N,)
        Redshift of the second highest mode farther than 0.03 (1 + z) from ``z``, and the mass within
        0.03 (1 + z) of it outside of the first mode's interval; NaN and 0 where it is below 0.01.
    """

    z: Tensor
    quantiles: Tensor
    odds: Tensor
    mode2: Tensor
    mode2_p: Tensor

    @property
    def error(self) -> Tensor:
        """Half the width between the 16 % and 84 % quantiles (N,)."""
        return 0.5 * (self.quantiles[:, 3] - self.quantiles[:, 1])


def redshift_at(position: Tensor) -> Tensor:
    """Redshift at a position in bins."""
    return torch.expm1(position * LOG1PZ_STEP)


def most_probable_bins(p: Tensor, mass: float) -> Tensor:
    """Set the least probable bins of PDFs p (..., B), with a sum of at most 1 - ``mass``, to zero.

    The threshold comes from a bisection of its logarithm, which takes half the time of a sort; a few more
    bins than necessary remain.
    """
    low = torch.full_like(p[..., :1], math.log2((1.0 - mass) / p.shape[-1]))
    high = p.amax(dim=-1, keepdim=True).log2()
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        lost = (p * (p < middle.exp2())).sum(dim=-1, keepdim=True)
        fits = lost <= 1.0 - mass
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    return torch.where(p < low.exp2(), 0.0, p)


def summarise(p: Tensor) -> RedshiftSummary:
    """Compute point estimate, quantiles, odds and second mode of PDFs p (N, B) of sum 1."""
    p = p.double()
    edge = torch.zeros(len(p), 1, dtype=p.dtype, device=p.device)
    mass = torch.cat([edge, p.cumsum(dim=-1)], dim=-1)
    middle = torch.arange(p.shape[-1], device=p.device) + 0.5
    moment = torch.cat([edge, (p * middle).cumsum(dim=-1)], dim=-1)

    smooth = _around(mass, SMOOTHING)
    first = _local_mean(mass, moment, smooth.argmax(dim=-1))
    odds = _mass_at(mass, first + ODDS) - _mass_at(mass, first - ODDS)

    second_bin = _second_mode(smooth, first)
    second = _local_mean(mass, moment, second_bin)
    low, high = second - ODDS, second + ODDS
    low = torch.where(second > first, torch.maximum(low, first + ODDS), low)
    high = torch.where(second < first, torch.minimum(high, first - ODDS), high)
    second_p = (_mass_at(mass, high) - _mass_at(mass, low)).clamp_min(0.0)
    significant = (second_p >= MIN_MODE_MASS) & ((second - first).abs() > ODDS)
    return RedshiftSummary(
        z=redshift_at(first),
        quantiles=redshift_at(quantile_positions(mass)),
        odds=odds.clamp(0.0, 1.0),
        mode2=torch.where(significant, redshift_at(second), torch.nan),
        mode2_p=torch.where(significant, second_p, 0.0),
    )


def quantile_positions(mass: Tensor) -> Tensor:
    """Positions of `QUANTILES` in cumulative masses at bin edges (N, B + 1), linear within a bin: (N, 5)."""
    total = mass[:, -1:]
    target = _quantiles(mass.dtype, mass.device) * total
    upper = torch.searchsorted(mass, target.contiguous()).clamp(1, mass.shape[-1] - 1)
    below, above = mass.gather(-1, upper - 1), mass.gather(-1, upper)
    return upper - 1 + ((target - below) / (above - below).clamp_min(1e-300)).clamp(0.0, 1.0)


@functools.cache
def _quantiles(dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(QUANTILES, dtype=dtype, device=device)


def _around(mass: Tensor, reach: int) -> Tensor:
    """Mass within ``reach`` bins of each bin (N, B); truncated at the ends of the grid."""
    n = mass.shape[-1] - 1
    below, above = mass[:, :1].expand(-1, reach), mass[:, -1:].expand(-1, reach)
    edges = torch.cat([below, mass, above], dim=-1)
    return edges[:, 2 * reach + 1 :] - edges[:, :n]


def _local_mean(mass: Tensor, moment: Tensor, mode: Tensor) -> Tensor:
    """Mean position within `LOCAL` bins of the bins ``mode`` (N,); the bin's middle where the mass is nil."""
    n = mass.shape[-1] - 1
    low, high = (mode - LOCAL).clamp_min(0)[:, None], (mode + LOCAL + 1).clamp_max(n)[:, None]
    inside = (mass.gather(-1, high) - mass.gather(-1, low))[:, 0]
    first_moment = (moment.gather(-1, high) - moment.gather(-1, low))[:, 0]
    return torch.where(inside > 1e-12, first_moment / inside.clamp_min(1e-12), mode + 0.5)


def _mass_at(mass: Tensor, position: Tensor) -> Tensor:
    """Cumulative mass at positions (N,), linear within a bin."""
    position = position.clamp(0.0, mass.shape[-1] - 1.0)
    low = position.floor().long().clamp_max(mass.shape[-1] - 2)
    below, above = mass.gather(-1, low[:, None])[:, 0], mass.gather(-1, low[:, None] + 1)[:, 0]
    return below + (position - low) * (above - below)


def _second_mode(smooth: Tensor, first: Tensor) -> Tensor:
    """Bin of the highest local maximum of ``smooth`` (N, B) more than `ODDS` bins from ``first`` (N,)."""
    left, right = smooth[:, :-1], smooth[:, 1:]
    rises = torch.nn.functional.pad(right >= left, (1, 0), value=True)
    falls = torch.nn.functional.pad(left > right, (0, 1), value=True)
    index = torch.arange(smooth.shape[-1], device=smooth.device) + 0.5
    far = (index < first[:, None] - ODDS) | (index > first[:, None] + ODDS)
    return torch.where(rises & falls & far, smooth, -1.0).argmax(dim=-1)
