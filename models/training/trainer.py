"""What a training of any network carries from step to step, and how it is kept on disk."""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from ojala.catalogs_schema.errors import InputError
from ojala.models.checkpoint import read_tensors, write_tensors

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

STATE_FILE = "state.safetensors"
"""The state of a training, in its folder."""

METRICS_FILE = "metrics.jsonl"
"""Its records, beside it."""

Record = dict[str, object]
"""One line of them."""

Network = TypeVar("Network", bound=nn.Module)


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) for matrices: a step along the orthogonalised momentum of the gradient.

    With Nesterov momentum 0.95, five Newton-Schulz iterations, and the step scaled to the root mean square of
    AdamW's (Liu et al. 2025, arXiv:2502.16982). It does what `torch.optim.Muon` does but for the arithmetic:
    that one iterates in bfloat16, in which a processor without instructions for it takes longer than for all
    of a small network's gradients; this one iterates in single precision, matrices of one shape together.

    Parameters
    ----------
    matrices : list of Parameter
        What it moves.
    weight_decay : float
        Decoupled decay.
    """

    def __init__(self, matrices: list[nn.Parameter], *, weight_decay: float) -> None:
        super().__init__(matrices, {"lr": 1e-3, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure is called here
        """Take a step."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[Tensor]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape.setdefault(tuple(matrix.shape), []).append(matrix)
            for shape, matrices in by_shape.items():
                directions = torch.stack([self._direction(matrix) for matrix in matrices])
                rate = 0.2 * math.sqrt(max(shape)) * group["lr"]
                for matrix, direction in zip(matrices, orthogonalise(directions), strict=True):
                    matrix.mul_(1.0 - group["lr"] * group["weight_decay"]).sub_(direction, alpha=rate)

    def _direction(self, matrix: Tensor) -> Tensor:
        """The gradient and the momentum that it adds to."""
        state, gradient = self.state[matrix], cast("Tensor", matrix.grad)
        momentum = state.setdefault("momentum_buffer", torch.zeros_like(gradient))
        momentum.lerp_(gradient, 0.05)
        return gradient.lerp(momentum, 0.95)


def orthogonalise(matrices: Tensor) -> Tensor:
    """Matrices (K, m, n) with singular values near 1, by five quintic Newton-Schulz iterations."""
    wide = matrices if matrices.shape[-2] <= matrices.shape[-1] else matrices.mT
    wide = wide / wide.flatten(1).norm(dim=1).clamp_min(1e-7)[:, None, None]
    for _ in range(5):
        gram = wide @ wide.mT
        square = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        wide = torch.baddbmm(wide, square, wide, beta=3.4445)
    return wide if matrices.shape[-2] <= matrices.shape[-1] else wide.mT


