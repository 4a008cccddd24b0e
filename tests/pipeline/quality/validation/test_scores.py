"""Measures of a small run, against what was put into it."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from ojala.catalogs_schema.ojala import PDF_BINS, PDF_STEP
from ojala.catalogs_schema.redshift_pdfs import RedshiftPdfs
from ojala.pipeline.inference.products.emission_lines import bpt_class, line_quantities
from ojala.pipeline.quality.validation.result import Validation
from ojala.pipeline.quality.validation.samples import diagram_samples, label_samples
from ojala.pipeline.quality.validation.scores import brighter, intervals, validate
from ojala.pipeline.quality.validation.text import tables
from ojala.pipeline.quality.validation.truth import Matched, Truth, read_truth
from tests.pipeline.report.small_run import SmallRun


@pytest.fixture(scope="module")
def found(matched: Matched, small_run: SmallRun) -> Validation:
    return validate(read_truth(small_run.truth), matched, "run/ojala")


def with_columns(matched: Matched, **columns: np.ndarray) -> Matched:
    rows = matched.rows
    for name, values in columns.items():
        rows = rows.drop_columns([name]) if name in rows.column_names else rows
        rows = rows.append_column(name, pa.array(values))
    labels = [
        name.removeprefix("true_")
        for name in columns
        if name.startswith(("true_ew", "true_cont")) and "_err" not in name
    ]
    return Matched(
        rows=rows,
        labels=(*matched.labels, *labels),
        remarks=matched.remarks,
        truth_rows=matched.truth_rows,
        truth_unmatched=matched.truth_unmatched,
        catalogue_unknown=matched.catalogue_unknown,
    )


def test_rows_on_either_side_alone_are_counted(found: Validation) -> None:
    assert (found.truth_rows, found.matched, found.truth_without_catalogue) == (601, 600, 1)
    assert (found.catalogue_rows, found.catalogue_without_truth) == (1200, 600)
    assert found.ignored == ("plate",)
    assert found.magnitudes == "photometry"


def test_samples_are_judged_apart_and_together(found: Validation) -> None:
    assert set(found.samples) == {"mock", "SDSS"}
    assert sum(scores.n for scores in found.samples.values()) == found.all.n == 600


def test_scatter_and_errors_are_those_that_were_put_in(found: Validation) -> None:
    mass, bright = found.all.labels
    assert (mass.selection, bright.selection) == ("", "i < 21")
    assert bright.n < mass.n
    assert mass.nmad.value == pytest.approx(0.15, abs=0.03)
    assert 0.003 < mass.nmad.error < 0.03
    assert mass.within_error.value == pytest.approx(0.683, abs=0.08)
    galaxies = found.all.redshifts[0].scores
    assert 0.02 < galaxies.outliers_15.value < 0.08
    n, p = galaxies.n, galaxies.outliers_15.value
    assert galaxies.outliers_15.error == pytest.approx(np.sqrt(p * (1 - p) / n), rel=0.3)


def test_bins_hold_each_object_once_and_limits_add_up(found: Validation) -> None:
    for sample in found.all.redshifts:
        if sample.selection == "all":
            total = sample.scores.n + sample.scores.missing
            assert sum(b.scores.n + b.scores.missing for b in sample.by_redshift) == total
        inside = [b.scores.n + b.scores.missing for b in sample.brighter_than]
        assert inside == sorted(inside)


def test_every_limit_adds_objects() -> None:
    i_mag = np.array([18.5, 18.7, 21.5, np.nan])
    limits = [(where.high, int(chosen.sum())) for where, chosen in brighter(i_mag, (19.0, 20.0, 22.0))]
    assert limits == [(19.0, 2), (22.0, 3)]
    bins = [(w.low, w.high, int(c.sum())) for w, c in intervals(i_mag, (-np.inf, 18.6, 21.5, np.inf))]
    assert bins == [(None, 18.6, 1), (18.6, 21.5, 1), (21.5, None, 1)]


def test_coverage_by_quantiles_is_that_of_the_errors(found: Validation) -> None:
    galaxies = found.all.redshift_calibration[0]
    assert (galaxies.objects, galaxies.source, galaxies.crps) == ("GALAXY", "quantiles", None)
    assert sum(galaxies.pit_counts) == galaxies.n
    assert len(galaxies.pit_edges) == 7
    assert galaxies.within_68.value == pytest.approx(0.66, abs=0.08)
    assert galaxies.within_95.value > galaxies.within_68.value


def test_pdfs_give_the_whole_pit_and_the_crps(matched: Matched, small_run: SmallRun) -> None:
    z = matched.numbers("z")
    grid = (np.arange(PDF_BINS) + 0.5) * PDF_STEP
    pdf = np.exp(-0.5 * ((grid - np.log1p(np.nan_to_num(z))[:, None]) / 0.01) ** 2).astype(np.float32)
    pdfs = dict.fromkeys(("GALAXY", "QSO"), RedshiftPdfs.from_dense(pdf))
    whole = Matched(**{name: getattr(matched, name) for name in matched.__slots__} | {"pdf": pdfs})
    galaxies = validate(read_truth(small_run.truth), whole, "").all.redshift_calibration[0]
    assert galaxies.source == "z_pdf"
    assert sum(galaxies.pit_counts) == galaxies.n
    assert len(galaxies.pit_counts) == 20
    assert 0.001 < galaxies.crps.value < 0.1
    assert galaxies.cde_loss.value < 0
    assert galaxies.pit_cvm > 0


def test_magnitudes_of_the_truth_come_first(matched: Matched) -> None:
    bright = with_columns(matched, true_i_mag=np.full(600, 15.5))
    assert bright.magnitudes_from == "truth"
    assert (bright.i_mag == 15.5).all()


def test_left_out_objects_that_score_higher_have_an_area_near_one(
    matched: Matched, small_run: SmallRun
) -> None:
    left_out = np.arange(600) % 10 == 0
    score = np.where(left_out, 5.0, 1.0) + np.random.default_rng(1).normal(0, 1, 600)
    marked = with_columns(matched, true_left_out=left_out, novelty=score)
    novel = validate(read_truth(small_run.truth), marked, "").all.novelty
    assert (novel.left_out, novel.rest) == (60, 540)
    assert novel.auc.value > 0.99
    assert validate(read_truth(small_run.truth), matched, "").all.novelty is None


def test_true_diagram_classes_come_from_true_widths_by_the_catalogues_cuts(matched: Matched) -> None:
    galaxies = matched.words("true_class") == "GALAXY"
    rng = np.random.default_rng(5)
    lines = ("halpha", "hbeta", "oiii_5007", "nii_6584")
    true = {f"true_ew_{line}": rng.uniform(1.0, 40.0, 600) for line in lines}
    given = {name.removeprefix("true_"): values for name, values in true.items()}
    predictions = {f"{name}_err": np.zeros(600) for name in given} | given
    bpt = bpt_class(predictions | {"z_gal": matched.z_true})
    known = with_columns(matched, **true, **predictions, bpt_class=bpt, whan_class=np.full(600, "NONE"))
    samples = diagram_samples(known)
    assert {sample.selection for sample in samples} == {"", "i < 21"}
    found = {sample.name: sample for sample in samples if not sample.selection}
    assert (found["bpt_class"].true == found["bpt_class"].prediction).all()
    assert len(found["bpt_class"].true) == (bpt[galaxies] != "NONE").sum() > 20
    assert (found["whan_class"].prediction == -1).all()
    widths = {s.selection: s for s in label_samples(known) if s.name == "ew_halpha"}
    assert set(widths) == {"", "EW > 3 Å", "i < 21", "EW > 3 Å, i < 21"}
    assert (widths["EW > 3 Å"].truth > 3.0).all()
    assert len(widths[""].truth) == galaxies.sum()


def test_true_luminosities_follow_from_true_lines_at_the_catalogues_flux(matched: Matched) -> None:
    rng, n = np.random.default_rng(6), matched.rows.num_rows
    lines = {f"ew_{line}": rng.uniform(-1.0, 40.0, n) for line in ("hbeta", "oiii_5007", "nii_6584")}
    lines |= {"ew_halpha": 3.0 * lines["ew_hbeta"]} | {f"cont_{x}": np.ones(n) for x in ("hbeta", "halpha")}
    predicted = lines | {"ew_halpha": 1.2 * lines["ew_halpha"], "ew_hbeta": 1.2 * lines["ew_hbeta"]}
    predicted |= {f"{name}_err": 0.1 * np.abs(values) for name, values in predicted.items()}
    redshift = {"z_gal": matched.z_true, "z_gal_err": np.zeros(n)}
    flux = rng.uniform(1.0, 100.0, n)
    columns = predicted | redshift | line_quantities(predicted | redshift, flux, 0.01 * flux)
    known = with_columns(matched, **columns, **{f"true_{name}": values for name, values in lines.items()})
    found = {s.selection: s for s in label_samples(known) if s.name == "log_l_halpha_corr"}
    assert set(found) == {"", "EW(Hα) > 3 Å", "i < 21", "EW(Hα) > 3 Å, i < 21"}
    emits = (matched.words("true_class") == "GALAXY") & (lines["ew_halpha"] > 0)
    assert len(found[""].truth) == emits.sum() > 100
    np.testing.assert_allclose(found[""].value - found[""].truth, np.log10(1.2), atol=1e-9)
    assert len(found["EW(Hα) > 3 Å"].truth) == (emits & (lines["ew_halpha"] > 3.0)).sum()


def test_the_result_is_closed_and_comes_back_from_json(found: Validation) -> None:
    text = found.model_dump_json()
    assert Validation.model_validate_json(text) == found
    with pytest.raises(ValueError, match="Extra inputs"):
        Validation.model_validate(json.loads(text) | {"mood": "good"})
    assert "NaN" not in text


def test_the_tables_say_what_was_measured(found: Validation) -> None:
    text = tables(found)
    weighted = found.all.classification.f1_weighted
    assert f"{weighted.value:.3f}±{weighted.error:.3f}" in text
    assert "of the truth 1 are not in the catalogue" in text
    assert "== SDSS: 400 objects" in text
    assert "Redshifts: QSO by predicted class, column z, best half by z_odds" in text


def test_a_catalogue_without_known_objects_has_no_measures(matched: Matched) -> None:
    nothing = matched.only(np.zeros(600, bool))
    truth = Truth("truth.csv", matched.rows, ())
    found = validate(truth, nothing, "")
    assert found.matched == found.all.n == 0
    assert found.all.redshifts == found.all.labels == ()
    assert found.all.classification.f1_weighted.value is None
