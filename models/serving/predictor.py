"""Base class of the predictors: loading of weights, device, precision and batch size."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn

from ojala.models import WEIGHTS_FOLDER
from ojala.models.checkpoint import CheckpointFormat, NetworkInfo
from ojala.models.serving.precision import Precision


class BasePredictor:
    """Base class of trained networks for inference.

    Batches have a fixed size and are padded, so that the predictions of a row do not depend on other rows.

    Attributes
    ----------
    name, version : str
        Name and version of the weights.
    weights_sha256 : str
        SHA-256 of the file of weights.
    device : str
        Torch device of the network.
    batch_size : int
        Rows per forward pass.

    Raises
    ------
    ValueError
        The precision is unknown, or ``batch_size`` is below 1.
    """

    FORMAT: ClassVar[CheckpointFormat[Any, Any]]
    """Format of the files of weights."""

    WEIGHTS: ClassVar[str]
    """File in `WEIGHTS_FOLDER` that `load` reads by default."""

    BATCH_SIZE: ClassVar[int] = 16
    """Default of the rows per forward pass, which fit into the caches of a CPU; a GPU needs hundreds."""

    def __init__(
        self, model: nn.Module, info: NetworkInfo[Any], *, device: str, precision: Precision, batch_size: int
    ) -> None:
        if precision not in ("fp32", "bf16"):
            raise ValueError(f"precision must be 'fp32' or 'bf16', not {precision!r}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        model.to(device).eval()
        self.name, self.version, self.weights_sha256 = info.name, info.version, info.sha256
        self.device, self.batch_size = device, batch_size
        self._bf16 = precision == "bf16"

    @classmethod
    def load(
        cls,
        weights_path: Path | str | None = None,
        device: str = "cpu",
        precision: Precision = "fp32",
        batch_size: int | None = None,
        **options: object,
    ) -> Self:
        """Read weights and build their predictor.

        Parameters
        ----------
        weights_path : Path or str, optional
            File of weights; by default those that come with the program.
        device : str
            Torch device.
        precision : {"fp32", "bf16"}
            Precision of the matrix products.
        batch_size : int, optional
            Rows per forward pass; `BATCH_SIZE` by default.
        **options
            Further options of the model's predictor.

        Raises
        ------
        ojala.models.checkpoint.WeightsError
            A file does not hold complete weights of this network.
        """
        path = WEIGHTS_FOLDER / cls.WEIGHTS if weights_path is None else Path(weights_path)
        model, info = cls.FORMAT.load(path)
        size = cls.BATCH_SIZE if batch_size is None else batch_size
        own = cls._load_options(path, info, **options)
        return cls(model, info, device=device, precision=precision, batch_size=size, **own)

    @classmethod
    def _load_options(cls, weights: Path, info: NetworkInfo[Any], **options: object) -> dict[str, Any]:
        """Complete the options of the constructor from further files next to the weights."""
        return options

    def halve_batch(self) -> None:
        """Halve the batch size and free cached memory of the device.

        Predictions then differ by rounding from those of the larger batch.
        """
        self.batch_size = max(1, self.batch_size // 2)
        if torch.device(self.device).type == "cuda":
            torch.cuda.empty_cache()

    def _autocast(self) -> torch.autocast:
        """Autocast context of the precision."""
        return torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16, enabled=self._bf16)
