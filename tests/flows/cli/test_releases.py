"""Releases on the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ojala.flows.cli.app import app
from ojala.pipeline.runs.config import RunConfig
from tests.helpers.survey import carry_through, without_report

pytestmark = pytest.mark.integration

OJALA = str(Path(sys.executable).with_name("ojala"))


def ojala(*arguments):
    done = subprocess.run(
        [OJALA, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


def here(*arguments):
    """A command in this process; for those that start none."""
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.fixture
def first(photometry, tmp_path, monkeypatch):
    without_report(monkeypatch)
    config = RunConfig(photometry=str(photometry), out=str(tmp_path / "out"), model="empty", engine="serial")
    return carry_through(config)


def test_a_region_is_planned_then_done_then_rolled_back(first, photometry):
    tile = first.plan.entries[0].partition.name
    asked = ("--photometry", photometry, "--out", first.out, "--model", "empty", "--engine", "serial")
    dry = here("reprocess", *asked, "--region", f"tiles:{tile}")
    assert dry.exit_code == 0, dry.stderr
    assert "this would be done; give --yes to do it" in dry.stdout
    assert "rows/s" in dry.stdout
    assert [run.name for run in (first.out / "runs").iterdir()] == [first.plan.run_id]

    done = ojala("reprocess", *asked, "--region", f"tiles:{tile}", "--yes", "--json")
    assert done.returncode == 0, done.stderr
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
