"""Interfaces of a model and of its adapter to the pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import pyarrow as pa

from ojala.catalogs_schema.contract import Contract
from ojala.catalogs_schema.receipt import Summary

if TYPE_CHECKING:
    from ojala.pipeline.inference.model_spec import ModelSpec


class Model(Protocol):
    """What the pipeline asks of a model."""

    name: str
    version: str
    weights_sha256: str
    device: str
    batch_size: int

    def halve_batch(self) -> None:
        """Predict in batches of half the rows from now on, since the memory did not suffice."""
        ...

    @property
    def predict(self) -> Callable[..., dict[str, np.ndarray]]:
        """Answers for N rows, of the inputs that the model's `base.System` hands to it."""
        ...


@runtime_checkable
class ConcurrentModel(Protocol):
    """A model that several partitions may ask at a time, from different threads; others are asked in turn.

    Attributes
    ----------
    lanes : int
        How many partitions at a time it can use.
    """

    max_concurrency: int

    def warm_up(self) -> None:
        """Make ready what the first batch needs, so that no partition has to wait for it."""
        ...


Inputs = TypeVar("Inputs")
"""What a system's model reads of N rows."""


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
        """What the model reads of N rows; a second catalogue's columns are those of `inference.join`."""

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
