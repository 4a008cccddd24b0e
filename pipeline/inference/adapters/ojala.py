"""Adapter of OJALA: photometry to value-added rows, redshift PDFs, embeddings, bands, quantities of heads."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

import pyarrow as pa

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.catalogs_schema.contract import Contract
from ojala.catalogs_schema.finetuned import HEADS_PRODUCT, FinetunedHead, heads_contract
from ojala.catalogs_schema.ojala import OJALA, OJALA_BANDS, OJALA_VECTORS, predicted_flux
from ojala.catalogs_schema.receipt import BandResiduals
from ojala.pipeline.inference.adapters.base import WEIGHTS, Asset, Model, ModelError
from ojala.pipeline.inference.adapters.photometry import PhotometricAdapter

if TYPE_CHECKING:
    import numpy as np

    from ojala.models.ojala.predictor import OjalaPredictor
    from ojala.pipeline.inference.model_spec import ModelSpec
    from ojala.pipeline.inference.photometry import Photometry


class OjalaAdapter(PhotometricAdapter):
    """OJALA."""

    name = "ojala"
    description = "classes, redshifts and physical properties from photometry"
    main = OJALA
    extended = (OJALA_VECTORS,)
    bands_product: ClassVar[Contract | None] = OJALA_BANDS
    accepts = frozenset({"heads", "bands"})
    heads_product = HEADS_PRODUCT
    weights_file = "ojala-base.safetensors"
    bf16_on_cpu = True  # its cost in each column: flows/bench/BENCHMARK.md
    validation = ("class", *(name for name in OJALA.names if f"{name}_err" in OJALA.names))

    def products(
        self, *, extended: bool = False, bands: bool = False, heads: Sequence[FinetunedHead] = ()
    ) -> tuple[Contract, ...]:
        """See `ModelAdapter`; the heads' product comes last."""
        others = super().products(extended=extended, bands=bands)
        return (*others, *((heads_contract(heads),) if heads else ()))

    def assets(self, spec: ModelSpec) -> tuple[Asset, ...]:
        """See `ModelAdapter`; heads are those next to the weights that belong to them, and the user's."""
        from ojala.models.ojala.headers import NO_BAND_REQUESTS, has_band_requests, heads_beside

        (weights,) = super().assets(spec)
        if spec.bands and not has_band_requests(Path(spec.weights)):
            raise ModelError(f"{spec.weights}: {NO_BAND_REQUESTS}, or leave --bands out")
        bundled = heads_beside(Path(spec.weights), lambda: weights.sha256)
        found = [(name, str(p), hashlib.sha256(p.read_bytes()).hexdigest()) for name, p in bundled.items()]
        own = zip(self.heads(spec, weights.sha256), spec.heads, strict=True)
        found += [(head.name, path, head.sha256) for head, path in own]
        return (weights, *(Asset(f"head.{name}", path, sha256) for name, path, sha256 in found))

    def heads(self, spec: ModelSpec, weights_sha256: str) -> tuple[FinetunedHead, ...]:
        """See `ModelAdapter`."""
        if not spec.heads:
            return ()
        from ojala.models.ojala.heads import load_head

        heads = [load_head(Path(path), weights_sha256) for path in spec.heads]
        return tuple(
            FinetunedHead(
                name=head.tuning.name,
                unit=head.tuning.unit,
                ucd=head.tuning.ucd,
                description=head.tuning.description,
                object_class=head.tuning.object_class,
                sha256=head.sha256,
            )
            for head in heads
        )

    def load(self, spec: ModelSpec) -> Model:
        """See `ModelAdapter`."""
        from ojala.models.ojala.predictor import OjalaPredictor

        return OjalaPredictor.load(
            Path(spec.weights),
            spec.device,
            spec.precision,
            spec.batch_size,
            own_heads=spec.heads,
            pdfs=spec.extended,
            bands=spec.bands,
        )

    def loaded_assets(self, model: Model) -> dict[str, str]:
        """See `ModelAdapter`."""
        heads = cast("OjalaPredictor", model).heads
        return {WEIGHTS: model.weights_sha256, **{f"head.{name}": sha256 for name, sha256 in heads}}

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
        from ojala.pipeline.inference.products.ojala import (
            bands_table,
            heads_table,
            value_added_table,
            vectors_table,
        )

        made = {OJALA.name: value_added_table(table, inputs, predictions)}
        if OJALA_VECTORS.name in products:
            made[OJALA_VECTORS.name] = vectors_table(table, inputs, predictions)
        if OJALA_BANDS.name in products:
            made[OJALA_BANDS.name] = bands_table(table, predictions)
        if HEADS_PRODUCT in products:
            made[HEADS_PRODUCT] = heads_table(heads, made[OJALA.name], predictions)
        return made

    def band_residuals(self, tables: Mapping[str, pa.Table], inputs: Photometry) -> dict[str, BandResiduals]:
        """See `ModelAdapter`."""
        import numpy as np

        from ojala.pipeline.inference.products.band_residuals import band_residuals

        if OJALA_BANDS.name not in tables:
            return {}
        table = tables[OJALA_BANDS.name]

        def matrix(names: Sequence[str]) -> np.ndarray:
            return np.stack([table[name].to_numpy(zero_copy_only=False) for name in names], axis=1)

        flux = [predicted_flux(band) for band in MODEL_BANDS]
        predicted, error = matrix(flux), matrix([f"{name}_err" for name in flux])
        return band_residuals(table["tile_id"].to_numpy(), matrix(("ra", "dec")), inputs, predicted, error)
