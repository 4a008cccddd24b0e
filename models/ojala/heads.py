"""Heads that are fine-tuned on the frozen network to predict one more quantity each.

A head reads the embedding (the mean of the encoded tokens) and predicts one quantity with a Gaussian. As
published for black-hole masses (Martínez-Solaeche et al., arXiv:2604.00661): an MLP of 512 and 256 units
with GELU, LayerNorm and dropout, trained on the Gaussian likelihood with the labels' errors added to its
variance. A head belongs to the weights under which it was trained and is refused with others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ojala.catalogs_schema.errors import InputError
from ojala.models.checkpoint import read_tensors, write_tensors
from ojala.models.evaluation.metrics import scatter_metrics
from ojala.models.header import WeightsError, file_sha256
from ojala.models.quantities import CLASSES, Kind, Quantity, Transform
from ojala.models.settings import checked, from_mapping

FORMAT = "ojala-head/1"
"""Written into every file of a head; another value is refused."""

HIDDEN = (512, 256)
"""Units of the hidden layers."""

LOG_SIGMA_RANGE = (-5.0, 2.0)
"""Bounds of ln sigma [standardised units]."""


@checked
@dataclass(frozen=True)
class FineTuning:
    """Settings of a fine-tuning.

    Attributes
    ----------
    name : str
        Of the quantity: the column of the labels, and of the predictions.
    unit, ucd, description : str
        Of that column: VOUnits, UCD1+, one sentence.
    object_class : str
        Class of object that the quantity belongs to: GALAXY, STAR or QSO.
    transform : str
        Space in which its distribution is compact: linear, log10 or asinh.
    soft : float
        Softening of ``asinh`` [unit of the quantity].
    epochs, batch_size : int
        Passes through the labelled objects, and objects per step.
    learning_rate : float
        Peak rate of AdamW; it falls as a cosine.
    dropout : float
        Share of the hidden units that are dropped in a step.
    draws : int
        Mock objects to draw where the labels come from a library.
    seed : int
        Decides draws, initial weights and which objects are held out.
    """

    name: str
    description: str
    object_class: str
    unit: str = ""
    ucd: str = ""
    transform: str = "linear"
    soft: float = 1.0
    epochs: int = 20
    batch_size: int = 1024
    learning_rate: float = 1e-3
    dropout: float = 0.1
    draws: int = 40_000
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or not self.name.islower():
            raise InputError(f"name must be a word in lower case, not {self.name!r}")
        if self.object_class not in CLASSES:
            raise InputError(f"object_class must be one of {', '.join(CLASSES)}, not {self.object_class!r}")
        if self.transform not in set(Transform):
            raise InputError(f"transform must be one of {', '.join(Transform)}, not {self.transform!r}")


class Mlp(nn.Module):
    """Embedding (N, d), standardised -> mean and ln sigma of the standardised value (N, 2)."""

    center: Tensor
    scale: Tensor

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        layers: list[nn.Module] = []
        for a, b in pairwise((width, *HIDDEN)):
            layers += [nn.Linear(a, b), nn.LayerNorm(b), nn.GELU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers)
        self.out = nn.Linear(HIDDEN[-1], 2)

    def forward(self, embedding: Tensor) -> Tensor:
        """See the class."""
        mean, log_sigma = self.out(self.layers((embedding - self.center) / self.scale)).unbind(-1)
        return torch.stack([mean, log_sigma.clamp(*LOG_SIGMA_RANGE)], dim=-1)


@dataclass(frozen=True, slots=True)
class Head:
    """A trained head.

    Attributes
    ----------
    mlp : Mlp
        The network, in evaluation mode.
    quantity : Quantity
        The property, with center and scale of its training's labels.
    tuning : FineTuning
        How it was made.
    base_sha256 : str
        SHA-256 of the weights that it belongs to.
    measures : dict
        How good it is on objects that it was not trained on; see `head_measures`.
    sha256 : str
        Of its file; empty before it is saved.
    """

    mlp: Mlp
    quantity: Quantity
    tuning: FineTuning
    base_sha256: str
    measures: dict[str, dict[str, float]]
    sha256: str = ""


def fit_head(
    embedding: Tensor,
    value: np.ndarray,
    error: np.ndarray,
    tuning: FineTuning,
    base_sha256: str,
    report: Callable[[dict[str, float]], None] = lambda record: None,
) -> Head:
    """Train a head.

    Parameters
    ----------
    embedding : Tensor, shape (N, d)
        Of objects of the class whose value is known.
    value, error : ndarray, shape (N,)
        The quantity and its standard error [its unit]; an error that is not known is NaN and counts as nil.
    tuning : FineTuning
        What and how.
    base_sha256 : str
        SHA-256 of the weights that made the embeddings.
    report : callable
        Is given the mean loss of each epoch.

    Raises
    ------
    InputError
        If fewer than 100 values can be learned from.
    """
    transform = Transform(tuning.transform)
    raw = Quantity(tuning.name, Kind.SCALAR, tuning.object_class, transform, soft=tuning.soft)
    transformed = raw.standardise(value.astype(np.float64))
    usable = np.isfinite(transformed)
    if usable.sum() < 100:
        raise InputError(f"{usable.sum()} values of {tuning.name} are not enough to learn from: 100 are")
    center, scale = (
        np.percentile(transformed[usable], 50),
        np.subtract(*np.percentile(transformed[usable], [84.13, 15.87])) / 2,
    )
    quantity = replace(raw, center=float(center), scale=float(max(scale, 1e-6)))
    with np.errstate(invalid="ignore"):
        spread = 0.5 * np.abs(quantity.standardise(value + error) - quantity.standardise(value - error))
    target = torch.as_tensor(quantity.standardise(value)[usable], dtype=torch.float32)
    noise = torch.as_tensor(np.nan_to_num(spread, posinf=0.0)[usable], dtype=torch.float32)
    known = embedding[torch.as_tensor(usable)].float()

    torch.manual_seed(tuning.seed)
    mlp = Mlp(known.shape[1], tuning.dropout)
    mlp.center.copy_(known.mean(dim=0))
    mlp.scale.copy_(known.std(dim=0).clamp_min(1e-3))
    steps = tuning.epochs * math.ceil(len(known) / tuning.batch_size)
    optimizer = torch.optim.AdamW(mlp.parameters(), lr=tuning.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, tuning.learning_rate, total_steps=steps)
    for epoch in range(tuning.epochs):
        total = 0.0
        order = torch.randperm(len(known))
        for begin in range(0, len(known), tuning.batch_size):
            rows = order[begin : begin + tuning.batch_size]
            optimizer.zero_grad()
            loss = gaussian_loss(mlp(known[rows]), target[rows], noise[rows])
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(mlp.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows)
        report({"epoch": epoch + 1.0, "loss": total / len(known)})
    return Head(mlp.eval(), quantity, tuning, base_sha256, {})


def gaussian_loss(output: Tensor, target: Tensor, noise: Tensor) -> Tensor:
    """Mean Gaussian negative log-likelihood, the variance of the label ``noise`` added to the predicted."""
    mean, log_sigma = output.unbind(-1)
    variance = (2.0 * log_sigma).exp() + noise.square()
    return 0.5 * (variance.log() + (target - mean).square() / variance).mean()


@torch.inference_mode()
def predict(head: Head, embedding: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The quantity and its error, half its central 68.3 % interval [its unit], (N,) each, from embeddings."""
    return in_units(head, head.mlp(embedding.float()).cpu().numpy())


