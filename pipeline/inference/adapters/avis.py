"""Adapter of AVIS: spectra and cut-outs to embeddings and their places in an atlas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pyarrow as pa

from ojala.catalogs_schema.avis import AVIS
from ojala.catalogs_schema.contract import Contract
from ojala.catalogs_schema.cutouts import CUTOUTS
from ojala.catalogs_schema.errors import InputError
from ojala.catalogs_schema.receipt import Summary
from ojala.catalogs_schema.spectra import SPECTRA
from ojala.pipeline.inference.adapters.spectra import SPECTRA_COLUMNS, example_spectra

if TYPE_CHECKING:
    import numpy as np

    from ojala.models.avis.predictor import AvisPredictor
    from ojala.models.data import Pairs
    from ojala.pipeline.inference.adapters.base import Model
    from ojala.pipeline.inference.model_spec import ModelSpec


@dataclass(frozen=True, slots=True)
class AvisAdapter:
    """AVIS, which reads spectra and, where there are any, their cut-outs."""

    name: str
    weights: str
    reads: Contract = SPECTRA
    beside: Contract = CUTOUTS
    products: tuple[Contract, ...] = (AVIS,)

    @property
    def columns(self) -> list[str]:
        """See `System`."""
        return SPECTRA_COLUMNS

    def load(self, spec: ModelSpec) -> AvisPredictor:
        """See `System`."""
        from ojala.models.avis.atlas import read_atlas
        from ojala.models.avis.predictor import AvisPredictor

        model = AvisPredictor.load(Path(spec.weights), spec.device, spec.precision, spec.batch_size)
        if spec.atlas:
            model.atlas = read_atlas(Path(spec.atlas), model.weights_sha256)
            if spec.atlas_sha256 not in ("", model.atlas.sha256):
                raise InputError(
                    f"{spec.atlas}: SHA-256 is {model.atlas.sha256}, wanted is {spec.atlas_sha256}: every "
                    "worker needs the same file"
                )
        return model

    def inputs(self, table: pa.Table) -> Pairs:
        """See `System`."""
        from ojala.pipeline.inference.products.avis import read_pairs

        return read_pairs(table)

    def example(self, n: int) -> Pairs:
        """See `System`."""
        import numpy as np

        from ojala.catalogs_schema.cutouts import CUTOUT_BANDS, SIZE
        from ojala.models.data import Images, Pairs

        bands = len(CUTOUT_BANDS)
        flux = np.ones((n, bands, SIZE, SIZE), np.float32)
        return Pairs(example_spectra(n), Images(flux, flux, np.ones((n, bands), np.float32)))

    def ask(self, model: Model, inputs: Pairs) -> dict[str, np.ndarray]:
        """See `System`."""
        return model.predict(inputs)

    def tables(
        self,
        model: Model,
        table: pa.Table,
        inputs: Pairs,
        answers: dict[str, np.ndarray],
        products: Sequence[str],
    ) -> dict[str, pa.Table]:
        """See `System`; also places the embeddings in the atlas."""
        from ojala.pipeline.inference.products.avis import avis_table

        return {AVIS.name: avis_table(table, answers, cast("AvisPredictor", model).atlas)}

    def summary(self, main: pa.Table, inputs: Pairs) -> Summary:
        """See `System`."""
        from ojala.pipeline.inference.products.avis import summarise

        return summarise(main)
