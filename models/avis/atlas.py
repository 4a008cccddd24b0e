"""Atlas of embeddings: a sample with clusters, maps and redshifts, applied to objects by nearest neighbours.

An atlas is fitted once (`ojala.models.avis.atlas_fit`). Cluster, map coordinates, redshift and novelty of an
object follow from its nearest neighbours in the sample, by exact search, and do not depend on other objects.

Distances are in the leading principal components of the sample, each scaled to a scatter of 1: otherwise the
few directions with nearly all of the variance would dominate.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor

from ojala.catalogs_schema.avis import EMBEDDING_SIZE, UNCLUSTERED
from ojala.models.checkpoint import read_tensors, write_tensors
from ojala.models.header import WeightsError, file_sha256

FORMAT = "ojala-avis-atlas-1"
"""Format of the file."""

Sides = Literal["both", "spectrum", "image"]
"""Observed sides of an object."""

SIDES: tuple[Sides, ...] = get_args(Sides)
"""All values of `Sides`."""

REDSHIFT_NEIGHBOURS = 16
"""Neighbours for the redshift."""

N_NEIGHBOURS = 10
"""Neighbours that vote for a cluster; the distance to the last one gives the novelty."""

MAP_NEIGHBOURS = 5
"""Neighbours for the interpolation of map coordinates."""

MIN_REDSHIFTS = 4
"""Objects with a redshift that an atlas must exceed to give redshifts."""

N_QUANTILES = 1001
"""Number of stored quantiles of the distances."""

_BLOCK = 256
_SPARE = 8  # further candidates, since the search is in single precision
_SAME, _ROUNDING = 0.1, 5e-4
_COORDINATES = ("map_x", "map_y", "map3_x", "map3_y", "map3_z")
_ISLAND = 0.05  # radius of an island, over the extent of the map


@dataclass(frozen=True, slots=True, eq=False)
class Atlas:
    """A sample of S objects.

    Attributes
    ----------
    embedding : ndarray of float32, shape (S, EMBEDDING_SIZE)
        Joint embeddings, of length 1.
    cluster : ndarray of int32, shape (S,)
        Number of the cluster, the largest first; `UNCLUSTERED` for none.
    cluster_prob : ndarray of float32, shape (S,)
        Strength of the membership.
    map2, map3 : ndarray of float32, shape (S, 2) and (S, 3)
        Coordinates on the maps.
    z : ndarray of float32, shape (S,)
        Redshifts; NaN where not known.
    gaps : ndarray of float32, shape (N_QUANTILES,)
        Quantiles of the distances of the sample's objects to their neighbour number `N_NEIGHBOURS`.
    mean : ndarray of float32, shape (EMBEDDING_SIZE,)
        Mean embedding.
    axes : ndarray of float32, shape (EMBEDDING_SIZE, R)
        Leading principal components, each over the sample's scatter along it.
    weights_sha256 : str
        SHA-256 of the network's weights that made the embeddings.
    sides : str
        Observed sides of the objects, one of `SIDES`. The embedding of a spectrum alone differs from that of
        the same spectrum with its image, so neighbours must have the same sides.
    about : mapping
        Sample and settings of the fit.
    sha256 : str
        SHA-256 of the file; empty for an atlas that was not read from one.
    """

    embedding: np.ndarray
    cluster: np.ndarray
    cluster_prob: np.ndarray
    map2: np.ndarray
    map3: np.ndarray
    z: np.ndarray
    gaps: np.ndarray
    mean: np.ndarray
    axes: np.ndarray
    weights_sha256: str
    sides: Sides = "both"
    about: Mapping[str, object] = field(default_factory=dict)
    sha256: str = ""

    def __len__(self) -> int:
        return len(self.embedding)

    def place(self, embedding: np.ndarray) -> dict[str, np.ndarray]:
        """Place objects in the atlas.

        An object of the sample itself keeps its cluster and coordinates, and is excluded from the neighbours
        for its redshift and novelty.

        Parameters
        ----------
        embedding : ndarray, shape (N, EMBEDDING_SIZE)
            Joint embeddings from the same weights; NaN where there is none.

        Returns
        -------
        dict of str to ndarray, N each
            ``cluster`` int32; ``cluster_prob``, ``z_nn``, ``z_nn_err``, ``novelty``, ``map_x``, ``map_y``,
            ``map3_x``, ``map3_y`` and ``map3_z`` float32, NaN where there is no embedding.
        """
        columns = unplaced(len(embedding))
        rows = np.flatnonzero(np.isfinite(embedding).all(axis=1))
        if not len(rows):
            return columns
        sample, queries = (project(part, self.mean, self.axes) for part in (self.embedding, embedding[rows]))
        near, distance = nearest(sample, queries, N_NEIGHBOURS + 1)
        columns["cluster"][rows], columns["cluster_prob"][rows] = self._vote(near, distance)
        columns["novelty"][rows] = np.interp(
            drop_self(distance, distance)[:, N_NEIGHBOURS - 1], self.gaps, np.linspace(0.0, 1.0, N_QUANTILES)
        )
        for name, column in zip(_COORDINATES, self._maps(near, distance), strict=True):
            columns[name][rows] = column
        with_z = np.flatnonzero(np.isfinite(self.z))
        if len(with_z) > MIN_REDSHIFTS:
            near_z, distance_z = nearest(sample[with_z], queries, REDSHIFT_NEIGHBOURS + 1)
            z = drop_self(self.z[with_z][near_z], distance_z)
            low, middle, high = np.quantile(z, (0.1587, 0.5, 0.8413), axis=1)
            columns["z_nn"][rows], columns["z_nn_err"][rows] = middle, 0.5 * (high - low)
        return columns

    def _vote(self, near: np.ndarray, distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weighted majority cluster of the neighbours, and its probability from their memberships."""
        weight = _weights(distance[:, :N_NEIGHBOURS])
        cluster = self.cluster[near[:, :N_NEIGHBOURS]]
        same = cluster[:, :, None] == cluster[:, None, :]
        best = (same * weight[:, None, :]).sum(axis=2).argmax(axis=1)
        row = np.arange(len(near))
        winner = cluster[row, best]
        member = weight * self.cluster_prob[near[:, :N_NEIGHBOURS]] * (cluster == winner[:, None])
        return winner, np.where(winner == UNCLUSTERED, 0.0, np.minimum(member.sum(axis=1), 1.0))

    def _maps(self, near: np.ndarray, distance: np.ndarray) -> list[np.ndarray]:
        """Interpolate map coordinates between the nearest neighbours on the same island of each map."""
        columns = []
        for coordinates in (self.map2, self.map3):
            points = coordinates[near[:, :MAP_NEIGHBOURS]].astype(np.float64)
            extent = np.ptp(coordinates, axis=0).max()
            same_island = np.linalg.norm(points - points[:, :1], axis=2) <= _ISLAND * extent
            weight = _weights(distance[:, :MAP_NEIGHBOURS]) ** 2 * same_island
            weight /= weight.sum(axis=1, keepdims=True)
            columns += list((points * weight[:, :, None]).sum(axis=1).T)
        return columns


