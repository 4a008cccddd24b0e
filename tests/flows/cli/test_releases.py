"""Releases on the command line."""

import json
from pathlib import Path

import pytest

from ojala.pipeline.runs.config import RunConfig
from tests.helpers.commands import here
from tests.helpers.survey import run_and_publish, without_report

pytestmark = pytest.mark.integration


@pytest.fixture
def first(photometry, tmp_path):
    config = RunConfig(photometry=str(photometry), out=str(tmp_path / "out"), model="empty", engine="serial")
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        return run_and_publish(config)


def test_a_region_is_planned_then_done_then_rolled_back(first, photometry):
    tile = first.plan.entries[0].partition.name
    asked = ("--photometry", photometry, "--out", first.out, "--model", "empty", "--engine", "serial")
    dry = here("reprocess", *asked, "--region", f"tiles:{tile}")
    assert dry.exit_code == 0, dry.stderr
    assert "dry run: add --yes to run it" in dry.stdout
    assert "rows/s" in dry.stdout
    assert [run.name for run in (first.out / "runs").iterdir()] == [first.plan.run_id]

    done = here("reprocess", *asked, "--region", f"tiles:{tile}", "--yes", "--json")
    assert done.exit_code == 0, done.stderr
    record = json.loads(done.stdout)
    assert (record["published"], record["base"]) == (True, first.plan.run_id)
    assert (record["rows_out"], record["linked"]) == (300, len(first.plan.entries) - 1)
    assert record["gates"]["checksums"] == "pass"
    assert "Quality gates" in Path(record["report"]).read_text()

    listed = json.loads(here("releases", "--out", first.out, "--json").stdout)["releases"]
    assert [(one["run_id"], one["published"]) for one in listed] == [
        (first.plan.run_id, "was published"),
        (record["run_id"], "published"),
    ]
    back = here("rollback", "--out", first.out, "--json")
    assert json.loads(back.stdout)["published"] == first.plan.run_id
    assert here("rollback", "--out", first.out).exit_code == 1
    again = here("publish", record["run_id"], "--out", first.out)
    assert again.exit_code == 0, again.stderr
    assert "pass  checksums" in again.stdout


def test_what_cannot_be_done_ends_with_the_code_of_its_kind_and_says_why(first, photometry):
    asked = ("--photometry", photometry, "--out", first.out, "--model", "empty")
    nowhere = here("reprocess", *asked, "--region", "cone:1,1,1", "--yes")
    assert (nowhere.exit_code, "touches none" in nowhere.stderr) == (2, True)
    unknown = here("publish", "../x", "--out", first.out)
    assert (unknown.exit_code, "is no name of a run" in unknown.stderr) == (3, True)
