"""What a training of any network carries from step to step, and how it is kept on disk."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from models.checkpoint import read_tensors, write_tensors

Network = TypeVar("Network", bound=nn.Module)


class Fit(Generic[Network]):
    """A network under training, the running mean of its weights, and its optimizers.

    Parameters
    ----------
    model : Module
        The network.
    inner : tuple of str
        Beginnings of the names of parameters whose matrices Muon moves; AdamW moves everything else.
    learning_rate, weight_decay : float
        Peak rate of both; decoupled decay of Muon.

    Attributes
    ----------
    model, average : Module
        The network and its running mean.
    step : int
        Steps taken.
    seconds : float
        Time spent on them, over all sessions.
    """

    def __init__(
        self, model: Network, inner: tuple[str, ...], *, learning_rate: float, weight_decay: float
    ) -> None:
        self.model, self.average = model, copy.deepcopy(model).requires_grad_(False).eval()
        self._rate = learning_rate
        named = list(model.named_parameters())
        matrices = [p for name, p in named if p.ndim == 2 and name.startswith(inner)]
        chosen = {id(p) for p in matrices}
        others = [p for _, p in named if id(p) not in chosen]
        self._optimizers = (
            torch.optim.Muon(
                matrices, lr=learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
            ),
            torch.optim.AdamW(others, lr=learning_rate, weight_decay=0.0, betas=(0.9, 0.98), fused=True),
        )
        self.step, self.seconds = 0, 0.0

    def take_step(self, loss: Tensor, share_of_rate: float, *, clip: float, averaging: float) -> None:
        """One step down the gradient of a loss.

        Parameters
        ----------
        loss : Tensor
            A number.
        share_of_rate : float
            By which the peak rate is multiplied.
        clip : float
            Largest norm of the gradient.
        averaging : float
            Memory of the running mean.

        Raises
        ------
        FloatingPointError
            The loss is not finite.
        """
        if not bool(torch.isfinite(loss)):
            raise FloatingPointError(f"the loss is {loss.item()} at step {self.step}")
        muon, adamw = self._optimizers
        for optimizer in self._optimizers:
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = self._rate * share_of_rate
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), clip)
        muon.step()  # type: ignore[no-untyped-call]  # torch leaves this one untyped
        adamw.step()
        self.step += 1
        memory = min(averaging, (1.0 + self.step) / (10.0 + self.step))
        for mean, parameter in zip(self.average.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(parameter.detach(), 1.0 - memory)

    def save(self, path: Path, settings: dict[str, object]) -> None:
        """Write everything needed to go on; ``settings`` say to which training it belongs."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"average.{name}": tensor for name, tensor in self.average.state_dict().items()}
        for which, optimizer in enumerate(self._optimizers):
            for index, moments in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{which}.{index}.{name}": value for name, value in moments.items()}
        progress = {"step": self.step, "seconds": self.seconds, "settings": settings}
        write_tensors(path, tensors, {"progress": json.dumps(progress)})

    def load(self, path: Path, settings: dict[str, object]) -> None:
        """Go on from what `save` wrote.

        Raises
        ------
        ValueError
            The file belongs to a training with other settings.
        """
        tensors, metadata = read_tensors(path)
        progress = json.loads(metadata["progress"])
        if progress["settings"] != json.loads(json.dumps(settings)):
            raise ValueError(f"{path} belongs to a training with other settings; use another folder")
        self.model.load_state_dict(_under(tensors, "model"))
        self.average.load_state_dict(_under(tensors, "average"))
        for which, optimizer in enumerate(self._optimizers):
            moments: dict[int, dict[str, Tensor]] = {}
            for name, tensor in _under(tensors, f"optimizer.{which}").items():
                index, _, moment = name.partition(".")
                moments.setdefault(int(index), {})[moment] = tensor
            optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
        self.step, self.seconds = progress["step"], progress["seconds"]


def share_of_rate(done: float, step: int, warm_up: int) -> float:
    """Rate relative to its peak: a linear rise over ``warm_up`` steps, a cosine to 1 % at ``done`` = 1."""
    fall = 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))
    return fall * min(1.0, (step + 1) / warm_up)


def _under(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    begin = f"{part}."
    return {name.removeprefix(begin): tensor for name, tensor in tensors.items() if name.startswith(begin)}
