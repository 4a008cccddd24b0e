"""Training of AVIS on pairs, in two stages, without labels.

In the first stage ("towers") each tower learns to reconstruct what is hidden of its own side, and to put
what it takes into an embedding from which the side can be reconstructed. In the second ("contrastive" or
"variance") the embeddings of the two sides of a pair learn to agree as well, from the weights of the first.
Step k reads the pairs and the changes that the seed and k determine. The state is one safetensors file,
written whole or not at all, and a training that was interrupted goes on from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import nn

from ojala.catalogs_schema.errors import InputError
from ojala.models.avis import losses
from ojala.models.avis.augmentation import AvisLessonConfig, make_avis_lesson
from ojala.models.avis.checkpoint import load_avis, save_avis
from ojala.models.avis.network import PRESETS, Avis
from ojala.models.data import Pairs
from ojala.models.training.trainer import Record, Trainer, carry_through, warmup_cosine

Objective = Literal["towers", "contrastive", "variance"]
"""What is learned: each side alone, or that both agree."""

Draw = Callable[[int, int], Pairs]
"""The pairs of a step, so many of them; their spectra all have one length."""

Check = Callable[[Avis], dict[str, float]]
"""Measures of a network on held-out pairs."""


@dataclass(frozen=True)
class AvisTraining:
    """How to train.

    Attributes
    ----------
    name, version : str
        Of the weights.
    preset : str
        Shape of the network, a key of `PRESETS`.
    objective : {"towers", "contrastive", "variance"}
        What is learned.
    start : str
        Weights to begin with; empty for random ones.
    minutes : float
        Length of the training; the learning rate's schedule follows elapsed time.
    batch_size : int
        Pairs per step.
    learning_rate, weight_decay, clip : float
        Peak rate of Muon (inner matrices of blocks; decoupled decay) and AdamW (everything else); largest
        norm of a gradient.
    warm_up : int
        Steps over which the rate rises; it then falls as a cosine to 1 % of its peak.
    averaging : float
        Memory of the running mean of the weights, which is what is kept.
    joint, spectrum, image : float
        Weights of the joint objective and of the reconstruction of each side.
    again : float
        Weight of the contrast between two looks at a spectrum.
    lesson : AvisLessonConfig
        What is shown and asked.
    seed : int
        Decides initial weights, pairs and changes.
    device : str
        "cpu" or "cuda".
    checkpoint_minutes : float
        Time between saves, each with a check.
    """

    name: str = "avis-base"
    version: str = "0.1"
    preset: str = "base"
    objective: Objective = "towers"
    start: str = ""
    minutes: float = 15.0
    batch_size: int = 128
    learning_rate: float = 4e-3
    weight_decay: float = 0.02
    clip: float = 1.0
    warm_up: int = 40
    ema_decay: float = 0.99
    joint: float = 1.0
    spectrum: float = 1.0
    image: float = 1.0
    again: float = 0.0
    lesson: AvisLessonConfig = field(default_factory=AvisLessonConfig)
    seed: int = 0
    device: str = "cpu"
    checkpoint_minutes: float = 4.0

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise InputError(f"unknown preset {self.preset!r}; choose one of {', '.join(PRESETS)}")
        if self.objective not in get_args(Objective):
            raise InputError(
                f"unknown objective {self.objective!r}; choose one of {', '.join(get_args(Objective))}"
            )


class _Learning(nn.Module):
    """A network and the temperatures of its contrasts: of the sides, and of two looks."""

    def __init__(self, network: Avis) -> None:
        super().__init__()
        self.network = network
        self.log_scale = nn.Parameter(torch.full((2,), math.log(1.0 / 0.07)))


_MUON = (
    *(f"network.{tower}.{part}." for tower in ("spectrum", "image") for part in ("encoder", "decoder")),
    *(f"network.pool_{tower}.blocks." for tower in ("spectrum", "image")),
)


def train_avis(
    config: AvisTraining,
    draw: Draw,
    check: Check,
    folder: Path,
    report: Callable[[dict[str, object]], None] = lambda record: None,
) -> Path:
    """Train, or go on with the training that ``folder`` holds, and write weights.

    Parameters
    ----------
    config : AvisTraining
        How.
    draw : callable
        Gives the pairs of a step: ``draw(step, n)``.
    check : callable
        Measures to note at each save; they go into the weights.
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
    network, before = Avis(PRESETS[config.preset]), dict[str, object]()
    if config.start:
        network, info = load_avis(Path(config.start))
        network.train()
        before = info.training
    fit = Trainer(_Learning(network).to(config.device), _MUON, weight_decay=config.weight_decay)

    def check_average() -> object:
        return check(fit.average.network)

    def write(path: Path, facts: Record) -> None:
        training: Record = {
            "config": asdict(config) | {"start": Path(config.start).name},
            "pairs": fit.step * config.batch_size,
            "before": before,
        }
        name, version = config.name, config.version
        save_avis(path, fit.average.network, name=name, version=version, training=training | facts)

    def steps() -> Iterator[Record]:
        while fit.seconds < 60.0 * config.minutes:
            found = _step(fit, config, draw)
            yield {"loss": {name: round(value, 4) for name, value in found.items()}}

    return carry_through(fit, config, folder, steps(), check_average, write, every=10, report=report)


def _step(fit: Trainer[_Learning], config: AvisTraining, draw: Draw) -> dict[str, float]:
    """One step of the optimizers; returns the losses."""
    rng = np.random.default_rng([config.seed, fit.step])
    network = fit.model.network
    pairs = draw(fit.step, config.batch_size)
    again = config.again > 0.0
    lesson = make_avis_lesson(pairs, network.config.spectrum, config.lesson, rng, again=again)
    with torch.autocast(torch.device(config.device).type, dtype=torch.bfloat16):
        found, seen = losses.look(network, lesson.to(config.device), config.lesson.p_bottleneck)
    loss = config.spectrum * found["spectrum"] + config.image * found["image"]
    if config.objective == "contrastive":
        found["joint"] = losses.contrastive(seen.spectrum, seen.image, fit.model.log_scale[0])
    elif config.objective == "variance":
        found["joint"] = losses.variance(seen.spectrum, seen.image)
    if config.objective != "towers":
        loss = loss + config.joint * found["joint"]
    if again:
        found["again"] = losses.contrastive(seen.spectrum, seen.again, fit.model.log_scale[1])
        loss = loss + config.again * found["again"]
    done = fit.seconds / (60.0 * config.minutes)
    rate = config.learning_rate * warmup_cosine(done, fit.step, config.warm_up)
    apart = (network.spectrum, network.image, network.pool_spectrum, network.pool_image)
    norm = fit.optimizer_step(
        [(loss, found)], rate, clip=config.clip, ema_decay=config.ema_decay, apart=apart
    )
    return {name: value.item() for name, value in found.items()} | {"norm": norm}
