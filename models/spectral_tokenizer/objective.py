"""What one step of training reads, and its losses.

The published objective: reconstruct the spectrum at its usable pixels, weighted with their errors. Ours on
top of it, see `LessonConfig`: part of the patches is not shown, singly or as a range of wavelengths, and yet
asked for; and some spectra are reconstructed from the embedding alone, the mean over the patches, which
the published objective never asks to hold anything. The heads learn at the same time, without a gradient to
the encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ojala.models.data import Spectra
from ojala.models.layers.distributions import MEAN_LIMIT, redshift_loss, student_t_loss
from ojala.models.layers.redshift_pdf import LOG1PZ_STEP, N_REDSHIFT_BINS
from ojala.models.quantities import CLASSES
from ojala.models.spectral_tokenizer.heads import STELLAR, HeadAnswers, Heads
from ojala.models.spectral_tokenizer.network import SpectralTokenizer, TokenizerConfig
from ojala.models.spectral_tokenizer.patches import Cut, Patches, cut, gather

MODEL_ERROR = 0.02
"""Added in quadrature to a pixel's error, as a part of its flux or of the brightness, whichever is larger: so
well at most shall a pixel be met. It keeps spectra that are dark but for a few pixels from ruling a step."""

HUBER = 3.0
"""Residual in errors from which the loss grows linearly, so that single pixels do not rule."""

RANGES = 0.75
"""Share of the lessons with patches not shown that show a range without gaps; the others show any patches."""

TEMPERATURE = 0.1
"""Of the contrast: the difference of cosines by which the right object is e times likelier than another."""

HEAD_WEIGHTS = {"class": 1.0, "z": 1.0} | {quantity.name: 0.2 for quantity in STELLAR}
"""Weights of the heads' losses among each other; the encoder does not feel them."""


@dataclass(frozen=True, slots=True)
class LessonConfig:
    """What is shown and what is asked.

    Attributes
    ----------
    whole : float
        Share of the lessons in which every patch is shown, as published.
    min_visible : float
        Least share of the patches that are shown in the others; the share is uniform from there to 1. Of
        these, `RANGES` are shown in one range of wavelengths, half of them from an end: an arm is missing.
    asked : float
        Share of the patches that are asked for; 0 where the network is frozen and only the heads learn.
    p_bottleneck : float
        Share of the spectra that are reconstructed from the embedding alone; 0 as published.
    """

    whole: float = 0.4
    min_visible: float = 0.25
    asked: float = 0.34
    p_bottleneck: float = 0.25


class TrainingBatch(NamedTuple):
    """N spectra of one instrument, with what is asked of them.

    Attributes
    ----------
    shown : Patches
        The patches that are shown.
    code : Tensor, shape (N, T, C)
        Wavelength codes of the patches asked for, shown or not.
    flux, weight : Tensor, shape (N, T, P)
        Their flux, and the inverse of the error to which it shall be met; zero where a pixel is bad.
    class_code : Tensor of int64, shape (N,)
        Index into `CLASSES`, -1 where not known.
    redshift : Tensor, shape (N,)
        ln(1 + z) in bins; NaN where not known or of no meaning.
    stellar : Tensor, shape (N, 3)
        Standardised parameters in the order of `STELLAR`; NaN where not known.
    row : Tensor of int64, shape (N,)
        Which of the spectra that were given each is.
    """

    shown: Patches
    code: Tensor
    flux: Tensor
    weight: Tensor
    class_code: Tensor
    redshift: Tensor
    stellar: Tensor
    row: Tensor

    def to(self, device: torch.device | str) -> TrainingBatch:
        """The same lesson on another device."""
        return self._replace(**{name: part.to(device) for name, part in self._asdict().items()})


def make_training_batch(
    spectra: Spectra,
    class_code: np.ndarray,
    labels: dict[str, np.ndarray],
    shape: TokenizerConfig,
    config: LessonConfig,
    rng: np.random.Generator,
) -> TrainingBatch:
    """Choose what is shown and what is asked of labelled spectra of one instrument.

    Parameters
    ----------
    spectra : Spectra
        N spectra. Each that has no readable patch is left out.
    class_code, labels
        As in `ojala.models.data.LabelledSpectra`; the redshift ``z`` of stars is not asked for.
    shape : TokenizerConfig
        Of the network.
    config : LessonConfig
        How much is shown and asked.
    rng : Generator
        Makes the choice.
    """
    cuts = [one.kept(one.valid) for one in cut(spectra, shape.patch, shape.width)]
    rows = np.array([row for row, one in enumerate(cuts) if len(one.flux)])
    share = 1.0 if rng.random() < config.whole else rng.uniform(config.min_visible, 1.0)
    shown, asked = show_and_ask([cuts[row] for row in rows], share, config.asked, rng)
    return TrainingBatch(
        gather(shown, max(len(one.flux) for one in shown)),
        *targets(asked),
        torch.from_numpy(class_code[rows].astype(np.int64)),
        torch.from_numpy(_redshift_bins(labels["z"][rows], class_code[rows])),
        torch.from_numpy(_stellar(labels, rows)),
        torch.from_numpy(rows.astype(np.int64)),
    )


