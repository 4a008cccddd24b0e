"""Going on with a run, whatever became of it: nothing is mixed, nothing whole is done again."""

import json
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from upath import UPath

from ojala.pipeline import run as survey_run
from ojala.pipeline.inference.process import receipt_path
from ojala.pipeline.quality.verify import verify
from ojala.pipeline.runs import catalogues
from ojala.pipeline.runs import plan as planning
from ojala.pipeline.runs.config import RunConfig
from ojala.pipeline.runs.record import Status, read_record
from ojala.pipeline.runs.releases import pointers
from tests.helpers.survey import (
    ingest_table,
    photometry_table,
    plan_run,
    replace,
    run_and_publish,
    without_report,
)

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    without_report(monkeypatch)


@pytest.fixture
def worked_on(config):
    """A run whose partitions are all done, but that was killed before it could end."""
    plan = plan_run(config)
    run = survey_run.begin(plan)
    for _ in survey_run.execute(plan):
        pass
    return run, [entry.partition for entry in plan.entries]


def leaf(run, partition, product="ojala"):
    return run / product / partition.leaf


def data(run):
    files = sorted((run / "ojala" / "dataset").rglob("Npix=*.parquet"), key=str)
    return {file.name: pq.ParquetFile(file.path).read() for file in files}


def test_vectors_that_are_not_wanted_any_more_do_not_stay(config):
    with_vectors = config.model_copy(update={"vectors": True})
    plan = plan_run(with_vectors)
    survey_run.begin(plan)
    receipts = survey_run.execute(plan)
    next(receipts)
    receipts.close()
    result = run_and_publish(config)
    assert result.plan.run_id == plan.run_id
    assert not (result.run / "ojala_vectors").exists()
    assert list(verify(result.run)) == []


def test_leaves_without_receipt_and_partitions_that_are_no_more_do_not_stay(config, worked_on, finished):
    run, (one, two, *_) = worked_on
    receipt_path(run, one).unlink()
    stray = run / "ojala" / "dataset" / "Norder=3" / "Dir=0" / "Npix=1.parquet"
    receipt = run / "receipts" / "Norder=3" / "Npix=1.json"
    torn = leaf(run, two).with_name(".Npix=1.parquet.x.tmp")
    for path in (stray, receipt, torn):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"PAR1")
    plan = plan_run(config)
    assert [entry.partition for entry in plan.to_do] == [one]
    survey_run.begin(plan)
    assert not any(path.exists() for path in (stray, stray.parent, receipt, torn, leaf(run, one)))
    result = run_and_publish(config)
    assert list(verify(result.run)) == []
    assert data(result.run) == data(finished.run)


def test_a_receipt_of_another_partition_is_no_receipt(config, worked_on):
    run, (one, two, *rest) = worked_on
    receipt_path(run, one).write_bytes(receipt_path(run, two).read_bytes())
    assert plan_run(config).states() == {"damaged": 1, "done": 1 + len(rest)}


@pytest.mark.parametrize("path", ["../../../outside.parquet", "/etc/passwd"])
def test_a_receipt_that_names_a_path_of_its_own_choice_is_damaged(config, worked_on, path):
    run, (one, *rest) = worked_on
    receipt = json.loads(receipt_path(run, one).read_text())
    receipt["leaves"][0]["path"] = path
    receipt_path(run, one).write_text(json.dumps(receipt))
    assert plan_run(config).states() == {"damaged": 1, "done": len(rest)}
    receipt["leaves"][0]["product"] = "../../../x"
    receipt["leaves"][0]["path"] = f"../../../x/{one.leaf}"
    receipt_path(run, one).write_text(json.dumps(receipt))
    assert plan_run(config).states() == {"damaged": 1, "done": len(rest)}


