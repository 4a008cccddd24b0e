"""Novelty: how unlike the training's objects an object looks to the network.

The density of the training's embeddings is modelled as a mixture of Gaussians in their leading principal
components. Noise moves an embedding more than anything else does, so the mean embedding at an object's depth
(see `models.raw_answers.depth_of`) is taken away first, and an object's density is judged against those of
known objects as deep: faint is not novel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from models.calibration import knots_of, nearness, weighted_quantile

COMPONENTS = 24
"""Principal components of the embedding that are looked at."""

GAUSSIANS = 30
"""Members of the mixture."""

LIMIT = 0.99
"""Share of known objects with a novelty below 1."""

_STEPS = 40
_FLOOR = 0.05  # of the variance of a principal component, within each Gaussian
_PRIOR = 5.0  # objects by which each Gaussian is drawn to the floor


@dataclass(frozen=True, slots=True)
class Novelty:
    """What known objects look like to a network of width d, at K knots of the depth.

    Attributes
    ----------
    knots : Tensor, shape (K,)
        Depths, increasing; beyond them the first and the last value hold.
    mean : Tensor, shape (K, d)
        Mean embedding.
    axes : Tensor, shape (d, R)
        Principal components of what is left, each over its standard deviation.
    center : Tensor, shape (M, R)
        Means of the Gaussians.
    whitening : Tensor, shape (M, R, R)
        Inverses of the Cholesky factors of their covariances.
    log_norm : Tensor, shape (M,)
        ln of their densities at their means, times their shares.
    typical, limit : Tensor, shape (K,)
        Median and 99 % quantile of -ln(density) of known objects.
    """

    knots: Tensor
    mean: Tensor
    axes: Tensor
    center: Tensor
    whitening: Tensor
    log_norm: Tensor
    typical: Tensor
    limit: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """The fields by name, as they are stored."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Novelty:
        """The inverse of `tensors`.

        Raises
        ------
        ValueError
            A field is missing or unknown, the shapes do not fit, or a value is not finite.
        """
        if set(tensors) != {field.name for field in fields(cls)}:
            raise ValueError("the record of known objects (novelty) lacks a tensor or has one too many")
        found = cls(**tensors)
        (k, d), (m, r) = found.mean.shape, found.center.shape
        shapes = {"knots": (k,), "axes": (d, r), "whitening": (m, r, r), "log_norm": (m,)}
        for name, shape in (shapes | {"typical": (k,), "limit": (k,)}).items():
            if tensors[name].shape != shape:
                raise ValueError(f"{name} of the record of known objects (novelty) does not fit the others")
        if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
            raise ValueError("the record of known objects (novelty) holds values that are not finite")
        return found

    def to(self, device: torch.device | str) -> Novelty:
        """The same record on another device."""
        return Novelty(**{name: tensor.to(device) for name, tensor in self.tensors().items()})

    def score(self, embedding: Tensor, depth: Tensor) -> Tensor:
        """Novelty (N,) from embeddings (N, d) and depths (N,).

        0 where the density is that of a typical known object as deep, or higher; 1 where 1 % of them have a
        lower density; linear in the density's logarithm.
        """
        near = nearness(depth, self.knots)
        typical, limit = near @ self.typical, near @ self.limit
        return ((self.surprise(embedding, depth) - typical) / (limit - typical)).clamp_min(0.0)

    def surprise(self, embedding: Tensor, depth: Tensor) -> Tensor:
        """-ln(density) (N,) of embeddings (N, d) at depths (N,)."""
        place = (embedding.float() - nearness(depth, self.knots) @ self.mean) @ self.axes
        return -torch.logsumexp(_log_densities(place, self.center, self.whitening, self.log_norm), dim=-1)


def _log_densities(place: Tensor, center: Tensor, whitening: Tensor, log_norm: Tensor) -> Tensor:
    """Ln of each Gaussian's share of the density at places (N, R): (N, M)."""
    away = torch.einsum("nmr,msr->nms", place[:, None] - center, whitening)
    return log_norm - 0.5 * away.square().sum(dim=-1)


def fit_novelty(embedding: Tensor, depth: Tensor, held_out: Tensor, held_out_depth: Tensor) -> Novelty:
    """Record what known objects look like.

    Parameters
    ----------
    embedding, depth : Tensor, shapes (N, d) and (N,)
        Of objects as the network was trained on, some ten thousand.
    held_out, held_out_depth : Tensor, shapes (M, d) and (M,)
        Of objects of the same kind that it was not trained on; they set the limit.
    """
    knots = knots_of(depth)
    near = nearness(depth, knots)
    gram = near.T @ near + 1e-3 * torch.eye(len(knots))
    mean = torch.linalg.solve(gram, near.T @ embedding)
    rest = embedding - near @ mean
    variance, direction = torch.linalg.eigh(rest.T @ rest / len(rest))
    kept = min(COMPONENTS, len(variance))
    axes = direction[:, -kept:] / variance[-kept:].clamp_min(1e-12).sqrt()
    center, whitening, log_norm = _fit_mixture(rest @ axes)
    nothing = torch.zeros(len(knots))
    known = Novelty(knots, mean, axes, center, whitening, log_norm, nothing, nothing + 1.0)
    surprise = known.surprise(held_out, held_out_depth)
    near = nearness(held_out_depth, knots)
    typical = torch.stack([weighted_quantile(surprise, weight, 0.5) for weight in near.T])
    limit = torch.stack([weighted_quantile(surprise, weight, LIMIT) for weight in near.T])
    limit = torch.maximum(limit, typical + 1e-3)
    return Novelty(knots, mean, axes, center, whitening, log_norm, typical, limit)


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
