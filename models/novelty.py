"""Novelty: how unlike the training's objects an object looks to the network.

The distance of an object's embedding from the nearest class of objects: Mahalanobis distances (Lee et al.
2018, NeurIPS) from the class's mean with its covariance, both taken among objects as deep, since noise moves
embeddings more than anything else. Divided by the distance that 1 % of known objects as deep exceed.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from models.calibration import nearness


@dataclass(frozen=True, slots=True)
class Novelty:
    """What known objects look like, at K knots of the depth (see `models.calibration.depth_of`).

    Attributes
    ----------
    knots : Tensor, shape (K,)
        Depths, increasing; beyond them the first and the last value hold.
    """

    knots: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """The fields by name, as they are stored."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Novelty:
        return cls(**tensors)

    def to(self, device):
        return Novelty(**{name: tensor.to(device) for name, tensor in self.tensors().items()})

    def score(self, embedding: Tensor, depth: Tensor) -> Tensor:
        return nearness(depth, self.knots)[:, 0]