def in_units(head: Head, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The quantity and its error, as `predict` gives them, from the output of the head's network (N, 2)."""
    mean, log_sigma = raw.astype(np.float64).T
    sigma = np.exp(log_sigma)
    restore = head.quantity.restore
    return restore(mean), 0.5 * (restore(mean + sigma) - restore(mean - sigma))


@torch.no_grad()
def correct_errors(head: Head, embedding: Tensor, value: np.ndarray) -> None:
    """Change a head's errors by one factor, so that 68.3 % of the truths (N,) lie within; (N, d) embeddings.

    The objects must not be those that it was trained on: of these it knows too much.
    """
    mean, log_sigma = head.mlp(embedding.float()).double().numpy().T
    pull = np.abs(head.quantity.standardise(value.astype(np.float64)) - mean) / np.exp(log_sigma)
    head.mlp.out.bias[1] += float(np.log(np.percentile(pull[np.isfinite(pull)], 68.27)))


def head_measures(
    head: Head, embedding: Tensor, value: np.ndarray, baseline: np.ndarray
) -> dict[str, dict[str, float]]:
    """Scatter of a head's predictions on objects that it was not trained on.

    Parameters
    ----------
    head : Head
        The head.
    embedding : Tensor, shape (N, d)
        Of the objects.
    value, baseline : ndarray, shape (N,)
        The truth, and a simpler prediction.

    Returns
    -------
    dict of dict
        ``head`` and ``baseline``: see `ojala.models.evaluation.metrics.scatter_metrics`, in dex where the
        transform is log10; ``head`` also has ``within_err``, the share of truths within one error (0.683 is
        right).
    """
    found, error = predict(head, embedding)
    known = np.isfinite(value)
    within = float(np.mean(np.abs(found - value)[known] <= error[known]))
    if head.quantity.transform is Transform.LOG10:
        found, value, baseline = np.log10(found), np.log10(value), np.log10(baseline)
    return {
        "head": scatter_metrics(found, value) | {"within_err": within},
        "baseline": scatter_metrics(baseline, value),
    }


def save_head(path: Path, head: Head) -> None:
    """Write a head and its metadata."""
    quantity = {"center": head.quantity.center, "scale": head.quantity.scale}
    metadata = {
        "format": FORMAT,
        "base_sha256": head.base_sha256,
        "tuning": json.dumps(asdict(head.tuning), sort_keys=True),
        "quantity": json.dumps(quantity),
        "measures": json.dumps(head.measures, sort_keys=True),
    }
    write_tensors(path, head.mlp.state_dict(), metadata)


def load_head(path: Path, base_sha256: str) -> Head:
    """Read a head for the weights with this SHA-256.

    Raises
    ------
    WeightsError
        If the file is damaged, is no head, or belongs to other weights.
    """
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != FORMAT:
        raise WeightsError(f"{path}: format is {metadata.get('format')!r}, not that of a head, {FORMAT!r}")
    if metadata.get("base_sha256") != base_sha256:
        raise WeightsError(
            f"{path}: belongs to the weights {metadata.get('base_sha256', '')[:12]}..., not to "
            f"{base_sha256[:12]}...: run with those weights, or fine-tune again with these"
        )
    try:
        tuning = from_mapping(FineTuning, json.loads(metadata["tuning"]))
        numbers = json.loads(metadata["quantity"])
        quantity = Quantity(
            tuning.name,
            Kind.SCALAR,
            tuning.object_class,
            Transform(tuning.transform),
            float(numbers["center"]),
            float(numbers["scale"]),
            tuning.soft,
        )
        measures = json.loads(metadata["measures"])
        mlp = Mlp(len(tensors["center"]))
        mlp.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path}: cannot be read ({error!r}); fetch the file again") from error
    return Head(mlp.eval(), quantity, tuning, base_sha256, measures, file_sha256(path))
