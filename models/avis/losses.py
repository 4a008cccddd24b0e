"""Losses of AVIS, without labels.

`compute_losses` reconstructs the target pixels of each side, masked or not, from its encoding or from its
embedding alone. The joint objectives align the two sides of a pair: `contrastive` among all pairs of the
batch (symmetric InfoNCE, Radford et al. 2021, arXiv:2103.00020), `variance` without other pairs, with terms
in the variance and covariance of the embeddings against collapse (VICReg, Bardes et al. 2022,
arXiv:2105.04906). The contrast of two views of a spectrum (Chen et al. 2020, arXiv:2002.05709) preserves
properties in the spectrum's embedding that several of its parts share but no image does, such as the
positions of lines.

`shift_loss` carries redshift into the embedding without a redshift: the second view is of the same object,
shifted in ln(wavelength) by a known amount, and the embedding must turn by the angles of this shift
(`shifted`). Objects of one kind at several redshifts are shifted copies of each other, so that the angles
follow ln(1 + z).
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
from ojala.models.layers.distributions import redshift_loss
from ojala.models.spectral_tokenizer.losses import reconstruction_loss
from ojala.models.spectral_tokenizer.patches import Patches

Group = TypeVar("Group", Patches, ImagePatches, Targets)

LARGEST_SCALE = math.log(100.0)
"""Bound of ln(1 / temperature)."""

VARIANCE_WEIGHTS = (25.0, 25.0, 1.0)
"""Weights of invariance, variance and covariance, as published."""

PERIODS = (0.05, 3.0)
"""Shortest and longest period of the turning pairs of components, in ln(wavelength)."""

LARGEST_SHIFT = 0.1
"""Bound of the shift between two views of a spectrum, in ln(wavelength)."""

CANDIDATES = 65
"""Shifts, even between the bounds, among which `shift_loss` seeks the right one."""

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


def shifted(vectors: Tensor, shift: Tensor) -> Tensor:
    """Embeddings that the same spectra have after a shift in wavelength.

    The first half of the components are pairs, each of which turns with a period of its own, spaced
    logarithmically over `PERIODS`. The others do not depend on the shift.

    Parameters
    ----------
    vectors : Tensor, shape (N, E)
        Embeddings of any length.
    shift : Tensor, shape (N,)
        Shift in ln(wavelength).
    """
    turning, fixed = _pairs(vectors)
    angle = shift[:, None] * _frequencies(vectors)
    turned = torch.view_as_real(turning * torch.polar(torch.ones_like(angle), angle))
    return torch.cat([turned.flatten(1), fixed], dim=1)


def shift_loss(first: Tensor, second: Tensor, shift: Tensor, log_scale: Tensor) -> Tensor:
    """Cross-entropy of the shift between two views among `CANDIDATES` of them.

    Each candidate's score is the cosine of the second embedding and the first one after that shift.

    Parameters
    ----------
    first, second : Tensor, shape (N, E)
        Embeddings of any length.
    shift : Tensor, shape (N,)
        True shift in ln(wavelength), at most `LARGEST_SHIFT`.
    log_scale : Tensor
        ln(1 / temperature).
    """
    (one, _), (other, _) = (_pairs(F.normalize(vectors, dim=1)) for vectors in (first, second))
    candidates = torch.linspace(-LARGEST_SHIFT, LARGEST_SHIFT, CANDIDATES, device=shift.device)
    angle = _frequencies(first)[:, None] * candidates
    product = one.conj() * other
    cosine = product.real @ angle.cos() + product.imag @ angle.sin()
    position = 0.5 + (CANDIDATES - 1) * (shift / LARGEST_SHIFT + 1.0) / 2.0
    return redshift_loss(cosine * log_scale.clamp(max=LARGEST_SCALE).exp(), position).mean()


def _pairs(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Turning pairs as complex numbers (N, E / 4), and the other components (N, E / 2)."""
    turning, fixed = vectors.float().tensor_split(2, dim=1)
    return torch.view_as_complex(turning.unflatten(1, (-1, 2)).contiguous()), fixed


def _frequencies(vectors: Tensor) -> Tensor:
    """Angle per shift of each pair, shape (E / 4,)."""
    shortest, longest = (math.log10(period) for period in PERIODS)
    periods = torch.logspace(longest, shortest, vectors.shape[1] // 4, device=vectors.device)
    return 2.0 * math.pi / periods


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
        Reconstruction losses ``spectrum`` and ``image``.
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
    shift = batch.shift.tensor_split(count)
    return [TrainingBatch(*part) for part in zip(*groups, *sides, shift, second_view, strict=True)]


def _losses_of_chunk(
    model: Avis, batch: TrainingBatch, p_bottleneck: float
) -> tuple[dict[str, Tensor], Vectors]:
    encoded, of_spectrum = model.encode_spectra(batch.spectra, batch.brightness)
    encoded_images, valid, of_image = model.encode_images(batch.images)
    n = round(p_bottleneck * len(encoded))  # pairs reconstructed from their embeddings
    target = batch.of_spectra
    flux = torch.cat(
        [
            model.spectrum.reconstruct(*model.pool_spectrum.as_context(of_spectrum[:n]), target.where[:n]),
            model.spectrum.reconstruct(encoded[n:], batch.spectra.valid[n:], target.where[n:]),
        ]
    )
    losses = {"spectrum": reconstruction_loss(flux, target.flux, target.weight)}
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