class Trainer(Generic[Network]):
    """A network under training, the running mean of its weights, and its optimizers.

    Parameters
    ----------
    model : Module
        The network.
    inner : tuple of str
        Beginnings of the names of parameters whose matrices Muon moves; AdamW moves everything else but
        what needs no gradient, which stays.
    weight_decay : float
        Decoupled decay of Muon.

    Attributes
    ----------
    model, average : Module
        The network and its running mean.
    step : int
        Steps taken.
    seconds : float
        Time spent on them, over all sessions.
    """

    def __init__(self, model: Network, inner: tuple[str, ...], *, weight_decay: float) -> None:
        self.model, self.average = model, copy.deepcopy(model).requires_grad_(False).eval()
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        matrices = [p for name, p in named if p.ndim == 2 and name.startswith(inner)]
        chosen = {id(p) for p in matrices}
        others = [p for _, p in named if id(p) not in chosen]
        # Every step sets its own rate.
        self._optimizers = (
            Muon(matrices, weight_decay=weight_decay),
            torch.optim.AdamW(others, weight_decay=0.0, betas=(0.9, 0.98), fused=True),
        )
        self.step, self.seconds = 0, 0.0

    def optimizer_step(
        self,
        losses: Iterable[tuple[Tensor, Mapping[str, Tensor]]],
        rate: float,
        *,
        clip: float,
        ema_decay: float,
        apart: Sequence[nn.Module] = (),
    ) -> float:
        """One step down the gradient of a sum of losses.

        Parameters
        ----------
        losses : iterable of (Tensor, mapping of str to Tensor)
            Its terms, each with the parts that it was made of, which are named where it is not finite. Each
            is gone back through before the next is asked for.
        rate : float
            Learning rate.
        clip : float
            Largest norm of the gradient.
        averaging : float
            Memory of the running mean.
        apart : sequence of Module
            Parts of the network whose gradients are clipped each by itself; none for the whole network.

        Returns
        -------
        float
            Norm of the gradient before clipping.

        Raises
        ------
        FloatingPointError
            A loss is not finite.
        """
        for optimizer in self._optimizers:
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = rate
        for loss, parts in losses:
            if not bool(torch.isfinite(loss)):
                raise FloatingPointError(f"the loss is not finite at step {self.step}: {dict(parts)}")
            torch.autograd.backward(loss)
        clipped = apart or (self.model,)
        norms = [torch.nn.utils.clip_grad_norm_(part.parameters(), clip) for part in clipped]
        muon, adamw = self._optimizers
        muon.step()
        adamw.step()
        memory = min(ema_decay, (1.0 + self.step) / (10.0 + self.step))
        for mean, parameter in zip(self.average.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(parameter.detach(), 1.0 - memory)
        self.step += 1
        return math.hypot(*(float(norm) for norm in norms))

    def save(self, path: Path, config: dict[str, Any]) -> None:
        """Write everything needed to go on; ``config`` says to which training it belongs."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"average.{name}": tensor for name, tensor in self.average.state_dict().items()}
        for which, optimizer in enumerate(self._optimizers):
            for index, moments in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{which}.{index}.{name}": value for name, value in moments.items()}
        progress = {"step": self.step, "seconds": self.seconds, "config": config}
        write_tensors(path, tensors, {"progress": json.dumps(progress)})

    def load(self, path: Path, belongs: Callable[[dict[str, Any]], bool]) -> None:
        """Go on from what `save` wrote, if ``belongs`` knows its configuration as this training's.

        Raises
        ------
        InputError
            The file belongs to a training with other settings.
        """
        tensors, metadata = read_tensors(path)
        progress = json.loads(metadata["progress"])
        if not belongs(progress["config"]):
            raise InputError(
                f"{path} belongs to a training with other settings ({progress['config']}); use another folder"
            )
        self.model.load_state_dict(_under(tensors, "model"))
        self.average.load_state_dict(_under(tensors, "average"))
        for which, optimizer in enumerate(self._optimizers):
            moments: dict[int, dict[str, Tensor]] = {}
            for name, tensor in _under(tensors, f"optimizer.{which}").items():
                index, _, moment = name.partition(".")
                moments.setdefault(int(index), {})[moment] = tensor
            optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
        self.step, self.seconds = progress["step"], progress["seconds"]


def same_as(config: DataclassInstance) -> Callable[[dict[str, Any]], bool]:
    """Whether a configuration that was kept as JSON is this one; for `Trainer.load`."""
    kept = json.loads(json.dumps(asdict(config)))
    return lambda saved: bool(saved == kept)


class MetricsLog:
    """One JSON record a line; records of steps that a resumed training takes again are dropped first.

    Parameters
    ----------
    path : Path
        The file.
    step : int
        Steps that the training has taken.
    report : callable
        Is given each record as it is written.
    """

    def __init__(self, path: Path, step: int, report: Callable[[dict[str, object]], None]) -> None:
        self._path, self._report = path, report
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        unfinished = path.with_suffix(".tmp")
        unfinished.write_text("".join(line + "\n" for line in kept))
        os.replace(unfinished, path)

    def write(self, record: dict[str, object]) -> None:
        """Add a record."""
        with open(self._path, "a") as file:
            file.write(json.dumps(record) + "\n")
        self._report(record)


class Course(Protocol):
    """Settings of a training, a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def name(self) -> str:
        """Of the weights."""

    @property
    def checkpoint_minutes(self) -> float:
        """Time from one save to the next."""


def carry_through(
    fit: Trainer[Network],
    config: Course,
    folder: Path,
    steps: Iterator[Record],
    check: Callable[[], object],
    write: Callable[[Path, Record], None],
    *,
    every: int,
    report: Callable[[Record], None],
    belongs: Callable[[dict[str, Any]], bool] | None = None,
) -> Path:
    """Take all steps of a training, those before it was interrupted excepted, and write weights.

    State and weights are saved every few minutes and at the end, each file whole or not at all.

    Parameters
    ----------
    fit : Fit
        A new one; it gets the state that ``folder`` holds.
    config : dataclass
        The training's settings.
    folder : Path
        Gets the state, ``metrics.jsonl`` and the weights ``<name>.safetensors``.
    steps : iterator of dict
        Takes one step of the fit each time that it is asked, and gives what is to be told of it.
    check : callable
        Measures of the running mean, to note at each save.
    write : callable
        Writes the weights to a path, with what is known of the training.
    every : int
        Steps from one record to the next.
    report : callable
        Is given each record as it is written.
    belongs : callable, optional
        Whether the settings of a state are this training's; by default if they are the same.

    Returns
    -------
    Path
        Of the weights.

    Raises
    ------
    InputError
        The folder holds a training with other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / STATE_FILE).exists():
        fit.load(folder / STATE_FILE, belongs or same_as(config))
    log = MetricsLog(folder / METRICS_FILE, fit.step, report)
    weights = folder / f"{config.name}.safetensors"

    def note(record: Record) -> None:
        log.write({"step": fit.step, "seconds": round(fit.seconds, 1)} | record)

    def save() -> None:
        measured = check()
        note({"held_out": measured})
        fit.save(folder / STATE_FILE, asdict(config))
        facts: Record = {"seconds": round(fit.seconds, 1), "threads": torch.get_num_threads()}
        write(weights, facts | {"held_out": measured})

    started, saved = time.monotonic() - fit.seconds, time.monotonic()
    for record in steps:
        fit.seconds = time.monotonic() - started
        if fit.step % every == 0 or fit.step == 1:
            note(record)
        if time.monotonic() - saved > 60.0 * config.checkpoint_minutes:
            save()
            saved = time.monotonic()
    save()
    return weights


def warmup_cosine(done: float, step: int, warm_up: int) -> float:
    """Rate relative to its peak: a linear rise over ``warm_up`` steps, a cosine to 1 % at ``done`` = 1."""
    fall = 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))
    return fall * min(1.0, (step + 1) / warm_up)


def _under(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    begin = f"{part}."
    return {name.removeprefix(begin): tensor for name, tensor in tensors.items() if name.startswith(begin)}
