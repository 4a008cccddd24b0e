"""Adapter of the universal spectral tokenizer: spectra to embeddings, classes and redshifts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ojala.catalogs_schema.spectral_tokenizer import SPECTRAL_TOKENIZER
from ojala.pipeline.inference.adapters.spectra import SpectralAdapter

if TYPE_CHECKING:
    from ojala.pipeline.inference.adapters.base import Model
    from ojala.pipeline.inference.model_spec import ModelSpec


class SpectralTokenizerAdapter(SpectralAdapter):
    """Universal spectral tokenizer."""

    name = "spectral-tokenizer"
    description = "embeddings, classes, redshifts and stellar parameters from spectra"
    main = SPECTRAL_TOKENIZER
    weights_file = "spectral-tokenizer-base.safetensors"

    def load(self, spec: ModelSpec) -> Model:
        """See `ModelAdapter`."""
        from ojala.models.spectral_tokenizer.predictor import SpectralTokenizerPredictor

        return SpectralTokenizerPredictor.load(
            Path(spec.weights), spec.device, spec.precision, spec.batch_size
        )
