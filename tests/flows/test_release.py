"""Releases by a command: Prefect's server only where one is named, and its silence soon noticed."""

import os
import socket

import httpx
import psutil
import pytest

from ojala.catalogs_schema.errors import AccessError
from ojala.flows.release import make_release, prefect_server, prepare_prefect
from ojala.pipeline.runs.config import RunConfig
from tests.helpers.survey import without_report

PROXIES = ("HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy")


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """An environment without servers, proxies and profiles, which is restored afterwards."""
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE", *PROXIES):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name in ("PREFECT_API_REQUEST_TIMEOUT", "PREFECT_CLIENT_MAX_RETRIES"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    return tmp_path / "prefect"


def test_a_run_for_which_no_server_is_named_starts_none(photometry, tmp_path, monkeypatch):
    without_report(monkeypatch)
    before = {*psutil.Process().children(recursive=True)}
    listening = {c.laddr for c in psutil.Process().net_connections("tcp") if c.status == "LISTEN"}
    started = set()
    monkeypatch.setattr("ojala.flows.release.survey_run.publish", lambda plan, **_: started.update(now()))

    def now():
        return {*psutil.Process().children(recursive=True)} | {
            c.laddr for c in psutil.Process().net_connections("tcp") if c.status == "LISTEN"
        }

    record = make_release(
        RunConfig(photometry=str(photometry), out=str(tmp_path / "out"), model="empty", engine="serial")
    )
    assert record.status == "complete"
    assert started <= before | listening
    assert not (tmp_path / "prefect").exists()


def test_a_server_is_named_by_the_environment_or_by_the_active_profile(environment, monkeypatch):
    assert prefect_server() == ""
    environment.mkdir()
    profiles = environment / "profiles.toml"
    profiles.write_text('active = "a"\n[profiles.a]\nPREFECT_API_URL = "http://a/api"\n[profiles.b]\n')
    assert prefect_server() == "http://a/api"
    monkeypatch.setenv("PREFECT_PROFILE", "b")
    assert prefect_server() == ""
    monkeypatch.setenv("PREFECT_API_URL", "http://c/api")
    assert prefect_server() == "http://c/api"
    monkeypatch.delenv("PREFECT_API_URL")
    profiles.write_text("active = [")
    assert prefect_server() == "", "an old or torn profile names no server"


def test_a_server_that_is_not_there_is_named_with_the_remedy():
    with pytest.raises(AccessError, match=r"http://127\.0\.0\.1:9/api does not answer: .* unset PREFECT_API"):
        prepare_prefect("http://user:secret@127.0.0.1:9/api")


@pytest.mark.parametrize(("password", "refused"), [("", True), ("survey:word", False)])
def test_a_server_with_a_password_is_asked_with_it(monkeypatch, password, refused):
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", password)

    def answer(url, headers, timeout):
        return httpx.Response(200 if headers == {"Authorization": "Basic c3VydmV5OndvcmQ="} else 401)

    monkeypatch.setattr(httpx, "get", answer)
    if not refused:
        prepare_prefect("http://127.0.0.1:9/api")
        return
    with pytest.raises(AccessError, match=r"refuses this call \(401\): PREFECT_API_AUTH_STRING"):
        prepare_prefect("http://127.0.0.1:9/api")


def test_a_server_that_is_silent_is_given_up(monkeypatch):
    monkeypatch.setattr("ojala.flows.release.ANSWER_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        with pytest.raises(AccessError, match="does not answer: timed out"):
            prepare_prefect(url)


def test_a_proxy_that_is_in_the_way_is_named_and_left_out_for_this_machine(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://user:secret@127.0.0.1:9")
    with pytest.raises(AccessError) as refused:
        prepare_prefect("http://prefect.invalid/api")
    assert "through the proxy http://127.0.0.1:9 (NO_PROXY=prefect.invalid goes without)" in str(
        refused.value
    )
    with pytest.raises(AccessError) as refused:
        prepare_prefect("http://127.0.0.1:9/api")
    assert "proxy" not in str(refused.value)
    assert "127.0.0.1" in os.environ["NO_PROXY"]


def test_a_home_that_cannot_be_written_is_replaced(monkeypatch):
    monkeypatch.setenv("PREFECT_HOME", "/proc/1/nohome")
    with pytest.raises(AccessError):
        prepare_prefect("http://127.0.0.1:9/api")
    assert os.path.isdir(os.environ["PREFECT_HOME"])
