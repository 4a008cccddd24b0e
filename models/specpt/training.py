"""Training of SpecPT on spectra drawn on the fly: reconstruction first, then also the redshift.

Seed and step determine the draws of a step, so a resumed training reads the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ojala.models.data import LabelledSpectra
from ojala.models.evaluation.metrics import redshift_metrics
from ojala.models.serving.precision import fastest_autocast
from ojala.models.specpt.checkpoint import save
from ojala.models.specpt.losses import nmad_loss, point_estimate, redshift_losses, residual_loss, total_loss
from ojala.models.specpt.network import PRESETS, SpecPT, input_channels, standardise
from ojala.models.specpt.wavelength_grid import Grid, rebin
from ojala.models.training.prefetch import prefetch
from ojala.models.training.settings import TrainingSettings
from ojala.models.training.trainer import Report, Steps, Trainer, ignore

P_ENDS, P_THIRD = 0.3, 0.05
"""Fractions of the training spectra that lose up to 14 % of the range at each end, as of other instruments,
and a third of the range, as of a failed arm of the spectrograph."""

_MUON = ("encoder.", "decoder.", "heads.softplus.blocks.")

Draw = Callable[[int, np.random.Generator], LabelledSpectra]
"""Source of labelled spectra, ``draw(n, rng)``, determined by the generator."""


@dataclass(frozen=True)
class SpecPTTraining(TrainingSettings):
    """Settings of a training of SpecPT, beyond those of `TrainingSettings`.

    Attributes
    ----------
    reconstruction : float
        Fraction of the duration with the loss of the reconstruction alone.
    decoded : int
        Spectra of a batch that are reconstructed after that.
    """

    name: str = "specpt-base"
    minutes: float = 60.0
    reconstruction: float = 0.12
    decoded: int = 32

    SHAPES: ClassVar = PRESETS


class Batch(NamedTuple):
    """Standardised spectra: flux and ivar (N, P) in units of the median, and z (N,)."""

    flux: Tensor
    ivar: Tensor
    z: Tensor

    @classmethod
    def from_spectra(
        cls, drawn: LabelledSpectra, grid: Grid, masking: np.random.Generator | None = None
    ) -> Batch:
        """Standardise drawn spectra and leave out those without a positive median.

        With a generator, parts of their range are masked; see `P_ENDS`.
        """
        flux, ivar = rebin(drawn.spectra, grid)
        if masking is not None:
            ivar[_masked_pixels(len(flux), grid.size, masking)] = 0.0
        flux, ivar, median = standardise(np.where(ivar > 0.0, flux, np.float32(0.0)), ivar)
        known = np.isfinite(median)
        arrays = (flux[known], ivar[known], np.asarray(drawn.labels["z"], np.float32)[known])
        return cls(*(torch.from_numpy(array) for array in arrays))

    def to(self, device: str) -> Batch:
        """Copy to another device."""
        return Batch(*(tensor.to(device) for tensor in self))


def _masked_pixels(n: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the masked pixels of training spectra; bool (N, P)."""
    position = np.arange(size) / size
    ends = (rng.random((n, 2)) * 0.14) * (rng.random((n, 1)) < P_ENDS)
    masked = (position < ends[:, :1]) | (position > 1.0 - ends[:, 1:])
    third = rng.integers(0, 3, (n, 1)) / 3.0
    return masked | ((rng.random((n, 1)) < P_THIRD) & (position >= third) & (position < third + 1.0 / 3.0))


def losses(model: SpecPT, batch: Batch, *, decoded: int, redshift: bool) -> dict[str, Tensor]:
    """Compute the losses of the reconstruction of the first ``decoded`` spectra, and of the redshifts.

    The reconstruction has the published loss and one of the residuals over their errors.
    """
    local, tokens = model.encode(input_channels(batch.flux, batch.ivar))
    reconstruction = (
        batch.flux[:decoded],
        batch.ivar[:decoded],
        model.reconstruct(tokens[:decoded], batch.z[:decoded]),
    )
    parts = {"nmad": nmad_loss(*reconstruction).mean(), "residual": residual_loss(*reconstruction).mean()}
    if redshift:
        parts |= redshift_losses(model.redshift(local, tokens), batch.z)
    return parts


