"""The flow under a Prefect server of its own."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.helpers.pace import scaled

pytestmark = pytest.mark.integration

BIN = Path(sys.executable).parent


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(url, path, **body):
    request = urllib.request.Request(
        f"{url}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=scaled(10)) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """URL of the API of a real `prefect server`, a process that lives as long as these tests."""
    port, home = free_port(), tmp_path_factory.mktemp("prefect")
    environment = os.environ | {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    command = [BIN / "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}/api"
    try:
        for _ in range(int(scaled(600))):
            try:
                urllib.request.urlopen(f"{url}/health", timeout=1)
                break
            except OSError:
                assert process.poll() is None, (home / "log").read_text()
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=scaled(20))


@pytest.fixture(scope="module")
def tracked(server, photometry, tmp_path_factory):
    """What `ojala run --json` says of a run that the server tracked."""
    out = tmp_path_factory.mktemp("tracked")
    command = [BIN / "ojala", "run", "--photometry", str(photometry), "--out", str(out), "--model", "empty"]
    done = subprocess.run(
        [*command, "--engine", "serial", "--json"],
        env=os.environ | {"PREFECT_API_URL": server},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_server_that_is_named_tracks_the_run(server, tracked):
    runs = ask(server, "/flow_runs/filter")
    assert [run["state"]["type"] for run in runs] == ["COMPLETED"]
    assert tracked["rows_out"] == 300


def test_the_flow_has_a_few_coarse_tasks(server, tracked):
    tasks = ask(server, "/task_runs/filter")
    assert sorted(task["name"].rsplit("-", 1)[0] for task in tasks) == [
        "finalise",
        "plan",
        "publish",
        "quality",
        "run",
    ]


def test_progress_and_outcome_are_artifacts(server, tracked):
    artifacts = {artifact["type"]: artifact for artifact in ask(server, "/artifacts/filter")}
    assert float(artifacts["progress"]["data"]) == 100.0
    assert tracked["run_id"] in artifacts["markdown"]["data"]
    assert "300 of 300 rows" in artifacts["markdown"]["data"]
