"""Training batches of the tokenizer: spectra with part of their patches masked.

As published, the target is the spectrum at its usable pixels. In addition, see `MaskingSettings`, part of the
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
from ojala.models.spectral_tokenizer.patches import PatchedSpectrum, Patches, collate, patchify

MODEL_ERROR = 0.02
"""Error floor added in quadrature, as a fraction of the flux of a pixel or of the brightness if that is
larger. Without it, spectra with few bright pixels dominate a step."""

RANGES = 0.75
"""Fraction of the masked batches whose visible patches are one range; in the others they are random."""


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
        In `RANGES` of them the visible patches are one range of wavelengths, half of the time from an end, as
        for a missing arm.
    target_fraction : float
        Fraction of the patches that are targets; 0 with a frozen network, to train only the heads.
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
        ln(1 + z) in bins; NaN where not known, and of stars.
    stellar : Tensor, shape (N, 3)
        Standardised parameters in the order of `STELLAR`; NaN where not known.
    row : Tensor of int64, shape (N,)
        Index of each spectrum in the input of `make_training_batch`.
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
        N spectra; those without a readable patch are left out.
    class_code, labels
        As in `ojala.models.data.LabelledSpectra`; the redshift ``z`` of stars is no target.
    shape : TokenizerConfig
        Shape of the network.
    config : MaskingSettings
        Settings.
    rng : Generator
        Source of randomness.
    """
    patched = [one.select(one.valid) for one in patchify(spectra, shape.patch, shape.width)]
    rows = np.array([row for row, one in enumerate(patched) if len(one.flux)])
    fraction = 1.0 if rng.random() < config.p_unmasked else rng.uniform(config.min_visible, 1.0)
    visible, target = mask([patched[row] for row in rows], fraction, config.target_fraction, rng)
    return TrainingBatch(
        collate(visible, max(len(one.flux) for one in visible)),
        *collate_targets(target),
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
        Spectra with valid patches only, at least one each.
    visible, target : float
        Fractions of the patches.
    rng : Generator
        Source of randomness.

    Returns
    -------
    visible, target : list of PatchedSpectrum
        In units of the brightness of the visible patches.
    """
    inputs, targets = [], []
    for one in spectra:
        n = len(one.flux)
        part = one.select(_visible(n, visible, rng))
        factor = part.relative_brightness()  # the unit must not depend on masked patches
        chosen = np.sort(rng.permutation(n)[: max(1, round(target * n))])
        inputs.append(part.rescaled(factor))
        targets.append(one.select(chosen).rescaled(factor))
    return inputs, targets


def _visible(n: int, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Draw the visible ones of n patches: one range, often from an end, or random patches."""
    count = max(1, round(fraction * n))
    if rng.random() < RANGES:
        last = n - count
        first = rng.choice((0, last)) if rng.random() < 0.5 else rng.integers(0, last + 1)
        return np.arange(first, first + count)
    return np.sort(rng.permutation(n)[:count])


def collate_targets(spectra: Sequence[PatchedSpectrum]) -> tuple[Tensor, Tensor, Tensor]:
    """Collate codes, flux and weight of target patches, as in `TrainingBatch`."""
    slots = max(len(one.flux) for one in spectra)
    flux = np.zeros((len(spectra), slots, spectra[0].flux.shape[1]), np.float32)
    weight = np.zeros_like(flux)
    for row, one in enumerate(spectra):
        flux[row, : len(one.flux)] = one.flux
        floor = MODEL_ERROR * np.maximum(np.abs(one.flux), np.float32(1.0))
        weight[row, : len(one.flux)] = 1.0 / np.hypot(one.error, floor)
    return collate(spectra, slots).code, torch.from_numpy(flux), torch.from_numpy(weight)


def _redshift_bins(z: np.ndarray, class_code: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        bins = np.log1p(z) / LOG1PZ_STEP
        known = (class_code != CLASSES.index("STAR")) & (bins >= 0) & (bins < N_REDSHIFT_BINS)
    return np.where(known, bins, np.nan).astype(np.float32)


def _stellar(labels: dict[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    standard = np.stack([q.standardise(labels[q.name][rows]) for q in STELLAR], axis=1)
    return np.asarray(np.clip(standard, -MEAN_LIMIT, MEAN_LIMIT), np.float32)
