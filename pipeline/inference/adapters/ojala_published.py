"""Adapters of the published OJALÁ: as its authors run it, and with the wavelength bias of its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ojala.catalogs_schema.bands import KRON_BAND, MODEL_BANDS, REFERENCE_BAND
from ojala.catalogs_schema.contract import Contract
from ojala.catalogs_schema.finetuned import FinetunedHead
from ojala.catalogs_schema.ojala import CLASSES
from ojala.catalogs_schema.ojala_published import (
    OJALA_PUBLISHED,
    OJALA_PUBLISHED_BIAS,
    QUANTITIES,
    PublishedFlag,
)
from ojala.catalogs_schema.photometry import PHOTOMETRY
from ojala.catalogs_schema.receipt import Summary
from ojala.models.ojala_published.inputs import NARROW, OPTIONS, PublishedInputs, as_read
from ojala.pipeline.inference.adapters.base import WEIGHTS, Asset, Model, ModelAdapter, ModelError

if TYPE_CHECKING:
    from ojala.models.ojala_published.predictor import PublishedPredictor
    from ojala.pipeline.inference.model_spec import ModelSpec

CONFIG = "config"
"""Role of the authors' ``config.json``, which holds the standardisation."""

FEW_BANDS = 10
"""Fewer inputs than this are flagged."""

CERTAIN_CLASS = 0.7
"""A lower probability of the most probable class is flagged."""

FLAGGED_INPUT = 3
"""SExtractor flags above this are flagged."""

MAGNITUDES = (5.0, 35.0)
"""Magnitudes outside are flagged."""

MAX_RATIO = 100.0
"""Ratios to iSDSS beyond this in modulus are flagged."""

_STELLAR = ("TEFF", "LOGG", "ALPHAFE", "FEH")
_OF_CLASS = {
    "GALAXY": [name for name in QUANTITIES if name not in (*_STELLAR, "Z_QSO")],
    "STAR": list(_STELLAR),
    "QSO": ["Z_QSO"],
}


class PublishedAdapter(ModelAdapter[PublishedInputs]):
    """The published OJALÁ as its authors run it."""

    name = "ojala-published"
    description = "the published OJALA (arXiv:2604.00661) with the authors' weights, as they run it"
    reads = PHOTOMETRY
    main = OJALA_PUBLISHED
    cpu_batch = 128
    gpu_batch = 8_192
    options = OPTIONS
    validation = (
        "class",
        *(name for name in OJALA_PUBLISHED.column_names if f"{name}_err" in OJALA_PUBLISHED.column_names),
    )
    wavelength_bias: ClassVar[bool] = False

    def device_defaults(self, device: str) -> dict[str, Any]:
        """See `ModelAdapter`; single precision everywhere, so that the numbers are the published ones."""
        return super().device_defaults(device) | {"precision": "fp32"}

    def assets(self, spec: ModelSpec) -> tuple[Asset, ...]:
        """See `ModelAdapter`; the authors' ``config.json`` where the weights do not hold it."""
        from ojala.models.ojala_published.checkpoint import SOURCE, read_published

        if not spec.weights:
            raise ModelError(
                f"model {self.name} needs the authors' weights: fetch weights.pt and config.json from "
                f"{SOURCE} and give --weights weights.pt"
            )
        path = Path(spec.weights)
        config_sha256 = read_published(path)[2]
        configs = (Asset(CONFIG, str(path.with_name("config.json")), config_sha256),) if config_sha256 else ()
        return (*super().assets(spec), *configs)

    def load(self, spec: ModelSpec) -> Model:
        """See `ModelAdapter`."""
        from ojala.models.ojala_published.predictor import PublishedPredictor

        return PublishedPredictor.load(
            Path(spec.weights),
            spec.device,
            spec.precision,
            spec.batch_size,
            wavelength_bias=self.wavelength_bias,
            options=spec.chosen_options,
        )

    def loaded_assets(self, model: Model) -> dict[str, str]:
        """See `ModelAdapter`."""
        config_sha256 = cast("PublishedPredictor", model).config_sha256
        return {WEIGHTS: model.weights_sha256, **({CONFIG: config_sha256} if config_sha256 else {})}

    def read_inputs(self, table: pa.Table) -> PublishedInputs:
        """See `ModelAdapter`; a catalogue of an older contract has no Kron flux."""
        flux = np.stack([_numbers(table, band.flux_column) for band in MODEL_BANDS], axis=1)
        return PublishedInputs(flux, _numbers(table, KRON_BAND.flux_column), _numbers(table, "ebv"))

    def predict(self, model: Model, inputs: PublishedInputs) -> dict[str, np.ndarray]:
        """See `ModelAdapter`."""
        predictor = cast("PublishedPredictor", model)
        values, kron = inputs.script_columns(predictor.options)
        return predictor.predict(values) | {"values": values, "kron": kron}

    def build_products(
        self,
        model: Model,
        table: pa.Table,
        inputs: PublishedInputs,
        predictions: dict[str, np.ndarray],
        products: Sequence[str],
        heads: Sequence[FinetunedHead] = (),
    ) -> dict[str, pa.Table]:
        """See `ModelAdapter`; derives line fluxes and flags."""
        from ojala.models.ojala_published.derived import derived_columns
        from ojala.pipeline.inference.products.table import build_table

        derived = derived_columns(predictions, predictions["kron"])
        flags = _flags(table, inputs, predictions)
        options = cast("PublishedPredictor", model).options
        if options.get("extinction") == "correct":
            flags |= np.where(inputs.ebv_known, 0, int(PublishedFlag.NO_EBV)).astype(np.int32)
        return {self.main.name: build_table(self.main, table, {**predictions, **derived, "flags": flags})}

    def summarise(self, main: pa.Table, inputs: PublishedInputs) -> Summary:
        """See `ModelAdapter`; the redshift is that of the most probable class."""
        from ojala.pipeline.inference.products.table import summarise

        return summarise(self.main, main, np.isfinite(inputs.flux).sum(axis=0).tolist())

    def example(self, n: int) -> PublishedInputs:
        """See `ModelAdapter`."""
        flux = np.full((n, len(MODEL_BANDS)), 10.0, np.float32)
        return PublishedInputs(flux, flux[:, 0].copy(), np.zeros(n, np.float32))


