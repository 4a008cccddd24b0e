"""Losses of SpecPT: reconstruction and redshift."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ojala.models.layers.redshift_pdf import LOG1PZ_STEP, summarise
from ojala.models.specpt.network import N_BINS

LABEL_WIDTH = 0.7
"""Standard deviation of the Gaussian label of a redshift PDF [bins]."""

WEIGHTS = {"residual": 0.5, "softplus": 2.0}
"""Weights of losses that differ from 1."""


def nmad_loss(flux: Tensor, ivar: Tensor, reconstructed: Tensor) -> Tensor:
    """Published loss of a reconstruction, (N, P) each -> (N,): mean |x - x'| / MAD(x) over usable pixels.

    Pixels noisier than the spectrum's median absolute deviation have smaller weights.
    """
    used = ivar > 0.0
    masked = flux.masked_fill(~used, torch.nan)
    scale = (masked - masked.nanmedian(dim=1, keepdim=True).values).abs()
    scale = scale.nanmedian(dim=1, keepdim=True).values.nan_to_num(1.0).clamp_min(1e-3)
    weight = used * (scale * ivar.sqrt()).clamp_max(1.0)
    deviation = (flux - reconstructed).abs() / scale
    return (weight * deviation).sum(dim=1) / weight.sum(dim=1).clamp_min(1e-6)


def residual_loss(flux: Tensor, ivar: Tensor, reconstructed: Tensor) -> Tensor:
    """Huber loss of residuals over their errors, mean over usable pixels, (N, P) each -> (N,).

    Quadratic up to ten sigma, so that lines at a wrong redshift still have a gradient.
    """
    residual = (flux - reconstructed) * ivar.sqrt()
    each = F.huber_loss(residual, torch.zeros_like(residual), delta=10.0, reduction="none")
    used = ivar > 0.0
    return (each * used).sum(dim=1) / used.sum(dim=1).clamp_min(1)


def redshift_losses(outputs: dict[str, Tensor], z: Tensor) -> dict[str, Tensor]:
    """Compute the loss of each head: cross-entropy of the bins, smooth L1 of dz / (1 + z)."""
    losses = {}
    if "bins" in outputs:
        position = torch.log1p(z.double()) / LOG1PZ_STEP - 0.5
        bins = torch.arange(N_BINS, device=z.device)
        label = (-0.5 * ((bins - position[:, None]) / LABEL_WIDTH) ** 2).softmax(dim=1).float()
        losses["bins"] = F.cross_entropy(outputs["bins"], label)
    if "softplus" in outputs:
        losses["softplus"] = F.smooth_l1_loss(
            (outputs["softplus"] - z) / (1.0 + z), torch.zeros_like(z), beta=0.01
        )
    return losses


def total_loss(losses: dict[str, Tensor]) -> Tensor:
    """Weighted sum of losses."""
    return torch.stack([WEIGHTS.get(name, 1.0) * value for name, value in losses.items()]).sum()


def point_estimate(output: Tensor) -> Tensor:
    """Redshifts (N,) from the output of a head, logits of a PDF (N, B) or redshifts (N,)."""
    return output if output.ndim == 1 else summarise(output.float().softmax(dim=1)).z.float()
