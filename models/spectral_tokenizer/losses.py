"""Losses of the tokenizer and its heads.

As published, the spectrum is reconstructed at its usable pixels, weighted with their errors. Added here: some
spectra are reconstructed from the embedding alone, the mean over the patches, which is then trained to hold
the spectrum; and a contrast of two instruments' embeddings. The heads are trained at the same time, without a
gradient to the encoder.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ojala.models.layers.distributions import masked_sum, redshift_loss, student_t_loss
from ojala.models.spectral_tokenizer.heads import STELLAR, HeadAnswers, TokenizerWithHeads
from ojala.models.spectral_tokenizer.masking import MaskingSettings, TrainingBatch

HUBER = 3.0
"""Residual in errors from which the loss grows linearly, so that single pixels do not dominate."""

TEMPERATURE = 0.1
"""Temperature of the contrast: a cosine that is larger by this is e times likelier."""

HEAD_WEIGHTS = {"class": 1.0, "z": 1.0} | {quantity.name: 0.2 for quantity in STELLAR}
"""Weights of the heads' losses among each other; the encoder has no gradient of them."""


def reconstruction_loss(flux: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    """Mean over the usable pixels of the Huber loss of the residual in errors; all (N, T, P)."""
    residual = (flux - wanted) * weight
    loss = F.huber_loss(residual, torch.zeros_like(residual), delta=HUBER, reduction="sum")
    return loss / (weight > 0).sum().clamp_min(1)


def losses(
    model: TokenizerWithHeads, batch: TrainingBatch, config: MaskingSettings
) -> tuple[dict[str, Tensor], Tensor]:
    """Loss of the reconstruction and of each head; and the embeddings (N, d)."""
    network = model.network
    encoded, valid = network.encode(batch.visible), batch.visible.valid
    parts, embedding = head_losses(model.heads(encoded, valid), batch), network.embed(encoded, valid)
    if not config.target_fraction:
        return parts, embedding
    alone = round(config.p_bottleneck * len(encoded))
    flux = [network.reconstruct(encoded[alone:], valid[alone:], batch.code[alone:])]
    if alone:
        whole = torch.ones(alone, 1, dtype=torch.bool, device=embedding.device)
        only = embedding[:alone].unsqueeze(1).to(encoded.dtype)
        flux.insert(0, network.reconstruct(only, whole, batch.code[:alone]))
    loss = reconstruction_loss(torch.cat(flux), batch.flux, batch.weight)
    return parts | {"reconstruction": loss}, embedding


def contrast(one: Tensor, other: Tensor) -> Tensor:
    """Cross-entropy of finding each object among all by the embedding from another instrument, both ways.

    Parameters
    ----------
    one, other : Tensor, shape (N, d)
        Embeddings of the same N objects; each instrument's mean is subtracted, as where objects are sought.
    """
    first, second = (F.normalize(part - part.mean(dim=0), dim=-1) for part in (one.float(), other.float()))
    likeness = first @ second.T / TEMPERATURE
    right = torch.arange(len(likeness), device=likeness.device)
    return 0.5 * (F.cross_entropy(likeness, right) + F.cross_entropy(likeness.T, right))


def head_losses(answers: HeadAnswers, batch: TrainingBatch) -> dict[str, Tensor]:
    """Mean loss of each head over the spectra that have its label."""
    code = batch.class_code
    loss = F.cross_entropy(answers.object_class, code.clamp_min(0), reduction="none")
    labelled = {"class": (loss, code >= 0)}
    known = torch.isfinite(batch.redshift)
    labelled["z"] = redshift_loss(answers.redshift, torch.where(known, batch.redshift, 0.0)), known
    for index, quantity in enumerate(STELLAR):
        target = batch.stellar[:, index]
        known = torch.isfinite(target)
        loss = student_t_loss(answers.stellar[:, index], torch.where(known, target, 0.0))
        labelled[quantity.name] = loss, known
    return {name: masked_sum(loss, of) / of.sum().clamp_min(1) for name, (loss, of) in labelled.items()}
