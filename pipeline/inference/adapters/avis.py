"""Adapter of AVIS: spectra and cut-outs to embeddings and their coordinates in an atlas."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pyarrow as pa

from ojala.catalogs_schema.avis import AVIS, AvisFlag
from ojala.catalogs_schema.cutouts import CUTOUTS
from ojala.catalogs_schema.finetuned import FinetunedHead
from ojala.catalogs_schema.receipt import Summary
from ojala.catalogs_schema.spectra import SPECTRA
from ojala.pipeline.inference.adapters.base import WEIGHTS, Asset, Model, ModelAdapter
from ojala.pipeline.inference.adapters.spectra import SPECTRA_COLUMNS, example_spectra

if TYPE_CHECKING:
    import numpy as np

    from ojala.models.avis.predictor import AvisPredictor
    from ojala.models.data import Pairs
    from ojala.pipeline.inference.model_spec import ModelSpec

ATLAS_ENDING = "-atlas.safetensors"
"""Ending of an atlas' file name in place of that of its weights."""


class AvisAdapter(ModelAdapter["Pairs"]):
    """AVIS, over spectra and the cut-outs of those that have one."""

    name = "avis"
    description = "joint embeddings of spectra and images, with their coordinates in an atlas"
    reads = SPECTRA
    auxiliary = CUTOUTS
    columns = SPECTRA_COLUMNS
    main = AVIS
    accepts = frozenset({"atlas"})
    weights_file = "avis-base.safetensors"
    report_sections = ("spectra", "atlas")

    def companions(self, weights: str) -> dict[str, str]:
        """See `ModelAdapter`; the atlas next to the weights."""
        path = Path(weights)
        atlas = path.with_name(f"{path.stem}{ATLAS_ENDING}")
        return {"atlas": str(atlas)} if atlas.is_file() else {}

    def assets(self, spec: ModelSpec) -> tuple[Asset, ...]:
        """See `ModelAdapter`."""
        (weights,) = super().assets(spec)
        if not spec.atlas:
            return (weights,)
        from ojala.models.avis.atlas import read_atlas

        return (weights, Asset("atlas", spec.atlas, read_atlas(Path(spec.atlas), weights.sha256).sha256))

    def load(self, spec: ModelSpec) -> Model:
        """See `ModelAdapter`."""
        from ojala.models.avis.atlas import read_atlas
        from ojala.models.avis.predictor import AvisPredictor

        model = AvisPredictor.load(Path(spec.weights), spec.device, spec.precision, spec.batch_size)
        if spec.atlas:
            model.atlas = read_atlas(Path(spec.atlas), model.weights_sha256)
        return model

    def loaded_assets(self, model: Model) -> dict[str, str]:
        """See `ModelAdapter`."""
        atlas = cast("AvisPredictor", model).atlas
        return {WEIGHTS: model.weights_sha256, **({"atlas": atlas.sha256} if atlas else {})}

    def read_inputs(self, table: pa.Table) -> Pairs:
        """See `ModelAdapter`; an object without cut-out has an image without a usable pixel."""
        from ojala.models.data import Pairs
        from ojala.pipeline.inference.cutouts import joined_images
        from ojala.pipeline.inference.spectra import read_spectra

        relative = table["relative_flux"].to_numpy(zero_copy_only=False).astype(bool)
        return Pairs(read_spectra(table), joined_images(table), relative)

    def build_products(
        self,
        model: Model,
        table: pa.Table,
        inputs: Pairs,
        predictions: dict[str, np.ndarray],
        products: Sequence[str],
        heads: Sequence[FinetunedHead] = (),
    ) -> dict[str, pa.Table]:
        """See `ModelAdapter`; also places the embeddings in the atlas."""
        from ojala.pipeline.inference.products.avis import avis_table

        return {AVIS.name: avis_table(table, predictions, cast("AvisPredictor", model).atlas)}

    def summarise(self, main: pa.Table, inputs: Pairs) -> Summary:
        """See `ModelAdapter`."""
        from ojala.pipeline.inference.products.table import summarise

        embedded = (main[AVIS.name_of("flags")].to_numpy() & AvisFlag.NOT_EMBEDDED) == 0
        return summarise(AVIS, main, redshift="z_nn", predicted=embedded)

    def example(self, n: int) -> Pairs:
        """See `ModelAdapter`."""
        import numpy as np

        from ojala.catalogs_schema.cutouts import CUTOUT_BANDS, SIZE
        from ojala.models.data import Images, Pairs

        bands = len(CUTOUT_BANDS)
        flux = np.ones((n, bands, SIZE, SIZE), np.float32)
        return Pairs(example_spectra(n), Images(flux, flux, np.ones((n, bands), np.float32)))
