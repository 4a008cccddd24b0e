"""The command line as a person uses it: real processes, real files."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from ojala.catalogs_schema.errors import ExitCode, InputError
from ojala.flows.cli.app import app, load
from ojala.flows.cli.errors import Commands, Panel
from ojala.flows.cli.run_options import run_options
from ojala.pipeline.runs.config import RunConfig
from ojala.pipeline.storage import progress
from tests.helpers.commands import ENVIRONMENT, OJALA, here, ojala
from tests.helpers.pace import scaled, until
from tests.helpers.survey import ingest_table, photometry_table, without_report

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def photometry_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    pq.write_table(photometry_table(200), folder / "objects.parquet")
    done = here("ingest", folder / "objects.parquet", "--out", folder / "photometry", "--tile-rows", 60)
    assert done.exit_code == 0, done.stderr
    assert "200 rows in" in done.stdout
    return folder / "photometry"


def test_help_teaches_every_command():
    done = ojala("--help")
    assert done.returncode == 0
    assert all(verb in done.stdout for verb in ("ingest", "plan", "run", "verify", "demo"))


def test_help_groups_the_commands_and_shows_no_type_behind_a_flag():
    text = here("--help").output
    places = [text.index(f"─ {panel.value} ─") for panel in Panel]
    assert places == sorted(places)
    assert text.index("ingest") < places[1] < text.index("reprocess") < places[2] < text.index("rollback")
    assert "bool" not in here("plan", "--help").output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_completes_names_of_commands(shell, monkeypatch):
    monkeypatch.setenv("_OJALA_COMPLETE", f"complete_{shell}")
    monkeypatch.setenv("COMP_WORDS", "ojala rep")
    monkeypatch.setenv("COMP_CWORD", "1")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", "ojala rep")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    assert "reprocess" in CliRunner().invoke(app, prog_name="ojala").output


def test_the_needs_of_a_survey_are_estimated_without_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ("plan", "--what-if", 1_000_000, "--workers", 4, "--precision", "fp32", "--json")
    small, large = (json.loads(here(*command, *more).stdout) for more in ((), ("--vectors", "--workers", 8)))
    assert small["seconds"] == pytest.approx(2 * large["seconds"])
    assert small["disk_bytes"].keys() == {"photometry", "ojala"}
    assert large["disk_bytes"].keys() == {"photometry", "ojala", "ojala_vectors"}
    assert large["memory_bytes"] > 8 * large["worker_bytes"]
    assert not list(tmp_path.iterdir())
    refused = here("plan", "--what-if", 1000, "--model", "empty")
    assert refused.exit_code == ExitCode.INPUT
    assert "ojala bench" in refused.stderr


def test_a_missing_extra_is_one_line_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    done = here("releases", "--out", "s3://bucket/catalogue")
    assert done.exit_code == ExitCode.INPUT
    assert done.stderr.count("\n") == 1
    assert "s3fs is not installed: pip install '.[s3]' in a checkout of ojala" in done.stderr


def test_without_arguments_the_help_is_shown():
    assert "Usage" in here().output


def test_what_cannot_be_ingested_is_said_with_file_and_column(tmp_path):
    table = photometry_table(5).drop_columns(["number"])
    pq.write_table(table, tmp_path / "bad.parquet")
    done = here("ingest", tmp_path / "bad.parquet", "--out", tmp_path / "photometry")
    assert done.exit_code == 3
    assert "bad.parquet" in done.stderr
    assert "number" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "photometry").exists()


@pytest.fixture
def configuration(tmp_path, monkeypatch):
    """Configuration that a command line of the run options resolves to."""
    monkeypatch.chdir(tmp_path)
    Path("p").mkdir()
    Path("p", "hats.properties").touch()
    group, seen = Commands(), []

    @group.command()
    @run_options
    def show(config: RunConfig, check: bool = False) -> None:
        seen.append(config)

    def resolve(*arguments):
        done = CliRunner().invoke(group, [*map(str, arguments)])
        assert done.exit_code == 0, done.output
        return seen.pop()

    return resolve


def test_heads_of_the_settings_file_hold_unless_others_are_given(configuration, tmp_path):
    (tmp_path / "run.toml").write_text('photometry = "p"\nheads = ["mine.safetensors"]\n')
    given = ["--out", "o", "--config", tmp_path / "run.toml"]
    assert configuration(*given).heads == ("mine.safetensors",)
    assert configuration(*given, "--head", "a", "--head", "b").heads == ("a", "b")


def test_every_setting_outside_of_tables_has_an_option(configuration):
    parameters = {one.name for one in load("run").params}
    assert set(RunConfig.model_fields) - parameters == {"gates", "publication"}
    given = ("--photometry", "p", "--out", "o", "--batch-size", 7, "--engine", "serial", "--vectors")
    config = configuration(*given, "--precision", "fp32", "--partition-seconds", 9, "--model", "ojala")
    assert (config.batch_size, config.engine, config.vectors) == (7, "serial", True)
    assert (config.precision, config.partition_seconds, config.model) == ("fp32", 9.0, "ojala")
    assert type(config.engine) is type(config.model) is str


def failing(function):
    group = Commands()
    group.command()(function)
    return CliRunner().invoke(group, [])


def test_a_fault_of_the_program_is_shown_with_its_traceback():
    done = failing(lambda: np.ones(3) + np.ones(4))
    assert done.exit_code == 70
    assert "Traceback" in done.stderr
    assert "could not be broadcast" in done.stderr
    assert "please report it" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (InputError("library.npz: no such file"), 3),
        (FileNotFoundError(2, "No such file or directory", "library.npz"), 7),
        (OSError(28, "No space left on device", "library.npz"), 7),
        (TimeoutError("library.npz: no answer"), 7),
    ],
)
def test_what_a_user_can_mend_is_one_line(problem, code):
    def fail():
        raise problem

    done = failing(fail)
    assert done.exit_code == code
    (line,) = done.stderr.splitlines()
    assert line.startswith("ojala: library.npz: ")


def test_a_secret_of_the_call_is_in_no_traceback():
    def fail():
        raise KeyError("s3://AKIA:12/secret@bucket/survey")

    done = failing(fail)
    assert done.exit_code == 70
    assert "secret" not in done.output
    assert "KeyError: 's3://bucket/survey'" in done.stderr


def test_errors_are_json_where_json_is_asked_for(tmp_path):
    call = ("plan", "--photometry", tmp_path, "--out", tmp_path, "--json")
    done = here(*call)
    error = json.loads(done.stdout)["error"]
    assert done.exit_code == error["exit_code"] == 3
    assert error["kind"] == "InputError"
    assert error["message"] in done.stderr
    wrong = ojala(*call, "--engine", "cpu")
    assert wrong.returncode == json.loads(wrong.stdout)["error"]["exit_code"] == 2


def test_a_secret_of_the_call_leaves_the_list_of_processes(tmp_path):
    secret = "12/34+secret"
    process = subprocess.Popen(
        [OJALA, "plan", "--photometry", f"s3://AKIA:{secret}@bucket/p", "--out", tmp_path],
        env=ENVIRONMENT | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    until(lambda: secret not in Path(f"/proc/{process.pid}/cmdline").read_text(), every=0.005)
    said, _ = process.communicate(timeout=scaled(60))
    assert process.returncode == 7
    assert secret not in said
    assert said.splitlines()[-1].count("127.0.0.1:9") == 1
    assert "Traceback" not in said


def test_a_heartbeat_says_what_the_work_waits_for(monkeypatch):
    monkeypatch.setattr(progress, "INTERVAL", 0.05)

    def work():
        progress.state("waiting for workers")
        time.sleep(0.2)

    lines = failing(work).stderr.splitlines()
    assert len(lines) >= 2
    assert set(lines) == {"ojala: waiting for workers (for 0 s)"}


def test_a_missing_file_is_one_line(tmp_path):
    given = ("verify", tmp_path / "none"), ("train", tmp_path / "none.toml", "--library", "l", "--out", "o")
    for arguments in given:
        done = CliRunner().invoke(app, [*map(str, arguments)])
        assert done.exit_code == 3, done.output
        assert len(done.stderr.splitlines()) == 1
        assert "none" in done.stderr


def test_a_training_is_chosen_by_its_model(tmp_path):
    def train(*arguments):
        done = CliRunner().invoke(app, [*map(str, arguments), "--library", "l", "--out", "o"])
        assert done.exit_code == 3
        return done.stderr

    settings = tmp_path / "none.toml"
    assert "choose from ojala, specpt" in train("train", "nobody", settings)
    assert "specpt takes no --unlabelled" in train("train", "specpt", settings, "--unlabelled", "p")
    for command in (("train",), ("train", "specpt"), ("train", "spectral-tokenizer"), ("train", "avis")):
        assert f"{settings}: " in train(*command, settings)


def test_the_log_is_kept_in_a_file_and_shown_when_asked(photometry_folder, tmp_path):
    log = tmp_path / "log"
    run = ("plan", "--photometry", photometry_folder, "--out", tmp_path / "out", "--region", "nonsense:1")
    done = ojala("-vv", "--log-file", log, *run)
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert "RegionError" in log.read_text()


def test_a_plan_says_what_would_run_and_writes_nothing(photometry_folder, tmp_path):
    out = tmp_path / "out"
    arguments = ("plan", "--photometry", photometry_folder, "--out", out, "--model", "empty")
    facts = json.loads(here(*arguments, "--json").stdout)
    assert facts["rows_to_do"] == facts["rows"] == 200
    assert facts["partitions_to_do"] == facts["states"]["missing"] == len(facts["to_do"])
    assert facts["seconds"] >= 0
    text = here(*arguments)
    assert text.exit_code == 0
    assert "200 rows to do" in text.stdout
    assert not out.exists()


def test_a_photometry_catalogue_that_is_not_there_is_said(tmp_path):
    done = ojala("run", "--photometry", tmp_path / "none", "--out", tmp_path / "out", "--model", "empty")
    assert done.returncode == 3
    assert done.stderr.startswith("ojala run: starting\n")
    assert len(done.stderr.splitlines()) == 2, "the first word, and the error"
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
    log = Path(record["folder"], "run.log").read_text()
    assert "partitions to do" in log
    assert "making the catalogues" in log

    again = here(*run)
    assert again.exit_code == 0, again.stderr
    assert record["run_id"] in again.stdout, "a finished run is left as it is"
    assert len(list((out / "runs").iterdir())) == 1

    whole = here("verify", out)
    assert (whole.exit_code, whole.stdout.strip()) == (
        0,
        f"{out}: OK, every file was read: contract, row counts, checksums",
    )
    leaf = next(Path(record["folder"]).rglob("Npix=*.parquet"))
    leaf.write_bytes(leaf.read_bytes()[:-1])
    damaged = here("verify", out, "--json")
    assert damaged.exit_code == 1
    assert json.loads(damaged.stdout)["damages"][0]["file"] == str(leaf)


@pytest.mark.parametrize("stop", [signal.SIGINT])
def test_ctrl_c_ends_cleanly_and_the_same_command_goes_on(tmp_path, stop, monkeypatch):
    photometry, out = ingest_table(photometry_table(1000), tmp_path, tile_rows=40), tmp_path / "out"
    command = ("run", "--photometry", photometry, "--out", out, "--model", "empty", "--workers", 1)
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
    assert "the same command resumes it" in errors
    assert "Traceback" not in errors
    assert not list(out.rglob("*.tmp"))
    assert not (out / "collection.properties").exists()

    plan = json.loads(here("plan", *command[1:-2], "--json").stdout)
    assert plan["resumes"]
    assert plan["states"]["done"] >= 3
    assert plan["partitions_to_do"] > 0
    without_report(monkeypatch)
    finished = here(*command, "--json")
    assert json.loads(finished.stdout)["rows_out"] == 1000
    assert here("verify", out).exit_code == 0


def test_the_exit_codes_are_documented():
    page = Path(__file__).parents[3].joinpath("docs", "operating.md").read_text()
    assert all(f"| {code.value} | {code.meaning} |" in page for code in ExitCode)
