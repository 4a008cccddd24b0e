"""Training on draws that are made as they are needed.

Step k reads the draw that the seed and k determine, so an interrupted training that resumes sees what it
would have seen. The state is one safetensors file, written whole or not at all.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ojala.catalogs_schema.bands import MODEL_BANDS, REFERENCE_BAND
from ojala.catalogs_schema.errors import InputError
from ojala.models.checkpoint import file_sha256
from ojala.models.data import LabelledPhotometry
from ojala.models.evaluation.metrics import catalogue_metrics
from ojala.models.ojala.checkpoint import WeightsInfo, load_weights, save_weights
from ojala.models.ojala.losses import (
    BandTargets,
    Targets,
    band_loss,
    label_counts,
    losses,
    mean_discrepancy,
    targets_of,
    total_loss,
)
from ojala.models.ojala.network import BANDS, PRESETS, Ojala
from ojala.models.ojala.predictor import OjalaPredictor
from ojala.models.ojala.tokens import WAVELENGTH_RANK, Packed, Tokens, compress, pack, tokenise
from ojala.models.training.trainer import Record, Trainer, carry_through, warmup_cosine

FULL_CONTEXT = 0.7
"""Share of the training rows that keep every band they were drawn with."""

HIDDEN_GROUPS = (0.25, 0.25)
"""Shares of the rows from which one band in four, and one in eight, is hidden besides: those that a predictor
hides to ask for them."""

TARGET_BANDS = 6
"""Bands that are asked for of each row."""

PARTS = 4
"""Parts of a batch, from rows with few bands to rows with many, each cut to its longest row."""

SLOTS_MULTIPLE = 4
"""Slots of a part come in multiples of this, so that there are few shapes of parts."""

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
            raise InputError(f"unknown preset {self.preset!r}; choose one of {', '.join(PRESETS)}")
        if self.steps < 1 or self.batch_size < 1:
            raise InputError("steps and batch_size must be at least 1")


def config_from(settings: dict[str, Any]) -> TrainingConfig:
    """Settings as read from JSON or TOML -> configuration.

    Raises
    ------
    InputError
        If a setting is unknown.
    """
    if unknown := set(settings) - {field.name for field in fields(TrainingConfig)}:
        raise InputError(f"unknown training settings: {', '.join(sorted(unknown))}")
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
    InputError
        If a tensor of the other network has no place, or another shape.
    """
    own, given = model.state_dict(), other.state_dict()
    misfits = [name for name, tensor in given.items() if name not in own or own[name].shape != tensor.shape]
    if misfits:
        raise InputError(f"cannot start from weights of another shape: {', '.join(misfits[:5])}")
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


def hide_groups(photometry: LabelledPhotometry, rng: np.random.Generator) -> LabelledPhotometry:
    """Hide one band in four or in eight, in order of wavelength, in `HIDDEN_GROUPS` of the rows."""
    n = len(photometry)
    modulus = rng.choice([4, 8, 1], n, p=[*HIDDEN_GROUPS, 1.0 - sum(HIDDEN_GROUPS)])
    hidden = (WAVELENGTH_RANK + rng.integers(0, 8, (n, 1))) % modulus[:, None] == 0
    hidden &= (modulus > 1)[:, None]
    return replace(photometry, flux=np.where(hidden, np.float32(np.nan), photometry.flux))


def ask_hidden(
    drawn: LabelledPhotometry, tokens: Tokens, rng: np.random.Generator, count: int = TARGET_BANDS
) -> BandTargets | None:
    """Ask for bands that the tokens do not hold, drawn at random from those whose flux is known.

    Parameters
    ----------
    drawn : LabelledPhotometry
        The objects; None is returned where nothing is known of their bands.
    tokens : Tokens
        What the network is given of them; an object without any band is asked for nothing.
    rng : Generator
        Source of randomness.
    count : int
        Bands of each object. Where it has fewer, the others' flux counts as not known.
    """
    if drawn.noiseless is None or drawn.noiseless_error is None:
        return None
    free = (
        np.isfinite(drawn.noiseless) & ~tokens.valid.numpy() & tokens.valid.any(dim=1, keepdim=True).numpy()
    )
    band = np.argpartition(rng.random(free.shape) + ~free, count - 1, axis=1)[:, :count]
    flux, error = (
        torch.from_numpy(np.where(free, part, np.nan).astype(np.float32))
        for part in (drawn.noiseless, drawn.noiseless_error)
    )
    value, error = compress(flux, error, torch.from_numpy(drawn.ebv), tokens.brightness[:, None])
    asked = torch.from_numpy(band)
    return BandTargets(asked, value.gather(1, asked), error.gather(1, asked))