class PublishedBiasAdapter(PublishedAdapter):
    """The published OJALÁ with the wavelength bias of its training."""

    name = "ojala-published-bias"
    description = (
        "the same with the wavelength bias of its training, which the published inference leaves out"
    )
    main: ClassVar[Contract] = OJALA_PUBLISHED_BIAS
    wavelength_bias = True


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    """A column as float32 (N,), NaN where it is null or the table has none."""
    if name not in table.column_names:
        return np.full(table.num_rows, np.nan, np.float32)
    return np.asarray(table[name].to_numpy(zero_copy_only=False), np.float32)


def _flags(table: pa.Table, inputs: PublishedInputs, predictions: Mapping[str, np.ndarray]) -> np.ndarray:
    from ojala.models.ojala_published.predictor import LOGVAR_LIMITS

    reference = inputs.flux[:, [band.name for band in MODEL_BANDS].index(REFERENCE_BAND)]
    read = as_read(predictions["values"])
    count = np.isfinite(read).sum(axis=1)
    probability = np.stack([predictions[f"P_{name}"] for name in CLASSES], axis=1)
    lost = ~np.isfinite(probability).all(axis=1)
    low, high = np.array([LOGVAR_LIMITS[name] for name in QUANTITIES]).T
    with np.errstate(invalid="ignore"):
        untrained = (predictions["logvar"] < low) | (predictions["logvar"] > high)
        ratio, broad = np.split(read, [len(NARROW)], axis=1)
        absurd = ((broad < MAGNITUDES[0]) | (broad > MAGNITUDES[1])).any(axis=1)
        absurd |= (np.abs(ratio) > MAX_RATIO).any(axis=1)
        no_reference = ~(reference > 0) | ~np.isfinite(reference)
        uncertain = probability.max(axis=1) < CERTAIN_CLASS
        negative = predictions["Z_GAL"] < 0
    of_class = np.zeros(len(read), bool)
    for name, quantities in _OF_CLASS.items():
        columns = [QUANTITIES.index(quantity) for quantity in quantities]
        of_class |= (predictions["CLASS"] == name) & untrained[:, columns].any(axis=1)
    flagged = pc.or_(
        pc.fill_null(pc.greater(table["flags"], FLAGGED_INPUT), False),
        pc.fill_null(pc.not_equal(table["mask_flags"], 0), False),
    ).to_numpy()
    conditions = {
        PublishedFlag.NO_BANDS: count == 0,
        PublishedFlag.FEW_BANDS: (count > 0) & (count < FEW_BANDS),
        PublishedFlag.BAND_REJECTED: np.isinf(inputs.flux).any(axis=1),
        PublishedFlag.NO_REFERENCE_BAND: no_reference,
        PublishedFlag.NO_KRON_FLUX: ~np.isfinite(inputs.kron),
        PublishedFlag.ABSURD_INPUT: absurd,
        PublishedFlag.CLASS_UNCERTAIN: uncertain,
        PublishedFlag.Z_NEGATIVE: negative,
        PublishedFlag.INPUT_FLAGGED: flagged,
        PublishedFlag.NOT_PREDICTED: lost,
        PublishedFlag.ERROR_UNTRAINED: of_class,
    }
    mask = np.zeros(len(read), np.int32)
    for flag, condition in conditions.items():
        mask |= np.where(condition, np.int32(flag), np.int32(0))
    return mask
