"""Registry of the models: name, adapter, weights.

A new model over spectra costs a module in `ojala.models` with a predictor, a contract in
`ojala.catalogs_schema`, its weights, and one entry in `ADAPTERS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ojala.catalogs_schema.contract import Contract
from ojala.catalogs_schema.specpt import SPECPT, SPECPT_SPECTRA
from ojala.catalogs_schema.spectral_tokenizer import SPECTRAL_TOKENIZER
from ojala.pipeline.inference.adapters.avis import AvisAdapter
from ojala.pipeline.inference.adapters.base import System
from ojala.pipeline.inference.adapters.empty import EMPTY
from ojala.pipeline.inference.adapters.ojala import PhotometricAdapter
from ojala.pipeline.inference.adapters.spectra import SpectralAdapter

WEIGHTS_FOLDER = Path(__file__).parents[3] / "models" / "weights"
"""Where the weights that come with the program lie."""


ADAPTERS: Mapping[str, System[Any]] = {
    system.name: system
    for system in (
        PhotometricAdapter("ojala", str(WEIGHTS_FOLDER / "ojala-base.safetensors")),
        PhotometricAdapter(EMPTY, weights=""),
        SpectralAdapter(
            "specpt",
            "ojala.models.specpt.predictor:SpecPTPredictor",
            str(WEIGHTS_FOLDER / "specpt-base.safetensors"),
            (SPECPT, SPECPT_SPECTRA),
        ),
        SpectralAdapter(
            "spectral-tokenizer",
            "ojala.models.spectral_tokenizer.predictor:SpectralTokenizerPredictor",
            str(WEIGHTS_FOLDER / "spectral-tokenizer-base.safetensors"),
            (SPECTRAL_TOKENIZER,),
        ),
        AvisAdapter("avis", str(WEIGHTS_FOLDER / "avis-base.safetensors")),
    )
}
"""All systems by name."""

PRODUCTS: Mapping[str, Contract] = {
    contract.name: contract for system in ADAPTERS.values() for contract in system.products
}
"""The products of all systems by name."""
