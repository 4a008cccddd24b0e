"""A Prefect server starts runs: server, worker and deployments as processes, everything through the API."""

import datetime
import re
import signal
import sqlite3
import tempfile
import urllib.error
from pathlib import Path
from zoneinfo import ZoneInfo

import psutil
import pyarrow.parquet as pq
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    temporary_settings,
)
from upath import UPath

from ojala.catalogs_schema.errors import InputError
from ojala.deploy import automations, register
from ojala.flows.survey import failure, outcome, survey
from ojala.flows.train import train
from ojala.pipeline.execution.clusters import ClusterError
from ojala.pipeline.inference.adapters.ojala import OjalaAdapter
from ojala.pipeline.quality.verify import verify
from ojala.pipeline.runs.config import DECIDED, RunConfig
from ojala.pipeline.runs.gates import GateError
from ojala.pipeline.runs.record import read_record
from ojala.pipeline.runs.releases import pointers
from ojala.pipeline.storage.files import OutputError
from ojala.pipeline.storage.lock import LockedError
from tests.deploy.prefect_server import SECRET, prefect_server, shipped_settings, webhook
from tests.deploy.processes import BIN, ROOT, compose, free_port, running
from tests.helpers.pace import until
from tests.helpers.postgres import as_user, postgres, programs

# Server, worker and three runs start some ten interpreters; on a busy machine that takes long.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

MADRID = ZoneInfo("Europe/Madrid")
REGION = "cone:245.5,43.9,0.3"
WORK = [BIN / "prefect", "worker", "start", "--pool", "ojala", "--type", "process"]


def pytest_generate_tests(metafunc):
    """All on SQLite, which Prefect takes by itself; in the long form on PostgreSQL, too."""
    if "database" in metafunc.fixturenames:
        kinds = ["sqlite", "postgresql"] if metafunc.config.getoption("--soak") else ["sqlite"]
        metafunc.parametrize("database", kinds, scope="module", indirect=True)


def execute_in_sqlite(home, statement):
    with sqlite3.connect(home / "prefect" / "prefect.db", timeout=60) as connection:
        assert connection.execute(statement).rowcount == 1


@pytest.fixture(scope="module")
def database(request):
    """Settings of the server's database, those of compose.yaml, and a function that executes a statement."""
    if request.param == "sqlite":
        yield {}, execute_in_sqlite
        return
    if programs() is None:
        pytest.skip("apt-get install postgresql")
    names = [
        name for name in compose()["prefect"]["environment"] if name.startswith("PREFECT_SERVER_DATABASE")
    ]
    port = free_port()
    values = ["postgresql+asyncpg", "127.0.0.1", str(port), "postgres", "postgres"]
    settings = dict(zip(names, values, strict=True)) | {"PREFECT_SERVER_DATABASE_PASSWORD": "a-word"}
    with (
        tempfile.TemporaryDirectory(prefix="ojala-postgres-", dir="/tmp") as folder,
        postgres(Path(folder) / "database", port, "a-word", listen="127.0.0.1") as socket,
    ):
        query = [programs() / "psql", "--host", socket, "--port", str(port), "--quiet", "--command"]
        yield settings, lambda home, statement: as_user([*query, statement, "postgres"])


@pytest.fixture(scope="module")
def home(tmp_path_factory, database):
    return tmp_path_factory.mktemp("scheduled")


@pytest.fixture(scope="module")
def settings(home, photometry):
    """The environment of the server's people: who they are, and what they run on."""
    return shipped_settings() | {
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_API_AUTH_STRING": SECRET,
        "OMP_NUM_THREADS": "1",
        "OJALA_PHOTOMETRY": str(photometry),
        "OJALA_CATALOGUE": str(home / "catalogue"),
        "OJALA_ENGINE": "serial",
        "OJALA_TRAINING_SETTINGS": str(ROOT / "flows" / "training" / "configs" / "ojala.toml"),
        "OJALA_LIBRARY": str(home / "library.npz"),
        "OJALA_TRAINING": str(home / "training"),
    }


