"""Training of AVIS on pairs, in two stages, without labels.

In the first stage ("towers") each tower is trained to reconstruct masked patches of its own side, from its
encoding or its embedding. The second ("contrastive" or "variance") starts from the weights of the first and
also aligns the embeddings of the two sides of a pair. Seed and step determine pairs and augmentations, so a
resumed training reads the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from ojala.catalogs_schema.errors import InputError
from ojala.models.avis import losses
from ojala.models.avis.augmentation import (
    AugmentationSettings,
    ShiftedPairs,
    TrainingBatch,
    make_training_batch,
)
from ojala.models.avis.checkpoint import load, save
from ojala.models.avis.network import PRESETS, Avis
from ojala.models.data import Pairs
from ojala.models.serving.precision import fastest_autocast
from ojala.models.spectral_tokenizer.checkpoint import load as load_tokenizer
from ojala.models.spectral_tokenizer.network import TokenizerConfig
from ojala.models.training.prefetch import prefetch
from ojala.models.training.settings import TrainingSettings
from ojala.models.training.trainer import Report, Steps, Trainer, ignore

Objective = Literal["towers", "contrastive", "variance"]
"""Objective of a stage: each side alone, or agreement of both."""

Draw = Callable[[int, int], Pairs]
"""Source of the pairs of a step, ``draw(step, n)``, with spectra of one length."""

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
        Weights of the spectral tokenizer, of the same shape but for the decoder's length, from which the
        tower of spectra starts; empty for those of ``start``.
    frozen : bool
        Whether the encoder of the tower of spectra stays as it is.
    joint, spectrum, image : float
        Weights of the joint objective and of the reconstruction of each side.
    second_view, shift : float
        Weights of the contrast between two views of a spectrum, and of the search for the shift in wavelength
        between them (`ojala.models.avis.losses.shift_loss`), which needs `ShiftedPairs`; 0 for none.
    masking : AugmentationSettings
        Augmentation, and visible and target patches.
    """

    name: str = "avis-base"
    objective: Objective = "towers"
    start: str = ""
    tokenizer: str = ""
    frozen: bool = False
    minutes: float = 15.0
    batch_size: int = 128
    learning_rate: float = 4e-3
    warm_up: int = 40
    ema_decay: float = 0.99
    joint: float = 1.0
    spectrum: float = 1.0
    image: float = 1.0
    second_view: float = 0.0
    shift: float = 0.0
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
    """Network with the temperatures of the contrasts of the sides and of two views, and of their shift."""

    def __init__(self, network: Avis) -> None:
        super().__init__()
        self.network = network
        self.log_scale = nn.Parameter(torch.full((3,), math.log(1.0 / 0.07)))


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
        _copy(start.state_dict(), network)
        before = info.training
    if config.tokenizer:
        _start_from_tokenizer(network, Path(config.tokenizer))
    for part in (network.spectrum.read, network.spectrum.place, network.spectrum.encoder):
        part.requires_grad_(not config.frozen)
    network.spectrum.norm_encoded.requires_grad_(not config.frozen)
    trainer = Trainer(_WithTemperatures(network.train()), config, _MUON)

    def write(path: Path, model: _WithTemperatures, training: dict[str, Any]) -> None:
        names = {"start": Path(config.start).name, "tokenizer": Path(config.tokenizer).name}
        training["config"] |= names
        training |= {"before": before}
        save(path, model.network, name=config.name, version=config.version, training=training)

    def check_network(model: _WithTemperatures) -> dict[str, float]:
        return check(model.network)

    return trainer.run(folder, _steps(trainer, config, draw), check_network, write, every=10, report=report)


def _start_from_tokenizer(network: Avis, weights: Path) -> None:
    """Copy a tokenizer's weights into the tower of spectra, but for blocks of the decoder that it lacks."""
    tokenizer, info = load_tokenizer(weights)
    own = network.config.spectrum
    if replace(info.config, decoder=own.decoder) != own:
        raise InputError(f"{weights} has the shape {info.config}, the tower of spectra {own}")
    _copy(tokenizer.network.state_dict(), network.spectrum)


def _copy(tensors: Mapping[str, Tensor], network: nn.Module) -> None:
    """Copy tensors into a network's of the same names and shapes."""
    own = network.state_dict()
    same = {name: t for name, t in tensors.items() if name in own and t.shape == own[name].shape}
    network.load_state_dict(own | same)


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
        pairs, second_view = draw(step, config.batch_size), max(config.second_view, config.shift) > 0.0
        if config.shift and not isinstance(pairs, ShiftedPairs):
            raise InputError(
                "the objective `shift` needs pairs with shifted spectra: draw or store them again"
            )
        return make_training_batch(pairs, shape, config.masking, rng, second_view=second_view)

    return prefetch(make, first_step)


def _step(
    trainer: Trainer[_WithTemperatures], config: AvisTraining, batch: TrainingBatch
) -> dict[str, float]:
    """Take one step of the optimizers; returns the losses and the norm of the gradient."""
    model = trainer.model
    network = model.network
    batch = batch.to(config.device)
    with fastest_autocast(config.device):
        parts, vectors = losses.compute_losses(network, batch, config.masking.p_bottleneck)
    loss = config.spectrum * parts["spectrum"] + config.image * parts["image"]
    if config.objective == "contrastive":
        parts["joint"] = losses.contrastive(vectors.spectrum, vectors.image, model.log_scale[0])
    elif config.objective == "variance":
        parts["joint"] = losses.variance(vectors.spectrum, vectors.image)
    if config.objective != "towers":
        loss = loss + config.joint * parts["joint"]
    if config.second_view:
        first = losses.shifted(vectors.spectrum, batch.shift)
        parts["second_view"] = losses.contrastive(first, vectors.second_view, model.log_scale[1])
        loss = loss + config.second_view * parts["second_view"]
    if config.shift:
        views = (vectors.spectrum, vectors.second_view)
        parts["shift"] = losses.shift_loss(*views, batch.shift, model.log_scale[2])
        loss = loss + config.shift * parts["shift"]
    towers = (network.spectrum, network.image, network.pool_spectrum, network.pool_image)
    norm = trainer.optimizer_step([(loss, parts)], clip_separately=towers)
    return {name: value.item() for name, value in parts.items()} | {"norm": norm}
