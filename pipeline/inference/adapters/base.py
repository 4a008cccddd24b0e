"""Interface between the pipeline and a model: one adapter per model owns all that is special to it."""

from __future__ import annotations

import enum
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
import pyarrow as pa

from ojala.catalogs_schema.contract import Contract
from ojala.catalogs_schema.errors import InputError
from ojala.catalogs_schema.finetuned import FinetunedHead
from ojala.catalogs_schema.receipt import BandResiduals, Summary
from ojala.models import WEIGHTS_FOLDER
from ojala.pipeline.storage.code_version import code_version

if TYPE_CHECKING:
    from ojala.pipeline.inference.model_spec import ModelSpec

WEIGHTS = "weights"
"""Role of the asset that every network has."""

NO_WEIGHTS = hashlib.sha256(b"").hexdigest()
"""SHA-256 in place of that of the weights, for a model without."""

WORKER_MODULE = "ojala.pipeline.inference.process"
"""Module that runs on workers, with whatever model."""


class ModelError(InputError):
    """A model that does not exist, cannot be loaded here, or has other files than those wanted."""


class Model(Protocol):
    """A loaded model.

    Attributes
    ----------
    name, version, weights_sha256, device : str
        Name and version, SHA-256 of the weights, torch device.
    batch_size : int
        Objects per forward pass.
    """

    name: str
    version: str
    weights_sha256: str
    device: str
    batch_size: int

    def halve_batch(self) -> None:
        """Predict in batches of half the rows from now on, after the memory did not suffice."""
        ...

    @property
    def predict(self) -> Callable[..., dict[str, np.ndarray]]:
        """Function from the inputs of N rows to predictions by name, N rows each."""
        ...


@runtime_checkable
class ConcurrentModel(Protocol):
    """A model that several threads may call at a time; any other model is called by one at a time.

    Attributes
    ----------
    max_concurrency : int
        Number of partitions that it can predict at a time.
    """

    max_concurrency: int

    def warm_up(self) -> None:
        """Allocate and compile what the first batch needs, so that no partition waits for it."""
        ...


@dataclass(frozen=True, slots=True)
class Asset:
    """A file on which predictions depend.

    Attributes
    ----------
    role : str
        ``weights``, ``atlas`` or ``head.NAME``.
    path : str
        Location of the file; empty for a model without weights.
    sha256 : str
        SHA-256 of the file.
    """

    role: str
    path: str
    sha256: str


Inputs = TypeVar("Inputs")
"""Inputs of a model for N rows."""


