"""The systems that the pipeline can run: what each reads, which products it writes, and how it is asked.

A new system over spectra costs a module in `models` with a predictor, a contract in `catalogs_schema`, its
weights, and one entry in `SYSTEMS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, cast

import pyarrow as pa

from catalogs_schema.avis import AVIS
from catalogs_schema.bands import MODEL_BANDS
from catalogs_schema.contract import Contract
from catalogs_schema.cutouts import CUTOUTS
from catalogs_schema.photometry import PHOTOMETRY
from catalogs_schema.receipt import Summary
from catalogs_schema.specpt import SPECPT, SPECPT_SPECTRA
from catalogs_schema.spectra import SPECTRA
from catalogs_schema.spectral_tokenizer import SPECTRAL_TOKENIZER
from catalogs_schema.value_added import OJALA, OJALA_VECTORS

if TYPE_CHECKING:
    import numpy as np

    from models.avis.pairs import Pairs
    from models.avis.predictor import AvisPredictor
    from models.spectra import Spectra
    from pipeline.model import Model, ModelSpec
    from pipeline.photometry import Photometry

Inputs = TypeVar("Inputs")
"""What a system's model reads of N rows."""

WEIGHTS_FOLDER = Path(__file__).parents[1] / "models" / "weights"
"""Where the weights that come with the program lie."""

EMPTY = "empty"
"""Name of the model that answers nothing in no time; what a run costs without a network."""


class System(Protocol[Inputs]):
    """A model as a maker of catalogues."""

    @property
    def name(self) -> str:
        """Name, as `ojala run --model` takes it."""

    @property
    def reads(self) -> Contract:
        """Contract of the catalogue that it reads."""

    @property
    def beside(self) -> Contract | None:
        """Contract of a second catalogue on the same partitions that it reads where there is one."""

    @property
    def products(self) -> tuple[Contract, ...]:
        """Contracts of what it writes: the main product always, the others where they are asked for."""

    @property
    def weights(self) -> str:
        """Path of the weights that come with the program; empty if it has none."""

    @property
    def columns(self) -> list[str] | None:
        """Columns of a leaf that have to be decoded; None for all."""

    def load(self, spec: ModelSpec) -> Model:
        """Its model, ready to be asked."""

    def inputs(self, table: pa.Table) -> Inputs:
        """What the model reads of N rows; a second catalogue's columns are those of `pipeline.beside`."""

    def example(self, n: int) -> Inputs:
        """Inputs of N rows like any, to measure the model's rate."""

    def ask(self, model: Model, inputs: Inputs) -> dict[str, np.ndarray]:
        """The model's answers, N each."""

    def tables(
        self,
        model: Model,
        table: pa.Table,
        inputs: Inputs,
        answers: dict[str, np.ndarray],
        products: Sequence[str],
    ) -> dict[str, pa.Table]:
        """The rows of each product, in the order of ``table``; they keep their contracts."""

    def summary(self, main: pa.Table, inputs: Inputs) -> Summary:
        """Counts over the rows of the main product, for the receipt."""


class Predictor(Protocol):
    """What loads a model."""

    @classmethod
    def load(
        cls, weights_path: Path, device: str, precision: Literal["fp32", "bf16"], batch_size: int
    ) -> Model:
        """The model with these weights, on this device."""


@dataclass(frozen=True, slots=True)
class PhotometricSystem:
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
            from pipeline.model import EmptyModel

            return EmptyModel()
        from models.predictor import OjalaPredictor

        model = OjalaPredictor.load(
            Path(spec.weights), spec.device, spec.precision, spec.batch_size, spec.own_heads, spec.vectors
        )
        if spec.heads is not None and model.heads != spec.heads:
            raise ValueError(
                f"{spec.weights}: its heads are {model.heads}, wanted are {spec.heads}: "
                "every worker needs the same files"
            )
        return model

    def inputs(self, table: pa.Table) -> Photometry:
        """See `System`."""
        from pipeline.photometry import read_photometry

        return read_photometry(table)

    def example(self, n: int) -> Photometry:
        """See `System`."""
        import numpy as np

        from pipeline.photometry import Photometry

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
        from pipeline.answers import value_added_table, vectors_table

        made = {OJALA.name: value_added_table(table, inputs, answers)}
        if OJALA_VECTORS.name in products:
            made[OJALA_VECTORS.name] = vectors_table(table, inputs, answers)
        return made

    def summary(self, main: pa.Table, inputs: Photometry) -> Summary:
        """See `System`."""
        from pipeline.answers import summarise

        return summarise(main, inputs)


