"""Training of OJALA on draws that are made as they are needed.

Step k reads the draw that the seed and k determine, so an interrupted training that resumes reads the draws
that it would have read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ojala.catalogs_schema.bands import MODEL_BANDS, REFERENCE_BAND
from ojala.catalogs_schema.errors import InputError
from ojala.models.data import LabelledPhotometry, Sky
from ojala.models.evaluation.metrics import catalogue_metrics
from ojala.models.header import file_sha256
from ojala.models.ojala.checkpoint import WeightsInfo, load, save
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
from ojala.models.serving.precision import Precision, fastest_precision
from ojala.models.training.prefetch import prefetch
from ojala.models.training.settings import TrainingSettings
from ojala.models.training.trainer import Report, Steps, Trainer, ignore

FULL_CONTEXT = 0.7
"""Share of the training rows that keep every band they were drawn with."""

HIDDEN_GROUPS = (0.25, 0.25)
"""Shares of the rows from which one band in four, and one in eight, is hidden besides: those that a predictor
hides to have them predicted."""

TARGET_BANDS = 6
"""Bands that are queried in each row."""

PARTS = 4
"""Parts of a batch, from rows with few bands to rows with many, each cut to its longest row."""

SLOTS_MULTIPLE = 4
"""Slots of a part come in multiples of this, so that there are few shapes of parts."""

_MUON = ("encoder.", "decoder.", "trunk.")
_REFERENCE = [band.name for band in MODEL_BANDS].index(REFERENCE_BAND)
_FIRST_DRAW, _HELD_OUT_DRAW = 2**31, 2**31 + 1


@dataclass(frozen=True)
class OjalaTraining(TrainingSettings):
    """Settings of a training of OJALA; those of every training are in `TrainingSettings`.

    Attributes
    ----------
    steps : int
        Length of the training and of the learning-rate schedule; where ``minutes`` are given, whichever of
        the two ends first.
    class_weights : tuple of float
        Weights of galaxies, stars and quasars in the loss of the class: the shares that the probabilities
        shall assume over the shares of the draws.
    bf16, compiled : bool or None
        Mixed precision; torch.compile, which takes minutes at the start. None: mixed precision where the
        device has instructions for bfloat16, compilation on a GPU.
    held_out : int
        Held-out objects of a check.
    discrepancy : float
        Weight of the mean discrepancy between encodings of draws and of observed photometry without labels,
        as published (0.2); 0 for none.
    start : str
        Weights to start from instead of random ones: a file of the same shape, or of one without the chain.
        The card states its name and hash.
    parts : tuple of str
        Parts of the network that are trained, by the names of its modules (``tokens``, ``encoder``, ...); all
        of it where none are named.
    note : str
        Text for the model card that no other setting holds.
    """

    name: str = "ojala-base"
    steps: int = 20_000
    batch_size: int = 256
    learning_rate: float = 2e-3
    warm_up: int = 200
    class_weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    bf16: bool | None = None
    compiled: bool | None = None
    held_out: int = 4096
    discrepancy: float = 0.0
    start: str = ""
    parts: tuple[str, ...] = ()
    note: str = ""

    SHAPES: ClassVar = PRESETS
    MAY_CHANGE: ClassVar = (*TrainingSettings.MAY_CHANGE, "bf16", "compiled")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise InputError(f"steps must be at least 1, not {self.steps}")

    @property
    def compiles(self) -> bool:
        """Whether torch compiles the network."""
        return self.device.startswith("cuda") if self.compiled is None else self.compiled

    def progress(self, step: int, seconds: float) -> float:
        """Fraction of the steps, or of the minutes, that is done."""
        return max(step / self.steps, super().progress(step, seconds))


def _start(config: OjalaTraining, first: Tokens) -> Trainer[Ojala]:
    """Fresh weights with the input standardisation of the first draws, or those to start from.

    Raises
    ------
    InputError
        A part to train is none of the network's, or the weights to start from have another shape.
    """
    torch.manual_seed(config.seed)
    model = Ojala(PRESETS[config.preset])
    if config.start:
        load_compatible(model, load(config.start)[0])
    else:
        model.tokens.fit(first)
    names = [name for name, _ in model.named_children()]
    if unknown := set(config.parts) - set(names):
        raise InputError(f"parts: the network has no {', '.join(sorted(unknown))}; it has {', '.join(names)}")
    if config.parts:
        model.requires_grad_(False)
        for part in config.parts:
            model.get_submodule(part).requires_grad_(True)
    return Trainer(model, config, _MUON)


def load_compatible(model: Ojala, other: Ojala) -> None:
    """Give a network the weights of another one; what the other does not have stays as it is.

    Raises
    ------
    InputError
        A tensor of the other network is not in this one, or has another shape.
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


