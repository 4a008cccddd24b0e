"""Schema of ``validation.json``, the result of a validation.

Closed to unknown fields, so that programs can rely on the numbers. Every measure has its bootstrap error;
null where there is nothing to measure.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ojala.models.evaluation.bootstrap import Estimate

VALIDATION_VERSION = "3.0.0"


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Measure(_Closed):
    """A number and its bootstrap error."""

    value: float | None = Field(description="of the objects themselves")
    error: float | None = Field(
        description="half the central 68.3 % range over bootstrap resamples of the objects"
    )


class ClassScore(_Closed):
    """Measures of one class."""

    n: int = Field(description="objects that truly are of the class")
    predicted: int = Field(description="objects that were given the class")
    completeness: Measure = Field(description="part of the true members that were found (recall)")
    purity: Measure = Field(description="part of the given members that are true (precision)")
    f1: Measure = Field(description="harmonic mean of completeness and purity")


class Classification(_Closed):
    """Measures of classification over the objects of known class."""

    n: int
    predictions: tuple[str, ...] = Field(description="columns of the confusion matrix; NONE is no class")
    confusion: tuple[tuple[int, ...], ...] = Field(description="objects by (true class, prediction)")
    f1_weighted: Measure = Field(description="mean F1, weighted by the true members of each class")
    accuracy: Measure
    classes: dict[str, ClassScore]


class Interval(_Closed):
    """A range of magnitude or redshift; null where it is open."""

    low: float | None
    high: float | None
    middle: float | None = Field(description="median of the objects in it")

    @property
    def is_open(self) -> bool:
        """Whether it holds everything."""
        return self.low is None and self.high is None


class ClassBin(_Closed):
    """Classification within an interval of iSDSS magnitude."""

    interval: Interval
    scores: Classification


class RedshiftScores(_Closed):
    """Measures of dz = (z - z_true) / (1 + z_true) over the objects that have a prediction."""

    n: int = Field(description="objects with a prediction")
    missing: int = Field(description="objects without one")
    sigma_nmad: Measure = Field(description="1.4826 median|dz - median dz|")
    sigma_nmad_uncentred: Measure = Field(description="1.4826 median|dz|, as the published OJALA has it")
    sigma_iqr: Measure = Field(description="range of dz from its 25 % to its 75 % percentile over 1.349")
    sigma68: Measure = Field(description="half the range of dz from its 16 % to its 84 % percentile")
    bias: Measure = Field(description="median dz")
    outliers_15: Measure = Field(description="part with |dz| > 0.15")
    outliers_03: Measure = Field(description="part with |dz| > 0.03")
    outliers_iqr: Measure = Field(description="part with |dz| > max(0.06, 3 sigma_iqr)")
    r2: Measure = Field(description="1 - mean square error over the variance of the truth")
    range_ratio: Measure = Field(description="central 68 % range of the predictions over that of the truth")
    within_error: Measure = Field(description="part with |z - z_true| <= z_err; 0.683 where errors are right")


class RedshiftBin(_Closed):
    """Redshifts within an interval."""

    interval: Interval
    scores: RedshiftScores


class Redshifts(_Closed):
    """Redshifts of one kind of object, judged in one way."""

    objects: Literal["GALAXY", "QSO"]
    given: Literal["true class", "predicted class"] = Field(
        description="true class: all true members, by the redshift as of that class, whatever class was "
        "predicted; predicted class: all that were given the class, true or not, by the catalogue's z, with "
        "stars at 0"
    )
    column: str = Field(description="column of the catalogue that is judged")
    selection: Literal["all", "best half by z_odds"]
    scores: RedshiftScores
    by_magnitude: tuple[RedshiftBin, ...]
    brighter_than: tuple[RedshiftBin, ...]
    by_redshift: tuple[RedshiftBin, ...] = Field(description="by true redshift")


class LabelScores(_Closed):
    """One scalar quantity over the true members of its class that have a prediction."""

    name: str
    unit: str
    selection: str = Field(description="which objects; empty for all")
    n: int
    missing: int
    bias: Measure = Field(description="median of prediction - truth")
    nmad: Measure = Field(description="1.4826 median|difference - median difference|")
    std: Measure = Field(description="standard deviation of the difference")
    r2: Measure
    range_ratio: Measure
    within_error: Measure = Field(description="part of the truths within one error; 0.683 where right")


class Diagram(_Closed):
    """Classes of galaxies in a diagram of line ratios against those from the true equivalent widths."""

    name: Literal["bpt_class", "whan_class"]
    selection: str = Field(
        description="classified in truth, or in both truth and catalogue; and up to which magnitude"
    )
    scores: Classification


class Reliability(_Closed):
    """Frequency with which the most probable class is true, in a bin of its probability."""

    low: float
    high: float
    n: int
    probability: float = Field(description="mean probability of the most probable class")
    right: Measure = Field(description="part for which it is the true class")


class ClassCalibration(_Closed):
    """Calibration of class probabilities."""

    n: int
    expected_calibration_error: Measure
    reliability: tuple[Reliability, ...]


class RedshiftCalibration(_Closed):
    """Calibration of redshift PDFs over objects of right class."""

    objects: Literal["GALAXY", "QSO"]
    source: Literal["z_pdf", "quantiles"] = Field(description="source of the PIT")
    n: int
    pit_edges: tuple[float, ...]
    pit_counts: tuple[int, ...] = Field(description="objects per bin of the PIT; level where calibrated")
    ks_distance: Measure = Field(
        description="Kolmogorov-Smirnov statistic: largest distance of the PIT's distribution from uniform"
    )
    pit_cvm: float | None = Field(description="Cramer-von Mises statistic of the PIT; null without PDFs")
    pit_ad: float | None = Field(
        description="Anderson-Darling statistic (k samples) of the PIT against as many uniform numbers, as "
        "qp has it; null without PDFs"
    )
    within_68: Measure = Field(description="part of the truths from z_q16 to z_q84; 0.683 expected")
    within_95: Measure = Field(description="part of the truths from z_q02 to z_q98; 0.954 expected")
    crps: Measure | None = Field(description="mean CRPS in ln(1 + z); null without PDFs")
    cde_loss: Measure | None = Field(
        description="conditional density estimation loss (Izbicki & Lee 2017), in z at the middles of the "
        "PDFs' bins, as qp has it; null without PDFs"
    )


class Novelty(_Closed):
    """Detection of kinds of objects that were left out of training by the novelty score."""

    left_out: int
    rest: int
    auc: Measure = Field(description="probability that a left-out object scores higher than another")


class Expectation(_Closed):
    """Accuracy of redshifts that their PDFs predict; null without rows."""

    sigma_nmad: float | None
    sigma_iqr: float | None
    outliers_15: float | None
    outliers_03: float | None
    outliers_iqr: float | None


class Achieved(_Closed):
    """The same measures against true redshifts; see `RedshiftScores`."""

    sigma_nmad: Measure
    sigma_iqr: Measure
    outliers_15: Measure
    outliers_03: Measure
    outliers_iqr: Measure


class ExpectedCell(_Closed):
    """Rows of a class in an interval of iSDSS magnitude with at least so high odds."""

    magnitude: Interval = Field(
        description="open on both sides: all, also those whose magnitude is not known"
    )
    odds_min: float = Field(description="least z_odds")
    rows: int
    completeness: float = Field(description="share of the class's rows in the interval that the odds keep")
    predicted: Expectation
    known: int = Field(description="rows of right class whose true redshift is known")
    predicted_of_known: Expectation
    achieved: Achieved | None = Field(description="of the known ones; null where they are few")


class Expected(_Closed):
    """Accuracy to expect of the redshifts of all rows of a class, if it is right, by odds and magnitude."""

    objects: Literal["GALAXY", "QSO"] = Field(description="most probable class of the rows")
    source: Literal["pdf", "z_err"] = Field(
        description="pdf: from redshift PDFs; z_err: from Gaussians of that width, which know no second mode"
    )
    rows: int = Field(description="rows of the class with a redshift")
    partitions_read: int
    partitions: int = Field(description="partitions of the catalogue")
    cells: tuple[ExpectedCell, ...] = Field(description="all magnitudes first, then each interval with rows")

    @property
    def by_odds(self) -> list[ExpectedCell]:
        """All magnitudes together, by least odds."""
        return [cell for cell in self.cells if cell.magnitude.is_open]

    @property
    def by_magnitude(self) -> list[ExpectedCell]:
        """Intervals of magnitude, whatever the odds."""
        return self.at(0.0)

    def at(self, odds_min: float) -> list[ExpectedCell]:
        """Intervals of magnitude, of rows with at least so high odds."""
        return [cell for cell in self.cells if cell.odds_min == odds_min and not cell.magnitude.is_open]


class Scores(_Closed):
    """Everything about one set of objects."""

    n: int = Field(description="objects that are in truth and catalogue")
    classification: Classification
    classes_by_magnitude: tuple[ClassBin, ...]
    classes_brighter_than: tuple[ClassBin, ...]
    redshifts: tuple[Redshifts, ...]
    labels: tuple[LabelScores, ...]
    diagrams: tuple[Diagram, ...]
    class_calibration: ClassCalibration | None
    redshift_calibration: tuple[RedshiftCalibration, ...]
    novelty: Novelty | None


class Validation(_Closed):
    """Result of a validation."""

    version: str = VALIDATION_VERSION
    catalogue: str
    truth: str
    magnitudes: Literal["truth", "photometry"] = Field(description="where iSDSS magnitudes are from")
    resamples: int
    seed: int
    truth_rows: int
    catalogue_rows: int
    matched: int
    truth_without_catalogue: int
    catalogue_without_truth: int
    ignored: tuple[str, ...] = Field(description="columns of the truth that have no counterpart")
    all: Scores
    samples: dict[str, Scores] = Field(description="by the truth's column `sample`, the largest")
    expected: tuple[Expected, ...] = Field(
        default=(), description="what to expect of the redshifts of all rows of the catalogue"
    )


def measure(estimate: Estimate, place: int | None = None) -> Measure:
    """An estimate, or one entry of it."""
    value, error = (a if place is None else a[place] for a in (estimate.value, estimate.error))
    return Measure(value=finite(float(value)), error=finite(float(error)))


def finite(number: float) -> float | None:
    """The number, None where it is not finite, which JSON does not know."""
    return number if math.isfinite(number) else None