@dataclass(frozen=True, slots=True)
class SpectralSystem:
    """A model of spectra whose answers have the names of its contracts' columns.

    Attributes
    ----------
    name, predictor, weights, products
        As in `System`; ``predictor`` is ``module:Class``, whose ``load`` takes path, device, precision and
        batch size, and whose ``predict`` takes `models.spectra.Spectra`.
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
        return _COLUMNS

    def load(self, spec: ModelSpec) -> Model:
        """See `System`."""
        module, _, name = self.predictor.partition(":")
        predictor: type[Predictor] = getattr(import_module(module), name)
        return predictor.load(Path(spec.weights), spec.device, spec.precision, spec.batch_size)

    def inputs(self, table: pa.Table) -> Spectra:
        """See `System`."""
        from pipeline.spectral_answers import read_spectra

        return read_spectra(table)

    def example(self, n: int) -> Spectra:
        """See `System`."""
        return _spectra_like_any(n)

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
        from pipeline.spectral_answers import contract_table

        wanted = [contract for contract in self.products if contract.name in products]
        return {contract.name: contract_table(contract, table, answers) for contract in wanted}

    def summary(self, main: pa.Table, inputs: Spectra) -> Summary:
        """See `System`."""
        from pipeline.spectral_answers import summarise

        return summarise(self.products[0], main)


@dataclass(frozen=True, slots=True)
class AvisSystem:
    """AVIS, which reads spectra and, where there are any, their cut-outs."""

    name: str
    weights: str
    reads: Contract = SPECTRA
    beside: Contract = CUTOUTS
    products: tuple[Contract, ...] = (AVIS,)

    @property
    def columns(self) -> list[str]:
        """See `System`."""
        return _COLUMNS

    def load(self, spec: ModelSpec) -> AvisPredictor:
        """See `System`."""
        from models.avis.atlas import read_atlas
        from models.avis.predictor import AvisPredictor

        model = AvisPredictor.load(Path(spec.weights), spec.device, spec.precision, spec.batch_size)
        if spec.atlas:
            model.atlas = read_atlas(Path(spec.atlas), model.weights_sha256)
            if spec.atlas_sha256 not in ("", model.atlas.sha256):
                raise ValueError(
                    f"{spec.atlas}: SHA-256 is {model.atlas.sha256}, wanted is {spec.atlas_sha256}: every "
                    "worker needs the same file"
                )
        return model

    def inputs(self, table: pa.Table) -> Pairs:
        """See `System`."""
        from pipeline.avis_answers import read_pairs

        return read_pairs(table)

    def example(self, n: int) -> Pairs:
        """See `System`."""
        import numpy as np

        from catalogs_schema.cutouts import CUTOUT_BANDS, SIZE
        from models.avis.pairs import Pairs
        from models.images import Images

        bands = len(CUTOUT_BANDS)
        flux = np.ones((n, bands, SIZE, SIZE), np.float32)
        return Pairs(_spectra_like_any(n), Images(flux, flux, np.ones((n, bands), np.float32)))

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
        from pipeline.avis_answers import avis_table

        return {AVIS.name: avis_table(table, answers, cast("AvisPredictor", model).atlas)}

    def summary(self, main: pa.Table, inputs: Pairs) -> Summary:
        """See `System`."""
        from pipeline.avis_answers import summarise

        return summarise(main)


_COLUMNS = [name for name in SPECTRA.names if name != "mask"]


def _spectra_like_any(n: int) -> Spectra:
    import numpy as np

    from models.spectra import Spectra

    wavelength = np.linspace(3600.0, 9824.0, 7781, dtype=np.float32)
    flux = np.ones_like(wavelength)
    return Spectra.of([(wavelength, flux, flux)] * n)


SYSTEMS: Mapping[str, System[Any]] = {
    system.name: system
    for system in (
        PhotometricSystem("ojala", str(WEIGHTS_FOLDER / "ojala-base.safetensors")),
        PhotometricSystem(EMPTY, weights=""),
        SpectralSystem(
            "specpt",
            "models.specpt_predictor:SpecPTPredictor",
            str(WEIGHTS_FOLDER / "specpt-base.safetensors"),
            (SPECPT, SPECPT_SPECTRA),
        ),
        SpectralSystem(
            "spectral-tokenizer",
            "models.spectral_tokenizer.predictor:SpectralTokenizerPredictor",
            str(WEIGHTS_FOLDER / "spectral-tokenizer-base.safetensors"),
            (SPECTRAL_TOKENIZER,),
        ),
        AvisSystem("avis", str(WEIGHTS_FOLDER / "avis-base.safetensors")),
    )
}
"""All systems by name."""

PRODUCTS: Mapping[str, Contract] = {
    contract.name: contract for system in SYSTEMS.values() for contract in system.products
}
"""The products of all systems by name."""
