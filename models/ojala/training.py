"""Training on draws that are made as they are needed.

Step k reads the draw that the seed and k determine, so an interrupted training that resumes sees what it
would have seen. The state is one safetensors file, written whole or not at all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ojala.catalogs_schema.bands import MODEL_BANDS, REFERENCE_BAND
from ojala.models.checkpoint import file_sha256
from ojala.models.data import LabelledPhotometry
from ojala.models.evaluation.metrics import catalogue_metrics
from ojala.models.ojala.checkpoint import WeightsInfo, load_weights, save_weights
from ojala.models.ojala.losses import Targets, losses, mean_discrepancy, targets_of, total_loss
from ojala.models.ojala.network import PRESETS, Ojala
from ojala.models.ojala.predictor import OjalaPredictor
from ojala.models.ojala.tokens import Tokens, tokenise
from ojala.models.training.trainer import Record, Trainer, carry_through, warmup_cosine

FULL_CONTEXT = 0.7
"""Share of the training rows that keep every band they were drawn with."""

_MUON = ("encoder.", "decoder.", "trunk.")
_REFERENCE = [band.name for band in MODEL_BANDS].index(REFERENCE_BAND)
_FIRST_DRAW, _HELD_OUT_DRAW = 2**31, 2**31 + 1


class Sky(Protocol):
    """A source of labelled photometry."""

    def draw(self, n: int, rng: np.random.Generator) -> LabelledPhotometry:
        """Photometry and labels of n objects; the generator alone decides which."""


@dataclass(frozen=True)
class TrainingConfig:
    """How to train.

    Attributes
    ----------
    name, version : str
        Of the weights.
    preset : str
        Shape of the network, a key of `ojala.models.ojala.network.PRESETS`.
    steps : int
        Length of the training and of the learning rate's schedule.
    minutes : float or None
        If given, the schedule follows elapsed time instead and the training ends with it (or after
        ``steps``); such a training resumes, but its numbers depend on the machine's speed.
    batch_size : int
        Objects per step.
    learning_rate, weight_decay, clip : float
        Peak rate of Muon (inner matrices; decoupled decay) and AdamW (everything else); largest norm of a
        gradient. In equal numbers of draws Muon learned markedly faster here than AdamW alone.
    warm_up : int
        Steps over which the rate rises; it then falls as a cosine to 1 % of its peak.
    averaging : float
        Memory of the running mean of the weights, which is what is kept.
    class_weights : tuple of float
        Weights of galaxies, stars and quasars in the class's loss: the shares that the probabilities shall
        assume over the shares of the draws.
    seed : int
        Decides initial weights and draws.
    device : str
        "cpu" or "cuda".
    bf16, compiled : bool
        Mixed precision; torch.compile (a minute at the start, some ten times the rate on a CPU).
    checkpoint_minutes : float
        Time between saves, each with a check on held-out draws.
    held_out : int
        Held-out objects of a check.
    discrepancy : float
        Weight of the mean discrepancy between encodings of draws and of observed photometry without labels,
        as published (0.2); 0 where there is none.
    start : str
        Weights to start from instead of random ones: a file of the same shape, or of one without the chain.
        The card keeps its name and hash.
    note : str
        Said in the model card: what the other settings do not tell.
    """

    name: str = "ojala-base"
    version: str = "0.1"
    preset: str = "base"
    steps: int = 20_000
    minutes: float | None = None
    batch_size: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    clip: float = 1.0
    warm_up: int = 200
    ema_decay: float = 0.998
    class_weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    seed: int = 0
    device: str = "cpu"
    bf16: bool = True
    compiled: bool = True
    checkpoint_minutes: float = 5.0
    held_out: int = 4096
    discrepancy: float = 0.0
    start: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"unknown preset {self.preset!r}; choose one of {', '.join(PRESETS)}")
        if self.steps < 1 or self.batch_size < 1:
            raise ValueError("steps and batch_size must be at least 1")


def config_from(settings: dict[str, Any]) -> TrainingConfig:
    """Settings as read from JSON or TOML -> configuration.

    Raises
    ------
    ValueError
        If a setting is unknown.
    """
    if unknown := set(settings) - {field.name for field in fields(TrainingConfig)}:
        raise ValueError(f"unknown training settings: {', '.join(sorted(unknown))}")
    if "class_weights" in settings:
        galaxy, star, qso = settings["class_weights"]
        settings = settings | {"class_weights": (galaxy, star, qso)}
    return TrainingConfig(**settings)


def _start(config: TrainingConfig, first: Tokens) -> Trainer[Ojala]:
    """Fresh weights with the input standardisation of the first draws, or those to start from."""
    torch.manual_seed(config.seed)
    model = Ojala(PRESETS[config.preset])
    if config.start:
        load_compatible(model, load_weights(Path(config.start))[0])
    else:
        model.tokens.fit(first)
    return Trainer(model.to(config.device), _MUON, weight_decay=config.weight_decay)


def load_compatible(model: Ojala, other: Ojala) -> None:
    """Give a network the weights of another one; what the other does not have stays as it is.

    Raises
    ------
    ValueError
        If a tensor of the other network has no place, or another shape.
    """
    own, given = model.state_dict(), other.state_dict()
    misfits = [name for name, tensor in given.items() if name not in own or own[name].shape != tensor.shape]
    if misfits:
        raise ValueError(f"cannot start from weights of another shape: {', '.join(misfits[:5])}")
    model.load_state_dict(own | given)


def drop_bands(photometry: LabelledPhotometry, rng: np.random.Generator) -> LabelledPhotometry:
    """Take bands away, so that any subset becomes a familiar context.

    `FULL_CONTEXT` of the rows stay as drawn, since that is what a survey gives (a mock sky already leaves
    bands out as a survey does); each of the rest keeps a random subset whose share is uniform in 0..1, with
    at least 5 slots, as published.
    """
    n, n_bands = photometry.flux.shape
    rank = rng.random((n, n_bands)).argsort(axis=1).argsort(axis=1)
    kept = rank < np.maximum(5.0, rng.random((n, 1)) * n_bands)
    kept |= rng.random((n, 1)) < FULL_CONTEXT
    return replace(photometry, flux=np.where(kept, photometry.flux, np.float32(np.nan)))


def learning_rate(config: TrainingConfig, step: int, seconds: float) -> float:
    """Rate at a step: linear rise, then a cosine over steps (or time) to 1 % of the peak."""
    done = step / config.steps
    if config.minutes is not None:
        done = max(done, seconds / (60.0 * config.minutes))
    return config.learning_rate * warmup_cosine(done, step, config.warm_up)


class Batch(NamedTuple):
    """What one step reads.

    Attributes
    ----------
    tokens : Tokens
        Photometry of the draws.
    targets : Targets
        Their labels.
    observed : Tokens or None
        Observed photometry without labels, a fifth as many.
    """

    tokens: Tokens
    targets: Targets
    observed: Tokens | None

    def to(self, device: str) -> Batch:
        """The same batch on another device."""
        observed = None if self.observed is None else self.observed.to(device)
        return Batch(self.tokens.to(device), self.targets.to(device), observed)


def batches(sky: Sky, config: TrainingConfig, first_step: int, unlabelled: Sky | None) -> Iterator[Batch]:
    """Batch after batch from ``first_step`` on, drawn in a background thread a few steps ahead."""

    def make(step: int) -> Batch:
        rng = np.random.default_rng([config.seed, step])
        drawn = sky.draw(config.batch_size, rng)
        seen = drop_bands(drawn, rng)
        observed = None
        if unlabelled is not None:
            real = unlabelled.draw(max(config.batch_size // 5, 2), rng)
            observed = tokenise(real.flux, real.error, real.ebv)
        return Batch(tokenise(seen.flux, seen.error, seen.ebv), targets_of(drawn), observed)

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="draw") as pool:
        ahead = deque(
            pool.submit(make, step) for step in range(first_step, min(first_step + 4, config.steps))
        )
        for step in range(first_step, config.steps):
            batch = ahead.popleft().result()
            if step + 4 < config.steps:
                ahead.append(pool.submit(make, step + 4))
            yield batch


def train(
    config: TrainingConfig,
    sky: Sky,
    held_out: Sky,
    folder: Path,
    report: Callable[[dict[str, object]], None] = lambda record: None,
    unlabelled: Sky | None = None,
) -> Path:
    """Train, or go on with the training that ``folder`` holds, and write weights.

    Parameters
    ----------
    config : TrainingConfig
        How.
    sky, held_out : Sky
        Draws to learn from; draws of other source objects to check with.
    folder : Path
        Gets the state, ``metrics.jsonl`` and the weights ``<name>.safetensors``, renewed at every check.
    report : callable
        Is given each record of the metrics file as it is written.
    unlabelled : Sky, optional
        Observed photometry for ``config.discrepancy``; its labels are not looked at.

    Returns
    -------
    Path
        Of the weights.

    Raises
    ------
    ValueError
        There is a weight for a discrepancy and nothing observed, or the reverse; the folder holds a training
        with other settings; the weights to start from have another shape.
    """
    if (config.discrepancy > 0) != (unlabelled is not None):
        raise ValueError("a discrepancy needs observed photometry without labels, and that needs its weight")
    first = sky.draw(4096, np.random.default_rng([config.seed, _FIRST_DRAW]))
    fit = _start(config, tokenise(first.flux, first.error, first.ebv))
    drawn = held_out.draw(config.held_out, np.random.default_rng([config.seed, _HELD_OUT_DRAW]))
    origin = f"{Path(config.start).name} (SHA-256 {file_sha256(Path(config.start))})" if config.start else ""

    def check() -> dict[str, dict[str, float]]:
        return evaluate(fit.average, drawn, bf16=config.bf16)

    def write(path: Path, facts: Record) -> None:
        training: Record = {
            "config": asdict(config) | {"start": origin},
            "draws": fit.step * config.batch_size,
        }
        save_weights(path, fit.average, name=config.name, version=config.version, training=training | facts)

    return carry_through(
        fit,
        config,
        folder,
        _steps(fit, config, sky, unlabelled),
        check,
        write,
        every=50,
        report=report,
        # How often a training is saved may change in its course.
        belongs=lambda saved: (
            replace(config_from(saved), checkpoint_minutes=config.checkpoint_minutes) == config
        ),
    )


def evaluate(model: Ojala, photometry: LabelledPhotometry, *, bf16: bool) -> dict[str, dict[str, float]]:
    """Measures of a network's answers on labelled photometry, as the pipeline would get them."""
    device = next(model.parameters()).device.type
    info = WeightsInfo("in training", "", model.config, {}, "")
    precision: Literal["fp32", "bf16"] = "bf16" if bf16 else "fp32"
    predictor = OjalaPredictor(model, info, device=device, precision=precision, batch_size=128)
    answers = predictor.predict(photometry.flux, photometry.error, photometry.ebv)
    with np.errstate(invalid="ignore", divide="ignore"):
        magnitude = 23.9 - 2.5 * np.log10(photometry.flux[:, _REFERENCE])
    return catalogue_metrics(answers, photometry.class_code, photometry.labels, magnitude)


