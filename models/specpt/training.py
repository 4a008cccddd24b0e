"""Training of SpecPT on spectra that are drawn as they are needed: reconstruction, then the redshift.

Step k reads the draw that the seed and k determine, so an interrupted training that resumes reads the draws
that it would have read.
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
from ojala.models.specpt.checkpoint import save
from ojala.models.specpt.losses import nmad_loss, point_of, redshift_losses, residual_loss, total
from ojala.models.specpt.network import PRESETS, SpecPT, channels_of, standardise
from ojala.models.specpt.wavelength_grid import Grid, rebin
from ojala.models.training.prefetch import prefetch
from ojala.models.training.settings import TrainingSettings
from ojala.models.training.trainer import Report, Steps, Trainer, ignore

ENDS_LOST, THIRD_LOST = 0.3, 0.05
"""Shares of the training spectra that end up to 14 % of the wavelength early, as other instruments' do, and
that lack a third of the range, as where an arm of the spectrograph failed."""

_MUON = ("encoder.", "decoder.", "heads.softplus.blocks.")

Draw = Callable[[int, np.random.Generator], LabelledSpectra]
"""Draws so many labelled spectra; the generator alone decides which."""


@dataclass(frozen=True)
class SpecPTTraining(TrainingSettings):
    """Settings of a training of SpecPT; those of every training are in `TrainingSettings`.

    Attributes
    ----------
    reconstruction : float
        Fraction of the time in which the loss is that of the reconstruction alone.
    decoded : int
        Spectra of a batch that are reconstructed as well after that.
    """

    name: str = "specpt-base"
    minutes: float = 60.0
    reconstruction: float = 0.12
    decoded: int = 32

    SHAPES: ClassVar = PRESETS


class Batch(NamedTuple):
    """Spectra as the network reads them: flux and ivar (N, P) over the median and its square, z (N,)."""

    flux: Tensor
    ivar: Tensor
    z: Tensor

    @classmethod
    def of(cls, drawn: LabelledSpectra, grid: Grid, losing: np.random.Generator | None = None) -> Batch:
        """From drawn spectra; those without a positive median are left out.

        With a generator, some lose parts of their range; see `ENDS_LOST`.
        """
        flux, ivar = rebin(drawn.spectra, grid)
        if losing is not None:
            ivar[_lost(len(flux), grid.size, losing)] = 0.0
        flux, ivar, median = standardise(np.where(ivar > 0.0, flux, np.float32(0.0)), ivar)
        known = np.isfinite(median)
        arrays = (flux[known], ivar[known], np.asarray(drawn.labels["z"], np.float32)[known])
        return cls(*(torch.from_numpy(array) for array in arrays))

    def to(self, device: str) -> Batch:
        """The same on another device."""
        return Batch(*(tensor.to(device) for tensor in self))


def _lost(n: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Which pixels are taken from the training spectra; bool (N, P)."""
    place = np.arange(size) / size
    ends = (rng.random((n, 2)) * 0.14) * (rng.random((n, 1)) < ENDS_LOST)
    lost = (place < ends[:, :1]) | (place > 1.0 - ends[:, 1:])
    third = rng.integers(0, 3, (n, 1)) / 3.0
    return lost | ((rng.random((n, 1)) < THIRD_LOST) & (place >= third) & (place < third + 1.0 / 3.0))


def losses(model: SpecPT, batch: Batch, *, decoded: int, redshift: bool) -> dict[str, Tensor]:
    """Losses of a batch: of the reconstruction of its first ``decoded`` spectra, and of the redshifts.

    To the published loss of a reconstruction comes one of its residuals over their errors.
    """
    local, tokens = model.encode(channels_of(batch.flux, batch.ivar))
    of_decoded = (
        batch.flux[:decoded],
        batch.ivar[:decoded],
        model.reconstruct(tokens[:decoded], batch.z[:decoded]),
    )
    found = {"nmad": nmad_loss(*of_decoded).mean(), "residual": residual_loss(*of_decoded).mean()}
    if redshift:
        found |= redshift_losses(model.redshift(local, tokens), batch.z)
    return found


@torch.inference_mode()
def evaluate(model: SpecPT, batch: Batch) -> dict[str, float]:
    """Measures on held-out spectra: of the reconstruction and of each head's redshifts."""
    found: dict[str, float] = {}
    answers: dict[str, list[Tensor]] = {}
    nmad, residual = list[Tensor](), list[Tensor]()
    for begin in range(0, len(batch.z), 64):
        part = Batch(*(tensor[begin : begin + 64] for tensor in batch))
        with torch.autocast(part.flux.device.type, dtype=torch.bfloat16):
            local, tokens = model.encode(channels_of(part.flux, part.ivar))
            heads = {name: point_of(answer) for name, answer in model.redshift(local, tokens).items()}
            reconstructed = model.reconstruct(tokens, heads[model.config.redshift[0]])
        nmad.append(nmad_loss(part.flux, part.ivar, reconstructed))
        residual.append(residual_loss(part.flux, part.ivar, reconstructed))
        for name, z in heads.items():
            answers.setdefault(name, []).append(z)
    found["reconstruction nmad"] = float(torch.cat(nmad).mean())
    found["reconstruction residual"] = float(torch.cat(residual).median())
    truth = batch.z.double().cpu().numpy()
    for name, parts in answers.items():
        measured = redshift_metrics(torch.cat(parts).double().cpu().numpy(), truth)
        found |= {f"{name} {measure}": value for measure, value in measured.items()}
    return {name: round(value, 6) for name, value in found.items()}


def batches(draw: Draw, config: SpecPTTraining, first_step: int, grid: Grid) -> Iterator[Batch]:
    """Iterate over the batches from ``first_step`` on, drawn in a background thread."""

    def make(step: int) -> Batch:
        rng = np.random.default_rng([config.seed, step])
        return Batch.of(draw(config.batch_size, rng), grid, losing=rng)

    return prefetch(make, first_step)


def train(
    config: SpecPTTraining,
    draw: Draw,
    checks: Mapping[str, LabelledSpectra],
    folder: Path,
    report: Report = ignore,
) -> Path:
    """Train, or resume the training in ``folder``, and write weights.

    Parameters
    ----------
    config : SpecPTTraining
        Settings.
    draw : Draw
        Source of the training spectra.
    checks : mapping of str to LabelledSpectra
        Held-out spectra to measure at each save, by name; the measures go into the weights.
    folder : Path
        Gets the state, ``metrics.jsonl`` and the weights ``<name>.safetensors``.
    report : callable
        Is given each record of the metrics file as it is written.

    Returns
    -------
    Path
        File of the weights.

    Raises
    ------
    InputError
        The folder holds a training with other settings.
    """
    torch.manual_seed(config.seed)
    trainer = Trainer(SpecPT(PRESETS[config.preset]), config, _MUON)
    held_out = {name: Batch.of(drawn, trainer.model.grid).to(config.device) for name, drawn in checks.items()}

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
        with torch.autocast(torch.device(config.device).type, dtype=torch.bfloat16):
            parts = losses(trainer.model, batch.to(config.device), decoded=decoded, redshift=redshift)
        trainer.optimizer_step([(total(parts), parts)])
        yield {"loss": {name: round(value.item(), 4) for name, value in parts.items()}}
