"""Locking of the side of spectra: the embedding is that of a trained tokenizer.

A tokenizer's embedding, the mean of the encoded patches, knows redshift and class without having seen a
label, better than a tower does that a contrast with images has trained: agreement with an image asks for no
more than an image shows. So the tower of spectra stays that of the tokenizer, and images learn its embedding.

The projection is the principal components of the mean encoding over the square root of their scatter, and
one component of the brightness. The last layer of the images' pooling starts from a ridge regression.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ojala.catalogs_schema.errors import InputError
from ojala.models.avis.inputs import brightness_features, patchify_images
from ojala.models.avis.network import Avis, MeanPool
from ojala.models.data import Pairs
from ojala.models.spectral_tokenizer.checkpoint import load
from ojala.models.spectral_tokenizer.patches import batches_by_length, patchify

BRIGHTNESS = 0.7
"""Scatter of the component of the brightness over that of the first component."""

RIDGE = 1e-2
"""Penalty of the regression over the number of pairs, for features of unit scatter."""

_BATCH = 32


def copy_tensors(tensors: Mapping[str, Tensor], network: nn.Module) -> None:
    """Copy tensors into a network's of the same names and shapes."""
    own = network.state_dict()
    same = {name: value for name, value in tensors.items() if name in own and value.shape == own[name].shape}
    network.load_state_dict(own | same)


def lock_spectra(network: Avis, tokenizer: Path, pairs: Iterable[Pairs]) -> None:
    """Make a tokenizer the tower of spectra, fit the projections, and lock the side of spectra.

    Parameters
    ----------
    network : Avis
        Network with mean pooling of spectra; changed in place.
    tokenizer : Path
        Weights of the tokenizer.
    pairs : iterable of Pairs
        Pairs that the projections are fitted on; none to leave them, where a resumed state replaces them.

    Raises
    ------
    InputError
        The tokenizer has another shape than the tower of spectra, or the network pools spectra by queries.
    """
    trained, info = load(tokenizer)
    if info.config != network.config.spectrum or not isinstance(network.pool_spectrum, MeanPool):
        raise InputError(
            f"{tokenizer} has the shape {info.config}, the tower of spectra {network.config.spectrum} with "
            f"pooling by {network.config.pooling!r}: a locked side needs the same shape and pooling by 'mean'"
        )
    network.spectrum.load_state_dict(trained.network.state_dict())
    network.spectrum.requires_grad_(False)
    network.pool_spectrum.requires_grad_(False)
    encoded = [_encode(network, one) for one in pairs]
    if encoded:
        mean, brightness, hidden = (torch.cat(parts).double() for parts in zip(*encoded, strict=True))
        _fit_spectra(network.pool_spectrum, mean, brightness)
        vectors = F.normalize(_vectors(network.pool_spectrum, mean, brightness), dim=1)
        _fit_images(network, hidden, vectors)


@torch.inference_mode()
def _encode(network: Avis, pairs: Pairs) -> tuple[Tensor, Tensor, Tensor]:
    """Mean encodings (N, d), brightness features (N, 2) and features of images (N, 2 d) of usable pairs."""
    shape = network.config.spectrum
    patched = patchify(pairs.spectra, shape.patch, shape.width)
    mean = torch.full((len(pairs), shape.width), torch.nan)
    for rows, batch in batches_by_length(patched, _BATCH, "cpu"):
        mean[rows] = network.spectrum.embed(network.spectrum.encode(batch), batch.valid)[: len(rows)]
    brightness = brightness_features(patched)
    if pairs.relative_flux is not None:
        brightness[torch.from_numpy(pairs.relative_flux)] = 0.0
    hidden = []
    for begin in range(0, len(pairs), _BATCH):
        encoded, valid = network.image.encode(patchify_images(pairs.images.rows(begin, begin + _BATCH)))
        hidden.append(network.pool_image.hidden(encoded, valid, encoded.new_zeros(len(encoded), 0)))
    usable = torch.isfinite(mean).all(dim=1)
    usable &= torch.from_numpy((pairs.images.ivar > 0.0).any(axis=(1, 2, 3)))
    return mean[usable], brightness[usable], torch.cat(hidden)[usable]


@torch.no_grad()
def _fit_spectra(pool: MeanPool, mean: Tensor, brightness: Tensor) -> None:
    """Fit the projection: principal components over the root of their scatter, and the brightness last."""
    size, centre = pool.project.out_features, mean.mean(dim=0)
    _, values, axes = torch.linalg.svd(mean - centre, full_matrices=False)
    scatter = values / len(mean) ** 0.5
    weight = torch.zeros(size, mean.shape[1], dtype=mean.dtype)
    kept = min(size - 1, len(scatter))
    weight[:kept] = axes[:kept] / scatter[:kept, None].clamp_min(1e-6).sqrt()
    pool.project.weight.copy_(weight)
    pool.project.bias.copy_(-weight @ centre)
    known = brightness[brightness[:, 1] > 0.0, 0]
    pool.features.weight.zero_()
    if len(known) > 1:
        gain = BRIGHTNESS * scatter[0].sqrt() / known.std().clamp_min(1e-3)
        pool.features.weight[-1] = torch.stack([gain, -gain * known.mean()])


def _vectors(pool: MeanPool, mean: Tensor, brightness: Tensor) -> Tensor:
    return (
        mean @ pool.project.weight.double().T
        + pool.project.bias
        + brightness @ pool.features.weight.double().T
    )


@torch.no_grad()
def _fit_images(network: Avis, hidden: Tensor, vectors: Tensor) -> None:
    """Fit the last layer of the images' pooling to the embeddings of the spectra."""
    last = network.pool_image.project[-1]
    assert isinstance(last, nn.Linear)
    centre, scale = hidden.mean(dim=0), hidden.std(dim=0).clamp_min(1e-6)
    features, target = (hidden - centre) / scale, vectors - vectors.mean(dim=0)
    penalty = RIDGE * len(features) * torch.eye(features.shape[1], dtype=features.dtype)
    weight = torch.linalg.solve(features.T @ features + penalty, features.T @ target).T / scale
    last.weight.copy_(weight)
    last.bias.copy_(vectors.mean(dim=0) - weight @ centre)
