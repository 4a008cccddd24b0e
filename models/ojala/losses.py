"""What the network is trained on: labels as targets, and the loss of each kind of answer.

Every quantity is requested for every object and masked where its label is not known. The mean is taken per
quantity over the objects that have the label, so that a rare label (a quasar's redshift) weighs as much in a
batch as a common one. This replaces drawing the requests inversely to their frequency, as published, and uses
every label of every draw.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ojala.models.data import LabelledPhotometry
from ojala.models.layers.distributions import MEAN_LIMIT, masked_mean, redshift_loss, student_t_loss
from ojala.models.layers.redshift_pdf import LOG1PZ_STEP, N_REDSHIFT_BINS
from ojala.models.quantities import QUANTITIES, SCALARS, Kind

REDSHIFTS: tuple[str, ...] = tuple(q.name for q in QUANTITIES if q.kind is Kind.REDSHIFT)
WEIGHTS: dict[str, float] = {"class": 1.0, "z_gal": 1.0, "z_qso": 0.5} | {q.name: 0.1 for q in SCALARS}
"""Weight of each quantity in the total; the redshifts' cross-entropies are the largest and matter most."""


class Targets(NamedTuple):
    """Labels of N objects in the network's terms.

    Attributes
    ----------
    class_code : Tensor of int64, shape (N,)
        -1 where not known.
    redshift : Tensor, shape (2, N)
        ln(1 + z) in units of bins, for z_gal and z_qso; NaN where not known or outside the bins.
    scalars : Tensor, shape (12, N)
        Standardised values in the order of `SCALARS`; NaN where not known.
    """

    class_code: Tensor
    redshift: Tensor
    scalars: Tensor

    def to(self, device: torch.device | str) -> Targets:
        """The same targets on another device."""
        return Targets(*(part.to(device, non_blocking=True) for part in self))


def targets_of(photometry: LabelledPhotometry) -> Targets:
    """Physical labels -> targets; a label that is missing from the dictionary is not known for any object."""
    unknown = np.full(len(photometry), np.nan, dtype=np.float32)
    labels = photometry.labels
    with np.errstate(invalid="ignore", divide="ignore"):
        bins = np.stack([np.log1p(labels.get(name, unknown)) / LOG1PZ_STEP for name in REDSHIFTS])
        bins = np.where((bins >= 0) & (bins < N_REDSHIFT_BINS), bins, np.nan)
        scalars = np.stack([q.standardise(labels.get(q.name, unknown)) for q in SCALARS])
    scalars = np.where(np.isfinite(scalars), np.clip(scalars, -MEAN_LIMIT, MEAN_LIMIT), np.nan)
    return Targets(
        torch.as_tensor(photometry.class_code.astype(np.int64)),
        torch.as_tensor(bins.astype(np.float32)),
        torch.as_tensor(scalars.astype(np.float32)),
    )


def losses(answers: dict[str, Tensor], targets: Targets, class_weights: Tensor) -> dict[str, Tensor]:
    """Mean loss of each quantity over the objects that have its label; see the module for the weighting.

    ``class_weights`` (3,) weight the classes in the class's loss: the shares that the probabilities shall
    assume over the shares of the draws.
    """
    code = targets.class_code.clamp_min(0)
    class_loss = F.cross_entropy(answers["class"].float(), code, reduction="none") * class_weights[code]
    found = {"class": masked_mean(class_loss, targets.class_code >= 0)}
    for name, bins in zip(REDSHIFTS, targets.redshift, strict=True):
        known = torch.isfinite(bins)
        found[name] = masked_mean(redshift_loss(answers[name], torch.where(known, bins, 0.0)), known)
    for quantity, target in zip(SCALARS, targets.scalars, strict=True):
        known = torch.isfinite(target)
        found[quantity.name] = masked_mean(
            student_t_loss(answers[quantity.name], torch.where(known, target, 0.0)), known
        )
    return found


def mean_discrepancy(simulated: Tensor, observed: Tensor) -> Tensor:
    """Squared maximum mean discrepancy (Gretton et al. 2012) of two samples of encodings (N, d) and (M, d).

    A Gaussian kernel as wide as the median distance. The simulated encodings are held fixed: what is
    observed is drawn to what the labels taught, not the reverse.
    """
    both = torch.cat([simulated.detach(), observed]).float()
    square = torch.cdist(both, both).square()
    kernel = torch.exp(-square / square.detach().median().clamp_min(1e-6))
    n = len(simulated)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2.0 * kernel[:n, n:].mean()


def total_loss(found: dict[str, Tensor]) -> Tensor:
    """Weighted sum over quantities."""
    return torch.stack([WEIGHTS[name] * loss for name, loss in found.items()]).sum()
