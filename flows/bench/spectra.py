"""Operations and rates of the models of spectra.

The functions run in the processes of a `ProcessPool`.
"""

from __future__ import annotations

import time
from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from ojala.catalogs_schema.spectra import SPECTRA
from ojala.models.serving.precision import Precision
from ojala.pipeline.inference.adapters.base import Model
from ojala.pipeline.inference.adapters.registry import ADAPTERS
from ojala.pipeline.inference.model_spec import ModelSpec

SPECTRAL = tuple(
    name for name, adapter in ADAPTERS.items() if (adapter.reads, adapter.auxiliary) == (SPECTRA, None)
)
"""Models whose only input are spectra."""

_BATCH = 16


@cache
def model(name: str, precision: Precision) -> Model:
    """Load the bundled weights, once per process."""
    return ModelSpec(name, ADAPTERS[name].weights, precision=precision, batch_size=_BATCH).load()


def count(name: str) -> float:
    """Count floating-point operations of matrix products and convolutions per spectrum of DESI."""
    adapter = ADAPTERS[name]
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        adapter.predict(model(name, "fp32"), adapter.example(_BATCH))
    return float(counter.get_total_flops()) / _BATCH


def predict(name: str, rows: int, precision: Precision) -> tuple[float, float]:
    """Time the predictor, from spectra to the columns of the catalogue."""
    adapter, predictor = ADAPTERS[name], model(name, precision)
    spectra = adapter.example(rows)
    adapter.predict(predictor, adapter.example(_BATCH))
    begin = time.perf_counter()
    adapter.predict(predictor, spectra)
    return float(rows), time.perf_counter() - begin