def show_and_ask(
    cuts: Sequence[Cut], share: float, asked_share: float, rng: np.random.Generator
) -> tuple[list[Cut], list[Cut]]:
    """Choose which patches of spectra are shown, and which are asked for.

    Parameters
    ----------
    cuts : sequence of Cut
        Spectra that have valid patches only, and at least one.
    share, asked_share : float
        Of the patches.
    rng : Generator
        Makes the choice.

    Returns
    -------
    shown, asked : list of Cut
        Over the brightness of what is shown.
    """
    shown, asked = [], []
    for one in cuts:
        n = len(one.flux)
        seen = one.kept(_some(n, share, rng))
        factor = seen.own_brightness()  # what is not shown must not be felt in the unit either
        wanted = np.sort(rng.permutation(n)[: max(1, round(asked_share * n))])
        shown.append(seen.dimmed(factor))
        asked.append(one.kept(wanted).dimmed(factor))
    return shown, asked


def _some(n: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Which of n patches are shown: a range without gaps, often from an end, or any."""
    wanted = max(1, round(share * n))
    if rng.random() < RANGES:
        last = n - wanted
        first = rng.choice((0, last)) if rng.random() < 0.5 else rng.integers(0, last + 1)
        return np.arange(first, first + wanted)
    return np.sort(rng.permutation(n)[:wanted])


def targets(asked: Sequence[Cut]) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, flux and weight of the patches asked for, as in `TrainingBatch`."""
    slots = max(len(one.flux) for one in asked)
    flux = np.zeros((len(asked), slots, asked[0].flux.shape[1]), np.float32)
    weight = np.zeros_like(flux)
    for row, one in enumerate(asked):
        flux[row, : len(one.flux)] = one.flux
        floor = MODEL_ERROR * np.maximum(np.abs(one.flux), np.float32(1.0))
        weight[row, : len(one.flux)] = 1.0 / np.hypot(one.error, floor)
    return gather(asked, slots).code, torch.from_numpy(flux), torch.from_numpy(weight)


def _redshift_bins(z: np.ndarray, class_code: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        bins = np.log1p(z) / LOG1PZ_STEP
        known = (class_code != CLASSES.index("STAR")) & (bins >= 0) & (bins < N_REDSHIFT_BINS)
    return np.where(known, bins, np.nan).astype(np.float32)


def _stellar(labels: dict[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    standard = np.stack([q.standardise(labels[q.name][rows]) for q in STELLAR], axis=1)
    return np.asarray(np.clip(standard, -MEAN_LIMIT, MEAN_LIMIT), np.float32)


def reconstruction_loss(flux: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    """Mean over the usable pixels of the Huber loss of the residual in errors; all (N, T, P)."""
    residual = (flux - wanted) * weight
    loss = F.huber_loss(residual, torch.zeros_like(residual), delta=HUBER, reduction="sum")
    return loss / (weight > 0).sum().clamp_min(1)


def losses(
    model: SpectralTokenizer, heads: Heads, lesson: TrainingBatch, config: LessonConfig
) -> tuple[dict[str, Tensor], Tensor]:
    """Loss of the reconstruction and of each head; and the embeddings (N, d)."""
    encoded, valid = model.encode(lesson.shown), lesson.shown.valid
    found, embedding = head_losses(heads(encoded, valid), lesson), model.embed(encoded, valid)
    if not config.asked:
        return found, embedding
    alone = round(config.p_bottleneck * len(encoded))
    parts = [model.reconstruct(encoded[alone:], valid[alone:], lesson.code[alone:])]
    if alone:
        whole = torch.ones(alone, 1, dtype=torch.bool, device=embedding.device)
        only = embedding[:alone].unsqueeze(1).to(encoded.dtype)
        parts.insert(0, model.reconstruct(only, whole, lesson.code[:alone]))
    loss = reconstruction_loss(torch.cat(parts), lesson.flux, lesson.weight)
    return found | {"reconstruction": loss}, embedding


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


def head_losses(answers: HeadAnswers, lesson: TrainingBatch) -> dict[str, Tensor]:
    """Mean loss of each head over the spectra that have its label."""
    code = lesson.class_code
    loss = F.cross_entropy(answers.object_class, code.clamp_min(0), reduction="none")
    found = {"class": _mean_where(loss, code >= 0)}
    known = torch.isfinite(lesson.redshift)
    loss = redshift_loss(answers.redshift, torch.where(known, lesson.redshift, 0.0))
    found["z"] = _mean_where(loss, known)
    for index, quantity in enumerate(STELLAR):
        target = lesson.stellar[:, index]
        known = torch.isfinite(target)
        loss = student_t_loss(answers.stellar[:, index], torch.where(known, target, 0.0))
        found[quantity.name] = _mean_where(loss, known)
    return found


def _mean_where(loss: Tensor, known: Tensor) -> Tensor:
    return torch.where(known, loss, 0.0).sum() / known.sum().clamp_min(1)