def _losses_of(
    model: Ojala, batch: Batch, class_weights: Tensor, discrepancy: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Total loss, and the loss of each quantity."""
    encoded = model.encode(batch.tokens)
    found = losses(model.answer(encoded, batch.tokens.valid), batch.targets, class_weights)
    total = total_loss(found)
    if batch.observed is not None:
        observed = model.embed(model.encode(batch.observed), batch.observed.valid)
        found["discrepancy"] = mean_discrepancy(model.embed(encoded, batch.tokens.valid), observed)
        total = total + discrepancy * found["discrepancy"]
    return total, found


def _steps(fit: Trainer[Ojala], config: TrainingConfig, sky: Sky, unlabelled: Sky | None) -> Iterator[Record]:
    """Steps of the optimizers until all are taken or the time is over; gives rate, norm and losses."""
    losses_of = torch.compile(_losses_of) if config.compiled else _losses_of
    weights = torch.tensor(config.class_weights, device=config.device)
    for drawn in batches(sky, config, fit.step, unlabelled):
        if config.minutes is not None and fit.seconds > 60.0 * config.minutes:
            return
        rate, batch = learning_rate(config, fit.step, fit.seconds), drawn.to(config.device)
        with torch.autocast(weights.device.type, dtype=torch.bfloat16, enabled=config.bf16):
            total, found = losses_of(fit.model, batch, weights, config.discrepancy)
        norm = fit.optimizer_step([(total, found)], rate, clip=config.clip, ema_decay=config.ema_decay)
        values = {name: round(loss.item(), 4) for name, loss in found.items()}
        yield {"rate": rate, "norm": round(norm, 3), "loss": values}
