"""Quality gates: which runs may be published, by their receipts and leaves."""

import shutil

import numpy as np
import pyarrow as pa
import pytest
from upath import UPath

from ojala.pipeline.runs.coverage import find_loss
from ojala.pipeline.runs.gates import (
    GATES,
    GateError,
    GateLimits,
    RunEvidence,
    evaluate_gates,
    raise_for_failed,
    read_gates,
)
from ojala.pipeline.runs.receipts import all_receipts
from ojala.pipeline.runs.record import Status
from ojala.pipeline.runs.releases import pointers
from tests.helpers.survey import ingest_table, photometry_table, plan_run, run_and_publish, without_report

pytestmark = pytest.mark.integration

LIMITS = GateLimits(few_rows=0)


@pytest.fixture(scope="module")
def receipts(finished):
    return all_receipts(finished.run)


@pytest.fixture(scope="module")
def rows(finished):
    return {entry.partition.name: entry.rows for entry in finished.plan.entries}


def evaluate(finished, receipts, rows, limits=LIMITS, before=None, inputs=None, **changed):
    published = (finished.run, before) if before is not None else None
    record = finished.record.model_copy(update=changed)
    inputs = inputs or {receipt.partition: receipt.ingredients.input_sha256 for receipt in receipts}
    return evaluate_gates(RunEvidence(finished.run, record, receipts, rows, inputs, published), limits)


def judged(*evidence, **options):
    return {gate.name: gate for gate in evaluate(*evidence, **options).gates}


def changed(receipts, **summary):
    """The same receipts with other summaries, as of leaves made anew."""
    return [
        receipt.model_copy(
            update={
                "summary": receipt.summary.model_copy(update=summary),
                "leaves": [leaf.model_copy(update={"sha256": "0"}) for leaf in receipt.leaves],
            }
        )
        for receipt in receipts
    ]


def many(receipts, factor=1000):
    """The same shares in so many times the rows, so that chance plays no part."""
    scaled = []
    for receipt in receipts:
        summary = receipt.summary
        update = {
            "classes": {name: factor * count for name, count in summary.classes.items()},
            "flags": {name: factor * count for name, count in summary.flags.items()},
            "flagged": factor * summary.flagged,
            "redshifts": {n: [factor * count for count in c] for n, c in summary.redshifts.items()},
        }
        scaled.append(
            receipt.model_copy(
                update={
                    "rows_out": factor * receipt.rows_out,
                    "summary": summary.model_copy(update=update),
                }
            )
        )
    return scaled


def test_a_whole_run_passes_all_gates_and_they_are_kept_with_it(finished, receipts, rows):
    gates = judged(finished, receipts, rows)
    assert {gate.outcome for gate in gates.values()} == {"pass"}
    assert gates["rows"].numbers["rows_out"] == 300
    assert read_gates(finished.run).outcomes() == {name: gate.outcome for name, gate in gates.items()}


def test_a_missing_partition_fails_unless_a_partial_release_is_wanted(finished, receipts, rows):
    assert judged(finished, receipts[1:], rows)["partitions"].outcome == "fail"
    gate = judged(finished, receipts[1:], rows, status=Status.PARTIAL)["partitions"]
    assert (gate.outcome, gate.numbers["missing"]) == ("warn", 1)


def test_rows_that_do_not_add_up_fail(finished, receipts, rows):
    lost = [receipts[0].model_copy(update={"rows_out": receipts[0].rows_out - 1}), *receipts[1:]]
    gate = judged(finished, lost, rows)["rows"]
    assert gate.outcome == "fail"
    assert receipts[0].partition in gate.text


def test_a_leaf_that_differs_from_its_receipt_fails(finished, receipts, rows):
    gate = judged(finished, changed(receipts[:1]) + receipts[1:], rows)["checksums"]
    assert (gate.outcome, gate.numbers["different"]) == ("fail", len(receipts[0].leaves))


def test_an_input_that_changed_fails_but_outside_of_a_region_warns(finished, receipts, rows):
    swapped = {r.partition: r.ingredients.input_sha256 for r in receipts} | {receipts[0].partition: "0"}
    gate = judged(finished, receipts, rows, inputs=swapped)["inputs"]
    assert (gate.outcome, gate.numbers["changed"]) == ("fail", 1)
    earlier = [receipts[0].model_copy(update={"run_id": "earlier"}), *receipts[1:]]
    gate = judged(finished, earlier, rows, inputs=swapped, region="tiles:5/1")["inputs"]
    assert (gate.outcome, gate.numbers["changed_outside_region"]) == ("warn", 1)


@pytest.mark.parametrize(("share", "outcome"), [(0.0, "pass"), (0.2, "warn"), (0.9, "fail")])
def test_rows_without_a_class(finished, receipts, rows, share, outcome):
    none = [round(share * receipt.rows_out) for receipt in receipts]
    with_none = [
        receipt.model_copy(
            update={
                "summary": receipt.summary.model_copy(
                    update={"classes": {"GALAXY": receipt.rows_out - n, "none": n}}
                )
            }
        )
        for receipt, n in zip(receipts, none, strict=True)
    ]
    gate = judged(finished, with_none, rows)["unclassified"]
    assert gate.outcome == outcome
    assert gate.limits == {"warn": LIMITS.unclassified_warn, "fail": LIMITS.unclassified_fail}
    few = judged(finished, with_none, rows, limits=GateLimits())["unclassified"]
    assert few.outcome == ("warn" if outcome == "fail" else outcome), "few rows only warn"


