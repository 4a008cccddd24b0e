"""Adapter of SpecPT: spectra to redshifts and reconstructed spectra."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ojala.catalogs_schema.specpt import SPECPT, SPECPT_SPECTRA
from ojala.pipeline.inference.adapters.spectra import SpectralAdapter

if TYPE_CHECKING:
    from ojala.pipeline.inference.adapters.base import Model
    from ojala.pipeline.inference.model_spec import ModelSpec


class SpecPTAdapter(SpectralAdapter):
    """SpecPT."""

    name = "specpt"
    description = "redshifts of galaxies from spectra"
    main = SPECPT
    extended = (SPECPT_SPECTRA,)
    weights_file = "specpt-base.safetensors"
    report_sections = ("spectra", "reconstructions")

    def load(self, spec: ModelSpec) -> Model:
        """See `ModelAdapter`."""
        from ojala.models.specpt.predictor import SpecPTPredictor

        return SpecPTPredictor.load(Path(spec.weights), spec.device, spec.precision, spec.batch_size)