@pytest.fixture(scope="module")
def messages():
    """Address of the operators' webhook, and what they were told."""
    with webhook() as (address, texts):
        yield address, texts


@pytest.fixture(scope="module")
def server(home, settings, messages, database, request):
    """A server that knows our deployments, without a worker."""
    polls = {"PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "2"}
    if request.config.getoption("--soak"):
        polls |= {
            "PREFECT_SERVER_SERVICES_DB_VACUUM_LOOP_SECONDS": "10",
            "PREFECT_SERVER_SERVICES_DB_VACUUM_ORPHAN_CLEANUP_LOOP_SECONDS": "10",
        }
    with (
        prefect_server(home, **settings, **polls, **database[0]) as api,
        pytest.MonkeyPatch.context() as patch,
        temporary_settings({PREFECT_API_URL: api.url, PREFECT_API_AUTH_STRING: SECRET}),
    ):
        for name, value in (settings | {"PREFECT_API_URL": api.url, "OJALA_WEBHOOK": messages[0]}).items():
            patch.setenv(name, value)
        assert register.main() == 0
        yield api


def set_automations(address, days=10.0):
    """Make the automations as `ojala.deploy.register` does."""
    with get_client(sync_client=True) as client:
        automations.make_automations(client, address, days)


def form_of(server, deployment, **asked):
    """The settings that the form of a deployment sends: its own, its defaults, and what is asked for."""
    found = server.ask(f"/deployments/name/{deployment}")
    fields = found["parameter_openapi_schema"]["definitions"]["RunConfig"]["properties"]
    defaults = {name: field["default"] for name, field in fields.items() if "default" in field}
    return defaults | found["parameters"]["config"] | asked


@pytest.fixture(scope="module")
def stranded(server, messages, request):
    """A run whose worker died between PENDING and RUNNING, the next one, and what the queue offered of it."""
    if not request.config.getoption("--soak"):
        pytest.skip("automations of a busy server take minutes; see make soak")

    def offered():
        asked = {"work_queue_names": ["catalogue"], "scheduled_before": "2100-01-01T00:00:00Z"}
        found = server.ask("/work_pools/ojala/get_scheduled_flow_runs", asked)
        return [one["flow_run"]["id"] for one in found]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(automations, "SILENCE", datetime.timedelta(seconds=10))
        set_automations(messages[0])
        config = form_of(server, "survey/full-survey", model="empty")
        run = server.trigger("survey/full-survey", config=config)
        server.set_state(run, "PENDING")
        following = server.trigger("survey/full-survey", config=config)
        before = following in offered()
        ended = server.end_of(run, seconds=120)
        after = until(lambda: following in offered(), "the next run", seconds=60, every=1.0)
    set_automations(messages[0])
    return ended, following, before, after


@pytest.fixture(scope="module")
def runs(server, settings, home, request):
    """A full survey, a region and a survey that a gate refuses, triggered at the same time; at their ends.

    The last runs in this process in the short form, as a process of its own takes its time to import.
    """
    long = request.config.getoption("--soak")
    config = form_of(server, "survey/full-survey", model="empty")
    strict = config | {"out": str(home / "strict"), "gates": {"flags_fail": 0.0, "few_rows": 0}}
    started = [
        request.getfixturevalue("stranded")[1]
        if long
        else server.trigger("survey/full-survey", config=config),
        server.trigger("reprocess/reprocess-region", config=config, region=REGION),
    ]
    if long:
        started.append(server.trigger("survey/full-survey", config=strict))
    environment = settings | {"PREFECT_API_URL": server.url, "PREFECT_WORKER_QUERY_SECONDS": "2"}
    with running(WORK, home / "worker.log", **environment):
        server.log = home / "worker.log"
        if not long:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "a-deployment")
                state = survey(RunConfig.model_validate(strict), return_state=True)
            started.append(state.state_details.flow_run_id)
        return [server.end_of(run, seconds=600) for run in started]


