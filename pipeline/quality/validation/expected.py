"""Accuracy of redshifts as predicted by the PDFs of all rows, compared with the accuracy against true values.

An object's PDF about its redshift is the distribution of its error. The mixture of these over some objects is
the distribution of their errors, so their sigma_NMAD and share of outliers follow without any true value.
They hold as far as the PDFs and classes are right, which the objects with true values show.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from ojala.catalogs_schema.bands import BY_NAME, REFERENCE_BAND
from ojala.catalogs_schema.ojala import PDF_COLUMNS, PDF_STEP
from ojala.catalogs_schema.redshift_pdfs import RedshiftPdfs
from ojala.models.evaluation.bootstrap import bootstrap_objects
from ojala.models.evaluation.metrics import IQR, NMAD, redshift_measures
from ojala.pipeline.inference.products.table import with_common_names
from ojala.pipeline.quality.validation.predictions import ab_magnitude
from ojala.pipeline.quality.validation.result import (
    Achieved,
    Expectation,
    Expected,
    ExpectedCell,
    Interval,
    finite,
    measure,
)
from ojala.pipeline.quality.validation.truth import Matched, Pdfs
from ojala.pipeline.storage.hats import CatalogueError
from ojala.pipeline.storage.healpix import Partition

COLUMNS = ("class", "z", "z_err", "z_odds")
"""Columns, by their common names, from which the accuracy of redshifts can be predicted."""

ODDS_CUTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Least odds of the cumulative samples."""

MAGNITUDE_EDGES = (-np.inf, 17.0, 18.0, 19.0, 20.0, 21.0, 22.0, 23.0, np.inf)
"""Edges of the bins of iSDSS magnitude."""

FEWEST = 10
"""Objects with true values that a cell must hold for its achieved accuracy to be measured."""

_OBJECTS: tuple[Literal["GALAXY", "QSO"], ...] = ("GALAXY", "QSO")
_STEP, _REACH = 0.0005, 1.9  # bins and largest size of an error in ln(1 + z)
_BINS = round(2 * _REACH / _STEP)
_EDGES = np.expm1(np.linspace(-_REACH, _REACH, _BINS + 1))  # in (z - z_true) / (1 + z_true)
_POINTS = np.array([NormalDist().inv_cdf((k + 0.5) / 32) for k in range(32)])  # of a Gaussian, equal weights
_SHAPE = (len(_OBJECTS), len(MAGNITUDE_EDGES), len(ODDS_CUTS))  # the last magnitude: not known


@dataclass(frozen=True, slots=True)
class Redshifts:
    """Redshifts of N rows that have one: the columns `COLUMNS`, magnitudes (NaN where not known) and PDFs."""

    objects: np.ndarray
    z: np.ndarray
    error: np.ndarray
    odds: np.ndarray
    i_mag: np.ndarray
    pdf: Pdfs | None

    @classmethod
    def from_columns(
        cls, words: np.ndarray, columns: dict[str, np.ndarray], i_mag: np.ndarray, pdf: Pdfs | None
    ) -> Redshifts:
        """Rows that have a redshift, from their classes and columns ``z``, ``z_err`` and ``z_odds``."""
        objects = np.select([words == name for name in _OBJECTS], range(len(_OBJECTS)), -1)
        there = (objects >= 0) & np.isfinite(list(columns.values())).all(axis=0)
        parts = None if pdf is None else {name: one.take(there) for name, one in pdf.items()}
        z, error, odds = (columns[name][there] for name in ("z", "z_err", "z_odds"))
        return cls(objects[there], z, error, odds, i_mag[there], parts)


@dataclass(frozen=True, slots=True)
class _Errors:
    """Predicted distributions of the errors of redshifts, by class, bin of magnitude and bin of odds."""

    rows: np.ndarray = field(default_factory=lambda: np.zeros(_SHAPE, np.int64))
    mass: np.ndarray = field(default_factory=lambda: np.zeros((*_SHAPE, _BINS)))

    def add(self, some: Redshifts) -> None:
        """Add rows."""
        magnitude = np.searchsorted(MAGNITUDE_EDGES, some.i_mag, side="right") - 1  # NaN: the last
        odds = np.searchsorted(ODDS_CUTS, some.odds, side="right") - 1
        cell = np.ravel_multi_index((some.objects, magnitude, odds.clip(0)), _SHAPE)
        self.rows.reshape(-1)[:] += np.bincount(cell, minlength=self.rows.size)
        for row, error, weight in _distributions(some):
            place = ((error + _REACH) / _STEP).astype(np.int64).clip(0, _BINS - 1)
            counts = np.bincount(cell[row] * _BINS + place, weight, minlength=self.mass.size)
            self.mass.reshape(-1)[:] += counts

    def cell(self, objects: int, magnitude: slice, odds: int) -> tuple[int, Expectation]:
        """Rows with at least so high odds in a range of magnitudes, and what is expected of them."""
        rows = int(self.rows[objects, magnitude, odds:].sum())
        return rows, expectation(self.mass[objects, magnitude, odds:].sum(axis=(0, 1)))


