"""Adapter of OJALA: photometry to value-added rows and extended products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.catalogs_schema.contract import Contract
from ojala.catalogs_schema.errors import InputError
from ojala.catalogs_schema.ojala import OJALA, OJALA_VECTORS
from ojala.catalogs_schema.photometry import PHOTOMETRY
from ojala.catalogs_schema.receipt import Summary
from ojala.pipeline.inference.adapters.empty import EMPTY

if TYPE_CHECKING:
    import numpy as np

    from ojala.pipeline.inference.adapters.base import Model
    from ojala.pipeline.inference.model_spec import ModelSpec
    from ojala.pipeline.inference.photometry import Photometry


@dataclass(frozen=True, slots=True)
class PhotometricAdapter:
    """OJALA, or in its place the model that answers nothing."""

    name: str
    weights: str
    reads: Contract = PHOTOMETRY
    beside: None = None
    products: tuple[Contract, ...] = (OJALA, OJALA_VECTORS)
    columns: None = None

    def load(self, spec: ModelSpec) -> Model:
        """See `System`."""
        if self.name == EMPTY:
            from ojala.pipeline.inference.adapters.empty import DummyModel

            return DummyModel()
        from ojala.models.ojala.predictor import OjalaPredictor

        model = OjalaPredictor.load(
            Path(spec.weights),
            spec.device,
            spec.precision,
            spec.batch_size,
            own_heads=spec.own_heads,
            pdfs=spec.vectors,
        )
        if spec.heads is not None and model.heads != spec.heads:
            raise InputError(
                f"{spec.weights}: its heads are {model.heads}, wanted are {spec.heads}: "
                "every worker needs the same files"
            )
        return model

    def inputs(self, table: pa.Table) -> Photometry:
        """See `System`."""
        from ojala.pipeline.inference.photometry import read_photometry

        return read_photometry(table)

    def example(self, n: int) -> Photometry:
        """See `System`."""
        import numpy as np

        from ojala.pipeline.inference.photometry import Photometry

        flux = np.full((n, len(MODEL_BANDS)), 10.0, np.float32)
        return Photometry(flux, 0.1 * flux, np.zeros(n, np.float32), np.ones(flux.shape, bool))

    def ask(self, model: Model, inputs: Photometry) -> dict[str, np.ndarray]:
        """See `System`."""
        return model.predict(inputs.flux, inputs.error, inputs.ebv)

    def tables(
        self,
        model: Model,
        table: pa.Table,
        inputs: Photometry,
        answers: dict[str, np.ndarray],
        products: Sequence[str],
    ) -> dict[str, pa.Table]:
        """See `System`."""
        from ojala.pipeline.inference.products.ojala import value_added_table, vectors_table

        made = {OJALA.name: value_added_table(table, inputs, answers)}
        if OJALA_VECTORS.name in products:
            made[OJALA_VECTORS.name] = vectors_table(table, inputs, answers)
        return made

    def summary(self, main: pa.Table, inputs: Photometry) -> Summary:
        """See `System`."""
        from ojala.pipeline.inference.products.ojala import summarise

        return summarise(main, inputs)
