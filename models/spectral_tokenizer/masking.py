"""Training batches of the tokenizer: spectra with part of their patches masked.

As published, the target is the spectrum at its usable pixels. Added here, see `MaskingSettings`: part of the
patches, single ones or a range of wavelengths, is masked and still a target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ojala.models.data import Spectra
from ojala.models.layers.distributions import MEAN_LIMIT
from ojala.models.layers.redshift_pdf import LOG1PZ_STEP, N_REDSHIFT_BINS
from ojala.models.quantities import CLASSES
from ojala.models.settings import checked
from ojala.models.spectral_tokenizer.heads import STELLAR
from ojala.models.spectral_tokenizer.network import TokenizerConfig
from ojala.models.spectral_tokenizer.patches import PatchedSpectrum, Patches, gather, patchify

MODEL_ERROR = 0.02
"""Fraction of a pixel's flux, or of the brightness if that is larger, that is added to its error in
quadrature. Without it, spectra that are dark but for a few pixels dominate a step."""

RANGES = 0.75
"""Fraction of the masked batches in which the visible patches are one range; in the others, any patches."""


@checked
@dataclass(frozen=True, slots=True)
class MaskingSettings:
    """Settings of the masking.

    Attributes
    ----------
    p_unmasked : float
        Fraction of the batches in which every patch is visible, as published.
    min_visible : float
        Lower limit of the fraction of visible patches in the others; the fraction is uniform from there to 1.
        Of these, `RANGES` are one range of wavelengths, half of them from an end: an arm is missing.
    target_fraction : float
        Fraction of the patches that are targets; 0 where the network is frozen and only the heads learn.
    p_bottleneck : float
        Fraction of the spectra that are reconstructed from the embedding alone; 0 as published.
    """

    p_unmasked: float = 0.4
    min_visible: float = 0.25
    target_fraction: float = 0.34
    p_bottleneck: float = 0.25


class TrainingBatch(NamedTuple):
    """N spectra of one instrument with their targets.

    Attributes
    ----------
    visible : Patches
        The visible patches.
    code : Tensor, shape (N, T, C)
        Wavelength codes of the target patches, visible or not.
    flux, weight : Tensor, shape (N, T, P)
        Flux of the target patches, and the inverse of its error; zero where a pixel is bad.
    class_code : Tensor of int64, shape (N,)
        Index into `CLASSES`, -1 where not known.
    redshift : Tensor, shape (N,)
        ln(1 + z) in bins; NaN where not known or of no meaning.
    stellar : Tensor, shape (N, 3)
        Standardised parameters in the order of `STELLAR`; NaN where not known.
    row : Tensor of int64, shape (N,)
        Index of each among the spectra that the batch was made from.
    """

    visible: Patches
    code: Tensor
    flux: Tensor
    weight: Tensor
    class_code: Tensor
    redshift: Tensor
    stellar: Tensor
    row: Tensor

    def to(self, device: torch.device | str) -> TrainingBatch:
        """Copy to another device."""
        return self._replace(**{name: part.to(device) for name, part in self._asdict().items()})


def make_training_batch(
    spectra: Spectra,
    class_code: np.ndarray,
    labels: dict[str, np.ndarray],
    shape: TokenizerConfig,
    config: MaskingSettings,
    rng: np.random.Generator,
) -> TrainingBatch:
    """Mask labelled spectra of one instrument and choose the targets.

    Parameters
    ----------
    spectra : Spectra
        N spectra. Those without a readable patch are left out.
    class_code, labels
        As in `ojala.models.data.LabelledSpectra`; the redshift ``z`` of stars is no target.
    shape : TokenizerConfig
        Of the network.
    config : MaskingSettings
        Settings.
    rng : Generator
        Source of randomness.
    """
    cuts = [one.kept(one.valid) for one in patchify(spectra, shape.patch, shape.width)]
    rows = np.array([row for row, one in enumerate(cuts) if len(one.flux)])
    share = 1.0 if rng.random() < config.p_unmasked else rng.uniform(config.min_visible, 1.0)
    visible, target = mask([cuts[row] for row in rows], share, config.target_fraction, rng)
    return TrainingBatch(
        gather(visible, max(len(one.flux) for one in visible)),
        *targets(target),
        torch.from_numpy(class_code[rows].astype(np.int64)),
        torch.from_numpy(_redshift_bins(labels["z"][rows], class_code[rows])),
        torch.from_numpy(_stellar(labels, rows)),
        torch.from_numpy(rows.astype(np.int64)),
    )


def mask(
    spectra: Sequence[PatchedSpectrum], visible: float, target: float, rng: np.random.Generator
) -> tuple[list[PatchedSpectrum], list[PatchedSpectrum]]:
    """Choose the visible and the target patches of spectra.

    Parameters
    ----------
    spectra : sequence of PatchedSpectrum
        Spectra that have valid patches only, and at least one.
    visible, target : float
        Fractions of the patches.
    rng : Generator
        Source of randomness.

    Returns
    -------
    visible, target : list of PatchedSpectrum
        In units of the brightness of the visible patches.
    """
    shown, asked = [], []
    for one in spectra:
        n = len(one.flux)
        part = one.kept(_visible(n, visible, rng))
        factor = part.own_brightness()  # the unit must not depend on masked patches either
        wanted = np.sort(rng.permutation(n)[: max(1, round(target * n))])
        shown.append(part.dimmed(factor))
        asked.append(one.kept(wanted).dimmed(factor))
    return shown, asked


def _visible(n: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Indices of the visible ones of n patches: a range without gaps, often from an end, or any."""
    wanted = max(1, round(share * n))
    if rng.random() < RANGES:
        last = n - wanted
        first = rng.choice((0, last)) if rng.random() < 0.5 else rng.integers(0, last + 1)
        return np.arange(first, first + wanted)
    return np.sort(rng.permutation(n)[:wanted])


def targets(asked: Sequence[PatchedSpectrum]) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, flux and weight of the target patches, as in `TrainingBatch`."""
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
