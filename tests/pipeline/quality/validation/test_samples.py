"""What is judged, on the rows of a small run."""

import numpy as np
import pytest

from ojala.catalogs_schema.ojala import CLASSES
from ojala.models.evaluation.metrics import confusion
from ojala.pipeline.quality.validation.samples import (
    code_of,
    label_samples,
    redshift_samples,
    wrong_classes,
    wrong_redshifts,
)
from ojala.pipeline.quality.validation.truth import Matched
from ojala.pipeline.runs.totals import totals_of
from tests.pipeline.report.small_run import SmallRun


def test_every_known_object_is_in_the_confusion_matrix(matched: Matched, small_run: SmallRun) -> None:
    counts = confusion(
        code_of(matched.words("class"), CLASSES), code_of(matched.words("true_class"), CLASSES)
    )
    assert counts.sum() == 600
    assert (
        counts[0, 0] == ((small_run.true_class == "GALAXY") & (small_run.class_given == "GALAXY"))[1::2].sum()
    )


def test_magnitudes_are_those_of_the_photometry(matched: Matched) -> None:
    i_mag = matched.i_mag
    empty = matched.numbers("n_bands") == 0
    assert np.isnan(i_mag[empty]).all()
    assert np.isfinite(i_mag[~empty]).all()
    assert (i_mag[~empty] > 14.9).all()
    assert (i_mag[~empty] < 23.6).all()


def test_redshifts_are_judged_by_the_true_and_by_the_predicted_class(matched: Matched) -> None:
    samples = {(s.objects, s.given): s for s in redshift_samples(matched)}
    true, predicted = matched.words("true_class"), matched.words("class")
    galaxies, given = samples["GALAXY", "true class"], samples["GALAXY", "predicted class"]
    assert len(galaxies.z) == (true == "GALAXY").sum()
    assert len(given.z) == (predicted == "GALAXY").sum()
    assert galaxies.column == "z_gal"
    assert given.column == samples["QSO", "predicted class"].column == "z"
    assert samples["QSO", "true class"].column == "z_qso"
    # What was taken for a galaxy and is a star has its redshift measured against zero.
    assert (given.z_true[~given.class_right] == 0.0).sum() == (
        (predicted == "GALAXY") & (true == "STAR")
    ).sum()
    assert given.class_right.sum() == ((predicted == true) & (true == "GALAXY")).sum()


def test_the_best_half_has_the_highest_odds_and_keeps_its_order(matched: Matched) -> None:
    sample = redshift_samples(matched)[0]
    n = len(sample.z)
    odds = np.where(np.arange(n) % 3 == 0, np.nan, np.arange(n) / n)
    whole = sample.only(np.arange(n))
    half = type(whole)(
        *(getattr(whole, name) for name in ("objects", "given", "column", "z", "error", "z_true", "i_mag")),
        odds,
        whole.class_right,
    ).best_half()
    assert len(half.odds) == n // 2
    assert np.isfinite(half.odds).all()
    assert (np.diff(half.odds) > 0).all()
    assert half.odds.min() >= np.sort(odds[np.isfinite(odds)])[-(n // 2)]


def test_labels_are_judged_on_objects_of_their_class(matched: Matched) -> None:
    mass = label_samples(matched)[0]
    assert mass.name == "log_mass"
    assert len(mass.value) + mass.missing == (matched.words("true_class") == "GALAXY").sum()


def test_wrong_classes_come_with_the_surest_first_and_none_is_left_out(matched: Matched) -> None:
    wrong = wrong_classes(matched)
    assert len(wrong) == (matched.words("true_class") != matched.words("class")).sum()
    predicted = [row["p_class"] for row in wrong if row["class"] != "NONE"]
    assert predicted == sorted(predicted, reverse=True)
    assert {row["class"] for row in wrong} >= {"NONE"}
    assert all(row["class"] != row["true_class"] for row in wrong)


def test_wrong_redshifts_come_with_the_worst_first(matched: Matched) -> None:
    wrong = wrong_redshifts(matched)
    sizes = [abs(row["dz"]) for row in wrong]
    assert sizes == sorted(sizes, reverse=True)
    assert min(sizes) > 0.15
    assert all(row["class"] == row["true_class"] != "STAR" for row in wrong)


def test_probabilities_add_up_to_the_rows_that_have_them(small_run: SmallRun) -> None:
    totals = totals_of(small_run.receipts)
    assert sum(totals.expected.values()) == pytest.approx(1200 - 12, abs=0.01)
    assert totals.flagged >= 12
