"""A Prefect server starts runs: server, worker and deployments as processes, everything through the API."""

import base64
import datetime
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from zoneinfo import ZoneInfo

import pyarrow.parquet as pq
import pytest
from upath import UPath

from ojala.flows.survey import IncompleteRun, fail_deployed_if_incomplete
from ojala.pipeline.quality.verify import verify
from ojala.pipeline.runs.record import read_record
from ojala.pipeline.runs.releases import pointers
from tests.deploy.processes import BIN, ROOT, free_port, running
from tests.helpers.pace import scaled, until

# Server, worker and two runs start some ten interpreters; on a busy machine that takes long.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

SECRET = "survey:a-secret-of-this-test"
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
MADRID = ZoneInfo("Europe/Madrid")
REGION = "cone:245.5,43.9,0.3"


class Server:
    """The API of a Prefect server."""

    def __init__(self, url, log):
        self.url = url
        self.log = log

    def ask(self, path, body=None, secret=SECRET):
        headers = {"Content-Type": "application/json"}
        if secret:
            headers["Authorization"] = "Basic " + base64.b64encode(secret.encode()).decode()
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(
            urllib.request.Request(f"{self.url}{path}", data, headers), timeout=scaled(20)
        ) as answer:
            return json.load(answer)

    def trigger(self, deployment, **parameters):
        found = self.ask(f"/deployments/name/{deployment}")
        return self.ask(f"/deployments/{found['id']}/create_flow_run", {"parameters": parameters})["id"]

    def end_of(self, run, seconds):
        """The flow run when it has ended."""

        def ended():
            found = self.ask(f"/flow_runs/{run}")
            return found if found["state"]["type"] in ENDED else None

        return until(ended, f"flow run {run}", seconds=seconds, log=self.log)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("scheduled")


@pytest.fixture(scope="module")
def settings(home, photometry):
    """The environment of the server's people: who they are, and what they run on."""
    return {
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_API_AUTH_STRING": SECRET,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "OMP_NUM_THREADS": "1",
        "OJALA_PHOTOMETRY": str(photometry),
        "OJALA_CATALOGUE": str(home / "catalogue"),
        "OJALA_ENGINE": "serial",
        "OJALA_TRAINING_SETTINGS": str(ROOT / "flows" / "training" / "configs" / "ojala.toml"),
        "OJALA_LIBRARY": str(home / "library.npz"),
        "OJALA_TRAINING": str(home / "training"),
    }


@pytest.fixture(scope="module")
def server(home, settings):
    """A server that knows our deployments, and a worker for them."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    settings = settings | {"PREFECT_API_URL": url}
    serve = [BIN / "prefect", "server", "start", "--host", "127.0.0.1", "--port", port, "--no-ui"]
    guard = {
        "PREFECT_SERVER_API_AUTH_STRING": SECRET,
        "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "1",
    }
    work = [BIN / "prefect", "worker", "start", "--pool", "ojala", "--type", "process"]
    with running(serve, home / "server.log", **settings, **guard) as process:
        api = Server(url, home / "server.log")

        def ready():
            assert process.poll() is None, api.log.read_text()
            try:
                return api.ask("/ready", secret=None)
            except OSError:
                return None

        until(ready, "server", seconds=600, log=api.log)
        register = subprocess.run(
            [sys.executable, "-m", "ojala.deploy.register"],
            env=os.environ | settings,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert register.returncode == 0, register.stdout + register.stderr
        with running(work, home / "worker.log", **settings, PREFECT_WORKER_QUERY_SECONDS="1"):
            api.log = home / "worker.log"
            yield api


@pytest.fixture(scope="module")
def runs(server, home):
    """A full survey, a region and a training that are triggered at the same time, when all have ended."""
    (home / "mistaken.toml").write_text("lerning_rate = 1e-3")
    config = server.ask("/deployments/name/survey/full-survey")["parameters"]["config"]
    config |= {"model": "empty"}
    started = [
        server.trigger("survey/full-survey", config=config),
        server.trigger("reprocess/reprocess-region", config=config, region=REGION),
        server.trigger(
            "train/train",
            settings=str(home / "mistaken.toml"),
            library=str(home / "library.npz"),
            folder=str(home / "training"),
        ),
    ]
    return [server.end_of(run, seconds=600) for run in started]


def test_runs_that_were_triggered_end_with_a_published_release(runs, home):
    assert [run["state"]["type"] for run in runs[:2]] == ["COMPLETED", "COMPLETED"], [
        r["state"] for r in runs
    ]
    assert_published(UPath(home / "catalogue"))


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


def test_a_training_with_a_mistake_in_its_settings_fails_and_names_it(runs):
    training = runs[2]
    assert training["state"]["type"] == "FAILED"
    assert "unknown settings: lerning_rate" in training["state"]["message"]


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
    assert fail_deployed_if_incomplete(incomplete) is incomplete, "a command reads the record"
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "a-deployment")
    with pytest.raises(IncompleteRun, match="Norder=5/Npix=1; start it again"):
        fail_deployed_if_incomplete(incomplete)
    assert fail_deployed_if_incomplete(finished.record) is finished.record
