"""The atlas: a sample of embeddings with clusters, maps and redshifts, and where other objects lie in it.

It is fitted once (`ojala.models.avis.atlas_fit`) and applied to every row on its own: the row's nearest
neighbours in the sample are found by exact search, and tell its cluster, its redshift and its place. So a
row's answer does not depend on which rows come with it, and nothing has to be fitted to apply an atlas.

Neighbours are sought in the leading principal components of the sample, each brought to a scatter of 1: a few
directions hold nearly all of an embedding's variance, and would decide alone.
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
from ojala.models.checkpoint import WeightsError, file_sha256, read_tensors, write_tensors

FORMAT = "ojala-avis-atlas-1"
"""Kind of the file."""

Sides = Literal["both", "spectrum", "image"]
"""What was seen of an object."""

SIDES: tuple[Sides, ...] = get_args(Sides)
"""All that may have been seen."""

NEIGHBOURS = 16
"""Neighbours whose redshifts are looked at."""

N_NEIGHBOURS = 10
"""Neighbours that vote for a cluster; the distance to the last of them is what novelty is judged by."""

NEAREST = 5
"""Neighbours between which a place on a map is interpolated."""

FEW = 4
"""An atlas needs more objects with a redshift than this to tell any."""

STEPS = 1001
"""Quantiles of the distances that are kept."""

_BLOCK = 256
_SPARE = 8  # candidates beyond those that are needed, since the search is in single precision
_SAME, _ROUNDING = 0.1, 5e-4
_PLACES = ("map_x", "map_y", "map3_x", "map3_y", "map3_z")
_ISLAND = 0.05  # of the extent of a map


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
        Places on the maps.
    z : ndarray of float32, shape (S,)
        Redshifts; NaN where not known.
    gaps : ndarray of float32, shape (STEPS,)
        Quantiles of the distances of the sample's objects to their neighbour number `N_NEIGHBOURS`.
    mean : ndarray of float32, shape (EMBEDDING_SIZE,)
        Mean embedding.
    axes : ndarray of float32, shape (EMBEDDING_SIZE, R)
        Leading principal components, each over the sample's scatter along it.
    weights_sha256 : str
        SHA-256 of the network's weights that made the embeddings.
    sides : str
        What was seen of the objects: one of `SIDES`. A spectrum alone is embedded elsewhere than the same
        spectrum with its image, so that neighbours tell nothing across.
    about : mapping
        How the atlas was fitted, and on what.
    sha256 : str
        Of the file that it was read from; empty if it was not.
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
        """Where objects lie.

        An object that is in the sample has its own cluster and place, but is not among the neighbours that
        tell its redshift and its novelty.

        Parameters
        ----------
        embedding : ndarray, shape (N, EMBEDDING_SIZE)
            Joint embeddings from the same weights; NaN for none.

        Returns
        -------
        dict of str to ndarray, N each
            ``cluster`` int32; ``cluster_prob``, ``z_nn``, ``z_nn_err``, ``novelty``, ``map_x``, ``map_y``,
            ``map3_x``, ``map3_y`` and ``map3_z`` float32, NaN where there is no embedding.
        """
        found = no_places(len(embedding))
        known = np.flatnonzero(np.isfinite(embedding).all(axis=1))
        if not len(known):
            return found
        sample, wanted = (project(one, self.mean, self.axes) for one in (self.embedding, embedding[known]))
        near, distance = nearest(sample, wanted, N_NEIGHBOURS + 1)
        found["cluster"][known], found["cluster_prob"][known] = self._vote(near, distance)
        found["novelty"][known] = np.interp(
            without_itself(distance, distance)[:, N_NEIGHBOURS - 1], self.gaps, np.linspace(0.0, 1.0, STEPS)
        )
        for name, column in zip(_PLACES, self._maps(near, distance), strict=True):
            found[name][known] = column
        with_z = np.flatnonzero(np.isfinite(self.z))
        if len(with_z) > FEW:
            there, far = nearest(sample[with_z], wanted, NEIGHBOURS + 1)
            z = without_itself(self.z[with_z][there], far)
            low, middle, high = np.quantile(z, (0.1587, 0.5, 0.8413), axis=1)
            found["z_nn"][known], found["z_nn_err"][known] = middle, 0.5 * (high - low)
        return found

    def _vote(self, near: np.ndarray, distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cluster with the most weight among the neighbours, and its share, by the neighbours' membership."""
        weight = _weights(distance[:, :N_NEIGHBOURS])
        cluster = self.cluster[near[:, :N_NEIGHBOURS]]
        same = cluster[:, :, None] == cluster[:, None, :]
        best = (same * weight[:, None, :]).sum(axis=2).argmax(axis=1)
        row = np.arange(len(near))
        winner = cluster[row, best]
        member = weight * self.cluster_prob[near[:, :N_NEIGHBOURS]] * (cluster == winner[:, None])
        return winner, np.where(winner == UNCLUSTERED, 0.0, np.minimum(member.sum(axis=1), 1.0))

    def _maps(self, near: np.ndarray, distance: np.ndarray) -> list[np.ndarray]:
        """Coordinates between the nearest neighbours, as far as they lie on the same island of the map."""
        columns = []
        for places in (self.map2, self.map3):
            at = places[near[:, :NEAREST]].astype(np.float64)
            extent = np.ptp(places, axis=0).max()
            together = np.linalg.norm(at - at[:, :1], axis=2) <= _ISLAND * extent
            weight = _weights(distance[:, :NEAREST]) ** 2 * together
            weight /= weight.sum(axis=1, keepdims=True)
            columns += list((at * weight[:, :, None]).sum(axis=1).T)
        return columns


