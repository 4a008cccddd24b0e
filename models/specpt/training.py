"""Training of SpecPT on spectra that are drawn as they are needed: reconstruction, then the redshift.

Step k reads the draw that the seed and k determine. The state is one safetensors file, written whole or not
at all, and a training that was interrupted goes on from it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ojala.catalogs_schema.errors import InputError
from ojala.models.data import LabelledSpectra
from ojala.models.evaluation.metrics import redshift_metrics
from ojala.models.specpt.checkpoint import save_specpt
from ojala.models.specpt.losses import nmad_loss, point_of, redshift_losses, residual_loss, total
from ojala.models.specpt.network import PRESETS, SpecPT, channels_of, standardise
from ojala.models.specpt.wavelength_grid import Grid, rebin
from ojala.models.training.trainer import Record, Trainer, carry_through, warmup_cosine

ENDS_LOST, THIRD_LOST = 0.3, 0.05
"""Shares of the training spectra that end up to 14 % of the wavelength early, as other instruments' do, and
that lack a third of the range, as where an arm of the spectrograph failed."""

_MUON = ("encoder.", "decoder.", "heads.softplus.blocks.")

Draw = Callable[[int, np.random.Generator], LabelledSpectra]
"""Draws so many labelled spectra; the generator alone decides which."""


@dataclass(frozen=True)
class SpecPTTraining:
    """How to train.

    Attributes
    ----------
    name, version : str
        Of the weights.
    preset : str
        Shape of the network, a key of `ojala.models.specpt.network.PRESETS`.
    minutes : float
        Length of the training; the learning rate's schedule follows elapsed time.
    reconstruction : float
        Share of it in which only the reconstruction is learnt.
    batch_size : int
        Spectra per step.
    decoded : int
        Spectra of a batch that are reconstructed as well while the redshift is learnt.
    learning_rate, weight_decay, clip : float
        Peak rate of Muon (inner matrices; decoupled decay) and AdamW (everything else); largest norm of a
        gradient.
    warm_up : int
        Steps over which the rate rises; it then falls as a cosine to 1 % of its peak.
    averaging : float
        Memory of the running mean of the weights, which is what is kept.
    seed : int
        Decides initial weights and draws.
    device : str
        "cpu" or "cuda".
    checkpoint_minutes : float
        Time between saves, each with a check.
    """

    name: str = "specpt-base"
    version: str = "0.1"
    preset: str = "base"
    minutes: float = 60.0
    reconstruction: float = 0.12
    batch_size: int = 64
    decoded: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    clip: float = 1.0
    warm_up: int = 100
    ema_decay: float = 0.998
    seed: int = 0
    device: str = "cpu"
    checkpoint_minutes: float = 5.0

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise InputError(f"unknown preset {self.preset!r}; choose one of {', '.join(PRESETS)}")

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> SpecPTTraining:
        """Settings as read from TOML -> configuration.

        Raises
        ------
        InputError
            A setting is unknown or wrong.
        """
        if unknown := set(settings) - {field.name for field in fields(cls)}:
            raise InputError(f"unknown training settings: {', '.join(sorted(unknown))}")
        return cls(**settings)


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


def _batches(draw: Draw, config: SpecPTTraining, first_step: int, grid: Grid) -> Iterator[Batch]:
    """Batch after batch without end, drawn in a background thread a few steps ahead."""

    def make(step: int) -> Batch:
        rng = np.random.default_rng([config.seed, step])
        return Batch.of(draw(config.batch_size, rng), grid, losing=rng)

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="draw") as pool:
        ahead = deque(pool.submit(make, step) for step in range(first_step, first_step + 3))
        step = first_step + 3
        try:
            while True:
                yield ahead.popleft().result()
                ahead.append(pool.submit(make, step))
                step += 1
        finally:
            for future in ahead:
                future.cancel()


def train_specpt(
    config: SpecPTTraining,
    draw: Draw,
    checks: Mapping[str, LabelledSpectra],
    folder: Path,
    report: Callable[[dict[str, object]], None] = lambda record: None,
) -> Path:
    """Train, or go on with the training that ``folder`` holds, and write weights.

    Parameters
    ----------
    config : SpecPTTraining
        How.
    draw : Draw
        Spectra to learn from.
    checks : mapping of str to LabelledSpectra
        Held-out spectra to measure at each save, by name; the measures go into the weights.
    folder : Path
        Gets the state, ``metrics.jsonl`` and the weights ``<name>.safetensors``.
    report : callable
        Is given each record of the metrics file as it is written.

    Returns
    -------
    Path
        Of the weights.

    Raises
    ------
    InputError
        The folder holds a training with other settings.
    """
    torch.manual_seed(config.seed)
    model = SpecPT(PRESETS[config.preset]).to(config.device)
    fit = Trainer(model, _MUON, weight_decay=config.weight_decay)
    held_out = {name: Batch.of(drawn, model.grid).to(config.device) for name, drawn in checks.items()}

    def check() -> dict[str, dict[str, float]]:
        return {name: evaluate(fit.average, batch) for name, batch in held_out.items()}

    def write(path: Path, facts: Record) -> None:
        training = {"config": asdict(config), "draws": fit.step * config.batch_size} | facts
        save_specpt(path, fit.average, name=config.name, version=config.version, training=training)

    steps = _steps(fit, config, draw)
    return carry_through(fit, config, folder, steps, check, write, every=50, report=report)


def _steps(fit: Trainer[SpecPT], config: SpecPTTraining, draw: Draw) -> Iterator[Record]:
    """Steps of the optimizers until the time is over; gives the losses."""
    for batch in _batches(draw, config, fit.step, fit.model.grid):
        done = fit.seconds / (60.0 * config.minutes)
        if done >= 1.0:
            return
        redshift = done >= config.reconstruction
        decoded = config.decoded if redshift else config.batch_size
        with torch.autocast(torch.device(config.device).type, dtype=torch.bfloat16):
            found = losses(fit.model, batch.to(config.device), decoded=decoded, redshift=redshift)
        rate = config.learning_rate * warmup_cosine(done, fit.step, config.warm_up)
        fit.optimizer_step([(total(found), found)], rate, clip=config.clip, ema_decay=config.ema_decay)
        yield {"loss": {name: round(value.item(), 4) for name, value in found.items()}}
