"""Losses of predictive distributions: Student t for scalars, smeared bins for redshifts."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

STUDENT_T3_HALF_WIDTH = 1.1969
"""Half-width of the central 68.27 % of a Student-t with nu = 3, in units of its scale."""

_STUDENT_T3_HALF_WIDTH_95 = 3.3068

STUDENT_T_NU = 3.0
"""Degrees of freedom of a scalar's predictive distribution."""

RAREST_FRACTION = 0.03
"""Fraction of a batch below which a rare label gets no larger weight."""

_SMEAR_BINS = 4
_SMEAR_SIGMA = 1.0
"""Width of the Gaussian by which a redshift label is spread over neighbouring bins [bins]."""


def redshift_loss(logits: Tensor, bins: Tensor) -> Tensor:
    """Cross-entropy of logits (..., B) with Gaussian-smeared labels at finite positions ``bins`` (...)."""
    reach = torch.arange(-_SMEAR_BINS, _SMEAR_BINS + 1, device=bins.device)
    near = bins.floor().long()[..., None] + reach
    offset = near + 0.5 - bins[..., None]
    weight = torch.exp(-0.5 * (offset / _SMEAR_SIGMA) ** 2) * ((near >= 0) & (near < logits.shape[-1]))
    weight = weight / weight.sum(dim=-1, keepdim=True)
    log_p = F.log_softmax(logits.float(), dim=-1)
    return -(weight * log_p.gather(-1, near.clamp(0, logits.shape[-1] - 1))).sum(dim=-1)


def student_t_loss(parameters: Tensor, target: Tensor, nu: float = STUDENT_T_NU) -> Tensor:
    """Negative log-likelihood of target (...) under a Student-t of location and log-scale (..., 2)."""
    mean, log_scale = parameters.unbind(-1)
    constant = 0.5 * math.log(nu * math.pi) + math.lgamma(0.5 * nu) - math.lgamma(0.5 * (nu + 1.0))
    pull = (target - mean) * torch.exp(-log_scale)
    return constant + log_scale + 0.5 * (nu + 1.0) * torch.log1p(pull**2 / nu)


def masked_sum(loss: Tensor, known: Tensor) -> Tensor:
    """Sum of the losses (N,) of the objects whose label is known, bool (N,)."""
    return torch.where(known, loss, 0.0).sum()


LOG_SCALE_RANGE = (-5.0, 1.5)
"""Bounds of the log-scale of a scalar's distribution [standardised units], in training as in serving."""

MEAN_LIMIT = 8.0
"""Bound of a scalar's location [standardised units], in training as in serving."""
