"""Losses of AVIS, without labels.

`compute_losses` reconstructs the target pixels of each side, masked or not, from its encoding or from its
embedding alone. The joint objectives align the two sides of a pair: `contrastive` among all pairs of the
batch (symmetric InfoNCE, Radford et al. 2021, arXiv:2103.00020), `variance` without other pairs, with terms
in the variance and covariance of the embeddings against collapse (VICReg, Bardes et al. 2022,
arXiv:2105.04906). The contrast of two views of a spectrum (Chen et al. 2020, arXiv:2002.05709) preserves
properties in the spectrum's embedding that several of its parts share but no image does, such as the
positions of lines.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ojala.models.avis.augmentation import Targets, TrainingBatch
from ojala.models.avis.inputs import ImagePatches
from ojala.models.avis.network import Avis
from ojala.models.spectral_tokenizer.losses import reconstruction_loss
from ojala.models.spectral_tokenizer.patches import Patches

Group = TypeVar("Group", Patches, ImagePatches, Targets)

LARGEST_SCALE = math.log(100.0)
"""Bound of ln(1 / temperature)."""

VARIANCE_WEIGHTS = (25.0, 25.0, 1.0)
"""Weights of invariance, variance and covariance, as published."""

CHUNK = 64
"""Pairs per forward pass of the towers, whose activations fit into the caches of a CPU."""


def contrastive(of_spectrum: Tensor, of_image: Tensor, log_scale: Tensor) -> Tensor:
    """Symmetric InfoNCE: cross-entropy of each spectrum's image, and of each image's spectrum, among N pairs.

    Vectors (N, E) of any length; ``log_scale`` is ln(1 / temperature).
    """
    cosine = F.normalize(of_spectrum, dim=1) @ F.normalize(of_image, dim=1).T
    logits = cosine * log_scale.clamp(max=LARGEST_SCALE).exp()
    target = torch.arange(len(logits), device=logits.device)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


def variance(of_spectrum: Tensor, of_image: Tensor) -> Tensor:
    """VICReg: distance of the two sides of N pairs (N, E), with terms in variance and covariance."""
    invariance = F.mse_loss(of_spectrum, of_image)
    scatter = covariance = of_spectrum.new_zeros(())
    for vectors in (of_spectrum, of_image):
        scatter = scatter + 0.5 * F.relu(1.0 - (vectors.var(dim=0) + 1e-4).sqrt()).mean()
        centred = vectors - vectors.mean(dim=0)
        matrix = centred.T @ centred / (len(vectors) - 1)
        off_diagonal = matrix.square().sum() - matrix.diagonal().square().sum()
        covariance = covariance + off_diagonal / vectors.shape[1]
    parts = (invariance, scatter, covariance)
    return torch.stack([w * part for w, part in zip(VARIANCE_WEIGHTS, parts, strict=True)]).sum()


class Vectors(NamedTuple):
    """Unnormalised embeddings of N pairs (N, E); ``second_view`` may have no rows."""

    spectrum: Tensor
    image: Tensor
    second_view: Tensor


def compute_losses(
    model: Avis, batch: TrainingBatch, p_bottleneck: float
) -> tuple[dict[str, Tensor], Vectors]:
    """Compute the reconstruction losses and the embeddings.

    Parameters
    ----------
    model : Avis
        The network.
    batch : TrainingBatch
        N pairs.
    p_bottleneck : float
        Fraction of the pairs that are reconstructed from their embeddings alone, the first of each chunk.

    Returns
    -------
    losses : dict of str to Tensor
        Reconstruction losses ``spectrum``, unless the side of spectra is locked, and ``image``.
    vectors : Vectors
        Embeddings of all N pairs.
    """
    chunks = [_losses_of_chunk(model, part, p_bottleneck) for part in _chunks(batch)]
    losses = {name: torch.stack([own[name] for own, _ in chunks]).mean() for name in chunks[0][0]}
    return losses, Vectors(*(torch.cat(parts) for parts in zip(*(own for _, own in chunks), strict=True)))


def _chunks(batch: TrainingBatch) -> list[TrainingBatch]:
    """Split a batch into parts of about `CHUNK` pairs."""
    count = max(1, len(batch.brightness) // CHUNK)

    def parts(tensors: Group) -> list[Group]:
        pieces = zip(*(tensor.tensor_split(count) for tensor in tensors), strict=True)
        return [type(tensors)(*piece) for piece in pieces]

    groups = (parts(batch.spectra), batch.brightness.tensor_split(count), parts(batch.images))
    sides = (parts(batch.of_spectra), parts(batch.of_images))
    second_view = [None] * count if batch.second_view is None else parts(batch.second_view)
    return [TrainingBatch(*part) for part in zip(*groups, *sides, second_view, strict=True)]


def _losses_of_chunk(
    model: Avis, batch: TrainingBatch, p_bottleneck: float
) -> tuple[dict[str, Tensor], Vectors]:
    encoded, of_spectrum = model.encode_spectra(batch.spectra, batch.brightness)
    encoded_images, valid, of_image = model.encode_images(batch.images)
    n = round(p_bottleneck * len(encoded))  # pairs reconstructed from their embeddings
    losses = {}
    if of_spectrum.requires_grad:
        target = batch.of_spectra
        flux = torch.cat(
            [
                model.spectrum.reconstruct(
                    *model.pool_spectrum.as_context(of_spectrum[:n]), target.where[:n]
                ),
                model.spectrum.reconstruct(encoded[n:], batch.spectra.valid[n:], target.where[n:]),
            ]
        )
        losses["spectrum"] = reconstruction_loss(flux, target.flux, target.weight)
    target = batch.of_images
    flux = torch.cat(
        [
            model.image.reconstruct(*model.pool_image.as_context(of_image[:n]), target.where[:n]),
            model.image.reconstruct(encoded_images[n:], valid[n:], target.where[n:]),
        ]
    )
    losses["image"] = reconstruction_loss(flux, target.flux, target.weight)
    second_view = of_spectrum[:0]
    if batch.second_view is not None:
        _, second_view = model.encode_spectra(batch.second_view, torch.zeros_like(batch.brightness))
    return losses, Vectors(of_spectrum, of_image, second_view)
