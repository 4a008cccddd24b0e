"""From the inputs of the published OJALÁ to the predicted columns of its catalogue."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ojala.models.ojala_published.checkpoint import FORMAT, NAME, PublishedInfo
from ojala.models.ojala_published.inputs import INPUTS, as_read
from ojala.models.ojala_published.network import CLASSES, REQUESTS, SCALARS, PublishedOjala
from ojala.models.serving.batching import MAX_CONCURRENCY, BatchPipeline, CpuBuffer
from ojala.models.serving.cuda_graph import CudaBuffer, CudaGraphRunner
from ojala.models.serving.precision import Precision
from ojala.models.serving.predictor import BasePredictor

LOGVAR_LIMITS = {
    name: (float(np.log(1e-4)), float(np.log(1e4 if name.startswith("Z_") else 150.0))) for name in SCALARS
}
"""Limits to which the published training clips log variances, which the published inference does not."""


class PublishedPredictor(BasePredictor):
    """The published network with its weights.

    Attributes
    ----------
    network : PublishedOjala
        The network, in evaluation mode.
    config_sha256 : str
        SHA-256 of the authors' ``config.json``; empty where the weights hold it.
    options : dict of str to str
        Choices among `ojala.models.ojala_published.inputs.OPTIONS`, for who makes the inputs.
    max_concurrency : int
        Threads that may call `predict` at a time.
    """

    FORMAT = FORMAT
    BATCH_SIZE = 128

    def __init__(
        self,
        model: PublishedOjala,
        info: PublishedInfo,
        *,
        device: str,
        precision: Precision,
        batch_size: int,
        wavelength_bias: bool = False,
        options: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(model, info, device=device, precision=precision, batch_size=batch_size)
        self.network = model
        self.network.wavelength_bias = wavelength_bias
        if wavelength_bias:
            self.name = f"{NAME}-bias"
        self.config_sha256 = info.config_sha256
        self.options = dict(options or {})
        self.max_concurrency = MAX_CONCURRENCY if torch.device(device).type == "cuda" else 1
        self._pipeline: BatchPipeline | None = None
        self._turn = threading.Lock()

    def predict(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Predicted columns for N objects.

        Parameters
        ----------
        values : ndarray, shape (N, 60)
            `INPUTS`; those that are not finite in single precision are missing. A row without any gets the
            same finite prediction as every other such row.

        Returns
        -------
        dict of str to ndarray, N rows each
            `SCALARS` and their ``_ERR`` in the published units, ``P_GALAXY``, ``P_STAR`` and ``P_QSO``,
            float32; ``CLASS``, words; ``logvar`` float32 (N, 14), standardised and not clipped. NaN in a
            whole row whose values overflow when they are standardised; its class is GALAXY, as published.

        Raises
        ------
        ValueError
            If the shape does not fit.
        """
        if values.ndim != 2 or values.shape[1] != len(INPUTS):
            raise ValueError(f"inputs must be (N, {len(INPUTS)}), not {values.shape}")
        return self._columns(self.predict_raw(values))

    def predict_raw(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs of the network, see `PublishedOjala.forward`, and ``probability`` (N, 3)."""
        return self._way().run(as_read(values))

    def warm_up(self) -> None:
        """Make the way through the device: on a GPU, record the network for its batches."""
        self._way()

    def halve_batch(self) -> None:
        """See `BasePredictor`; the way through the device is made anew."""
        self._pipeline = None
        super().halve_batch()

    def _way(self) -> BatchPipeline:
        with self._turn:
            size = self.batch_size
            if self._pipeline is None or self._pipeline.size != size:
                if torch.device(self.device).type == "cuda":
                    recorded = CudaGraphRunner(self._predict_batch, ((len(INPUTS),),), size)
                    self._pipeline = BatchPipeline(lambda: CudaBuffer(recorded), size, self.max_concurrency)
                else:
                    self._pipeline = BatchPipeline(lambda: CpuBuffer(self._predict_batch, size), size, 1)
            return self._pipeline

    @torch.no_grad()
    def _predict_batch(self, values: Tensor) -> dict[str, Tensor]:
        with self._autocast():
            outputs = self.network(values)
        found = {name: output.float() for name, output in outputs.items()}
        return found | {"probability": found["logits"].softmax(dim=-1)}

    def _columns(self, raw: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        ids = self.network.request_ids.cpu().numpy()
        centre, scale = (part.cpu().numpy()[ids] for part in (self.network.centre, self.network.scale))
        with np.errstate(all="ignore"):
            value = raw["mean"] * scale + centre
            error = np.sqrt(np.exp(raw["logvar"])) * scale
        columns: dict[str, np.ndarray] = {}
        for k, name in enumerate(REQUESTS):
            if name in SCALARS:
                columns |= {name: value[:, k], f"{name}_ERR": error[:, k]}
        columns |= {f"P_{name}": raw["probability"][:, k] for k, name in enumerate(CLASSES)}
        # NaN counts as the largest, so that a row of NaN is of the first class, as published.
        columns["CLASS"] = np.array(CLASSES, dtype=object)[raw["probability"].argmax(axis=1)]
        return columns | {"logvar": raw["logvar"][:, 1:]}
