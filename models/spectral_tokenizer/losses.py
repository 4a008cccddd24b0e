"""Losses of the tokenizer and its heads.

As published, spectra are reconstructed at their usable pixels, weighted by their errors. In addition, some
spectra are reconstructed from the embedding alone, the mean over the patches, and embeddings of two
instruments are contrasted. The heads are trained at the same time, without a gradient to the encoder.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ojala.models.layers.distributions import masked_sum, redshift_loss, student_t_loss
from ojala.models.spectral_tokenizer.heads import STELLAR, HeadOutputs, TokenizerWithHeads
from ojala.models.spectral_tokenizer.masking import MaskingSettings, TrainingBatch

HUBER = 3.0
"""Residual in units of the error beyond which the loss is linear, against outlying pixels."""

TEMPERATURE = 0.1
"""Temperature of the contrast."""

HEAD_WEIGHTS = {"class": 1.0, "z": 1.0} | {quantity.name: 0.2 for quantity in STELLAR}
"""Weights of the losses of the heads."""


def reconstruction_loss(flux: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean Huber loss of residuals in units of the error over usable pixels; all (N, T, P)."""
    residual = (flux - target) * weight
    loss = F.huber_loss(residual, torch.zeros_like(residual), delta=HUBER, reduction="sum")
    return loss / (weight > 0).sum().clamp_min(1)


def losses(
    model: TokenizerWithHeads, batch: TrainingBatch, config: MaskingSettings
) -> tuple[dict[str, Tensor], Tensor]:
    """Compute the losses of the reconstruction and of each head, and the embeddings (N, d)."""
    network = model.network
    encoded, valid = network.encode(batch.visible), batch.visible.valid
    parts, embedding = head_losses(model.heads(encoded, valid), batch), network.embed(encoded, valid)
    if not config.target_fraction:
        return parts, embedding
    n = round(config.p_bottleneck * len(encoded))  # spectra reconstructed from their embeddings
    flux = [network.reconstruct(encoded[n:], valid[n:], batch.code[n:])]
    if n:
        context = embedding[:n].unsqueeze(1).to(encoded.dtype)
        mask = torch.ones(n, 1, dtype=torch.bool, device=embedding.device)
        flux.insert(0, network.reconstruct(context, mask, batch.code[:n]))
    loss = reconstruction_loss(torch.cat(flux), batch.flux, batch.weight)
    return parts | {"reconstruction": loss}, embedding


def contrast(one: Tensor, other: Tensor) -> Tensor:
    """Symmetric InfoNCE of the embeddings of the same objects by two instruments.

    Parameters
    ----------
    one, other : Tensor, shape (N, d)
        Embeddings of the same N objects; the mean of each instrument is subtracted, as for a retrieval.
    """
    first, second = (F.normalize(part - part.mean(dim=0), dim=-1) for part in (one.float(), other.float()))
    similarity = first @ second.T / TEMPERATURE
    target = torch.arange(len(similarity), device=similarity.device)
    return 0.5 * (F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target))


def head_losses(outputs: HeadOutputs, batch: TrainingBatch) -> dict[str, Tensor]:
    """Compute the mean loss of each head over the labelled spectra."""
    code = batch.class_code
    loss = F.cross_entropy(outputs.object_class, code.clamp_min(0), reduction="none")
    labelled = {"class": (loss, code >= 0)}
    known = torch.isfinite(batch.redshift)
    labelled["z"] = redshift_loss(outputs.redshift, torch.where(known, batch.redshift, 0.0)), known
    for index, quantity in enumerate(STELLAR):
        target = batch.stellar[:, index]
        known = torch.isfinite(target)
        loss = student_t_loss(outputs.stellar[:, index], torch.where(known, target, 0.0))
        labelled[quantity.name] = loss, known
    return {name: masked_sum(loss, of) / of.sum().clamp_min(1) for name, (loss, of) in labelled.items()}
