"""Training of AVIS on pairs, in two stages, without labels.

In the first stage ("towers") each tower is trained to reconstruct masked patches of its own side, from its
encoding or its embedding. The second ("contrastive" or "variance") starts from the weights of the first and
also aligns the embeddings of the two sides of a pair. Seed and step determine pairs and augmentations, so a
resumed training reads the same ones.

The side of spectra can be locked (Zhai et al. 2022, arXiv:2111.07991): its tower is a trained tokenizer and
stays as it is, and the side of images learns its embedding (`ojala.models.avis.locking`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from torch import nn

from ojala.catalogs_schema.errors import InputError
from ojala.models.avis import losses
from ojala.models.avis.augmentation import AugmentationSettings, TrainingBatch, make_training_batch
from ojala.models.avis.checkpoint import load, save
from ojala.models.avis.locking import copy_tensors, lock_spectra
from ojala.models.avis.network import PRESETS, Avis
from ojala.models.data import Pairs
from ojala.models.serving.precision import fastest_autocast
from ojala.models.spectral_tokenizer.network import TokenizerConfig
from ojala.models.training.prefetch import prefetch
from ojala.models.training.settings import TrainingSettings
from ojala.models.training.trainer import STATE_FILE, Report, Steps, Trainer, ignore

Objective = Literal["towers", "contrastive", "variance"]
"""Objective of a stage: each side alone, or agreement of both."""

Draw = Callable[[int, int], Pairs]
"""Source of the pairs of a step, ``draw(step, n)``, with spectra of one length."""

FITTED, FITTED_FROM = 4096, 10**9
"""Pairs that the projections of a locked side are fitted on, and the first of their steps."""

Check = Callable[[Avis], dict[str, float]]
"""Measures of a network on held-out pairs."""


@dataclass(frozen=True)
class AvisTraining(TrainingSettings):
    """Settings of a training of AVIS, beyond those of `TrainingSettings`.

    Attributes
    ----------
    objective : {"towers", "contrastive", "variance"}
        Objective of the stage.
    start : str
        Weights to start from, but for parts of another shape; empty for random ones.
    tokenizer : str
        Weights of the spectral tokenizer whose embedding is the embedding of spectra, which is then locked;
        empty to train that side, too.
    joint, spectrum, image : float
        Weights of the joint objective and of the reconstruction of each side.
    second_view : float
        Weight of the contrast between two views of a spectrum; 0 for none.
    masking : AugmentationSettings
        Augmentation, and visible and target patches.
    """

    name: str = "avis-base"
    objective: Objective = "towers"
    start: str = ""
    tokenizer: str = ""
    minutes: float = 15.0
    batch_size: int = 128
    learning_rate: float = 4e-3
    warm_up: int = 40
    ema_decay: float = 0.99
    joint: float = 1.0
    spectrum: float = 1.0
    image: float = 1.0
    second_view: float = 0.0
    masking: AugmentationSettings = field(default_factory=AugmentationSettings)
    checkpoint_minutes: float = 4.0

    SHAPES: ClassVar = PRESETS

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective not in get_args(Objective):
            raise InputError(
                f"unknown objective {self.objective!r}; choose one of {', '.join(get_args(Objective))}"
            )


class _WithTemperatures(nn.Module):
    """Network with the temperatures of the two contrasts, of the sides and of two views of a spectrum."""

    def __init__(self, network: Avis) -> None:
        super().__init__()
        self.network = network
        self.log_scale = nn.Parameter(torch.full((2,), math.log(1.0 / 0.07)))


_MUON = (
    *(f"network.{tower}.{part}." for tower in ("spectrum", "image") for part in ("encoder", "decoder")),
    *(f"network.pool_{tower}.blocks." for tower in ("spectrum", "image")),
)


def train(config: AvisTraining, draw: Draw, check: Check, folder: Path, report: Report = ignore) -> Path:
    """Train, or resume a training, and write weights; see `Trainer.run` for files, result and errors.

    Parameters
    ----------
    config : AvisTraining
        Settings.
    draw : callable
        Source of the pairs.
    check, folder, report
        As in `Trainer.run`; ``check`` receives the network without temperatures.
    """
    torch.manual_seed(config.seed)
    network, before = Avis(PRESETS[config.preset]), dict[str, Any]()
    if config.start:
        start, info = load(config.start)
        copy_tensors(start.state_dict(), network)
        before = info.training
    if config.tokenizer:
        resumed = (folder / STATE_FILE).exists()
        lock_spectra(network, Path(config.tokenizer), () if resumed else _fitted_on(draw, config))
    trainer = Trainer(_WithTemperatures(network.train()), config, _MUON)

    def write(path: Path, model: _WithTemperatures, training: dict[str, Any]) -> None:
        training["config"] |= {name: Path(getattr(config, name)).name for name in ("start", "tokenizer")}
        training |= {"before": before}
        save(path, model.network, name=config.name, version=config.version, training=training)

    def check_network(model: _WithTemperatures) -> dict[str, float]:
        return check(model.network)

    return trainer.run(folder, _steps(trainer, config, draw), check_network, write, every=10, report=report)


def _fitted_on(draw: Draw, config: AvisTraining) -> Iterator[Pairs]:
    """Pairs that the projections of a locked side are fitted on."""
    return (draw(FITTED_FROM + k, config.batch_size) for k in range(-(-FITTED // config.batch_size)))


def _steps(trainer: Trainer[_WithTemperatures], config: AvisTraining, draw: Draw) -> Steps:
    """Take steps of the optimizers; yields the losses."""
    for batch in batches(draw, config, trainer.model.network.config.spectrum, trainer.step):
        parts = _step(trainer, config, batch)
        yield {"loss": {name: round(value, 4) for name, value in parts.items()}}


def batches(
    draw: Draw, config: AvisTraining, shape: TokenizerConfig, first_step: int
) -> Iterator[TrainingBatch]:
    """Iterate over the batches from ``first_step`` on, drawn in a background thread."""

    def make(step: int) -> TrainingBatch:
        rng = np.random.default_rng([config.seed, step])
        pairs, second_view = draw(step, config.batch_size), config.second_view > 0.0
        return make_training_batch(pairs, shape, config.masking, rng, second_view=second_view)

    return prefetch(make, first_step)


def _step(
    trainer: Trainer[_WithTemperatures], config: AvisTraining, batch: TrainingBatch
) -> dict[str, float]:
    """Take one step of the optimizers; returns the losses and the norm of the gradient."""
    model = trainer.model
    network = model.network
    with fastest_autocast(config.device):
        parts, vectors = losses.compute_losses(network, batch.to(config.device), config.masking.p_bottleneck)
    loss = config.image * parts["image"]
    if "spectrum" in parts:
        loss = loss + config.spectrum * parts["spectrum"]
    if config.objective == "contrastive":
        parts["joint"] = losses.contrastive(vectors.spectrum, vectors.image, model.log_scale[0])
    elif config.objective == "variance":
        parts["joint"] = losses.variance(vectors.spectrum, vectors.image)
    if config.objective != "towers":
        loss = loss + config.joint * parts["joint"]
    if config.second_view:
        parts["second_view"] = losses.contrastive(vectors.spectrum, vectors.second_view, model.log_scale[1])
        loss = loss + config.second_view * parts["second_view"]
    towers = (network.spectrum, network.image, network.pool_spectrum, network.pool_image)
    norm = trainer.optimizer_step([(loss, parts)], clip_separately=towers)
    return {name: value.item() for name, value in parts.items()} | {"norm": norm}
