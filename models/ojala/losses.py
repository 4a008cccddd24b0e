"""Targets of the training from labels, and the loss of each kind of output.

Every quantity is requested for every object and masked where its label is not known. The mean is taken per
quantity over the objects that have the label, so that a rare label (a quasar's redshift) weighs as much in a
batch as a common one. This replaces drawing the requests inversely to their frequency, as published, and uses
every label of every draw.

Of the bands that an object was not given, a few are queried, drawn at random (as published, where
observations are 61 of 76 tokens). The target is the flux that the band would measure without noise, not the
measurement: noise in the target would only slow the training, and the error that the network states is then
that of its prediction alone. A measurement m with error e is compared by (m - f) / sqrt(e^2 + f_err^2).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ojala.models.data import LabelledPhotometry
from ojala.models.layers.distributions import (
    MEAN_LIMIT,
    RAREST_FRACTION,
    masked_sum,
    redshift_loss,
    student_t_loss,
)
from ojala.models.layers.redshift_pdf import LOG1PZ_STEP, N_REDSHIFT_BINS
from ojala.models.ojala.network import BAND_LIMIT, BANDS
from ojala.models.quantities import QUANTITIES, SCALARS, Kind

REDSHIFTS: tuple[str, ...] = tuple(q.name for q in QUANTITIES if q.kind is Kind.REDSHIFT)
WEIGHTS: dict[str, float] = (
    {"class": 1.0, "z_gal": 1.0, "z_qso": 0.5} | {q.name: 0.1 for q in SCALARS} | {BANDS: 0.5}
)
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


class BandTargets(NamedTuple):
    """Fluxes in Q bands of each of N objects that were not given to the network.

    Attributes
    ----------
    band : Tensor of int64, shape (N, Q)
        The bands that are queried.
    value, error : Tensor, shape (N, Q)
        arcsinh(flux / s) and its standard error, as from `ojala.models.ojala.tokens.compress`; NaN where not
        known.
    """

    band: Tensor
    value: Tensor
    error: Tensor

    def to(self, device: torch.device | str) -> BandTargets:
        """The same targets on another device."""
        return BandTargets(*(part.to(device, non_blocking=True) for part in self))


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


def band_loss(output: Tensor, targets: BandTargets, center: Tensor, scale: Tensor) -> Tensor:
    """Negative log-likelihood (N, Q) of fluxes in bands; 0 where not known.

    As `student_t_loss`, the error to which a flux is known being added in quadrature to the scale.

    Parameters
    ----------
    output : Tensor, shape (N, Q, 2)
        Locations and log-scales.
    targets : BandTargets
        Fluxes.
    center, scale : Tensor, shape (N, Q)
        Units of the output; see `ojala.models.ojala.network.Ojala.band_units`.
    """
    known = torch.isfinite(targets.value) & torch.isfinite(targets.error)
    value = ((torch.where(known, targets.value, center) - center) / scale).clamp(-BAND_LIMIT, BAND_LIMIT)
    error = torch.where(known, targets.error, 0.0) / scale
    mean, log_scale = output.unbind(-1)
    log_scale = 0.5 * torch.log(torch.exp(2.0 * log_scale) + error**2)
    return torch.where(known, student_t_loss(torch.stack([mean, log_scale], dim=-1), value), 0.0)


def label_counts(targets: Targets, bands: BandTargets | None = None) -> dict[str, Tensor]:
    """Number of objects (of bands: fluxes) by which the losses of each quantity are divided.

    These are those whose label is known, or `RAREST_FRACTION` of all where fewer are.
    """
    code, redshift, scalars = targets
    known = {"class": code >= 0} | dict(zip(REDSHIFTS, torch.isfinite(redshift), strict=True))
    known |= {q.name: of for q, of in zip(SCALARS, torch.isfinite(scalars), strict=True)}
    if bands is not None:
        known[BANDS] = torch.isfinite(bands.value)
    return {name: of.sum().clamp_min(RAREST_FRACTION * of.numel()) for name, of in known.items()}


def losses(
    outputs: dict[str, Tensor],
    targets: Targets,
    class_weights: Tensor,
    counts: dict[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Loss of each quantity over the objects that have its label; see the module for the weighting.

    Parameters
    ----------
    outputs : dict of str to Tensor
        Of `ojala.models.ojala.network.Ojala`.
    targets : Targets
        Labels.
    class_weights : Tensor, shape (3,)
        Weights of the classes in the class's loss: the shares that the probabilities shall assume over the
        shares of the draws.
    counts : dict of str to Tensor, optional
        Divisors of the sums over objects; by default `label_counts`, which makes them means. Parts
        of a batch are given those of the whole, so that their losses add up to its.
    """
    counts = counts or label_counts(targets)
    code = targets.class_code.clamp_min(0)
    class_loss = F.cross_entropy(outputs["class"].float(), code, reduction="none") * class_weights[code]
    found = {"class": masked_sum(class_loss, targets.class_code >= 0) / counts["class"]}
    for name, bins in zip(REDSHIFTS, targets.redshift, strict=True):
        known = torch.isfinite(bins)
        of_all = redshift_loss(outputs[name], torch.where(known, bins, 0.0))
        found[name] = masked_sum(of_all, known) / counts[name]
    for quantity, target in zip(SCALARS, targets.scalars, strict=True):
        known = torch.isfinite(target)
        of_all = student_t_loss(outputs[quantity.name], torch.where(known, target, 0.0))
        found[quantity.name] = masked_sum(of_all, known) / counts[quantity.name]
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
