"""Prefect's server is killed while it tracks a run, and so is a run that holds its lock; neither matters."""

import json
import os
import signal
import subprocess
import urllib.request
from contextlib import suppress

import httpx
import psutil
import pytest
from upath import UPath

from ojala.catalogs_schema.errors import AccessError
from ojala.flows.cli.signals import interruptible
from ojala.pipeline.runs.record import read_record, runs_folder
from tests.deploy.processes import BIN, ROOT, free_port, running
from tests.fault_injection.accounts import check, settle
from tests.fault_injection.processes import receipts
from tests.helpers.pace import scaled, until
from tests.helpers.survey import Finished, plan_run

# A server and three commands that start Prefect, one after another; on a busy machine that takes long.
pytestmark = [pytest.mark.fault, pytest.mark.timeout(1800)]

QUIET = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", "PYTHONPATH": str(ROOT)}


@pytest.fixture
def environment(tmp_path):
    return QUIET | {"PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_CLIENT_MAX_RETRIES": "1"}


def kill_family(pid):
    """SIGKILL to a process and all that it started."""
    for one in [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]:
        with suppress(psutil.NoSuchProcess):
            one.kill()


def family_listens_on(pid):
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return {
        c.laddr.ip for one in family for c in one.net_connections("tcp") if c.status == psutil.CONN_LISTEN
    }


def give(config, environment, log):
    """`ojala run`, to its end; its exit code and what it said."""
    with log.open("wb") as file:
        done = subprocess.run(
            command(config), env=os.environ | environment, stdout=file, stderr=file, check=False
        )
    return done.returncode, log.read_text()


def flow_runs(url):
    asked = urllib.request.Request(
        f"{url}/flow_runs/filter", b"{}", {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(asked, timeout=scaled(20)) as answer:
        return json.load(answer)


def command(config):
    words = [BIN / "ojala", "run", "--photometry", config.photometry, "--out", config.out]
    return [str(word) for word in [*words, "--model", "empty", "--engine", "serial"]]


def test_a_run_that_loses_its_prefect_server_says_so_and_ends_with_the_code_of_access(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    with (
        pytest.raises(AccessError, match=r"http://127.0.0.1:4200/api no longer answers .* resumes it"),
        interruptible(UPath(tmp_path)),
    ):
        raise httpx.ConnectError("connection refused")
    assert AccessError.exit_code == 7


def test_a_run_whose_prefect_server_is_killed_ends_its_work_and_the_same_command_the_rest(
    request, asked, undisturbed, tmp_path, environment, ledger
):
    if not request.config.getoption("--soak"):
        pytest.skip("a server and three commands that start Prefect take long; see make soak")
    fault = ledger("SIGKILL of the Prefect server that tracks a run")
    url, log = f"http://127.0.0.1:{free_port()}/api", tmp_path / "log"
    serve = [BIN / "prefect", "server", "start", "--host", "127.0.0.1", "--port", url[17:-4], "--no-ui"]

    def answers():
        with suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return answer.status == 200
        return False

    with running(serve, log, **environment) as server:
        until(answers, "Prefect server", seconds=600, log=log)
        assert family_listens_on(server.pid) == {"127.0.0.1"}
        with running(command(asked), tmp_path / "run", **environment, PREFECT_API_URL=url) as run:
            until(lambda: receipts(asked.out) >= 3 or run.poll() is not None)
            assert [flow["state"]["type"] for flow in flow_runs(url)] == ["RUNNING"], "the server tracks it"
            kill_family(server.pid)
            run.wait(timeout=scaled(900))
    fault.injected = 1
    assert run.returncode == 7
    said = (tmp_path / "run").read_text()
    assert f"Prefect's server at {url} no longer answers" in said
    assert "the same command resumes it" in said
    assert plan_run(asked).to_do == [], "the partitions are done without it"
    settle(fault, asked, undisturbed)


def test_of_two_runs_at_once_the_second_is_told_of_the_first_and_takes_over_when_that_is_killed(
    request, asked, undisturbed, tmp_path, environment, ledger
):
    if not request.config.getoption("--soak"):
        pytest.skip("three commands take long; the short form is in tests/pipeline/storage/test_lock.py")
    fault = ledger("SIGKILL of a run that holds the lock of its product")
    with running(command(asked), tmp_path / "first", **environment) as first:
        until(lambda: receipts(asked.out) >= 3 or first.poll() is not None)
        os.kill(first.pid, signal.SIGSTOP)
        (run,) = runs_folder(UPath(asked.out)).iterdir()
        code, said = give(asked, environment, tmp_path / "second")
        assert code == 6
        assert f"ojala is locked by run {run.name} (process {first.pid} on " in said
        kill_family(first.pid)
    fault.injected = 1
    with fault.recovered():
        code, said = give(asked, environment, tmp_path / "third")
    assert code == 0, said
    assert "which is dead; taken over" in said
    check(fault, finished(asked), undisturbed)


def finished(config):
    """The run of a collection that holds one, when it has ended."""
    plan = plan_run(config)
    assert plan.to_do == []
    (run,) = runs_folder(UPath(config.out)).iterdir()
    return Finished(config, plan, read_record(run))
