"""Training of the tokenizer and its heads on spectra drawn on the fly.

A step has equally many spectra of every instrument, in one batch per instrument since lengths differ; with a
contrast of embeddings, the same objects by two instruments. Seed and step determine the draws of a step, so a
resumed training reads the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ojala.catalogs_schema.errors import InputError
from ojala.models.data import LabelledSpectra
from ojala.models.serving.precision import fastest_autocast
from ojala.models.spectral_tokenizer.checkpoint import load, save
from ojala.models.spectral_tokenizer.heads import TokenizerWithHeads
from ojala.models.spectral_tokenizer.losses import HEAD_WEIGHTS, contrast, losses
from ojala.models.spectral_tokenizer.masking import MaskingSettings, TrainingBatch, make_training_batch
from ojala.models.spectral_tokenizer.network import PRESETS, TokenizerConfig
from ojala.models.training.prefetch import prefetch
from ojala.models.training.settings import TrainingSettings
from ojala.models.training.trainer import Report, Steps, Trainer, ignore

Draw = Callable[[int, np.random.Generator, np.random.Generator], LabelledSpectra]
"""Source of labelled spectra of one instrument, ``draw(n, of, rng)``; ``of`` determines the objects."""


Check = Callable[[TokenizerWithHeads], dict[str, float]]
"""Measures of a network and its heads on held-out spectra."""


@dataclass(frozen=True)
class TokenizerTraining(TrainingSettings):
    """Settings of a training of the tokenizer, beyond those of `TrainingSettings`.

    ``batch_size`` is the number of spectra of each instrument per step.

    Attributes
    ----------
    masking : MaskingSettings
        Visible and target patches.
    contrast : float
        Weight of the contrast between two instruments' embeddings of the same objects; 0 for none.
    begin : str
        Weights to start network and heads from; empty for random ones.
    frozen : str
        Weights whose network is frozen while their heads are trained further; empty to train both.
    """

    name: str = "spectral-tokenizer-base"
    minutes: float = 40.0
    batch_size: int = 16
    learning_rate: float = 4e-3
    masking: MaskingSettings = field(default_factory=MaskingSettings)
    contrast: float = 0.0
    begin: str = ""
    frozen: str = ""

    SHAPES: ClassVar = PRESETS

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frozen and (self.begin or self.contrast):
            raise InputError("a frozen network cannot be combined with `begin` or `contrast`")


_MUON = tuple(
    f"{part}.{inner}." for part in ("network", "heads") for inner in ("encoder", "decoder", "blocks")
)


def train(
    config: TokenizerTraining,
    draws: Mapping[str, Draw],
    check: Check,
    folder: Path,
    report: Report = ignore,
) -> Path:
    """Train, or resume a training, and write weights; see `Trainer.run` for files, result and errors.

    Parameters
    ----------
    config : TokenizerTraining
        Settings.
    draws : mapping of str to Draw
        Sources of the training spectra by instrument.
    check, folder, report
        As in `Trainer.run`.
    """
    torch.manual_seed(config.seed)
    before: dict[str, Any] = {}
    if config.frozen or config.begin:
        model, info = load(config.frozen or config.begin)
        model.network.requires_grad_(not config.frozen)
        before = info.training
    else:
        model = TokenizerWithHeads(PRESETS[config.preset])
    trainer = Trainer(model, config, _MUON)

    def write(path: Path, model: TokenizerWithHeads, training: dict[str, Any]) -> None:
        training["config"] |= {"frozen": Path(config.frozen).name, "begin": Path(config.begin).name}
        training["draws"] *= 2 if config.contrast else len(draws)
        training |= {"instruments": list(draws), "before": before}
        save(path, model, name=config.name, version=config.version, training=training)

    return trainer.run(folder, _steps(trainer, config, draws), check, write, report=report)


def _steps(
    trainer: Trainer[TokenizerWithHeads], config: TokenizerTraining, draws: Mapping[str, Draw]
) -> Steps:
    """Take steps of the optimizers; yields the losses."""
    for batches in batches_of_steps(draws, config, trainer.model.config, trainer.step):
        parts = _step(trainer, config, batches)
        yield {"loss": {name: round(value, 4) for name, value in parts.items()}}


def batches_of_steps(
    draws: Mapping[str, Draw], config: TokenizerTraining, shape: TokenizerConfig, first_step: int
) -> Iterator[list[TrainingBatch]]:
    """Iterate over the batches of each step, drawn in a background thread.

    One batch per instrument; with a contrast, two of the same objects by two random instruments.
    """

    def make(step: int) -> list[TrainingBatch]:
        rng = np.random.default_rng([config.seed, step])
        names, made = list(draws), []
        if config.contrast:
            names = rng.choice(names, 2, replace=False).tolist()
        for name in names:
            objects = np.random.default_rng([config.seed, step, 1]) if config.contrast else rng
            drawn = draws[name](config.batch_size, objects, rng)
            labelled = (drawn.spectra, drawn.class_code, drawn.labels)
            made.append(make_training_batch(*labelled, shape, config.masking, rng))
        return made

    return prefetch(make, first_step)


def _step(
    trainer: Trainer[TokenizerWithHeads], config: TokenizerTraining, batches: list[TrainingBatch]
) -> dict[str, float]:
    """Take one step of the optimizers; returns the losses, mean over the instruments."""
    model = trainer.model
    total: dict[str, float] = {}

    def losses_of(batch: TrainingBatch) -> tuple[dict[str, Tensor], Tensor]:
        with fastest_autocast(config.device):
            return losses(model, batch.to(config.device), config.masking)

    def weighted(parts: dict[str, Tensor], count: int) -> Tensor:
        for name, value in parts.items():
            total[name] = total.get(name, 0.0) + value.item() / count
        terms = (HEAD_WEIGHTS.get(name, 1.0) * value for name, value in parts.items())
        return sum(terms, torch.zeros((), device=config.device)) / count

    def of_each_instrument() -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        for batch in batches:
            parts, _ = losses_of(batch)
            yield weighted(parts, len(batches)), parts

    def of_two_instruments() -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        (first, one), (second, other) = (losses_of(batch) for batch in batches)
        rows, other_rows = (batch.row for batch in batches)  # either may lack unreadable spectra
        distance = contrast(one[torch.isin(rows, other_rows)], other[torch.isin(other_rows, rows)])
        total["contrast"] = distance.item()
        loss = weighted(first, 2) + weighted(second, 2) + config.contrast * distance
        yield loss, first | {"contrast": distance}

    terms = of_two_instruments() if config.contrast else of_each_instrument()
    trainer.optimizer_step(terms, clip_separately=(model.network, model.heads))
    return total
