"""The models of spectra by themselves: what they have to compute for one, and how fast they do so.

The functions run in the processes of a `ProcessPool`.
"""

from __future__ import annotations

import time
from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from ojala.models.serving.precision import Precision
from ojala.pipeline.inference.adapters.base import Model
from ojala.pipeline.inference.adapters.registry import ADAPTERS
from ojala.pipeline.inference.adapters.spectra import SpectralAdapter
from ojala.pipeline.inference.model_spec import ModelSpec

SPECTRAL = tuple(name for name, system in ADAPTERS.items() if isinstance(system, SpectralAdapter))
"""Names of the models of spectra."""

_BATCH = 16


@cache
def model(name: str, precision: Precision) -> Model:
    """The weights that come with the program, loaded once in a process."""
    return ModelSpec(name, ADAPTERS[name].weights, precision=precision, batch_size=_BATCH).load()


def count(name: str) -> float:
    """Floating-point operations of the matrix products and convolutions for one spectrum of DESI."""
    system = ADAPTERS[name]
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        system.ask(model(name, "fp32"), system.example(_BATCH))
    return float(counter.get_total_flops()) / _BATCH


def predict(name: str, rows: int, precision: Precision) -> tuple[float, float]:
    """The predictor as a partition calls it: from spectra to a catalogue's numbers."""
    system, predictor = ADAPTERS[name], model(name, precision)
    spectra = system.example(rows)
    system.ask(predictor, system.example(_BATCH))
    begin = time.perf_counter()
    system.ask(predictor, spectra)
    return float(rows), time.perf_counter() - begin
