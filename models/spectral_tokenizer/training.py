"""Training of the tokenizer and its heads on spectra that are drawn as they are needed.

Each step sees as many spectra of every instrument, in a lesson of its own, since the instruments' spectra
differ in length. Step k reads the draws that the seed and k determine. The state is one safetensors file,
written whole or not at all, and a training that was interrupted goes on from it.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from models.batch import LabelledSpectra
from models.checkpoint import read_tensors, write_tensors
from models.spectral_tokenizer.heads import Heads
from models.spectral_tokenizer.lesson import HEAD_WEIGHTS, LessonConfig, losses, make_lesson
from models.spectral_tokenizer.network import PRESETS, SpectralTokenizer
from models.spectral_tokenizer.weights import load_tokenizer, save_tokenizer

STATE_FILE = "state.safetensors"
METRICS_FILE = "metrics.jsonl"

Draw = Callable[[int, np.random.Generator], LabelledSpectra]
"""Draws so many labelled spectra of one instrument; the generator alone decides which."""


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
    averaging: float = 0.998
    lesson: LessonConfig = field(default_factory=LessonConfig)
    seed: int = 0
    device: str = "cpu"
    checkpoint_minutes: float = 5.0
    frozen: str = ""

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"unknown preset {self.preset!r}; choose one of {', '.join(PRESETS)}")


class _Both(nn.Module):
    """A network and its heads."""

    def __init__(self, network: SpectralTokenizer, heads: Heads) -> None:
        super().__init__()
        self.network, self.heads = network, heads


class _State:
    """What a training carries from step to step."""

    def __init__(self, config: TokenizerTraining) -> None:
        torch.manual_seed(config.seed)
        self.before: dict[str, object] = {}
        if config.frozen:
            model, heads, info = load_tokenizer(Path(config.frozen))
            model.requires_grad_(False)
            self.before = info.training
        else:
            shape = PRESETS[config.preset]
            model, heads = SpectralTokenizer(shape), Heads(shape.width, shape.heads)
        self.both = _Both(model, heads).to(config.device)
        self.average = copy.deepcopy(self.both).requires_grad_(False)
        named = [(name, p) for name, p in self.both.named_parameters() if p.requires_grad]
        inner = [p for name, p in named if p.ndim == 2 and name.split(".")[1] in _BLOCKS]
        chosen = {id(p) for p in inner}
        others = [p for _, p in named if id(p) not in chosen]
        rate = config.learning_rate
        muon = torch.optim.Muon(
            inner, lr=rate, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        adamw = torch.optim.AdamW(others, lr=rate, weight_decay=0.0, betas=(0.9, 0.98), fused=True)
        self.optimizers = (muon, adamw)
        self.step, self.seconds = 0, 0.0

    def save(self, path: Path, config: TokenizerTraining) -> None:
        tensors = {f"both.{name}": tensor for name, tensor in self.both.state_dict().items()}
        tensors |= {f"average.{name}": tensor for name, tensor in self.average.state_dict().items()}
        for which, optimizer in enumerate(self.optimizers):
            for index, moments in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{which}.{index}.{name}": value for name, value in moments.items()}
        progress = {"step": self.step, "seconds": self.seconds, "config": asdict(config)}
        write_tensors(path, tensors, {"progress": json.dumps(progress)})

    def load(self, path: Path, config: TokenizerTraining) -> None:
        tensors, metadata = read_tensors(path)
        progress = json.loads(metadata["progress"])
        if progress["config"] != json.loads(json.dumps(asdict(config))):
            raise ValueError(f"{path} belongs to a training with other settings; use another folder")
        for part, module in (("both", self.both), ("average", self.average)):
            module.load_state_dict(_under(tensors, part))
        for which, optimizer in enumerate(self.optimizers):
            moments: dict[int, dict[str, Tensor]] = {}
            for name, tensor in _under(tensors, f"optimizer.{which}").items():
                index, _, moment = name.partition(".")
                moments.setdefault(int(index), {})[moment] = tensor
            optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
        self.step, self.seconds = progress["step"], progress["seconds"]


_BLOCKS = ("encoder", "decoder", "blocks")


def _under(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    begin = f"{part}."
    return {name.removeprefix(begin): tensor for name, tensor in tensors.items() if name.startswith(begin)}


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
    ValueError
        The folder holds a training with other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = _State(config)
    if (folder / STATE_FILE).exists():
        state.load(folder / STATE_FILE, config)
    weights = folder / f"{config.name}.safetensors"

    def note(record: dict[str, object]) -> None:
        record = {"step": state.step, "seconds": round(state.seconds, 1)} | record
        with open(folder / METRICS_FILE, "a") as file:
            file.write(json.dumps(record) + "\n")
        report(record)

    def save() -> None:
        model, heads = state.average.network, state.average.heads
        checked = check(model, heads)
        note({"held_out": checked})
        state.save(folder / STATE_FILE, config)
        summary = {
            "config": asdict(config) | {"frozen": Path(config.frozen).name},
            "instruments": list(draws),
            "draws": state.step * config.batch_size * len(draws),
            "seconds": round(state.seconds, 1),
            "threads": torch.get_num_threads(),
            "held_out": checked,
            "before": state.before,
        }
        save_tokenizer(weights, model, heads, name=config.name, version=config.version, training=summary)

    started, saved = time.monotonic() - state.seconds, time.monotonic()
    while state.seconds < 60.0 * config.minutes:
        found = _step(state, config, draws)
        state.seconds = time.monotonic() - started
        if state.step % 50 == 0:
            note({"loss": {name: round(value, 4) for name, value in found.items()}})
        if time.monotonic() - saved > 60.0 * config.checkpoint_minutes:
            save()
            saved = time.monotonic()
    save()
    return weights


def _rate(config: TokenizerTraining, state: _State) -> float:
    """Linear rise, then a cosine over time to 1 % of the peak."""
    done = min(state.seconds / (60.0 * config.minutes), 1.0)
    fall = 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * done))
    return config.learning_rate * fall * min(1.0, (state.step + 1) / config.warm_up)


def _step(state: _State, config: TokenizerTraining, draws: Mapping[str, Draw]) -> dict[str, float]:
    """One step of the optimizers; returns the losses, mean over the instruments."""
    rng = np.random.default_rng([config.seed, state.step])
    for optimizer in state.optimizers:
        optimizer.zero_grad()
        for group in optimizer.param_groups:
            group["lr"] = _rate(config, state)
    model, heads = state.both.network, state.both.heads
    total: dict[str, float] = {}
    for draw in draws.values():
        drawn = draw(config.batch_size, rng)
        lesson = make_lesson(
            drawn.spectra, drawn.class_code, drawn.labels, model.config, config.lesson, rng
        ).to(config.device)
        with torch.autocast(torch.device(config.device).type, dtype=torch.bfloat16):
            found = losses(model, heads, lesson, config.lesson)
        loss = sum((HEAD_WEIGHTS.get(name, 1.0) * value for name, value in found.items()), torch.zeros(()))
        if not bool(torch.isfinite(loss)):
            raise FloatingPointError(f"the loss is not finite at step {state.step}: {found}")
        torch.autograd.backward(loss / len(draws))
        for name, value in found.items():
            total[name] = total.get(name, 0.0) + value.item() / len(draws)
    for part in (model, heads):
        known = [p for p in part.parameters() if p.grad is not None]
        if known:
            torch.nn.utils.clip_grad_norm_(known, config.clip)
    muon, adamw = state.optimizers
    muon.step()  # type: ignore[no-untyped-call]  # torch leaves this one untyped
    adamw.step()
    state.step += 1
    memory = min(config.averaging, (1.0 + state.step) / (10.0 + state.step))
    for mean, parameter in zip(state.average.parameters(), state.both.parameters(), strict=True):
        mean.lerp_(parameter.detach(), 1.0 - memory)
    return total
