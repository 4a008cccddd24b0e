"""Model without a network, named ``empty``: constants for every row, to measure and test the pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ojala.catalogs_schema.ojala import EMBEDDING_WIDTH
from ojala.models.quantities import CLASSES, FINE_TUNED, SCALARS
from ojala.pipeline.inference.adapters.base import NO_WEIGHTS, WEIGHTS, Asset, Model
from ojala.pipeline.inference.adapters.ojala import OjalaAdapter

if TYPE_CHECKING:
    from ojala.pipeline.inference.model_spec import ModelSpec


class DummyAdapter(OjalaAdapter):
    """The products of OJALA from constants."""

    name = "empty"
    description = "constants in the products of ojala, without a network: measures and tests the pipeline"
    bands_product = None
    accepts = frozenset()
    heads_product = ""
    weights_file = ""
    bf16_on_cpu = False

    def assets(self, spec: ModelSpec) -> tuple[Asset, ...]:
        """See `ModelAdapter`."""
        return (Asset(WEIGHTS, "", NO_WEIGHTS),)

    def load(self, spec: ModelSpec) -> Model:
        """See `ModelAdapter`."""
        return DummyModel()

    def loaded_assets(self, model: Model) -> dict[str, str]:
        """See `ModelAdapter`."""
        return {WEIGHTS: model.weights_sha256}


class DummyModel:
    """The same constants for every object."""

    name = DummyAdapter.name
    version = "1"
    weights_sha256 = NO_WEIGHTS
    device = "none"
    batch_size = 1

    def halve_batch(self) -> None:
        """There is no batch to halve."""

    def predict(self, flux: np.ndarray, error: np.ndarray, ebv: np.ndarray) -> dict[str, np.ndarray]:
        """Predict a galaxy at z = 0.5, with certainty, for each of N rows."""
        constant = {
            "p_galaxy": 1.0,
            "z_odds": 1.0,
            **dict.fromkeys(("z", "z_gal", "z_qso"), 0.5),
            **{f"z_q{q:02d}": 0.5 for q in (2, 16, 50, 84, 98)},
            **{f"{quantity.name}": quantity.center for quantity in SCALARS},
            "teff": 5500.0,
            "log_mbh": 8.5,
        }
        names = ["p_star", "p_qso", "z_mode2", "z_mode2_p", "novelty"]
        names += [f"{name}_err" for name in ("z", "z_gal", "z_qso", *(q.name for q in SCALARS + FINE_TUNED))]
        n = len(flux)
        predictions = {name: np.full(n, constant.get(name, 0.0), np.float32) for name in [*constant, *names]}
        predictions["class_code"] = np.full(n, CLASSES.index("GALAXY"), np.int8)
        for name in ("z_gal_pdf", "z_qso_pdf"):
            predictions |= {name: np.zeros(0, np.float16), f"{name}_bin": np.zeros(0, np.int16)}
            predictions[f"{name}_n"] = np.zeros(n, np.int32)
        predictions["embedding"] = np.zeros((n, EMBEDDING_WIDTH), np.float16)
        return predictions