@torch.inference_mode()
def evaluate(model: SpecPT, batch: Batch) -> dict[str, float]:
    """Measure the reconstruction and the redshifts of each head on held-out spectra."""
    measures: dict[str, float] = {}
    redshifts: dict[str, list[Tensor]] = {}
    nmad, residual = list[Tensor](), list[Tensor]()
    for begin in range(0, len(batch.z), 64):
        part = Batch(*(tensor[begin : begin + 64] for tensor in batch))
        with fastest_autocast(part.flux.device.type):
            local, tokens = model.encode(input_channels(part.flux, part.ivar))
            heads = {name: point_estimate(output) for name, output in model.redshift(local, tokens).items()}
            reconstructed = model.reconstruct(tokens, heads[model.config.redshift[0]])
        nmad.append(nmad_loss(part.flux, part.ivar, reconstructed))
        residual.append(residual_loss(part.flux, part.ivar, reconstructed))
        for name, z in heads.items():
            redshifts.setdefault(name, []).append(z)
    measures["reconstruction nmad"] = float(torch.cat(nmad).mean())
    measures["reconstruction residual"] = float(torch.cat(residual).median())
    truth = batch.z.double().cpu().numpy()
    for name, parts in redshifts.items():
        metrics = redshift_metrics(torch.cat(parts).double().cpu().numpy(), truth)
        measures |= {f"{name} {measure}": value for measure, value in metrics.items()}
    return {name: round(value, 6) for name, value in measures.items()}


def batches(draw: Draw, config: SpecPTTraining, first_step: int, grid: Grid) -> Iterator[Batch]:
    """Iterate over the batches from ``first_step`` on, drawn in a background thread."""

    def make(step: int) -> Batch:
        rng = np.random.default_rng([config.seed, step])
        return Batch.from_spectra(draw(config.batch_size, rng), grid, masking=rng)

    return prefetch(make, first_step)


def train(
    config: SpecPTTraining,
    draw: Draw,
    checks: Mapping[str, LabelledSpectra],
    folder: Path,
    report: Report = ignore,
) -> Path:
    """Train, or resume a training, and write weights; see `Trainer.run` for files, result and errors.

    Parameters
    ----------
    config : SpecPTTraining
        Settings.
    draw : Draw
        Source of the training spectra.
    checks : mapping of str to LabelledSpectra
        Held-out spectra by name, for the measures at each save.
    folder, report
        As in `Trainer.run`.
    """
    torch.manual_seed(config.seed)
    trainer = Trainer(SpecPT(PRESETS[config.preset]), config, _MUON)
    held_out = {
        name: Batch.from_spectra(drawn, trainer.model.grid).to(config.device)
        for name, drawn in checks.items()
    }

    def check(model: SpecPT) -> dict[str, dict[str, float]]:
        return {name: evaluate(model, batch) for name, batch in held_out.items()}

    def write(path: Path, model: SpecPT, training: dict[str, Any]) -> None:
        save(path, model, name=config.name, version=config.version, training=training)

    return trainer.run(folder, _steps(trainer, config, draw), check, write, report=report)


def _steps(trainer: Trainer[SpecPT], config: SpecPTTraining, draw: Draw) -> Steps:
    """Take steps of the optimizers; yields the losses."""
    for batch in batches(draw, config, trainer.step, trainer.model.grid):
        redshift = trainer.progress >= config.reconstruction
        decoded = config.decoded if redshift else config.batch_size
        with fastest_autocast(config.device):
            parts = losses(trainer.model, batch.to(config.device), decoded=decoded, redshift=redshift)
        trainer.optimizer_step([(total_loss(parts), parts)])
        yield {"loss": {name: round(value.item(), 4) for name, value in parts.items()}}
