"""Base adapter of models over spectra whose predictions have the names of their contracts' columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa

from ojala.catalogs_schema.finetuned import FinetunedHead
from ojala.catalogs_schema.receipt import Summary
from ojala.catalogs_schema.spectra import SPECTRA
from ojala.pipeline.inference.adapters.base import Model, ModelAdapter

if TYPE_CHECKING:
    import numpy as np

    from ojala.models.data import Spectra

SPECTRA_COLUMNS = [name for name in SPECTRA.names if name != "mask"]
"""Columns of the spectra catalogue that models read."""


class SpectralAdapter(ModelAdapter["Spectra"]):
    """A model over spectra. A subclass names its contracts and weights and loads its predictor."""

    reads = SPECTRA
    columns = SPECTRA_COLUMNS
    report_sections: ClassVar[tuple[str, ...]] = ("spectra",)

    def read_inputs(self, table: pa.Table) -> Spectra:
        """See `ModelAdapter`."""
        from ojala.pipeline.inference.spectra import read_spectra

        return read_spectra(table)

    def build_products(
        self,
        model: Model,
        table: pa.Table,
        inputs: Spectra,
        predictions: dict[str, np.ndarray],
        products: Sequence[str],
        heads: Sequence[FinetunedHead] = (),
    ) -> dict[str, pa.Table]:
        """See `ModelAdapter`."""
        from ojala.pipeline.inference.products.table import build_table

        return {name: build_table(self.contract(name), table, predictions) for name in products}

    def summarise(self, main: pa.Table, inputs: Spectra) -> Summary:
        """See `ModelAdapter`."""
        from ojala.pipeline.inference.products.table import summarise

        return summarise(self.main, main)

    def example(self, n: int) -> Spectra:
        """See `ModelAdapter`."""
        return example_spectra(n)


def example_spectra(n: int) -> Spectra:
    """N flat spectra on a grid like that of DESI, to measure rates."""
    import numpy as np

    from ojala.models.data import Spectra

    wavelength = np.linspace(3600.0, 9824.0, 7781, dtype=np.float32)
    flux = np.ones_like(wavelength)
    return Spectra.from_arrays([(wavelength, flux, flux)] * n)
