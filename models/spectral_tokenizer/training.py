"""Training of the tokenizer and its heads on spectra that are drawn as they are needed.

Each step sees as many spectra of every instrument, in a lesson of its own, since the instruments' spectra
differ in length; or, where embeddings are contrasted, the same objects through two instruments. Step k reads
the draws that the seed and k determine. The state is one safetensors file, written whole or not at all, and a
training that was interrupted goes on from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ojala.catalogs_schema.errors import InputError
from ojala.models.data import LabelledSpectra
from ojala.models.spectral_tokenizer.checkpoint import load_tokenizer, save_tokenizer
from ojala.models.spectral_tokenizer.heads import Heads
from ojala.models.spectral_tokenizer.network import PRESETS, SpectralTokenizer
from ojala.models.spectral_tokenizer.objective import (
    HEAD_WEIGHTS,
    LessonConfig,
    TrainingBatch,
    contrast,
    losses,
    make_training_batch,
)
from ojala.models.training.trainer import Record, Trainer, carry_through, warmup_cosine

Draw = Callable[[int, np.random.Generator, np.random.Generator], LabelledSpectra]
"""Draws so many labelled spectra of one instrument; the first generator alone decides of which objects."""


class Check(Protocol):
    """Measures of a network and its heads on held-out spectra."""

    def __call__(self, model: SpectralTokenizer, heads: Heads) -> dict[str, float]:
        """Name of each measure and its value."""


@dataclass(frozen=True)
class TokenizerTraining:
    """How to train.

    Attributes
    ----------
    name, version : str
        Of the weights.
    preset : str
        Shape of the network, a key of `PRESETS`.
    minutes : float
        Length of the training; the learning rate's schedule follows elapsed time.
    batch_size : int
        Spectra of each instrument per step.
    learning_rate, weight_decay, clip : float
        Peak rate of Muon (inner matrices of blocks; decoupled decay) and AdamW (everything else); largest
        norm of a gradient.
    warm_up : int
        Steps over which the rate rises; it then falls as a cosine to 1 % of its peak.
    averaging : float
        Memory of the running mean of the weights, which is what is kept.
    lesson : LessonConfig
        What is shown and asked.
    seed : int
        Decides initial weights and draws.
    device : str
        "cpu" or "cuda".
    checkpoint_minutes : float
        Time between saves, each with a check.
    contrast : float
        Weight of the contrast between two instruments' embeddings of the same objects; 0 for none.
    begin : str
        Weights from which network and heads go on; empty to begin with fresh ones.
    frozen : str
        Weights whose network is kept as it is, while their heads go on learning; empty to train both.
    """

    name: str = "spectral-tokenizer-base"
    version: str = "0.1"
    preset: str = "base"
    minutes: float = 40.0
    batch_size: int = 16
    learning_rate: float = 4e-3
    weight_decay: float = 0.02
    clip: float = 1.0
    warm_up: int = 100
    ema_decay: float = 0.998
    lesson: LessonConfig = field(default_factory=LessonConfig)
    seed: int = 0
    device: str = "cpu"
    checkpoint_minutes: float = 5.0
    contrast: float = 0.0
    begin: str = ""
    frozen: str = ""

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise InputError(f"unknown preset {self.preset!r}; choose one of {', '.join(PRESETS)}")
        if self.frozen and (self.begin or self.contrast):
            raise InputError("a network that is frozen neither begins elsewhere nor is contrasted")

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> TokenizerTraining:
        """Settings as read from TOML, the lesson a table -> configuration.

        Raises
        ------
        InputError
            A setting is unknown or wrong.
        """
        lesson = settings.get("lesson", {})
        known = {field.name for field in (*fields(cls), *fields(LessonConfig))}
        if unknown := {*settings, *lesson} - known:
            raise InputError(f"unknown training settings: {', '.join(sorted(unknown))}")
        return cls(**{**settings, "lesson": LessonConfig(**lesson)})


class _Both(nn.Module):
    """A network and its heads."""

    def __init__(self, network: SpectralTokenizer, heads: Heads) -> None:
        super().__init__()
        self.network, self.heads = network, heads


_MUON = tuple(
    f"{part}.{inner}." for part in ("network", "heads") for inner in ("encoder", "decoder", "blocks")
)


def _start(config: TokenizerTraining) -> tuple[Trainer[_Both], dict[str, object]]:
    """Fresh weights, or those of a frozen network; and the training that the latter had."""
    torch.manual_seed(config.seed)
    before: dict[str, object] = {}
    if config.frozen or config.begin:
        model, heads, info = load_tokenizer(Path(config.frozen or config.begin))
        model.requires_grad_(not config.frozen)
        before = info.training
    else:
        shape = PRESETS[config.preset]
        model, heads = SpectralTokenizer(shape), Heads(shape.width, shape.heads)
    return Trainer(_Both(model, heads).to(config.device), _MUON, weight_decay=config.weight_decay), before


def train_tokenizer(
    config: TokenizerTraining,
    draws: Mapping[str, Draw],
    check: Check,
    folder: Path,
    report: Callable[[dict[str, object]], None] = lambda record: None,
) -> Path:
    """Train, or go on with the training that ``folder`` holds, and write weights.

    Parameters
    ----------
    config : TokenizerTraining
        How.
    draws : mapping of str to Draw
        By instrument.
    check : Check
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
    fit, before = _start(config)

    def check_average() -> object:
        return check(fit.average.network, fit.average.heads)

    def write(path: Path, facts: Record) -> None:
        model, heads = fit.average.network, fit.average.heads
        training: Record = {
            "config": asdict(config) | {"frozen": Path(config.frozen).name, "begin": Path(config.begin).name},
            "instruments": list(draws),
            "draws": fit.step * config.batch_size * (2 if config.contrast else len(draws)),
            "before": before,
        }
        name, version = config.name, config.version
        save_tokenizer(path, model, heads, name=name, version=version, training=training | facts)

    def steps() -> Iterator[Record]:
        while fit.seconds < 60.0 * config.minutes:
            found = _step(fit, config, draws)
            yield {"loss": {name: round(value, 4) for name, value in found.items()}}

    return carry_through(fit, config, folder, steps(), check_average, write, every=50, report=report)


