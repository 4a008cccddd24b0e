"""The command line as a person uses it: real processes, real files."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.main import get_group

from ojala.flows.cli.app import app
from ojala.flows.cli.options import resolve
from tests.helpers.pace import scaled, until
from tests.helpers.survey import photometry_table

OJALA = str(Path(sys.executable).with_name("ojala"))
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def ojala(*arguments, cwd=None):
    return subprocess.run(
        [OJALA, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, env=ENVIRONMENT, check=False
    )


@pytest.fixture(scope="module")
def photometry_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    pq.write_table(photometry_table(200), folder / "objects.parquet")
    done = ojala("ingest", folder / "objects.parquet", "--out", folder / "photometry", "--tile-rows", 60)
    assert done.returncode == 0, done.stderr
    assert "200 rows in" in done.stdout
    return folder / "photometry"


def test_help_teaches_every_command():
    done = ojala("--help")
    assert done.returncode == 0
    assert all(verb in done.stdout for verb in ("ingest", "plan", "run", "verify", "demo"))


def test_without_arguments_the_help_is_shown():
    assert "Usage" in ojala().stdout + ojala().stderr


def test_what_cannot_be_ingested_is_said_with_file_and_column(tmp_path):
    table = photometry_table(5).drop_columns(["number"])
    pq.write_table(table, tmp_path / "bad.parquet")
    done = ojala("ingest", tmp_path / "bad.parquet", "--out", tmp_path / "photometry")
    assert done.returncode == 1
    assert "bad.parquet" in done.stderr
    assert "number" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "photometry").exists()


def test_heads_of_the_settings_file_hold_unless_others_are_given(tmp_path):
    (tmp_path / "run.toml").write_text('photometry = "p"\nheads = ["mine.safetensors"]\n')
    command = get_group(app).commands["run"]
    given = ["--out", "o", "--config", str(tmp_path / "run.toml")]
    assert resolve(command.make_context("run", [*given])).heads == ("mine.safetensors",)
    others = command.make_context("run", [*given, "--head", "a", "--head", "b"])
    assert resolve(others).heads == ("a", "b")


def test_a_plan_says_what_would_run_and_writes_nothing(photometry_folder, tmp_path):
    out = tmp_path / "out"
    arguments = ("plan", "--photometry", photometry_folder, "--out", out, "--model", "empty")
    facts = json.loads(ojala(*arguments, "--json").stdout)
    assert facts["rows_to_do"] == facts["rows"] == 200
    assert facts["partitions_to_do"] == facts["states"]["missing"] == len(facts["to_do"])
    assert facts["seconds"] >= 0
    text = ojala(*arguments)
    assert text.returncode == 0
    assert "200 rows to do" in text.stdout
    assert not out.exists()


def test_a_photometry_catalogue_that_is_not_there_is_said(tmp_path):
    done = ojala("run", "--photometry", tmp_path / "none", "--out", tmp_path / "out", "--model", "empty")
    assert done.returncode == 1
    assert "is no HATS catalogue" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_run_is_verified_and_damage_is_named(photometry_folder, tmp_path):
    out = tmp_path / "out"
    run = ("run", "--photometry", photometry_folder, "--out", out, "--model", "empty", "--workers", 2)
    done = ojala(*run, "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert (record["status"], record["rows_out"]) == ("complete", 200)
    assert Path(record["report"]).exists()

    again = ojala(*run)
    assert again.returncode == 0, again.stderr
    assert record["run_id"] in again.stdout, "a finished run is left as it is"
    assert len(list((out / "runs").iterdir())) == 1

    whole = ojala("verify", out)
    assert (whole.returncode, whole.stdout.strip()) == (0, f"{out} is whole")
    leaf = next(Path(record["folder"]).rglob("Npix=*.parquet"))
    leaf.write_bytes(leaf.read_bytes()[:-1])
    damaged = ojala("verify", out, "--json")
    assert damaged.returncode == 1
    assert json.loads(damaged.stdout)["damages"][0]["file"] == str(leaf)


@pytest.mark.parametrize("stop", [signal.SIGINT])
def test_ctrl_c_ends_cleanly_and_the_same_command_goes_on(tmp_path, stop):
    pq.write_table(photometry_table(3000), tmp_path / "objects.parquet")
    assert (
        ojala(
            "ingest", tmp_path / "objects.parquet", "--out", tmp_path / "photometry", "--tile-rows", 40
        ).returncode
        == 0
    )
    out = tmp_path / "out"
    command = (
        "run",
        "--photometry",
        tmp_path / "photometry",
        "--out",
        out,
        "--model",
        "empty",
        "--workers",
        1,
    )
    process = subprocess.Popen(
        [OJALA, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    )
    until(lambda: len(list(out.glob("runs/*/receipts/**/*.json"))) >= 3 or process.poll() is not None)
    # What a worker that is killed in the middle of a write leaves behind.
    next(out.glob("runs/*/ojala")).joinpath(".Npix=0.parquet.0.tmp").write_bytes(b"PAR1")
    # A terminal sends Ctrl-C to the whole group.
    os.killpg(process.pid, stop)
    _, errors = process.communicate(timeout=scaled(60))
    assert process.returncode == 130, errors
    assert "the same command goes on from here" in errors
    assert "Traceback" not in errors
    assert not list(out.rglob("*.tmp"))
    assert not (out / "collection.properties").exists()

    plan = json.loads(
        ojala(
            "plan", "--photometry", tmp_path / "photometry", "--out", out, "--model", "empty", "--json"
        ).stdout
    )
    assert plan["resumes"]
    assert plan["states"]["done"] >= 3
    assert plan["partitions_to_do"] > 0
    finished = ojala(*command, "--json")
    assert json.loads(finished.stdout)["rows_out"] == 3000
    assert ojala("verify", out).returncode == 0
