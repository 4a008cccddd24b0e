"""What a network says of objects before any correction: what calibration, novelty and heads are fitted to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ojala.models.data import LabelledPhotometry
from ojala.models.ojala.losses import REDSHIFTS, Targets, targets_of
from ojala.models.ojala.network import Ojala
from ojala.models.ojala.tokens import Tokens, tokenise
from ojala.models.quantities import SCALARS


def snr_level(tokens: Tokens) -> Tensor:
    """Depth (N,): arcsinh of the median signal-to-noise ratio over the valid bands; 0 without any."""
    ratio = torch.where(tokens.valid, tokens.features[..., 2], torch.nan)
    return ratio.nanmedian(dim=1).values.nan_to_num(0.0)


@dataclass(frozen=True, slots=True)
class RawAnswers:
    """What a network says of N labelled objects before any calibration.

    Attributes
    ----------
    targets : Targets
        The truth in the network's terms.
    depth : Tensor, shape (N,)
        See `snr_level`.
    embedding : Tensor, shape (N, d)
        Mean of the encoded tokens.
    class_logits : Tensor, shape (N, 3)
        Logits of the classes.
    redshift_logits : tuple of two Tensors
        Logits over the bins of the objects whose z_gal (z_qso) is known, in their order.
    scalars : Tensor, shape (12, N, 2)
        Location and log-scale of each scalar.
    """

    targets: Targets
    depth: Tensor
    embedding: Tensor
    class_logits: Tensor
    redshift_logits: tuple[Tensor, Tensor]
    scalars: Tensor

    def rows(self, chosen: Tensor) -> RawAnswers:
        """Only the rows where ``chosen`` (N,) holds."""
        known = torch.isfinite(self.targets.redshift)
        galaxy, quasar = (logits[chosen[k]] for logits, k in zip(self.redshift_logits, known, strict=True))
        code, redshift, scalars = self.targets
        return RawAnswers(
            targets=Targets(code[chosen], redshift[:, chosen], scalars[:, chosen]),
            depth=self.depth[chosen],
            embedding=self.embedding[chosen],
            class_logits=self.class_logits[chosen],
            redshift_logits=(galaxy, quasar),
            scalars=self.scalars[:, chosen],
        )


@torch.inference_mode()
def ask(model: Ojala, photometry: LabelledPhotometry, batch_size: int = 128) -> RawAnswers:
    """Put labelled objects to a network, on its device, in single precision."""
    device, targets = next(model.parameters()).device, targets_of(photometry)
    known = torch.isfinite(targets.redshift)
    parts: list[list[Tensor]] = []
    for begin in range(0, len(photometry), batch_size):
        rows = slice(begin, begin + batch_size)
        tokens = tokenise(photometry.flux[rows], photometry.error[rows], photometry.ebv[rows]).to(device)
        encoded = model.encode(tokens)
        answers = model.answer(encoded, tokens.valid)
        part = [snr_level(tokens), model.embed(encoded, tokens.valid), answers["class"]]
        part += [answers[name][k[rows].to(device)] for name, k in zip(REDSHIFTS, known, strict=True)]
        part.append(torch.stack([answers[q.name] for q in SCALARS], dim=1))
        parts.append([tensor.cpu() for tensor in part])
    depth, embedding, classes, galaxy, quasar, scalars = (
        torch.cat(tensors).clone() for tensors in zip(*parts, strict=True)
    )
    return RawAnswers(targets, depth, embedding, classes, (galaxy, quasar), scalars.transpose(0, 1))


class Embedded(NamedTuple):
    """Embeddings (N, d) and depths (N,) of objects."""

    embedding: Tensor
    depth: Tensor


@torch.inference_mode()
def embed(model: Ojala, photometry: LabelledPhotometry, batch_size: int = 128) -> Embedded:
    """What a network makes of objects before it is asked anything, on its device, in single precision."""
    device = next(model.parameters()).device
    parts = []
    for begin in range(0, len(photometry), batch_size):
        rows = slice(begin, begin + batch_size)
        tokens = tokenise(photometry.flux[rows], photometry.error[rows], photometry.ebv[rows]).to(device)
        parts.append((model.embed(model.encode(tokens), tokens.valid).cpu(), snr_level(tokens).cpu()))
    embedding, depth = (torch.cat(tensors).clone() for tensors in zip(*parts, strict=True))
    return Embedded(embedding, depth)