def _step(fit: Trainer[_Both], config: TokenizerTraining, draws: Mapping[str, Draw]) -> dict[str, float]:
    """One step of the optimizers; returns the losses, mean over the instruments."""
    rng = np.random.default_rng([config.seed, fit.step])
    model, heads = fit.model.network, fit.model.heads
    total: dict[str, float] = {}

    def lesson_through(name: str, objects: np.random.Generator) -> TrainingBatch:
        drawn = draws[name](config.batch_size, objects, rng)
        return make_training_batch(
            drawn.spectra, drawn.class_code, drawn.labels, model.config, config.lesson, rng
        ).to(config.device)

    def learn(lesson: TrainingBatch) -> tuple[dict[str, Tensor], Tensor]:
        with torch.autocast(torch.device(config.device).type, dtype=torch.bfloat16):
            return losses(model, heads, lesson, config.lesson)

    def weighed(found: dict[str, Tensor], parts: int) -> Tensor:
        for name, value in found.items():
            total[name] = total.get(name, 0.0) + value.item() / parts
        weighted = (HEAD_WEIGHTS.get(name, 1.0) * value for name, value in found.items())
        return sum(weighted, torch.zeros((), device=config.device)) / parts

    def each_by_itself() -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        for name in draws:
            found, _ = learn(lesson_through(name, rng))
            yield weighed(found, len(draws)), found

    def through_two() -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        lessons = [
            lesson_through(name, np.random.default_rng([config.seed, fit.step, 1]))
            for name in rng.choice(list(draws), 2, replace=False).tolist()
        ]
        (first, one), (second, other) = (learn(lesson) for lesson in lessons)
        ours, theirs = (lesson.row for lesson in lessons)  # either may lack what could not be read
        apart = contrast(one[torch.isin(ours, theirs)], other[torch.isin(theirs, ours)])
        total["contrast"] = apart.item()
        loss = weighed(first, 2) + weighed(second, 2) + config.contrast * apart
        yield loss, first | {"contrast": apart}

    done = fit.seconds / (60.0 * config.minutes)
    rate = config.learning_rate * warmup_cosine(done, fit.step, config.warm_up)
    terms = through_two() if config.contrast else each_by_itself()
    fit.optimizer_step(terms, rate, clip=config.clip, ema_decay=config.ema_decay, apart=(model, heads))
    return total
