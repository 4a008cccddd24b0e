"""Base adapter of models over photometry whose predictions have the names of their contracts' columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.catalogs_schema.finetuned import FinetunedHead
from ojala.catalogs_schema.photometry import PHOTOMETRY
from ojala.catalogs_schema.receipt import Summary
from ojala.pipeline.inference.adapters.base import Model, ModelAdapter

if TYPE_CHECKING:
    import numpy as np

    from ojala.pipeline.inference.photometry import Photometry


class PhotometricAdapter(ModelAdapter["Photometry"]):
    """A model over photometry. A subclass names its contracts and weights and loads its predictor."""

    reads = PHOTOMETRY
    cpu_batch: ClassVar[int] = 128
    gpu_batch: ClassVar[int] = 16_384

    def read_inputs(self, table: pa.Table) -> Photometry:
        """See `ModelAdapter`."""
        from ojala.pipeline.inference.photometry import read_photometry

        return read_photometry(table)

    def predict(self, model: Model, inputs: Photometry) -> dict[str, np.ndarray]:
        """See `ModelAdapter`; the model takes flux and error, (N, 63) each, and E(B-V), (N,)."""
        return model.predict(inputs.flux, inputs.error, inputs.ebv)

    def build_products(
        self,
        model: Model,
        table: pa.Table,
        inputs: Photometry,
        predictions: dict[str, np.ndarray],
        products: Sequence[str],
        heads: Sequence[FinetunedHead] = (),
    ) -> dict[str, pa.Table]:
        """See `ModelAdapter`."""
        from ojala.pipeline.inference.products.table import build_table

        return {name: build_table(self.contract(name), table, predictions) for name in products}

    def summarise(self, main: pa.Table, inputs: Photometry) -> Summary:
        """See `ModelAdapter`."""
        from ojala.pipeline.inference.products.table import summarise

        return summarise(self.main, main, inputs.usable.sum(axis=0).tolist())

    def example(self, n: int) -> Photometry:
        """See `ModelAdapter`."""
        import numpy as np

        from ojala.pipeline.inference.photometry import Photometry

        flux = np.full((n, len(MODEL_BANDS)), 10.0, np.float32)
        return Photometry(flux, 0.1 * flux, np.zeros(n, np.float32), np.ones(flux.shape, bool))