def test_a_torn_record_costs_a_new_run_but_nothing_is_done_again(config, worked_on):
    run, partitions = worked_on
    record = (run / "run.json").read_bytes()
    (run / "run.json").write_bytes(record[: len(record) // 2])
    plan = plan_run(config)
    assert (len(plan.to_link), plan.to_do, plan.base) == (len(partitions), [], run.name)
    assert "cannot be read" in plan.remarks[0]
    result = run_and_publish(config)
    assert result.plan.run_id > run.name
    assert (result.record.status, result.record.linked) == (Status.COMPLETE, len(partitions))
    assert list(verify(result.out)) == []


STEPS = {
    "finalise_catalogue": catalogues,
    "write_provenance": catalogues,
    "write_receipts_table": catalogues,
    "evaluate_gates": survey_run,
    "write_report": survey_run,
    "write_checksums": survey_run,
    "set_published": survey_run,
}
"""Functions of the end of a run, and the modules that call them."""


@pytest.mark.parametrize("step", STEPS)
def test_a_run_that_is_killed_between_two_steps_of_its_end_goes_on(config, worked_on, monkeypatch, step):
    run, _ = worked_on

    def kill(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(STEPS[step], step, kill)
        with pytest.raises(KeyboardInterrupt):
            run_and_publish(config)
    assert pointers(run.parent.parent) == {}
    plan = plan_run(config)
    assert (plan.run_id, plan.to_do) == (run.name, [])
    if read_record(run).status != Status.COMPLETE:
        survey_run.begin(plan)
        survey_run.finalise(plan)
    survey_run.publish(plan)
    assert list(verify(run.parent.parent)) == []


def test_a_finished_run_and_one_changed_input_leaf_cost_one_partition(tmp_path):
    table = photometry_table(300)
    survey = ingest_table(table, tmp_path / "one")
    config = RunConfig(photometry=str(survey), out=str(tmp_path / "out"), model="empty", engine="serial")
    first = run_and_publish(config)
    changed = ingest_table(replace(table, "flux_isdss", 5, 1.0), tmp_path / "two")
    second = run_and_publish(config.model_copy(update={"photometry": str(changed)}))
    assert [entry.state for entry in second.plan.to_do] == ["stale: input"]
    assert second.record.linked == len(first.plan.entries) - 1
    assert second.record.mixed_versions == {}
    assert list(verify(second.out)) == []


def age(path, seconds=-10):
    stat = os.stat(path.path)
    os.utime(path.path, ns=(stat.st_atime_ns, stat.st_mtime_ns + int(seconds * 1e9)))


def flip(path):
    """One flipped byte, at the same size."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("ended", [False, True])
def test_a_leaf_of_the_same_size_that_was_changed_later_is_read_and_found_out(config, worked_on, ended):
    run, (one, two, *_) = worked_on
    if ended:
        survey_run.finalise(plan_run(config))
    flip(leaf(run, one))
    age(leaf(run, one), +10)
    age(leaf(run, two), +10)  # touched, but the same
    plan = plan_run(config)
    assert [(entry.partition, entry.state) for entry in plan.to_do] == [(one, "damaged")]


def test_a_change_that_hides_in_size_and_time_is_found_by_check_alone(config, worked_on):
    run, (one, *_) = worked_on
    survey_run.finalise(plan_run(config))
    stat = os.stat(leaf(run, one).path)
    flip(leaf(run, one))
    os.utime(leaf(run, one).path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert plan_run(config).to_do == []
    assert [entry.partition for entry in plan_run(config, check=True).to_do] == [one]


@pytest.mark.parametrize("what", ["truncated", "removed"])
def test_a_leaf_of_a_finished_run_that_is_not_whole_is_done_again_elsewhere(config, finished, tmp_path, what):
    shutil.copytree(finished.out.path, tmp_path / "copy")
    config = finished.config.model_copy(update={"out": str(tmp_path / "copy")})
    run = UPath(tmp_path / "copy" / "runs" / finished.plan.run_id)
    partition = finished.plan.entries[0].partition
    if what == "truncated":
        leaf(run, partition).write_bytes(leaf(run, partition).read_bytes()[:-1])
    else:
        leaf(run, partition).unlink()
    result = run_and_publish(config)
    assert result.plan.run_id != run.name, "a finished run is not written to"
    assert [(entry.partition, entry.state) for entry in result.plan.to_do] == [(partition, "damaged")]
    assert list(verify(result.out)) == []
    assert Path(result.out.path, "published").is_symlink(), "the copy had followed the links"
    assert not [*result.out.glob(".published-*.copy")]
    assert data(result.run) == data(finished.run)


def test_a_receipt_that_changed_under_the_run_does_not_get_into_the_catalogue(config, worked_on):
    run, (one, *_) = worked_on
    plan = plan_run(config)
    other = config.model_copy(update={"batch_size": 7})
    stale = plan_run(other).entries[0].fingerprint
    receipt = json.loads(receipt_path(run, one).read_text())
    receipt |= {"ingredients": stale.model_dump(), "key": stale.key()}
    receipt_path(run, one).write_text(json.dumps(receipt))
    record = survey_run.finalise(plan)
    assert (record.status, list(record.failed)) == (Status.INCOMPLETE, [one.name])


def test_a_clock_that_was_set_back_does_not_make_an_old_run_the_latest(config, monkeypatch):
    first = run_and_publish(config)
    real = planning.datetime.datetime

    class Earlier(real):
        @classmethod
        def now(cls, tz=None):
            return real(2001, 1, 1, tzinfo=tz)

    monkeypatch.setattr(planning.datetime, "datetime", Earlier)
    plan = plan_run(config.model_copy(update={"batch_size": 7}))
    assert plan.run_id > first.plan.run_id
