"""What a precision costs in the catalogue: its columns against those of the same network in double precision.

    python -m ojala.flows.bench.agreement 6000

prints a table over so many objects of the bundled mock sky. Deviations are in units of the stated error where
there is one.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
from torch import Tensor

from ojala.catalogs_schema.ojala import OJALA
from ojala.flows.bench.flow import survey
from ojala.flows.bench.machine import DTYPES
from ojala.flows.bench.network import leaves_of
from ojala.models.ojala.predictor import OjalaPredictor
from ojala.models.ojala.tokens import Tokens
from ojala.pipeline.inference.photometry import read_photometry
from ojala.pipeline.inference.products.ojala import value_added_table

ERROR_OF = {f"z_q{q}": "z_err" for q in ("02", "16", "50", "84", "98")}
"""Columns whose deviation is judged by the error of another."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """How far a column is from that of double precision.

    Attributes
    ----------
    column : str
        Name.
    of_error : bool
        Whether the deviations are in units of the stated error, or in the column's own.
    median, rare, largest : float
        Of the absolute deviations where both have a value; ``rare`` is exceeded by one row in a thousand.
    gone : int
        Rows where only one of the two has a value.
    """

    column: str
    of_error: bool
    median: float
    rare: float
    largest: float
    gone: int


@dataclass(frozen=True, slots=True)
class Agreement:
    """A catalogue against that of double precision.

    Attributes
    ----------
    rows, other_class, other_flags : int
        Rows in all, and those with another class or another flag.
    columns : list of Deviation
        Of every column of numbers.
    """

    rows: int
    other_class: int
    other_flags: int
    columns: list[Deviation]

    def table(self) -> str:
        """As Markdown."""
        lines = [
            f"{self.rows:,} rows: {self.other_class} with another class, {self.other_flags} with other flags",
            "",
            "| column | unit of deviation | median | 99.9 % | largest | value in one only |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {d.column} | {'its error' if d.of_error else 'absolute'} | {d.median:.1e} | {d.rare:.1e} | "
            f"{d.largest:.1e} | {d.gone} |"
            for d in self.columns
        ]
        return "\n".join(lines)


def agreement(found: pa.Table, exact: pa.Table) -> Agreement:
    """Compare the same objects' rows of two value-added tables."""
    columns = []
    for column in OJALA:
        if not pa.types.is_float32(column.type):
            continue
        one, other = (_float64(table, column.name) for table in (found, exact))
        error = ERROR_OF.get(column.name, f"{column.name}_err")
        unit = _float64(exact, error) if error in OJALA.names else np.ones(len(one))
        both = np.isfinite(one) & np.isfinite(other)
        away = (np.abs(one - other) / unit)[both & (unit > 0)]
        if len(away):
            median, rare = np.percentile(away, [50.0, 99.9])
            gone = int((np.isfinite(one) != np.isfinite(other)).sum())
            columns.append(
                Deviation(column.name, error in OJALA.names, median, rare, float(away.max()), gone)
            )
    words = [np.asarray(table["class"].to_pylist()) for table in (found, exact)]
    flags = [table["flags"].to_numpy() for table in (found, exact)]
    return Agreement(
        found.num_rows, int((words[0] != words[1]).sum()), int((flags[0] != flags[1]).sum()), columns
    )


def _float64(table: pa.Table, name: str) -> np.ndarray:
    return np.asarray(table[name].to_numpy(zero_copy_only=False), dtype=np.float64)


class InDouble(OjalaPredictor):
    """The predictor with its network in double precision."""

    def ask(self, tokens: Tokens) -> tuple[dict[str, Tensor], Tensor]:
        """See `OjalaPredictor.ask`."""
        self.network.double()
        if self.network.found is not None:
            self.network.found.float()  # raw answers, which it reads, are always in single precision
        brightness = tokens.brightness.double()
        answers, embedding = super().ask(Tokens(tokens.features.double(), tokens.valid, brightness))
        return {name: answer.float() for name, answer in answers.items()}, embedding


def catalogue(photometry: pa.Table, predictor: OjalaPredictor) -> pa.Table:
    """The value-added table of photometry."""
    inputs = read_photometry(photometry)
    return value_added_table(photometry, inputs, predictor.predict(inputs.flux, inputs.error, inputs.ebv))


if __name__ == "__main__":
    with TemporaryDirectory(prefix="ojala-agreement-") as folder:
        rows = int(sys.argv[1])
        sky = leaves_of(str(survey(Path(folder) / "sky", rows, rows)))
    exact = catalogue(sky, InDouble.load())
    for precision in DTYPES:
        found = catalogue(sky, OjalaPredictor.load(precision=precision))
        print(f"\n{precision} against fp64, {agreement(found, exact).table()}")
