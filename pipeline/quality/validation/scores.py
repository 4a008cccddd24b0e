"""Measures of predictions against true values, with their bootstrap errors."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np

from ojala.catalogs_schema.contract import NONE
from ojala.catalogs_schema.ojala import CLASSES
from ojala.models.evaluation.bootstrap import RESAMPLES, SEED, bootstrap_counts, bootstrap_objects
from ojala.models.evaluation.metrics import (
    class_measures,
    confusion,
    redshift_measures,
    scatter_measures,
    within,
)
from ojala.pipeline.quality.validation.calibration import class_calibration, novelty, redshift_calibration
from ojala.pipeline.quality.validation.result import (
    ClassBin,
    Classification,
    ClassScore,
    Diagram,
    Expected,
    Interval,
    LabelScores,
    Measure,
    RedshiftBin,
    Redshifts,
    RedshiftScores,
    Scores,
    Validation,
    finite,
    measure,
)
from ojala.pipeline.quality.validation.samples import (
    DiagramSample,
    LabelSample,
    RedshiftSample,
    code_of,
    diagram_samples,
    label_samples,
    redshift_samples,
)
from ojala.pipeline.quality.validation.truth import Matched, Truth

MAGNITUDE_EDGES = (-np.inf, 17.0, 18.0, 19.0, 20.0, 20.5, 21.0, 21.5, 22.0, 22.5, 23.0, np.inf)
"""Edges of the bins of iSDSS magnitude."""

BRIGHTER_THAN = (19.0, 20.0, 21.0, 22.0)
"""Limits of the cumulative samples in iSDSS magnitude."""

REDSHIFT_EDGES = {
    "GALAXY": (-np.inf, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, np.inf),
    "QSO": (-np.inf, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, np.inf),
}
"""Edges of the bins of true redshift."""

SAMPLES_APART = 6
"""Number of samples, the largest ones, with measures of their own."""


def validate(
    truth: Truth, matched: Matched, catalogue: str, expected: tuple[Expected, ...] = ()
) -> Validation:
    """How good the predictions are, over all matched objects and per sample.

    Parameters
    ----------
    truth, matched : Truth, Matched
        Predictions and true values.
    catalogue : str
        Where the predictions are from.
    expected : tuple of Expected
        Accuracy to expect of all rows.
    """
    known = matched.rows.num_rows
    return Validation(
        catalogue=catalogue,
        truth=truth.path,
        magnitudes=matched.magnitudes_from,
        resamples=RESAMPLES,
        seed=SEED,
        truth_rows=matched.truth_rows,
        catalogue_rows=known + matched.catalogue_unknown,
        matched=known,
        truth_without_catalogue=matched.truth_unmatched,
        catalogue_without_truth=matched.catalogue_unknown,
        ignored=truth.ignored,
        all=_scores(matched),
        samples={name: _scores(part) for name, part in samples_of(matched).items()},
        expected=expected,
    )


def samples_of(matched: Matched) -> dict[str, Matched]:
    """The matched objects of each sample, the smallest first; none where there are not two."""
    if "sample" not in matched.remarks:
        return {}
    words = matched.words("true_sample")
    counts = {name: int((words == name).sum()) for name in set(words)}
    names = sorted(counts, key=lambda name: (-counts[name], name))[:SAMPLES_APART]
    if len(names) < 2:
        return {}
    return {("not named" if n == NONE else n): matched.only(words == n) for n in reversed(names)}


def _scores(matched: Matched) -> Scores:
    true, predicted = (code_of(matched.words(name), CLASSES) for name in ("true_class", "class"))
    i_mag = matched.i_mag

    def in_bin(chosen: np.ndarray) -> Classification:
        return classification(predicted[chosen], true[chosen], CLASSES)

    return Scores(
        n=matched.rows.num_rows,
        classification=classification(predicted, true, CLASSES),
        classes_by_magnitude=tuple(
            ClassBin(interval=where, scores=in_bin(chosen))
            for where, chosen in intervals(i_mag, MAGNITUDE_EDGES, true >= 0)
        ),
        classes_brighter_than=tuple(
            ClassBin(interval=where, scores=in_bin(chosen))
            for where, chosen in brighter(i_mag, BRIGHTER_THAN, true >= 0)
        ),
        redshifts=tuple(judged for s in redshift_samples(matched) for judged in _redshifts(s)),
        labels=tuple(label_scores(sample) for sample in label_samples(matched)),
        diagrams=tuple(d for sample in diagram_samples(matched) for d in _diagrams(sample)),
        class_calibration=class_calibration(matched),
        redshift_calibration=redshift_calibration(matched),
        novelty=novelty(matched),
    )


def classification(prediction: np.ndarray, true: np.ndarray, classes: Sequence[str]) -> Classification:
    """Measures of classification.

    Parameters
    ----------
    prediction, true : ndarray of int64, shape (N,)
        Index into `classes`; -1 for no prediction, or no truth, which is left out.
    classes : sequence of str
        Names of the classes.
    """
    counts = confusion(prediction, true, len(classes))
    found = bootstrap_counts(class_measures, counts)
    support, given = counts.sum(axis=1), counts.sum(axis=0)
    return Classification(
        n=int(counts.sum()),
        predictions=(*classes, NONE),
        confusion=tuple(tuple(int(count) for count in row) for row in counts),
        f1_weighted=measure(found["f1_weighted"]),
        accuracy=measure(found["accuracy"]),
        classes={
            name: ClassScore(
                n=int(support[i]),
                predicted=int(given[i]),
                completeness=measure(found["completeness"], i),
                purity=measure(found["purity"], i),
                f1=measure(found["f1"], i),
            )
            for i, name in enumerate(classes)
        },
    )


def redshift_scores(sample: RedshiftSample) -> RedshiftScores:
    """Measures of dz over the objects that have a prediction."""
    predicted = np.isfinite(sample.z)
    columns = sample.z[predicted], sample.z_true[predicted], sample.error[predicted]

    def formula(z: np.ndarray, z_true: np.ndarray, error: np.ndarray) -> dict[str, np.ndarray]:
        return redshift_measures(z, z_true) | {"within_error": within(z, error, z_true)}

    return RedshiftScores(
        n=int(predicted.sum()), missing=int((~predicted).sum()), **_measures(formula, *columns)
    )


def label_scores(sample: LabelSample) -> LabelScores:
    """Scatter of a quantity."""

    def formula(value: np.ndarray, truth: np.ndarray, error: np.ndarray) -> dict[str, np.ndarray]:
        return scatter_measures(value, truth) | {"within_error": within(value, error, truth)}

    return LabelScores(
        name=sample.name,
        unit=sample.unit,
        selection=sample.selection,
        n=len(sample.value),
        missing=sample.missing,
        **_measures(formula, sample.value, sample.truth, sample.error),
    )


def intervals(
    values: np.ndarray, edges: Sequence[float], judged: np.ndarray | bool = True
) -> Iterator[tuple[Interval, np.ndarray]]:
    """The bins of some values that hold judged objects, and their members, bool of shape (N,)."""
    for low, high in itertools.pairwise(edges):
        chosen = (values >= low) & (values < high) & judged
        if chosen.any():
            yield _interval(low, high, values[chosen]), chosen


def brighter(
    i_mag: np.ndarray, limits: Sequence[float], judged: np.ndarray | bool = True
) -> Iterator[tuple[Interval, np.ndarray]]:
    """The objects brighter than each limit; only limits that add objects to the one before."""
    before = 0
    for limit in limits:
        chosen = (i_mag < limit) & judged
        if chosen.sum() > before:
            before = int(chosen.sum())
            yield _interval(-np.inf, limit, i_mag[chosen]), chosen


def _redshifts(sample: RedshiftSample) -> Iterator[Redshifts]:
    """A sample, and the half of it with the best odds."""
    yield _judged(sample, "all")
    half = sample.best_half()
    if len(half.z):
        yield _judged(half, "best half by z_odds")


def _judged(sample: RedshiftSample, selection: Literal["all", "best half by z_odds"]) -> Redshifts:
    def bins(found: Iterator[tuple[Interval, np.ndarray]]) -> tuple[RedshiftBin, ...]:
        return tuple(
            RedshiftBin(interval=where, scores=redshift_scores(sample.only(chosen)))
            for where, chosen in found
        )

    return Redshifts(
        objects=sample.objects,
        given=sample.given,
        column=sample.column,
        selection=selection,
        scores=redshift_scores(sample),
        by_magnitude=bins(intervals(sample.i_mag, MAGNITUDE_EDGES)),
        brighter_than=bins(brighter(sample.i_mag, BRIGHTER_THAN)),
        by_redshift=bins(intervals(sample.z_true, REDSHIFT_EDGES[sample.objects])),
    )


def _diagrams(sample: DiagramSample) -> Iterator[Diagram]:
    """All that the truth classifies, and those that truth and catalogue both do."""
    both = sample.prediction >= 0
    choices = {"classified in truth": np.ones(len(both), dtype=bool), "classified in both": both}
    for known_by, chosen in choices.items():
        yield Diagram(
            name=sample.name,
            selection=", ".join(filter(None, (known_by, sample.selection))),
            scores=classification(sample.prediction[chosen], sample.true[chosen], sample.classes),
        )


def _measures(formula: Callable[..., dict[str, np.ndarray]], *columns: np.ndarray) -> dict[str, Measure]:
    if len(columns[0]):
        return {name: measure(estimate) for name, estimate in bootstrap_objects(formula, *columns).items()}
    return dict.fromkeys(formula(*(np.ones(1) for _ in columns)), Measure(value=None, error=None))


def _interval(low: float, high: float, values: np.ndarray) -> Interval:
    return Interval(low=finite(low), high=finite(high), middle=float(np.median(values)))