def no_places(n: int) -> dict[str, np.ndarray]:
    """What `Atlas.place` returns of N objects that lie nowhere."""
    names = ("cluster_prob", "z_nn", "z_nn_err", "novelty", *_PLACES)
    nowhere = {name: np.full(n, np.nan, np.float32) for name in names}
    return nowhere | {"cluster": np.full(n, UNCLUSTERED, np.int32)}


def _weights(distance: np.ndarray) -> np.ndarray:
    """Weights of neighbours by the inverse square of their distance; their sum is 1."""
    weight = 1.0 / (distance**2 + 1e-12)
    return np.asarray(weight / weight.sum(axis=1, keepdims=True))


def without_itself(values: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Values of all neighbours but the object itself; where it is not among them, but the last.

    Parameters
    ----------
    values, distance : ndarray, shape (N, K)
        Of the neighbours, the nearest first. One that is ten times nearer than the next is the object itself.
    """
    same = distance[:, 0] <= np.maximum(_SAME * distance[:, 1], _ROUNDING)
    return np.where(same[:, None], values[:, 1:], values[:, :-1])


def project(embedding: np.ndarray, mean: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Embeddings (N, W) in R components, row by row so that none depends on the others; float32."""
    centred = embedding.astype(np.float64) - mean
    return np.asarray(np.einsum("nw,wr->nr", centred, axes.astype(np.float64)), np.float32)


def nearest(sample: np.ndarray, wanted: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Nearest neighbours in a sample.

    The products of vectors that find candidates are made in blocks of one size and round; the distances of
    the candidates are computed anew, row by row, and decide.

    Parameters
    ----------
    sample, wanted : ndarray of float32, shape (S, W) and (N, W)
        Vectors.
    k : int
        How many; fewer where the sample is smaller.

    Returns
    -------
    near : ndarray of int64, shape (N, K)
        Rows of the sample, the nearest first.
    distance : ndarray of float64, shape (N, K)
        Their distances.
    """
    k = min(k, len(sample))
    many = min(k + _SPARE, len(sample))
    columns = torch.from_numpy(np.ascontiguousarray(sample.T))
    half = 0.5 * torch.from_numpy(sample).square().sum(dim=1)
    near = np.empty((len(wanted), k), np.int64)
    distance = np.empty((len(wanted), k))
    block = np.zeros((_BLOCK, wanted.shape[1]), np.float32)
    for begin in range(0, len(wanted), _BLOCK):
        rows = wanted[begin : begin + _BLOCK]
        block[: len(rows)] = rows
        product: Tensor = torch.from_numpy(block) @ columns - half
        candidate = np.sort(torch.topk(product, many, sorted=False).indices.numpy()[: len(rows)], axis=1)
        apart = sample[candidate].astype(np.float64) - rows[:, None]
        far = np.sqrt((apart**2).sum(axis=2))
        order = np.argsort(far, axis=1, kind="stable")[:, :k]
        near[begin : begin + len(rows)] = np.take_along_axis(candidate, order, axis=1)
        distance[begin : begin + len(rows)] = np.take_along_axis(far, order, axis=1)
    return near, distance


def write_atlas(path: Path, atlas: Atlas) -> None:
    """Write an atlas, whole or not at all; embeddings in half precision."""
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
        Its file.
    weights_sha256 : str
        SHA-256 of the weights whose embeddings are to be placed in it; empty if any will do.

    Raises
    ------
    WeightsError
        If the file is missing, damaged or something else, or is an atlas of other weights.
    """
    tensors, header = read_tensors(path)
    if header.get("format") != FORMAT:
        raise WeightsError(f"{path}: format is {header.get('format')!r}, this program reads {FORMAT!r}")
    made_with = header.get("weights", "")
    if weights_sha256 and made_with != weights_sha256:
        raise WeightsError(
            f"{path} is an atlas of the weights {made_with[:12]}..., the run's are {weights_sha256[:12]}...: "
            "name its weights, or make an atlas of these with `ojala atlas` from a run without one"
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    size = shapes.get("cluster", (0,))[0]
    wanted = {
        "embedding": (size, EMBEDDING_SIZE),
        "cluster": (size,),
        "cluster_prob": (size,),
        "map2": (size, 2),
        "map3": (size, 3),
        "z": (size,),
        "gaps": (STEPS,),
        "mean": (EMBEDDING_SIZE,),
        "axes": (EMBEDDING_SIZE, shapes.get("axes", (0, 0))[-1]),
    }
    if shapes != wanted or size <= N_NEIGHBOURS:
        raise WeightsError(f"{path}: has other arrays than an atlas: {shapes}; make it again")
    arrays = {name: tensor.float().numpy() for name, tensor in tensors.items()}
    arrays["cluster"] = tensors["cluster"].numpy().astype(np.int32)
    return Atlas(
        **arrays,
        weights_sha256=made_with,
        sides=cast(Sides, header.get("sides", "both")),
        about=json.loads(header.get("about", "{}")),
        sha256=file_sha256(path),
    )