def hide_groups(photometry: LabelledPhotometry, rng: np.random.Generator) -> LabelledPhotometry:
    """Hide one band in four or in eight, in order of wavelength, in `HIDDEN_GROUPS` of the rows."""
    n = len(photometry)
    modulus = rng.choice([4, 8, 1], n, p=[*HIDDEN_GROUPS, 1.0 - sum(HIDDEN_GROUPS)])
    hidden = (WAVELENGTH_RANK + rng.integers(0, 8, (n, 1))) % modulus[:, None] == 0
    hidden &= (modulus > 1)[:, None]
    return replace(photometry, flux=np.where(hidden, np.float32(np.nan), photometry.flux))


def draw_band_targets(
    drawn: LabelledPhotometry, tokens: Tokens, rng: np.random.Generator, count: int = TARGET_BANDS
) -> BandTargets | None:
    """Draw bands at random of those that the tokens do not hold and whose flux is known.

    Parameters
    ----------
    drawn : LabelledPhotometry
        The objects; None is returned where nothing is known of their bands.
    tokens : Tokens
        Tokens that the network sees; an object without any band has no targets.
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
    bands = torch.from_numpy(band)
    return BandTargets(bands, value.gather(1, bands), error.gather(1, bands))


class Part(NamedTuple):
    """Some rows of a batch, without most of their empty slots.

    Attributes
    ----------
    packed : Packed
        Photometry of the draws.
    targets : Targets
        Their labels.
    band_targets : BandTargets or None
        Their fluxes in bands that they were not given.
    """

    packed: Packed
    targets: Targets
    band_targets: BandTargets | None

    def to(self, device: str) -> Part:
        """The same part on another device."""
        band_targets = None if self.band_targets is None else self.band_targets.to(device)
        return Part(self.packed.to(device), self.targets.to(device), band_targets)


class Batch(NamedTuple):
    """Objects of one step.

    Attributes
    ----------
    parts : list of Part
        Its rows.
    counts : dict of str to Tensor
        Divisors of the losses; see `ojala.models.ojala.losses.label_counts`.
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


def split(tokens: Tokens, targets: Targets, band_targets: BandTargets | None, parts: int) -> list[Part]:
    """Split rows into so many parts, from those with the fewest valid slots to those with the most."""
    order = tokens.valid.sum(dim=1).argsort(stable=True)
    code, redshift, scalars = targets
    return [
        Part(
            pack(Tokens(*(of[rows] for of in tokens)), SLOTS_MULTIPLE),
            Targets(code[rows], redshift[:, rows], scalars[:, rows]),
            None if band_targets is None else BandTargets(*(of[rows] for of in band_targets)),
        )
        for rows in order.tensor_split(parts)
        if len(rows)
    ]