class Part(NamedTuple):
    """Some rows of a batch, without most of their empty slots.

    Attributes
    ----------
    packed : Packed
        Photometry of the draws.
    targets : Targets
        Their labels.
    asked : BandTargets or None
        Their fluxes in bands that they were not given.
    """

    packed: Packed
    targets: Targets
    asked: BandTargets | None

    def to(self, device: str) -> Part:
        """The same part on another device."""
        asked = None if self.asked is None else self.asked.to(device)
        return Part(self.packed.to(device), self.targets.to(device), asked)


class Batch(NamedTuple):
    """What one step reads.

    Attributes
    ----------
    parts : list of Part
        Its rows.
    counts : dict of str to Tensor
        By what the losses are divided; see `ojala.models.ojala.losses.label_counts`.
    observed : Tokens or None
        Observed photometry without labels, a fifth as many.
    """

    parts: list[Part]
    counts: dict[str, Tensor]
    observed: Tokens | None

    def to(self, device: str) -> Batch:
        """The same batch on another device."""
        observed = None if self.observed is None else self.observed.to(device)
        counts = {name: count.to(device) for name, count in self.counts.items()}
        return Batch([part.to(device) for part in self.parts], counts, observed)


def split(tokens: Tokens, targets: Targets, asked: BandTargets | None, parts: int) -> list[Part]:
    """Split rows into so many parts, from those with the fewest valid slots to those with the most."""
    order = tokens.valid.sum(dim=1).argsort(stable=True)
    code, redshift, scalars = targets
    return [
        Part(
            pack(Tokens(*(of[rows] for of in tokens)), SLOTS_MULTIPLE),
            Targets(code[rows], redshift[:, rows], scalars[:, rows]),
            None if asked is None else BandTargets(*(of[rows] for of in asked)),
        )
        for rows in order.tensor_split(parts)
        if len(rows)
    ]


def batches(
    sky: Sky, config: TrainingConfig, first_step: int, unlabelled: Sky | None = None
) -> Iterator[Batch]:
    """Batch after batch from ``first_step`` on, drawn in a background thread a few steps ahead."""
    asks = PRESETS[config.preset].band_requests

    def make(step: int) -> Batch:
        rng = np.random.default_rng([config.seed, step])
        drawn = sky.draw(config.batch_size, rng)
        seen = drop_bands(drawn, rng)
        if asks:
            seen = hide_groups(seen, rng)
        tokens, targets = tokenise(seen.flux, seen.error, seen.ebv), targets_of(drawn)
        asked = ask_hidden(drawn, tokens, rng) if asks else None
        observed = None
        if unlabelled is not None:
            real = unlabelled.draw(max(config.batch_size // 5, 2), rng)
            observed = tokenise(real.flux, real.error, real.ebv)
        # A discrepancy is one of whole batches.
        parts = split(tokens, targets, asked, PARTS if unlabelled is None else 1)
        return Batch(parts, label_counts(targets, asked), observed)

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
    InputError
        There is a weight for a discrepancy and nothing observed, or the reverse; the folder holds a training
        with other settings; the weights to start from have another shape.
    """
    if (config.discrepancy > 0) != (unlabelled is not None):
        raise InputError("a discrepancy needs observed photometry without labels, and that needs its weight")
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
        # How often a training is saved, and how its steps are computed, may change in its course.
        belongs=lambda saved: (
            replace(
                config_from(saved), checkpoint_minutes=config.checkpoint_minutes, compiled=config.compiled
            )
            == config
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
    model: Ojala,
    part: Part,
    counts: dict[str, Tensor],
    class_weights: Tensor,
    unlabelled: Tokens | None,
    discrepancy: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Total loss of a part of a batch, and the loss of each quantity."""
    (tokens, bands), targets, asked = part
    encoded = model.encode(tokens, bands)
    band = None if asked is None else asked.band
    answers = model.answer(encoded, tokens.valid, bands=bands, asked=band)
    found = losses(answers, targets, class_weights, counts)
    if asked is not None:
        found[BANDS] = band_loss(answers[BANDS], asked, *model.band_units(asked.band)).sum() / counts[BANDS]
    total = total_loss(found)
    if unlabelled is not None:
        observed = model.embed(model.encode(unlabelled), unlabelled.valid)
        found["discrepancy"] = mean_discrepancy(model.embed(encoded, tokens.valid), observed)
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
        values: dict[str, float] = defaultdict(float)

        def terms(batch: Batch, values: dict[str, float]) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
            for part in batch.parts:
                with torch.autocast(weights.device.type, dtype=torch.bfloat16, enabled=config.bf16):
                    total, found = losses_of(
                        fit.model, part, batch.counts, weights, batch.observed, config.discrepancy
                    )
                for name, loss in found.items():
                    values[name] += loss.item()
                yield total, found

        norm = fit.optimizer_step(terms(batch, values), rate, clip=config.clip, ema_decay=config.ema_decay)
        rounded = {name: round(value, 4) for name, value in values.items()}
        yield {"rate": rate, "norm": round(norm, 3), "loss": rounded}
