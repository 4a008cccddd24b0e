"""Adapter of models over spectra whose answers have the names of their contracts' columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from ojala.catalogs_schema.contract import Contract
from ojala.catalogs_schema.receipt import Summary
from ojala.catalogs_schema.spectra import SPECTRA
from ojala.pipeline.inference.adapters.base import Predictor

if TYPE_CHECKING:
    import numpy as np

    from ojala.models.data import Spectra
    from ojala.pipeline.inference.adapters.base import Model
    from ojala.pipeline.inference.model_spec import ModelSpec


@dataclass(frozen=True, slots=True)
class SpectralAdapter:
    """A model of spectra whose answers have the names of its contracts' columns.

    Attributes
    ----------
    name, predictor, weights, products
        As in `System`; ``predictor`` is ``module:Class``, whose ``load`` takes path, device, precision and
        batch size, and whose ``predict`` takes `ojala.models.data.Spectra`.
    """

    name: str
    predictor: str
    weights: str
    products: tuple[Contract, ...]
    reads: Contract = SPECTRA
    beside: None = None

    @property
    def columns(self) -> list[str]:
        """See `System`."""
        return SPECTRA_COLUMNS

    def load(self, spec: ModelSpec) -> Model:
        """See `System`."""
        module, _, name = self.predictor.partition(":")
        predictor: type[Predictor] = getattr(import_module(module), name)
        return predictor.load(Path(spec.weights), spec.device, spec.precision, spec.batch_size)

    def inputs(self, table: pa.Table) -> Spectra:
        """See `System`."""
        from ojala.pipeline.inference.products.spectra import read_spectra

        return read_spectra(table)

    def example(self, n: int) -> Spectra:
        """See `System`."""
        return example_spectra(n)

    def ask(self, model: Model, inputs: Spectra) -> dict[str, np.ndarray]:
        """See `System`."""
        return model.predict(inputs)

    def tables(
        self,
        model: Model,
        table: pa.Table,
        inputs: Spectra,
        answers: dict[str, np.ndarray],
        products: Sequence[str],
    ) -> dict[str, pa.Table]:
        """See `System`."""
        from ojala.pipeline.inference.products.table import contract_table

        wanted = [contract for contract in self.products if contract.name in products]
        return {contract.name: contract_table(contract, table, answers) for contract in wanted}

    def summary(self, main: pa.Table, inputs: Spectra) -> Summary:
        """See `System`."""
        from ojala.pipeline.inference.products.spectra import summarise

        return summarise(self.products[0], main)


SPECTRA_COLUMNS = [name for name in SPECTRA.names if name != "mask"]
"""Columns of the spectra catalogue that models read."""


def example_spectra(n: int) -> Spectra:
    """N flat spectra on a grid like that of DESI, to measure rates."""
    import numpy as np

    from ojala.models.data import Spectra

    wavelength = np.linspace(3600.0, 9824.0, 7781, dtype=np.float32)
    flux = np.ones_like(wavelength)
    return Spectra.of([(wavelength, flux, flux)] * n)
