"""What Prefect's server only shows does not decide whether a run goes on."""

import logging
from types import SimpleNamespace
from uuid import uuid4

import httpx
import pytest

from ojala.flows import survey

REQUEST = httpx.Request("POST", "http://127.0.0.1:4200/api/artifacts")
PROBLEMS = [
    httpx.ReadTimeout("no answer", request=REQUEST),
    httpx.HTTPStatusError("database is locked", request=REQUEST, response=httpx.Response(503)),
]


@pytest.fixture(params=PROBLEMS, ids=["silent", "busy"])
def refuse(request, monkeypatch):
    """Anything that is sent to the server fails."""

    def fail(*of_it, **named):
        raise request.param

    monkeypatch.setattr(survey, "get_run_logger", lambda: logging.getLogger("ojala"))
    return fail


def test_a_run_that_cannot_be_named_goes_on(refuse, monkeypatch, caplog):
    plan = SimpleNamespace(run_id="20261129T000000Z-1")
    monkeypatch.setattr(survey, "plan_task", lambda *of_it: plan)
    monkeypatch.setattr(survey, "get_client", refuse)
    assert survey._TrackedSteps().plan(None, None, False) is plan
    assert "does not show the name of the run; the run continues" in caplog.text


@pytest.mark.parametrize("when", ["create_progress_artifact", "update_progress_artifact"])
def test_receipts_come_where_no_progress_is_shown(when, refuse, monkeypatch, caplog):
    monkeypatch.setattr(survey, "create_progress_artifact", lambda **of_it: uuid4())
    monkeypatch.setattr(survey, when, refuse)
    assert list(survey.with_progress(iter(["a", "b"]), 2)) == ["a", "b"]
    assert caplog.text.count("progress; the run continues") == 1