def test_a_run_that_its_worker_left_pending_gives_its_place_to_the_next(stranded, runs):
    ended, following, before, after = stranded
    assert (before, after) == (False, True)
    assert ended["state"]["type"] == "CRASHED"
    assert "its worker has not started it" in ended["state"]["message"]
    assert "RUNBOOK.md, Stranded" in ended["state"]["message"]
    assert runs[0]["id"] == following


def test_a_worker_killed_before_the_run_starts_holds_nothing_up(server, runs, settings, home, request):
    if not request.config.getoption("--soak"):
        pytest.skip("it takes the five minutes after which a run is taken for dead; see make soak")
    environment = settings | {"PREFECT_API_URL": server.url, "PREFECT_WORKER_QUERY_SECONDS": "1"}
    config = form_of(server, "survey/full-survey", model="empty")
    with running(WORK, home / "killed.log", **environment) as worker:
        run = server.trigger("survey/full-survey", config=config)
        until(lambda: server.state(run)["type"] == "PENDING", "pending", seconds=120, every=0.1)
        for one in [*psutil.Process(worker.pid).children(recursive=True), psutil.Process(worker.pid)]:
            one.send_signal(signal.SIGKILL)
    assert server.state(run)["type"] == "PENDING"
    with running(WORK, home / "next.log", **environment):
        begin = datetime.datetime.now(datetime.UTC)
        following = server.end_of(server.trigger("survey/full-survey", config=config), seconds=900)
    assert server.state(run)["type"] == "CRASHED"
    waited = datetime.datetime.fromisoformat(following["start_time"]) - begin
    print(f"the next run started after {waited.total_seconds():.0f} s")
    assert waited < datetime.timedelta(minutes=10)


def test_runs_that_were_triggered_end_with_a_published_release(runs, home):
    assert [run["state"]["type"] for run in runs[:2]] == ["COMPLETED", "COMPLETED"], [
        r["state"] for r in runs
    ]
    assert_published(UPath(home / "catalogue"))


def test_a_flow_run_has_the_name_of_its_run(runs, home):
    region = read_record(UPath(home / "catalogue" / "runs" / runs[1]["name"]))
    assert (region.base, region.region) == (runs[0]["name"], REGION)


def test_a_run_that_a_gate_refuses_is_failed_with_the_reason(runs, home):
    state = runs[2]["state"]
    assert (state["type"], state["name"]) == ("FAILED", "Refused"), state["message"]
    assert "flags: " in state["message"]


def test_what_a_form_leaves_open_is_decided_by_the_machine(server, monkeypatch):
    form = form_of(server, "survey/full-survey")
    assert {name: form[name] for name in DECIDED} == dict.fromkeys(DECIDED)
    config = RunConfig.model_validate(form | {"engine": "cuda"})
    assert (config.device, config.precision, config.batch_size) == ("cuda", "bf16", 16_384)
    defaults = {"precision": "bf16", "batch_size": 128}
    monkeypatch.setattr(OjalaAdapter, "device_defaults", lambda self, device: defaults)
    assert RunConfig.model_validate(form | {"engine": "local"}).precision == "bf16"
    later = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2100-01-01T00:00:00Z"}}
    run = server.trigger("survey/full-survey", state=later, config=form | {"engine": "cuda"})
    assert server.ask(f"/flow_runs/{run}")["parameters"]["config"]["device"] is None


def test_each_cause_is_one_message_to_the_operators(server, stranded, runs, messages):
    told = messages[1]
    until(lambda: any(runs[2]["name"] in text for text in told), "the message", seconds=60, every=0.5)
    (refused,) = [text for text in told if runs[2]["name"] in text]
    assert refused.startswith(f"survey {runs[2]['name']}: Refused. run {runs[2]['name']} is not published")
    assert refused.endswith("See deploy/RUNBOOK.md, Refused.")
    (crashed,) = [text for text in told if stranded[0]["name"] in text]
    assert "its worker has not started it" in crashed
    assert not [text for text in told if runs[0]["name"] in text], "a run that is complete is no news"
    for name in ("Incomplete", "Failed"):
        run = server.trigger(
            "reprocess/reprocess-region", config=runs[1]["parameters"]["config"], region="moc:x"
        )
        server.set_state(run, "PENDING")
        server.set_state(run, "RUNNING")
        server.set_state(run, "FAILED", name=name, message=f'a "{name}" run')
        flow_run = server.ask(f"/flow_runs/{run}")["name"]
        until(lambda wanted=flow_run: any(wanted in text for text in told), name, seconds=60, every=0.5)
        (text,) = [text for text in told if flow_run in text]
        assert text == f'reprocess {flow_run}: {name}. a "{name}" run See deploy/RUNBOOK.md, Failed.'


