"""Losses of SpecPT: its label in bins, its residual and the scatter of redshifts."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ojala.models.layers.redshift_pdf import LOG1PZ_STEP, summarise
from ojala.models.specpt.network import N_BINS

LABEL_WIDTH = 0.7
"""Standard deviation of the label of a redshift's PDF [bins]."""

WEIGHTS = {"residual": 0.5, "softplus": 2.0}
"""Weights of the losses of residuals and of the published head; all others have one."""


def nmad_loss(flux: Tensor, ivar: Tensor, reconstructed: Tensor) -> Tensor:
    """The published loss of a reconstruction, (N, P) each -> (N,): mean |x - x'| / MAD(x).

    The mean is over usable pixels; those noisier than the spectrum's own median absolute deviation count
    the less.
    """
    used = ivar > 0.0
    hidden = flux.masked_fill(~used, torch.nan)
    scale = (hidden - hidden.nanmedian(dim=1, keepdim=True).values).abs()
    scale = scale.nanmedian(dim=1, keepdim=True).values.nan_to_num(1.0).clamp_min(1e-3)
    weight = used * (scale * ivar.sqrt()).clamp_max(1.0)
    apart = (flux - reconstructed).abs() / scale
    return (weight * apart).sum(dim=1) / weight.sum(dim=1).clamp_min(1e-6)


def residual_loss(flux: Tensor, ivar: Tensor, reconstructed: Tensor) -> Tensor:
    """Huber loss of residuals over their errors, mean over usable pixels, (N, P) each -> (N,).

    Quadratic to ten sigma: unlike an absolute deviation, it pays for a line whose place is not yet known.
    """
    residual = (flux - reconstructed) * ivar.sqrt()
    each = F.huber_loss(residual, torch.zeros_like(residual), delta=10.0, reduction="none")
    used = ivar > 0.0
    return (each * used).sum(dim=1) / used.sum(dim=1).clamp_min(1)


def redshift_losses(answers: dict[str, Tensor], z: Tensor) -> dict[str, Tensor]:
    """Loss of each head, a number: cross-entropy of the bins, smooth L1 of dz / (1 + z) in thousandths."""
    found = {}
    if "bins" in answers:
        position = torch.log1p(z.double()) / LOG1PZ_STEP - 0.5
        bins = torch.arange(N_BINS, device=z.device)
        label = (-0.5 * ((bins - position[:, None]) / LABEL_WIDTH) ** 2).softmax(dim=1).float()
        found["bins"] = F.cross_entropy(answers["bins"], label)
    if "softplus" in answers:
        found["softplus"] = F.smooth_l1_loss(
            (answers["softplus"] - z) / (1.0 + z), torch.zeros_like(z), beta=0.01
        )
    return found


def total(found: dict[str, Tensor]) -> Tensor:
    """Sum of the losses with their weights."""
    return torch.stack([WEIGHTS.get(name, 1.0) * value for name, value in found.items()]).sum()


def point_of(answer: Tensor) -> Tensor:
    """Redshifts (N,) from a head's answer: logits of a PDF (N, B), or redshifts already."""
    return answer if answer.ndim == 1 else summarise(answer.float().softmax(dim=1)).z.float()
