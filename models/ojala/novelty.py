"""Novelty: how unlike the training's objects an object looks to the network.

Two densities of known objects are modelled: that of their embeddings, as a mixture of Gaussians in the
leading principal components, and that of the network's raw outputs (logits of the classes, location and
log-scale of each scalar), as one Gaussian. The second finds objects that get a combination of outputs which
no known object gets (extreme emitters, white dwarfs), the first others (quasars beyond z = 4), as measured by
``tests/benchmarks/novelty.py``. An object's novelty is the larger of the two.

Noise moves both more than anything else does, so what is usual at an object's depth (see
`ojala.models.ojala.outputs.snr_level`) is taken away first, and an object's density is judged against those
of known objects as deep: faint is not novel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ojala.models.checkpoint import StoredPart
from ojala.models.ojala.calibration import interpolation_weights, knots_of, weighted_quantile
from ojala.models.ojala.outputs import RawOutputs

COMPONENTS = 24
"""Principal components of the embedding that are looked at."""

GAUSSIANS = 12
"""Members of the mixture."""

LIMIT = 0.99
"""Share of known objects with a novelty below 1."""

_STEPS = 40
_FLOOR = 0.05  # of the variance of a principal component, within each Gaussian
_PRIOR = 5.0  # objects by which each Gaussian is drawn to the floor
_SHRINKAGE = 0.02  # of the outputs' variances, added to their covariance


@dataclass(frozen=True, slots=True)
class Novelty(StoredPart):
    """What known objects look like to a network of width d with A raw outputs, at K knots of the depth.

    Attributes
    ----------
    knots : Tensor, shape (K,)
        Depths, increasing; beyond them the first and the last value hold.
    mean : Tensor, shape (K, d)
        Mean embedding.
    axes : Tensor, shape (d, R)
        Principal components of the residuals, each over its standard deviation.
    center : Tensor, shape (M, R)
        Means of the Gaussians.
    whitening : Tensor, shape (M, R, R)
        Inverses of the Cholesky factors of their covariances.
    log_norm : Tensor, shape (M,)
        ln of their densities at their means, times their shares.
    answers_mean : Tensor, shape (K, A)
        Mean raw outputs.
    answers_whitening : Tensor, shape (A, A)
        What gives the rest of the raw outputs unit covariance.
    typical, limit : Tensor, shape (2, K)
        Median of both surprises (-ln(density)) of known objects, and the surprise of novelty 1.
    """

    TITLE = "the record of known objects (novelty)"

    knots: Tensor
    mean: Tensor
    axes: Tensor
    center: Tensor
    whitening: Tensor
    log_norm: Tensor
    answers_mean: Tensor
    answers_whitening: Tensor
    typical: Tensor
    limit: Tensor

    def check_shapes(self) -> None:
        """Check the shapes against those of the means and centres."""
        (k, d), (m, r), a = self.mean.shape, self.center.shape, self.answers_mean.shape[-1]
        shapes = {"knots": (k,), "axes": (d, r), "whitening": (m, r, r), "log_norm": (m,)}
        shapes |= {"answers_mean": (k, a), "answers_whitening": (a, a), "typical": (2, k), "limit": (2, k)}
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} of {self.TITLE} does not fit the others")

    def score(self, embedding: Tensor, outputs: Tensor, depth: Tensor) -> Tensor:
        """Novelty (N,) from embeddings (N, d), raw outputs (N, A) and depths (N,).

        0 where both densities are those of a typical known object as deep, or higher; 1 is exceeded by 1 % of
        known objects; linear in the densities' logarithms.
        """
        near = interpolation_weights(depth, self.knots).T
        typical, limit = self.typical @ near, self.limit @ near
        surprise = self.surprise(embedding, outputs, depth)
        return ((surprise - typical) / (limit - typical)).amax(dim=0).clamp_min(0.0)

    def surprise(self, embedding: Tensor, outputs: Tensor, depth: Tensor) -> Tensor:
        """-ln(density) (2, N) of embeddings and of raw outputs, the latter but for a constant."""
        near = interpolation_weights(depth, self.knots)
        place = (embedding.float() - near @ self.mean) @ self.axes
        densities = _log_densities(place, self.center, self.whitening, self.log_norm)
        away = (outputs - near @ self.answers_mean) @ self.answers_whitening
        return torch.stack([-torch.logsumexp(densities, dim=-1), 0.5 * away.square().sum(dim=-1)])


def raw_vector(class_logits: Tensor, scalars: Tensor) -> Tensor:
    """Raw outputs (N, A) of one object after the other, from logits (N, 3) and scalars (12, N, 2)."""
    return torch.cat([class_logits, scalars.transpose(0, 1).flatten(1)], dim=-1)


def _log_densities(place: Tensor, center: Tensor, whitening: Tensor, log_norm: Tensor) -> Tensor:
    """Ln of each Gaussian's share of the density at places (N, R): (N, M)."""
    away = torch.einsum("nmr,msr->nms", place[:, None] - center, whitening)
    return log_norm - 0.5 * away.square().sum(dim=-1)