def test_days_without_a_release_are_told(server, messages):
    set_automations(messages[0], days=10 / 86_400)
    wanted = "no release was published for"
    until(lambda: any(wanted in text for text in messages[1]), wanted, seconds=60, every=0.5)
    set_automations("")
    names = {one["name"] for one in server.ask("/automations/filter", {})}
    assert names == {"ojala: stranded run", "ojala: silent run"}, "without a webhook nobody is told"


def test_runs_of_long_ago_are_deleted_with_their_artifacts(server, runs, home, database, request):
    if not request.config.getoption("--soak"):
        pytest.skip("the server looks for old runs all the time, which keeps SQLite busy; see make soak")
    old = runs[2]["id"]
    of_run = {"flow_runs": {"id": {"any_": [old]}}}
    assert server.ask("/artifacts/filter", of_run)
    database[1](home, f"UPDATE flow_run SET end_time = '2020-01-01 00:00:00.000000' WHERE id = '{old}'")

    def is_gone():
        try:
            return server.ask(f"/flow_runs/{old}") is None
        except urllib.error.HTTPError as refusal:
            return refusal.code == 404

    until(is_gone, "deletion of the run", seconds=120, every=1.0, log=home / "server.log")
    until(
        lambda: not server.ask("/artifacts/filter", of_run), "deletion of artifacts", every=1.0, seconds=120
    )
    assert server.state(runs[0]["id"])["type"] == "COMPLETED"


def assert_published(catalogue):
    """The release is the region's run over the survey's, with the right rows."""
    assert list(verify(catalogue)) == []
    released = catalogue / "runs" / pointers(catalogue)["ojala"]
    region = read_record(released)
    survey = read_record(catalogue / "runs" / region.base)
    assert (survey.region, survey.linked, survey.rows_out) == (None, 0, 300)
    assert region.region == REGION
    assert 0 < region.linked < region.partitions
    leaves = pq.ParquetDataset(sorted(released.glob("ojala/dataset/**/*.parquet")))
    assert leaves.read(["object_id"]).num_rows == 300


def test_the_flow_has_a_few_coarse_tasks(server, runs):
    tasks = server.ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [runs[0]["id"]]}}})
    names = sorted(task["name"].rsplit("-", 1)[0] for task in tasks)
    assert names == ["finalise", "plan", "publish", "quality", "run"]


def test_progress_and_outcome_are_artifacts(server, runs, home):
    kept = server.ask("/artifacts/filter", {"flow_runs": {"id": {"any_": [runs[0]["id"]]}}})
    artifacts = {artifact["type"]: artifact for artifact in kept}
    assert float(artifacts["progress"]["data"]) == 100.0
    catalogue = UPath(home / "catalogue")
    base = read_record(catalogue / "runs" / pointers(catalogue)["ojala"]).base
    assert base in artifacts["markdown"]["data"]
    assert "300 of 300 rows" in artifacts["markdown"]["data"]


def test_two_runs_on_one_product_take_turns(runs):
    products = runs[:2]
    assert [run["state"]["type"] for run in products] == ["COMPLETED", "COMPLETED"]
    first, second = sorted(products, key=lambda run: run["start_time"])
    assert first["end_time"] <= second["start_time"]