def unplaced(n: int) -> dict[str, np.ndarray]:
    """Columns of `Atlas.place` for N objects without an embedding."""
    names = ("cluster_prob", "z_nn", "z_nn_err", "novelty", *_COORDINATES)
    empty = {name: np.full(n, np.nan, np.float32) for name in names}
    return empty | {"cluster": np.full(n, UNCLUSTERED, np.int32)}


def _weights(distance: np.ndarray) -> np.ndarray:
    """Weights of neighbours, the inverse square of their distance; normalised."""
    weight = 1.0 / (distance**2 + 1e-12)
    return np.asarray(weight / weight.sum(axis=1, keepdims=True))


def drop_self(values: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Drop the object itself from its neighbours, or the last neighbour where it is not among them.

    Parameters
    ----------
    values, distance : ndarray, shape (N, K)
        Values and distances of the neighbours, the nearest first. A neighbour ten times nearer than the next
        one is the object itself.
    """
    same = distance[:, 0] <= np.maximum(_SAME * distance[:, 1], _ROUNDING)
    return np.where(same[:, None], values[:, 1:], values[:, :-1])


def project(embedding: np.ndarray, mean: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Project embeddings (N, W) on R components, row by row; float32."""
    centred = embedding.astype(np.float64) - mean
    return np.asarray(np.einsum("nw,wr->nr", centred, axes.astype(np.float64)), np.float32)


def nearest(sample: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Find nearest neighbours in a sample.

    Candidates come from matrix products of fixed size, which round; their distances are recomputed row by
    row, so that results do not depend on other rows.

    Parameters
    ----------
    sample, queries : ndarray of float32, shape (S, W) and (N, W)
        Vectors.
    k : int
        Number of neighbours; fewer if the sample is smaller.

    Returns
    -------
    near : ndarray of int64, shape (N, K)
        Rows of the sample, the nearest first.
    distance : ndarray of float64, shape (N, K)
        Their distances.
    """
    k = min(k, len(sample))
    candidates = min(k + _SPARE, len(sample))
    columns = torch.from_numpy(np.ascontiguousarray(sample.T))
    half = 0.5 * torch.from_numpy(sample).square().sum(dim=1)
    near = np.empty((len(queries), k), np.int64)
    distance = np.empty((len(queries), k))
    block = np.zeros((_BLOCK, queries.shape[1]), np.float32)
    for begin in range(0, len(queries), _BLOCK):
        rows = queries[begin : begin + _BLOCK]
        block[: len(rows)] = rows
        product: Tensor = torch.from_numpy(block) @ columns - half
        candidate = np.sort(
            torch.topk(product, candidates, sorted=False).indices.numpy()[: len(rows)], axis=1
        )
        offset = sample[candidate].astype(np.float64) - rows[:, None]
        exact = np.sqrt((offset**2).sum(axis=2))
        order = np.argsort(exact, axis=1, kind="stable")[:, :k]
        near[begin : begin + len(rows)] = np.take_along_axis(candidate, order, axis=1)
        distance[begin : begin + len(rows)] = np.take_along_axis(exact, order, axis=1)
    return near, distance


def write_atlas(path: Path, atlas: Atlas) -> None:
    """Write an atlas atomically, with embeddings in half precision."""
    header = {"format": FORMAT, "weights": atlas.weights_sha256, "sides": atlas.sides}
    header["about"] = json.dumps(dict(atlas.about))
    tensors = {name: torch.from_numpy(getattr(atlas, name)) for name in _ARRAYS}
    write_tensors(path, tensors | {"embedding": tensors["embedding"].half()}, header)


_ARRAYS = ("embedding", "cluster", "cluster_prob", "map2", "map3", "z", "gaps", "mean", "axes")


def read_atlas(path: Path, weights_sha256: str = "") -> Atlas:
    """Read an atlas.

    Parameters
    ----------
    path : Path
        File of the atlas.
    weights_sha256 : str
        SHA-256 of the weights of the embeddings to be placed; empty for any.

    Raises
    ------
    WeightsError
        The file is missing, damaged or no atlas, or belongs to other weights.
    """
    tensors, header = read_tensors(path)
    if header.get("format") != FORMAT:
        raise WeightsError(f"{path}: format is {header.get('format')!r}, this program reads {FORMAT!r}")
    atlas_weights = header.get("weights", "")
    if weights_sha256 and atlas_weights != weights_sha256:
        raise WeightsError(
            f"{path} is an atlas of the weights {atlas_weights[:12]}..., "
            f"the run's are {weights_sha256[:12]}...: "
            "name its weights, or make an atlas of these with `ojala atlas` from a run without one"
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    size = shapes.get("cluster", (0,))[0]
    expected = {
        "embedding": (size, EMBEDDING_SIZE),
        "cluster": (size,),
        "cluster_prob": (size,),
        "map2": (size, 2),
        "map3": (size, 3),
        "z": (size,),
        "gaps": (N_QUANTILES,),
        "mean": (EMBEDDING_SIZE,),
        "axes": (EMBEDDING_SIZE, shapes.get("axes", (0, 0))[-1]),
    }
    if shapes != expected or size <= N_NEIGHBOURS:
        raise WeightsError(f"{path}: its arrays are not those of an atlas: {shapes}; make it again")
    arrays = {name: tensor.float().numpy() for name, tensor in tensors.items()}
    arrays["cluster"] = tensors["cluster"].numpy().astype(np.int32)
    return Atlas(
        **arrays,
        weights_sha256=atlas_weights,
        sides=cast(Sides, header.get("sides", "both")),
        about=json.loads(header.get("about", "{}")),
        sha256=file_sha256(path),
    )