class ModelAdapter(ABC, Generic[Inputs]):
    """A model as a maker of catalogues.

    A new model is one subclass, its contract in `ojala.catalogs_schema`, and one entry in
    `ojala.pipeline.inference.adapters.registry`. Adapters hold no state: workers receive them pickled, inside
    each `ojala.pipeline.inference.process.Task`.

    Attributes
    ----------
    name : str
        Name for ``ojala run --model``.
    description : str
        One line for help texts.
    reads : Contract
        Contract of the input catalogue; its name is the option that gives it (``photometry``, ``spectra``).
    auxiliary : Contract or None
        Contract of an optional second catalogue on the same partitions, such as cut-outs; its name is the
        option that gives it (``cutouts``).
    columns : sequence of str or None
        Columns of the input to decode; None for all.
    main : Contract
        Contract of the main product.
    extended : tuple of Contract
        Contracts of the large products that are written on request (``--vectors``).
    bands_product : Contract or None
        Contract of the product of predicted bands, written on request (``--bands``); None for a model that
        cannot be asked for bands.
    accepts : frozenset of str
        Further settings of a run that the model has a use for, among ``atlas``, ``heads`` and ``bands``; a
        value for any other of them is refused.
    heads_product : str
        Name of the product of the user's fine-tuned heads; empty where the model has no use for any.
    weights_file : str
        Name of the bundled weights in `WEIGHTS_FOLDER`; empty for a model without weights.
    cpu_batch, gpu_batch : int
        Default number of objects per forward pass.
    bf16_on_cpu : bool
        Whether bfloat16 is the default on processors that multiply it; only where its cost in each column
        was measured.
    validation : tuple of str or None
        Columns of the main product that a table of true values can judge (``class``, ``z``, ...), by their
        names in `Contract.column_names`; None where none can, and ``--truth`` is refused before the run.
    options : mapping of str to tuple of str
        Choices of a run that are this model's own (``--option NAME=VALUE``), the default of each first.
    report_sections : tuple of str
        Sections of the report besides those of every run, in order: of ``spectra`` (redshifts beside those
        of the surveys), ``reconstructions`` and ``atlas``.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    reads: ClassVar[Contract]
    auxiliary: ClassVar[Contract | None] = None
    columns: ClassVar[Sequence[str] | None] = None
    main: ClassVar[Contract]
    extended: ClassVar[tuple[Contract, ...]] = ()
    bands_product: ClassVar[Contract | None] = None
    accepts: ClassVar[frozenset[str]] = frozenset()
    heads_product: ClassVar[str] = ""
    weights_file: ClassVar[str] = ""
    cpu_batch: ClassVar[int] = 16
    gpu_batch: ClassVar[int] = 256
    bf16_on_cpu: ClassVar[bool] = False
    validation: ClassVar[tuple[str, ...] | None] = None
    options: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    report_sections: ClassVar[tuple[str, ...]] = ()

    @property
    def weights(self) -> str:
        """Path of the bundled weights; empty for a model without weights."""
        return str(WEIGHTS_FOLDER / self.weights_file) if self.weights_file else ""

    @property
    def flags(self) -> type[enum.IntFlag]:
        """Bits of the column of flags of the main product; `Contract.flag_meanings` has their meanings."""
        return next((type(flag) for flag in self.main.flag_meanings), enum.IntFlag)

    @property
    def labels(self) -> dict[str, str]:
        """Descriptions of the input catalogues for provenance, by name of their contracts."""
        inputs = (self.reads, *((self.auxiliary,) if self.auxiliary else ()))
        return {contract.name: f"{contract.title.lower()} catalogue" for contract in inputs}

    @property
    def product_names(self) -> tuple[str, ...]:
        """Names of all products that runs of this model can have, the main one first."""
        names = [contract.name for contract in (self.main, *self.extended, *self._of_bands)]
        return (*names, *((self.heads_product,) if self.heads_product else ()))

    @property
    def _of_bands(self) -> tuple[Contract, ...]:
        return (self.bands_product,) if self.bands_product else ()

    def products(
        self, *, extended: bool = False, bands: bool = False, heads: Sequence[FinetunedHead] = ()
    ) -> tuple[Contract, ...]:
        """Contracts of the products of a run, the main one first.

        Parameters
        ----------
        extended : bool
            Include the large products.
        bands : bool
            Include the predicted bands.
        heads : sequence of FinetunedHead
            Fine-tuned heads of the user, see `heads`.
        """
        return (self.main, *(self.extended if extended else ()), *(self._of_bands if bands else ()))

    def contract(self, product: str, heads: Sequence[FinetunedHead] = ()) -> Contract:
        """Contract of a product by its name.

        Raises
        ------
        KeyError
            If the model has no such product.
        """
        return {c.name: c for c in self.products(extended=True, bands=True, heads=heads)}[product]

    @property
    def code_modules(self) -> tuple[str, ...]:
        """Modules that a worker of this model starts from, for `ojala.pipeline.storage.code_version`."""
        return (WORKER_MODULE, type(self).__module__)

    @property
    def code_version(self) -> str:
        """Version of the program and hash of the code that a worker of this model runs."""
        return code_version(*self.code_modules)

    def device_defaults(self, device: str) -> dict[str, Any]:
        """Default ``precision`` and ``batch_size`` on a device, ``cpu`` or ``cuda``."""
        if device == "cuda":
            return {"precision": "bf16", "batch_size": self.gpu_batch}
        if not self.bf16_on_cpu:
            return {"precision": "fp32", "batch_size": self.cpu_batch}
        from ojala.models.serving.precision import fastest_precision

        return {"precision": fastest_precision(), "batch_size": self.cpu_batch}

    def companions(self, weights: str) -> dict[str, str]:
        """Settings of `accepts` that follow from files next to the weights, such as ``{"atlas": PATH}``."""
        return {}

    def assets(self, spec: ModelSpec) -> tuple[Asset, ...]:
        """Files on which predictions depend, the weights first, each read and hashed once.

        Raises
        ------
        ModelError
            If the weights are not there.
        ojala.models.checkpoint.WeightsError
            If a file is not of its kind, or belongs to other weights.
        """
        try:
            content = Path(spec.weights).read_bytes() if spec.weights else b""
        except FileNotFoundError:
            raise ModelError(f"there are no weights at {spec.weights}: give those of {self.name}") from None
        return (Asset(WEIGHTS, spec.weights, hashlib.sha256(content).hexdigest()),)

    def heads(self, spec: ModelSpec, weights_sha256: str) -> tuple[FinetunedHead, ...]:
        """Descriptions of the user's fine-tuned heads (``spec.heads``), for `products` and tasks.

        Raises
        ------
        ojala.models.checkpoint.WeightsError
            If a file is no head, or belongs to other weights.
        """
        return ()

    @abstractmethod
    def load(self, spec: ModelSpec) -> Model:
        """Load the model. `ModelSpec.load` calls this and compares `loaded_assets`."""

    def loaded_assets(self, model: Model) -> dict[str, str]:
        """SHA-256 of the files that a loaded model was made from, by role."""
        return {WEIGHTS: model.weights_sha256}

    @abstractmethod
    def read_inputs(self, table: pa.Table) -> Inputs:
        """Inputs of the model for N rows, with the auxiliary columns as `inference.join` names them."""

    def predict(self, model: Model, inputs: Inputs) -> dict[str, np.ndarray]:
        """Predictions by name, N rows each."""
        return model.predict(inputs)

    @abstractmethod
    def build_products(
        self,
        model: Model,
        table: pa.Table,
        inputs: Inputs,
        predictions: dict[str, np.ndarray],
        products: Sequence[str],
        heads: Sequence[FinetunedHead] = (),
    ) -> dict[str, pa.Table]:
        """Rows of each product by name, in the order of ``table`` and within their contracts.

        Parameters
        ----------
        model : Model
            Loaded model.
        table : pyarrow.Table
            Input, N rows.
        inputs : Inputs
            The same from `read_inputs`.
        predictions : dict of str to ndarray
            Predictions from `predict`.
        products : sequence of str
            Names of the products to build, the main one first.
        heads : sequence of FinetunedHead
            Fine-tuned heads of the user.
        """

    @abstractmethod
    def summarise(self, main: pa.Table, inputs: Inputs) -> Summary:
        """Counts over the rows of the main product, for the receipt."""

    def band_residuals(self, tables: Mapping[str, pa.Table], inputs: Inputs) -> dict[str, BandResiduals]:
        """Measured against predicted bands by tile of the survey, for the receipt.

        Parameters
        ----------
        tables : mapping of str to pyarrow.Table
            Rows of each product, from `build_products`.
        inputs : Inputs
            Inputs of the same rows.

        Returns
        -------
        dict of str to BandResiduals
            A bounded number of tiles; empty where no bands were predicted.
        """
        return {}

    @abstractmethod
    def example(self, n: int) -> Inputs:
        """Inputs of N typical rows, to measure the rate of the model."""