def test_a_training_with_a_mistake_in_its_settings_fails_and_names_it(server, home):
    (home / "mistaken.toml").write_text("lerning_rate = 1e-3")
    state = train(home / "mistaken.toml", home / "library.npz", home / "training", return_state=True)
    kept = server.state(state.state_details.flow_run_id)
    assert kept["type"] == "FAILED"
    assert "unknown settings: lerning_rate" in kept["message"]


def test_a_full_survey_is_scheduled(server):
    deployment = server.ask("/deployments/name/survey/full-survey")
    assert [s["schedule"]["cron"] for s in deployment["schedules"] if s["active"]] == ["0 18 * * 5"]
    due = {
        "flow_runs": {
            "deployment_id": {"any_": [deployment["id"]]},
            "state": {"type": {"any_": ["SCHEDULED"]}},
        }
    }
    scheduled = until(
        lambda: server.ask("/flow_runs/filter", due), "a scheduled run", seconds=300, log=server.log
    )
    scheduled = [run for run in scheduled if run["auto_scheduled"]]
    times = [datetime.datetime.fromisoformat(run["expected_start_time"]) for run in scheduled]
    assert {time.astimezone(MADRID).strftime("%a %H:%M") for time in times} == {"Fri 18:00"}


@pytest.mark.parametrize("name", ["survey/full-survey", "reprocess/reprocess-region", "train/train"])
def test_every_parameter_of_a_deployment_is_typed_and_described(server, name):
    schema = server.ask(f"/deployments/name/{name}")["parameter_openapi_schema"]
    for group in [schema, *schema.get("definitions", {}).values()]:
        for parameter, facts in group.get("properties", {}).items():
            assert "$ref" in facts or "description" in facts, parameter
            assert {"$ref", "type", "enum", "anyOf", "allOf"} & set(facts), parameter


def test_one_run_at_a_time_is_the_limit_of_every_deployment_and_queue(server):
    for name in ["survey/full-survey", "reprocess/reprocess-region", "train/train"]:
        deployment = server.ask(f"/deployments/name/{name}")
        assert deployment["global_concurrency_limit"]["limit"] == 1
        assert deployment["concurrency_options"]["collision_strategy"] == "ENQUEUE"
        queue = server.ask(f"/work_queues/{deployment['work_queue_id']}")
        assert queue["concurrency_limit"] == 1


def test_a_parameter_that_is_not_understood_is_refused_when_the_run_is_asked_for(server):
    config = server.ask("/deployments/name/survey/full-survey")["parameters"]["config"]
    with pytest.raises(urllib.error.HTTPError) as refusal:
        server.trigger("survey/full-survey", config=config | {"workers": 0})
    assert refusal.value.code in (409, 422)


def test_the_server_answers_nobody_without_the_secret(server):
    for secret in (None, "survey:guessed"):
        with pytest.raises(urllib.error.HTTPError) as refusal:
            server.ask("/deployments/name/survey/full-survey", secret=secret)
        assert refusal.value.code == 401


def test_an_incomplete_run_that_a_server_started_is_seen_as_failed(finished, monkeypatch):
    incomplete = finished.record.model_copy(
        update={"status": "incomplete", "failed": {"Norder=5/Npix=1": "KilledWorker"}}
    )
    assert outcome(incomplete) is incomplete, "a command reads the record"
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "a-deployment")
    state = outcome(incomplete)
    assert isinstance(state, State)
    assert (state.type, state.name) == ("FAILED", "Incomplete")
    assert "Norder=5/Npix=1; start it again" in state.message
    assert outcome(finished.record) is finished.record


def test_states_of_failed_runs_name_entries_of_the_runbook():
    entries = re.findall("^## (.*)$", (ROOT / "deploy" / "RUNBOOK.md").read_text(), re.MULTILINE)
    cases = [GateError("a"), LockedError("b"), OutputError("c"), ClusterError("d"), InputError("e")]
    named = [re.search(r"RUNBOOK\.md, (.*)\.$", failure(problem).message)[1] for problem in cases]
    assert named == ["Refused", "Locked", "Disk full", "Workers do not come", "Failed"]
    assert {*named, "Incomplete", "Stranded", "No release"} <= set(entries)