def _distributions(some: Redshifts) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Rows, errors in ln(1 + z) and their probabilities, from PDFs or else from Gaussians of width z_err."""
    place = np.log1p(some.z)
    if some.pdf is None:
        row = np.repeat(np.arange(len(place)), len(_POINTS))
        error = np.outer(some.error / (1.0 + some.z), _POINTS).reshape(-1)
        yield row, error, np.full(len(row), 1.0 / len(_POINTS))
        return
    for number, name in enumerate(_OBJECTS):
        own = np.flatnonzero(some.objects == number)
        pdf = some.pdf[name].take(own)
        row = np.repeat(np.arange(len(own)), pdf.count)
        weight = pdf.probability.astype(np.float64)
        total = np.bincount(row, weight, minlength=len(own))
        yield own[row], place[own][row] - PDF_STEP * (pdf.bins + 0.5), weight / total[row]


def expectation(mass: np.ndarray) -> Expectation:
    """Measures of a distribution of errors, from its mass in bins; all null where there is none."""
    if not mass.sum():
        return Expectation(**dict.fromkeys(Expectation.model_fields))
    below = np.concatenate([[0.0], np.cumsum(mass) / mass.sum()])

    def inside(half_width: float | np.ndarray, middle: float = 0.0) -> np.ndarray:
        low, high = (np.interp(middle + side * half_width, _EDGES, below) for side in (-1.0, 1.0))
        return np.asarray(high - low)

    lower, median, upper = np.interp([0.25, 0.5, 0.75], below, _EDGES)
    sigma_iqr = (upper - lower) / IQR
    widths = np.concatenate([[0.0], np.geomspace(1e-5, 10.0, 4000)])
    half = np.interp(0.5, inside(widths, median), widths)
    beyond = {"15": 0.15, "03": 0.03, "iqr": max(0.06, 3.0 * sigma_iqr)}
    return Expectation(
        sigma_nmad=finite(float(NMAD * half)),
        sigma_iqr=finite(float(sigma_iqr)),
        **{f"outliers_{name}": max(0.0, 1.0 - float(inside(limit))) for name, limit in beyond.items()},
    )


def expected_redshifts(
    catalogue: UPath,
    pdfs: UPath | None,
    photometry: UPath | None,
    partitions: Iterable[Partition],
    matched: Matched | None = None,
    *,
    total: int | None = None,
    names: Mapping[str, str] = {},
) -> tuple[Expected, ...]:
    """Predict the accuracy of the redshifts of all rows of a catalogue, against odds and magnitude.

    Leaves are read one at a time. Each row counts by its most probable class.

    Parameters
    ----------
    catalogue : UPath
        Root of the main product, which has `COLUMNS`.
    pdfs : UPath or None
        Root of the product with redshift PDFs; without, errors are taken as Gaussians of width ``z_err``.
    photometry : UPath or None
        Photometry to take magnitudes in iSDSS from.
    partitions : iterable of Partition
        Partitions to read.
    matched : Matched, optional
        Objects with true values, whose achieved accuracy is put beside.
    total : int, optional
        Partitions of the catalogue, where only some of them are read.
    names : mapping of str to str
        `Contract.column_names` of the main product.

    Returns
    -------
    tuple of Expected
        Of galaxies and quasars, those of which there are any.

    Raises
    ------
    CatalogueError
        If rows of the products do not belong together.
    """
    read, predicted, source = 0, _Errors(), "z_err"
    for partition in partitions:
        some = _read(partition, catalogue, pdfs, photometry, names)
        source = source if some.pdf is None else "pdf"
        predicted.add(some)
        read += 1
    known, truth = _known(matched) if matched else (None, np.zeros(0))
    of_known = _Errors()
    if known is not None:
        of_known.add(known)
    return tuple(
        Expected(
            objects=name,
            source="pdf" if source == "pdf" else "z_err",
            rows=int(predicted.rows[number].sum()),
            partitions_read=read,
            partitions=total or read,
            cells=tuple(_cells(number, predicted, of_known, known, truth)),
        )
        for number, name in enumerate(_OBJECTS)
        if predicted.rows[number].any()
    )


def _cells(
    number: int, predicted: _Errors, of_known: _Errors, known: Redshifts | None, truth: np.ndarray
) -> Iterator[ExpectedCell]:
    """All magnitudes and each bin of them that has rows, with each cut in odds."""
    bins = [slice(None), *(slice(k, k + 1) for k in range(len(MAGNITUDE_EDGES) - 1))]
    for magnitude in bins:
        edges = (None, None) if magnitude.start is None else MAGNITUDE_EDGES[magnitude.start :][:2]
        whole = predicted.rows[number, magnitude].sum()
        for odds, cut in enumerate(ODDS_CUTS) if whole else ():
            rows, expects = predicted.cell(number, magnitude, odds)
            n, expects_known = of_known.cell(number, magnitude, odds)
            low, high = (None if edge is None else finite(edge) for edge in edges)
            yield ExpectedCell(
                magnitude=Interval(low=low, high=high, middle=None),
                odds_min=cut,
                rows=rows,
                completeness=rows / int(whole),
                predicted=expects,
                known=n,
                predicted_of_known=expects_known,
                achieved=None if known is None else _achieved(known, truth, number, edges, cut),
            )


def _achieved(
    known: Redshifts,
    truth: np.ndarray,
    number: int,
    edges: tuple[float | None, ...],
    cut: float,
) -> Achieved | None:
    low, high = edges
    chosen = (known.objects == number) & (known.odds >= cut)
    if low is not None and high is not None:
        chosen &= (known.i_mag >= low) & (known.i_mag < high)
    if chosen.sum() < FEWEST:
        return None
    found = bootstrap_objects(redshift_measures, known.z[chosen], truth[chosen])
    return Achieved(**{name: measure(found[name]) for name in Achieved.model_fields})


def _known(matched: Matched) -> tuple[Redshifts, np.ndarray]:
    """Objects of right class with a true redshift, and these (N,)."""
    words = np.where(matched.words("class") == matched.words("true_class"), matched.words("class"), "")
    columns = {name: matched.numbers(name) for name in ("z", "z_err", "z_odds")}
    words = np.where(np.isfinite(matched.z_true), words, "")
    some = Redshifts.from_columns(words, columns, matched.i_mag, matched.pdf)
    there = np.isin(words, _OBJECTS) & np.isfinite(list(columns.values())).all(axis=0)
    return some, matched.z_true[there]


def _read(
    partition: Partition,
    catalogue: UPath,
    pdfs: UPath | None,
    photometry: UPath | None,
    names: Mapping[str, str],
) -> Redshifts:
    stored = [names[name] for name in COLUMNS if name in names]  # contract 1 has the common names
    main = _leaf(catalogue / partition.leaf, ["object_id", *COLUMNS, *stored])
    main = with_common_names(main, names)
    words = np.asarray(main["class"].to_pylist(), dtype=object)
    columns = {name: main[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in COLUMNS[1:]}
    i_mag = np.full(len(words), np.nan)
    if photometry is not None:
        flux = BY_NAME[REFERENCE_BAND].flux_column
        measured = _aligned(photometry / partition.leaf, ["object_id", flux], main)
        i_mag = ab_magnitude(measured[flux].to_numpy(zero_copy_only=False))
    pdf = None
    bins = [part for name in PDF_COLUMNS.values() for part in (name, f"{name}_bin")]
    if pdfs is not None:
        vectors = _aligned(pdfs / partition.leaf, ["object_id", *bins], main)
        if set(bins) <= set(vectors.column_names):  # contract 1 has other columns
            pdf = {objects: RedshiftPdfs.from_table(vectors, name) for objects, name in PDF_COLUMNS.items()}
    return Redshifts.from_columns(words, columns, i_mag, pdf)


def _leaf(path: UPath, columns: list[str]) -> pa.Table:
    with path.open("rb") as file:
        parquet = pq.ParquetFile(file)
        return parquet.read(columns=[name for name in columns if name in parquet.schema_arrow.names])


def _aligned(path: UPath, columns: list[str], main: pa.Table) -> pa.Table:
    table = _leaf(path, columns)
    if not table["object_id"].equals(main["object_id"]):
        raise CatalogueError(f"{path}: its rows are not those of the catalogue: check with `ojala verify`")
    return table
