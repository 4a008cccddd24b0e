"""Trainer of any network: optimizers, running mean of the weights, checkpoints and metrics."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Generic, TypeVar, cast

import torch
from torch import Tensor, nn

from ojala.catalogs_schema.errors import InputError
from ojala.catalogs_schema.files import atomic_file, remove_unfinished
from ojala.models.checkpoint import read_tensors, write_tensors
from ojala.models.training.settings import TrainingSettings

STATE_FILE = "state.safetensors"
"""File with the state of a training, in its folder."""

METRICS_FILE = "metrics.jsonl"
"""File with the records of a training, in its folder."""

Record = dict[str, object]
"""A record of the metrics."""

Steps = Generator[Record, None, None]
"""Steps of a trainer; each `next` takes one and yields its record."""

Report = Callable[[Record], None]
"""Function that receives each record of the metrics."""

Network = TypeVar("Network", bound=nn.Module)


def ignore(record: Record) -> None:
    """Do nothing with a record."""


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) for matrices: a step along the orthogonalised momentum of the gradient.

    With Nesterov momentum 0.95, five Newton-Schulz iterations, and the step scaled to the root mean square of
    AdamW's (Liu et al. 2025, arXiv:2502.16982). `torch.optim.Muon` iterates in bfloat16, which takes a
    processor without such instructions longer than all gradients of a small network; this one iterates in
    single precision, matrices of one shape together.

    Parameters
    ----------
    matrices : list of Parameter
        Matrices to optimise.
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
        """Update the momentum; returns the Nesterov direction."""
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
    settings : TrainingSettings
        Settings of the training.
    muon : tuple of str
        Prefixes of the names of parameters whose matrices Muon optimises. AdamW optimises all others that
        require a gradient.

    Attributes
    ----------
    model, average : Module
        The network and its running mean.
    step : int
        Steps taken.
    seconds : float
        Time spent on them, over all sessions.
    """

    def __init__(self, model: Network, settings: TrainingSettings, muon: tuple[str, ...]) -> None:
        self.model = model.to(settings.device)
        self.average = copy.deepcopy(self.model).requires_grad_(False).eval()
        self._settings = settings
        named = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        matrices = [p for name, p in named if p.ndim == 2 and name.startswith(muon)]
        chosen = {id(p) for p in matrices}
        others = [p for _, p in named if id(p) not in chosen]
        # optimizer_step sets the rate.
        self._optimizers = (
            Muon(matrices, weight_decay=settings.weight_decay),
            torch.optim.AdamW(others, weight_decay=0.0, betas=(0.9, 0.98), fused=True),
        )
        self.step, self.seconds = 0, 0.0

    @property
    def progress(self) -> float:
        """Fraction of the training that is done."""
        return self._settings.progress(self.step, self.seconds)

    @property
    def rate(self) -> float:
        """Learning rate of the next step."""
        return self._settings.rate(self.step, self.seconds)

    def optimizer_step(
        self,
        losses: Iterable[tuple[Tensor, Mapping[str, Tensor]]],
        clip_separately: Sequence[nn.Module] = (),
    ) -> float:
        """Take one step of the optimizers along the gradient of a sum of losses.

        Parameters
        ----------
        losses : iterable of (Tensor, mapping of str to Tensor)
            Terms of the sum, each with its parts for the error message. Each is back-propagated before the
            next is computed.
        clip_separately : sequence of Module
            Parts of the network whose gradients are clipped separately; none for the whole network.

        Returns
        -------
        float
            Norm of the gradient before clipping.

        Raises
        ------
        FloatingPointError
            A loss is not finite.
        """
        rate = self.rate
        for optimizer in self._optimizers:
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = rate
        for loss, parts in losses:
            if not bool(torch.isfinite(loss)):
                raise FloatingPointError(f"the loss is not finite at step {self.step}: {dict(parts)}")
            torch.autograd.backward(loss)
        clip = self._settings.clip
        parts_clipped = clip_separately or (self.model,)
        norms = [torch.nn.utils.clip_grad_norm_(part.parameters(), clip) for part in parts_clipped]
        muon, adamw = self._optimizers
        muon.step()
        adamw.step()
        decay = min(self._settings.ema_decay, (1.0 + self.step) / (10.0 + self.step))
        for mean, parameter in zip(self.average.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(parameter.detach(), 1.0 - decay)
        self.step += 1
        return math.hypot(*(float(norm) for norm in norms))

    def save(self, path: Path) -> None:
        """Write the state of the training, for `load`."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"average.{name}": tensor for name, tensor in self.average.state_dict().items()}
        for which, optimizer in enumerate(self._optimizers):
            for index, moments in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{which}.{index}.{name}": value for name, value in moments.items()}
        progress = {"step": self.step, "seconds": self.seconds, "config": asdict(self._settings)}
        write_tensors(path, tensors, {"progress": json.dumps(progress)})

    def load(self, path: Path) -> None:
        """Read a state of `save`, to resume from it.

        Raises
        ------
        InputError
            The state belongs to a training with other settings.
        """
        tensors, metadata = read_tensors(path)
        progress = json.loads(metadata["progress"])
        if not self._settings.continues(progress["config"]):
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

    def run(
        self,
        folder: Path,
        steps: Steps,
        check: Callable[[Network], object],
        write: Callable[[Path, Network, Record], None],
        *,
        every: int = 50,
        report: Report = ignore,
    ) -> Path:
        """Run the remaining steps of the training in ``folder`` and write weights.

        State and weights are written every `TrainingSettings.checkpoint_minutes` and at the end, atomically.
        The first step, in which torch may compile for minutes, does not count as time of the training.

        Parameters
        ----------
        folder : Path
            Folder of the state, ``metrics.jsonl`` and the weights ``<name>.safetensors``.
        steps : generator of dict
            Takes one step of this trainer at each iteration and yields its record.
        check : callable
            Measures a network, the running mean, on held-out objects at each save.
        write : callable
            Writes a network to a path, with the summary of the training.
        every : int
            Steps between two records.
        report : callable
            Receives each record.

        Returns
        -------
        Path
            File of the weights.

        Raises
        ------
        InputError
            The folder holds a training with other settings.
        """
        folder.mkdir(parents=True, exist_ok=True)
        remove_unfinished(folder)
        if (folder / STATE_FILE).exists():
            self.load(folder / STATE_FILE)
        log = MetricsLog(folder / METRICS_FILE, self.step, report)
        weights = folder / f"{self._settings.name}.safetensors"

        def note(record: Record) -> None:
            done = {"progress": round(min(self.progress, 1.0), 4)}
            log.write({"step": self.step, "seconds": round(self.seconds, 1)} | done | record)

        def save() -> None:
            held_out = check(self.average)
            note({"held_out": held_out})
            self.save(folder / STATE_FILE)
            summary: Record = {
                "config": asdict(self._settings),
                "draws": self.step * self._settings.batch_size,
                "seconds": round(self.seconds, 1),
                "threads": torch.get_num_threads(),
                "held_out": held_out,
            }
            write(weights, self.average, summary)

        started = None
        saved = time.monotonic()
        with contextlib.closing(steps):
            while self.progress < 1.0:
                record = next(steps)
                if started is None:
                    started = time.monotonic() - self.seconds
                self.seconds = time.monotonic() - started
                if self.step % every == 0 or self.step == 1:
                    note(record)
                if time.monotonic() - saved > 60.0 * self._settings.checkpoint_minutes:
                    save()
                    saved = time.monotonic()
        save()
        return weights


class MetricsLog:
    """JSON lines of records, without those of steps that a resumed training repeats.

    Parameters
    ----------
    path : Path
        Path of the file.
    step : int
        Steps that are done.
    report : callable
        Receives each record.
    """

    def __init__(self, path: Path, step: int, report: Report) -> None:
        self._path, self._report = path, report
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        with atomic_file(path) as file:
            file.write("".join(line + "\n" for line in kept).encode())

    def write(self, record: Record) -> None:
        """Add a record."""
        with open(self._path, "a") as file:
            file.write(json.dumps(record) + "\n")
        self._report(record)


def _under(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    begin = f"{part}."
    return {name.removeprefix(begin): tensor for name, tensor in tensors.items() if name.startswith(begin)}
