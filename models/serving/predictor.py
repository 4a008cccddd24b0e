"""What every network has that answers for the pipeline: its weights, its device, its batch."""

from __future__ import annotations

from typing import Any

import torch

from ojala.models.checkpoint import NetworkInfo
from ojala.models.serving.precision import Precision


class BasePredictor:
    """A network with trained weights, as the pipeline uses it.

    Batches have a fixed size, those that are not full being padded, so that a row's answer does not depend on
    how many rows come with it.

    Attributes
    ----------
    name, version : str
        Of the weights.
    weights_sha256 : str
        SHA-256 of the file of weights.
    device : str
        Torch device that it runs on.
    batch_size : int
        Rows per forward pass.

    Raises
    ------
    ValueError
        If there is no such precision, or the batch has no rows.
    """

    def __init__(self, info: NetworkInfo[Any], *, device: str, precision: Precision, batch_size: int) -> None:
        if precision not in ("fp32", "bf16"):
            raise ValueError(f"precision must be 'fp32' or 'bf16', not {precision!r}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.name, self.version, self.weights_sha256 = info.name, info.version, info.sha256
        self.device, self.batch_size = device, batch_size
        self._bf16 = precision == "bf16"

    def halve_batch(self) -> None:
        """Halve the batch for all that follows, and give cached memory back to the device.

        A row's numbers then differ by rounding from those of the larger batch.
        """
        self.batch_size = max(1, self.batch_size // 2)
        if torch.device(self.device).type == "cuda":
            torch.cuda.empty_cache()

    def _arithmetic(self) -> torch.autocast:
        """The context in which the network computes."""
        return torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16, enabled=self._bf16)
