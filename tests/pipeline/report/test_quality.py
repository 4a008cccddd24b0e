import numpy as np
import pytest

from pipeline.report.account import account_of
from pipeline.report.leaves import answers_for
from pipeline.report.quality import (
    class_scores,
    confusion_matrix,
    label_samples,
    magnitude_bins,
    redshift_samples,
    wrong_classes,
    wrong_redshifts,
)
from pipeline.report.truth import Matched, match_truth, read_truth
from tests.pipeline.report.small_run import SmallRun


@pytest.fixture
def matched(small_run: SmallRun) -> Matched:
    truth = read_truth(small_run.truth)
    partitions = account_of(small_run.receipts).partitions
    answers = answers_for(truth, small_run.run / "ojala", small_run.photometry, partitions)
    return match_truth(truth, answers, catalogue_rows=1200)


def test_an_object_without_an_answer_counts_against_completeness_and_not_against_purity() -> None:
    true = np.array(["STAR", "STAR", "GALAXY", "GALAXY"], dtype=object)
    given = np.array(["STAR", "NONE", "GALAXY", "STAR"], dtype=object)
    counts = confusion_matrix(true, given)
    assert counts.tolist() == [[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]]
    scores = class_scores(counts)
    assert scores["classes"]["STAR"]["completeness"] == 0.5
    assert scores["classes"]["STAR"]["purity"] == 0.5
    assert scores["classes"]["GALAXY"]["purity"] == 1.0
    assert scores["f1_weighted"] == pytest.approx((2 * 2 / 3 + 2 * 1 / 2) / 4)
    assert np.isnan(scores["classes"]["QSO"]["f1"])


def test_every_known_object_is_in_the_confusion_matrix(matched: Matched, small_run: SmallRun) -> None:
    counts = confusion_matrix(matched.words("true_class"), matched.words("class"))
    assert counts.sum() == 600
    assert (
        counts[0, 0] == ((small_run.true_class == "GALAXY") & (small_run.class_given == "GALAXY"))[1::2].sum()
    )


def test_magnitudes_are_those_of_the_photometry(matched: Matched) -> None:
    i_mag = matched.numbers("i_mag")
    empty = matched.numbers("n_bands") == 0
    assert np.isnan(i_mag[empty]).all()
    assert np.isfinite(i_mag[~empty]).all()
    assert (i_mag[~empty] > 14.9).all()
    assert (i_mag[~empty] < 23.6).all()


def test_each_object_is_in_one_bin_of_magnitude() -> None:
    i_mag = np.array([12.0, 17.0, 20.49, 20.5, 23.0, np.nan])
    bins = magnitude_bins(i_mag)
    assert [name for name, _ in bins] == ["< 17", "17 – 18", "20 – 20.5", "20.5 – 21", "≥ 23", "no iSDSS"]
    assert sum(members for _, members in bins).tolist() == [1] * 6


def test_redshifts_are_judged_given_the_class_and_as_catalogued(matched: Matched) -> None:
    galaxies, quasars, both = redshift_samples(matched)
    assert (galaxies.column, quasars.column, both.column) == ("z_gal", "z_qso", "z")
    assert len(both.z) == len(galaxies.z) + len(quasars.z)
    # A galaxy that was taken for a star has a redshift as a galaxy, and none in the catalogue's z.
    assert both.scores()["unanswered"] > galaxies.scores()["unanswered"] + quasars.scores()["unanswered"]
    dz = galaxies.dz[np.isfinite(galaxies.dz)]
    assert galaxies.scores()["sigma_nmad_uncentred"] == pytest.approx(1.4826 * np.median(np.abs(dz)))
    assert galaxies.scores()["outliers_15_n"] == (np.abs(dz) > 0.15).sum()
    assert 0.5 < galaxies.scores()["within_error"] < 0.8


def test_labels_are_judged_on_objects_of_their_class(matched: Matched) -> None:
    (mass,) = label_samples(matched)
    assert mass.name == "log_mass"
    assert len(mass.value) + mass.unanswered == (matched.words("true_class") == "GALAXY").sum()
    assert mass.scores["nmad"] == pytest.approx(0.15, abs=0.03)
    assert mass.scores["within_error"] == pytest.approx(0.683, abs=0.08)


def test_wrong_classes_come_with_the_surest_first_and_none_is_left_out(matched: Matched) -> None:
    wrong = wrong_classes(matched)
    assert len(wrong) == (matched.words("true_class") != matched.words("class")).sum()
    answered = [row["p_class"] for row in wrong if row["class"] != "NONE"]
    assert answered == sorted(answered, reverse=True)
    assert {row["class"] for row in wrong} >= {"NONE"}
    assert all(row["class"] != row["true_class"] for row in wrong)


def test_wrong_redshifts_come_with_the_worst_first(matched: Matched) -> None:
    wrong = wrong_redshifts(matched)
    sizes = [abs(row["dz"]) for row in wrong]
    assert sizes == sorted(sizes, reverse=True)
    assert min(sizes) > 0.15
    assert all(row["class"] == row["true_class"] != "STAR" for row in wrong)


def test_probabilities_add_up_to_the_rows_that_have_them(small_run: SmallRun) -> None:
    totals = account_of(small_run.receipts)
    assert sum(totals.expected.values()) == pytest.approx(1200 - 12, abs=0.01)
    assert totals.flagged >= 12