def fit_novelty(known: RawOutputs, held_out: RawOutputs) -> Novelty:
    """Record what known objects look like.

    Parameters
    ----------
    known : RawOutputs
        Of objects as the network was trained on, some five thousand or more.
    held_out : RawOutputs
        Of objects of the same kinds that it was not trained on; they set the limit.
    """
    knots = knots_of(known.depth)
    near = interpolation_weights(known.depth, knots)
    mean, rest = _without_depth(known.embedding, near)
    variance, direction = torch.linalg.eigh(rest.T @ rest / len(rest))
    kept = min(COMPONENTS, len(variance))
    axes = direction[:, -kept:] / variance[-kept:].clamp_min(1e-12).sqrt()
    mixture = _fit_mixture(rest @ axes)

    answers_mean, rest = _without_depth(raw_vector(known.class_logits, known.scalars), near)
    covariance = rest.T @ rest / len(rest)
    covariance += torch.diag(_SHRINKAGE * covariance.diagonal() + 1e-9)
    answers_whitening = torch.linalg.cholesky(torch.linalg.inv(covariance))

    zero = torch.zeros(2, len(knots))
    found = Novelty(knots, mean, axes, *mixture, answers_mean, answers_whitening, zero, zero + 1.0)
    seen = (held_out.embedding, raw_vector(held_out.class_logits, held_out.scalars), held_out.depth)
    surprise, weights = found.surprise(*seen), interpolation_weights(held_out.depth, knots).T
    typical, limit = (
        torch.stack([torch.stack([weighted_quantile(part, w, share) for w in weights]) for part in surprise])
        for share in (0.5, LIMIT)
    )
    limit = torch.maximum(limit, typical + 1e-3)
    found = replace(found, typical=typical, limit=limit)
    both = found.score(*seen).quantile(LIMIT).clamp_min(0.1)  # of the larger one, a little above 1
    return replace(found, limit=typical + both * (limit - typical))


def _without_depth(values: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (K, V) of values (N, V) at the knots, and their residuals."""
    gram = near.T @ near + 1e-3 * torch.eye(near.shape[1])
    mean = torch.linalg.solve(gram, near.T @ values)
    return mean, values - near @ mean


def _fit_mixture(place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Centers, whitenings and log-norms of a mixture of Gaussians, by expectation-maximisation."""
    n, r = place.shape
    floor = _FLOOR * torch.eye(r)
    start = torch.randperm(n, generator=torch.Generator().manual_seed(0))[: min(GAUSSIANS, n)]
    center, share = place[start].clone(), torch.full((len(start),), 1.0 / len(start))
    covariance = torch.eye(r).repeat(len(start), 1, 1)
    for step in range(_STEPS + 1):
        factor = torch.linalg.cholesky(covariance)
        whitening = torch.linalg.solve_triangular(factor, torch.eye(r).expand_as(factor), upper=False)
        log_norm = share.log() - factor.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
        log_norm = log_norm - 0.5 * r * math.log(2.0 * math.pi)
        if step == _STEPS:
            break
        member = _log_densities(place, center, whitening, log_norm).softmax(dim=-1)
        count = member.sum(dim=0) + 1e-6
        share = count / count.sum()
        center = (member.T @ place) / count[:, None]
        for k in range(len(center)):
            away = place - center[k]
            scatter = (away * member[:, k : k + 1]).T @ away
            covariance[k] = (scatter + _PRIOR * floor) / (count[k] + _PRIOR) + floor
    return center, whitening, log_norm