def batches(
    sky: Sky, config: OjalaTraining, first_step: int, unlabelled: Sky | None = None
) -> Iterator[Batch]:
    """Iterate over the batches from ``first_step`` on, drawn in a background thread."""
    has_bands = PRESETS[config.preset].band_requests

    def make(step: int) -> Batch:
        rng = np.random.default_rng([config.seed, step])
        drawn = sky.draw(config.batch_size, rng)
        seen = drop_bands(drawn, rng)
        if has_bands:
            seen = hide_groups(seen, rng)
        tokens, targets = tokenise(seen.flux, seen.error, seen.ebv), targets_of(drawn)
        band_targets = draw_band_targets(drawn, tokens, rng) if has_bands else None
        observed = None
        if unlabelled is not None:
            real = unlabelled.draw(max(config.batch_size // 5, 2), rng)
            observed = tokenise(real.flux, real.error, real.ebv)
        # A discrepancy is one of whole batches.
        parts = split(tokens, targets, band_targets, PARTS if unlabelled is None else 1)
        return Batch(parts, label_counts(targets, band_targets), observed)

    return prefetch(make, first_step)


def train(
    config: OjalaTraining,
    sky: Sky,
    held_out: Sky,
    folder: Path,
    report: Report = ignore,
    unlabelled: Sky | None = None,
) -> Path:
    """Train, or resume the training in ``folder``, and write weights.

    Parameters
    ----------
    config : OjalaTraining
        Settings.
    sky, held_out : Sky
        Source of the training draws; source of draws of other objects to check with.
    folder : Path
        Gets the state, ``metrics.jsonl`` and the weights ``<name>.safetensors``, renewed at every check.
    report : callable
        Is given each record of the metrics file as it is written.
    unlabelled : Sky, optional
        Observed photometry for ``config.discrepancy``; its labels are not read.

    Returns
    -------
    Path
        File of the weights.

    Raises
    ------
    InputError
        There is a weight for a discrepancy and nothing observed, or the reverse; the folder holds a training
        with other settings; the weights to start from have another shape.
    """
    if (config.discrepancy > 0) != (unlabelled is not None):
        raise InputError("a discrepancy needs observed photometry without labels, and that needs its weight")
    config = replace(
        config,
        bf16=fastest_precision(config.device) == "bf16" if config.bf16 is None else config.bf16,
        compiled=config.compiles,
    )
    first = sky.draw(4096, np.random.default_rng([config.seed, _FIRST_DRAW]))
    trainer = _start(config, tokenise(first.flux, first.error, first.ebv))
    drawn = held_out.draw(config.held_out, np.random.default_rng([config.seed, _HELD_OUT_DRAW]))
    origin = f"{Path(config.start).name} (SHA-256 {file_sha256(Path(config.start))})" if config.start else ""

    def check(model: Ojala) -> dict[str, dict[str, float]]:
        return evaluate(model, drawn, precision="bf16" if config.bf16 else "fp32")

    def write(path: Path, model: Ojala, training: dict[str, Any]) -> None:
        training["config"] |= {"start": origin}
        save(path, model, name=config.name, version=config.version, training=training)

    return trainer.run(folder, _steps(trainer, config, sky, unlabelled), check, write, report=report)


def evaluate(
    model: Ojala, photometry: LabelledPhotometry, *, precision: Precision
) -> dict[str, dict[str, float]]:
    """Measures of a network's predictions on labelled photometry, as the pipeline would get them."""
    device = next(model.parameters()).device.type
    info = WeightsInfo("in training", "", model.config, {}, "")
    predictor = OjalaPredictor(model, info, device=device, precision=precision, batch_size=128)
    predictions = predictor.predict(photometry.flux, photometry.error, photometry.ebv)
    with np.errstate(invalid="ignore", divide="ignore"):
        magnitude = 23.9 - 2.5 * np.log10(photometry.flux[:, _REFERENCE])
    return catalogue_metrics(predictions, photometry.class_code, photometry.labels, magnitude)


def _losses_of(
    model: Ojala,
    part: Part,
    counts: dict[str, Tensor],
    class_weights: Tensor,
    unlabelled: Tokens | None,
    discrepancy: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Total loss of a part of a batch, and the loss of each quantity."""
    (tokens, bands), targets, band_targets = part
    encoded = model.encode(tokens, bands)
    band = None if band_targets is None else band_targets.band
    outputs = model.decode_requests(encoded, tokens.valid, bands=bands, queried=band)
    found = losses(outputs, targets, class_weights, counts)
    if band_targets is not None:
        of_bands = band_loss(outputs[BANDS], band_targets, *model.band_units(band_targets.band))
        found[BANDS] = of_bands.sum() / counts[BANDS]
    total = total_loss(found)
    if unlabelled is not None:
        observed = model.embed(model.encode(unlabelled), unlabelled.valid)
        found["discrepancy"] = mean_discrepancy(model.embed(encoded, tokens.valid), observed)
        total = total + discrepancy * found["discrepancy"]
    return total, found


def _steps(trainer: Trainer[Ojala], config: OjalaTraining, sky: Sky, unlabelled: Sky | None) -> Steps:
    """Take steps of the optimizers; yields rate, norm of the gradient and losses."""
    losses_of = torch.compile(_losses_of) if config.compiled else _losses_of
    weights = torch.tensor(config.class_weights, device=config.device)
    for drawn in batches(sky, config, trainer.step, unlabelled):
        rate, batch = trainer.rate, drawn.to(config.device)
        values: dict[str, float] = defaultdict(float)

        def terms(batch: Batch, values: dict[str, float]) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
            for part in batch.parts:
                with torch.autocast(weights.device.type, dtype=torch.bfloat16, enabled=bool(config.bf16)):
                    total, parts = losses_of(
                        trainer.model, part, batch.counts, weights, batch.observed, config.discrepancy
                    )
                for name, loss in parts.items():
                    values[name] += loss.item()
                yield total, parts

        norm = trainer.optimizer_step(terms(batch, values))
        rounded = {name: round(value, 4) for name, value in values.items()}
        yield {"rate": rate, "norm": round(norm, 3), "loss": rounded}
