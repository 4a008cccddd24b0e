"""Deviations of the catalogue with a precision from that of the same network in double precision.

    python -m ojala.flows.bench.agreement 6000

prints a table for 6,000 objects of the bundled mock sky. Deviations are in units of the column's error if it
has one.
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
"""Error columns of columns without one of their own."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """Deviations of a column from that in double precision.

    Attributes
    ----------
    column : str
        Name.
    of_error : bool
        Whether the deviations are in units of the error, or of the column.
    median, p999, largest : float
        Median, 99.9 % quantile and maximum of the absolute deviations where both have a value.
    one_sided : int
        Rows with a value in one of the two only.
    """

    column: str
    of_error: bool
    median: float
    p999: float
    largest: float
    one_sided: int


@dataclass(frozen=True, slots=True)
class Agreement:
    """Comparison of a catalogue with that in double precision.

    Attributes
    ----------
    rows, other_class, other_flags : int
        Number of rows, and of those with another class or other flags.
    columns : list of Deviation
        Deviations of the numeric columns.
    """

    rows: int
    other_class: int
    other_flags: int
    columns: list[Deviation]

    def table(self) -> str:
        """Render as Markdown."""
        lines = [
            f"{self.rows:,} rows: {self.other_class} with another class, {self.other_flags} with other flags",
            "",
            "| column | unit of deviation | median | 99.9 % | largest | value in one only |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {d.column} | {'its error' if d.of_error else 'absolute'} | {d.median:.1e} | {d.p999:.1e} | "
            f"{d.largest:.1e} | {d.one_sided} |"
            for d in self.columns
        ]
        return "\n".join(lines)


def agreement(table: pa.Table, exact: pa.Table) -> Agreement:
    """Compare two value-added tables of the same objects."""
    columns = []
    for column in OJALA:
        if not pa.types.is_float32(column.type):
            continue
        one, other = (_float64(part, column.name) for part in (table, exact))
        error = ERROR_OF.get(column.name, f"{column.name}_err")
        unit = _float64(exact, error) if error in OJALA.names else np.ones(len(one))
        both = np.isfinite(one) & np.isfinite(other)
        deviation = (np.abs(one - other) / unit)[both & (unit > 0)]
        if len(deviation):
            median, p999 = np.percentile(deviation, [50.0, 99.9])
            one_sided = int((np.isfinite(one) != np.isfinite(other)).sum())
            columns.append(
                Deviation(column.name, error in OJALA.names, median, p999, float(deviation.max()), one_sided)
            )
    classes = [np.asarray(part[OJALA.name_of("class")].to_pylist()) for part in (table, exact)]
    flags = [part[OJALA.name_of("flags")].to_numpy() for part in (table, exact)]
    return Agreement(
        table.num_rows, int((classes[0] != classes[1]).sum()), int((flags[0] != flags[1]).sum()), columns
    )


def _float64(table: pa.Table, name: str) -> np.ndarray:
    return np.asarray(table[name].to_numpy(zero_copy_only=False), dtype=np.float64)


class DoublePrecisionPredictor(OjalaPredictor):
    """Predictor with the network in double precision."""

    def predict_uncalibrated(self, tokens: Tokens) -> tuple[dict[str, Tensor], Tensor]:
        """See `OjalaPredictor.predict_uncalibrated`."""
        self.network.double()
        if self.network.found is not None:
            self.network.found.float()  # raw outputs, which it reads, are always in single precision
        brightness = tokens.brightness.double()
        outputs, embedding = super().predict_uncalibrated(
            Tokens(tokens.features.double(), tokens.valid, brightness)
        )
        return {name: output.float() for name, output in outputs.items()}, embedding


def catalogue(photometry: pa.Table, predictor: OjalaPredictor) -> pa.Table:
    """Predict the value-added table of photometry."""
    inputs = read_photometry(photometry)
    return value_added_table(photometry, inputs, predictor.predict(inputs.flux, inputs.error, inputs.ebv))


if __name__ == "__main__":
    with TemporaryDirectory(prefix="ojala-agreement-") as folder:
        rows = int(sys.argv[1])
        sky = leaves_of(str(survey(Path(folder) / "sky", rows, rows)))
    exact = catalogue(sky, DoublePrecisionPredictor.load())
    for precision in DTYPES:
        table = catalogue(sky, OjalaPredictor.load(precision=precision))
        print(f"\n{precision} against fp64, {agreement(table, exact).table()}")