def test_classes_and_redshifts_that_drift_from_the_published_release_fail(finished, receipts, rows):
    before = many(receipts)
    counts = {"GALAXY": 16_000, "STAR": 24_000, "QSO": 0, "none": 0}
    bins = len(receipts[0].summary.redshifts["GALAXY"])
    redshifts = {"GALAXY": [0] * (bins - 1) + [20_000], "QSO": [0] * bins}
    gates = judged(finished, changed(before, classes=counts, redshifts=redshifts), rows, before=before)
    assert gates["class_drift"].outcome == gates["redshift_drift"].outcome == "fail"
    assert "of the reprocessed rows" in gates["class_drift"].text
    assert gates["class_drift"].numbers["drift"] == pytest.approx(0.6, abs=0.05)
    assert gates["redshift_drift"].numbers["drift"] > 0.9
    assert gates["null_drift"].outcome == "pass"


def test_flags_that_appear_fail(finished, receipts, rows):
    before = many(receipts)
    gates = judged(finished, changed(before, flags={"FAINT": 30_000}), rows, before=before)
    assert gates["flag_drift"].outcome == "fail"
    assert "FAINT" in gates["flag_drift"].text


def test_chance_is_no_drift(finished, receipts, rows):
    counts = dict(receipts[0].summary.classes)
    counts |= {"GALAXY": counts["GALAXY"] - 1, "STAR": counts["STAR"] + 1}
    one_other = changed(receipts[:1], classes=counts) + receipts[1:]
    assert judged(finished, one_other, rows, before=receipts)["class_drift"].outcome == "pass"


def test_what_was_not_made_anew_does_not_drift(finished, receipts, rows):
    gates = judged(finished, receipts, rows, before=receipts)
    assert "was reprocessed" in gates["class_drift"].text


def test_a_gate_that_fails_is_refused_with_its_numbers_and_how_to_overrule_it(finished, receipts, rows):
    report = evaluate(finished, receipts[1:], rows)
    assert report.outcome == "fail"
    with pytest.raises(
        GateError, match=r"partitions: 1 of .* are missing.*--out out --force-gate partitions"
    ):
        raise_for_failed(report, [], UPath("out"))
    raise_for_failed(report, ["partitions"], UPath("out"))


def test_settings_follow_from_the_gates_and_take_former_names():
    fields = set(GateLimits.model_fields) - {"few_rows"}
    assert fields == {f"{g.name}_{level}" for g in GATES.values() if g.measure for level in ("warn", "fail")}
    limits = GateLimits.model_validate({"unanswered_warn": 0.1, "flagged_fail": 0.9})
    assert (limits.of("unclassified"), limits.of("flags")) == ((0.1, 0.5), (0.7, 0.9))
    with pytest.raises(ValueError, match="Extra inputs"):
        GateLimits.model_validate({"no_such_gate_warn": 0.1})


def test_a_new_gate_is_one_function_with_its_limits(finished, receipts, rows, monkeypatch):
    registry = dict(GATES)
    monkeypatch.setattr("ojala.pipeline.runs.gate.GATES", registry)
    monkeypatch.setattr("ojala.pipeline.runs.gates.GATES", registry)
    from ojala.pipeline.runs.gates import Finding, gate

    @gate()
    def few_partitions(run):
        """The run has at least 1000 partitions."""
        return Finding(f"{len(run.done)} partitions", "pass" if len(run.done) >= 1000 else "warn")

    assert judged(finished, receipts, rows)["few_partitions"].outcome == "warn"


@pytest.fixture
def new_night(finished, tmp_path):
    """The configuration of a run over a night of its own, into the collection of a published survey."""
    out = tmp_path / "out"
    shutil.copytree(finished.out.path, out)
    night = ingest_table(photometry_table(40, seed=9, tile_id=8), tmp_path / "night")
    return finished.config.model_copy(update={"photometry": str(night), "out": str(out)})


def test_a_new_night_alone_does_not_replace_the_survey(finished, new_night, monkeypatch):
    without_report(monkeypatch)
    plan = plan_run(new_night)
    (remark,) = plan.remarks
    assert "the gate coverage refuses it" in remark
    assert f"ojala ingest --add FILE... --to {finished.photometry}" in remark
    with pytest.raises(GateError, match=r"coverage: 2\d\d of 300 rows of release .* are lost"):
        run_and_publish(new_night)
    assert pointers(UPath(new_night.out)) == pointers(finished.out)
    (gate,) = [one for one in read_gates(plan_run(new_night).folder).gates if one.name == "coverage"]
    assert gate.outcome == "fail", "few rows are no excuse"
    assert gate.numbers["rows_before"] == 300
    assert gate.numbers["area_lost"] > 0.1


def test_rows_gained_elsewhere_do_not_make_up_for_lost_ones(finished, tmp_path):
    elsewhere = photometry_table(400, seed=4, tile_id=9)
    elsewhere = elsewhere.set_column(2, "ra", pa.array(np.linspace(10, 12, 400)))
    loss = find_loss(finished.run, ingest_table(elsewhere, tmp_path))
    assert (loss.rows, loss.rows_before, loss.share) == (300, 300, 1.0)
    assert loss.partitions == loss.partitions_before == len(finished.plan.entries)
    same = find_loss(finished.run, finished.photometry)
    assert (same.rows, same.area, same.partitions) == (0, 0.0, 0)
