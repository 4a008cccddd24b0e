"""Prefect sends no usage statistics of ours."""

import importlib
import os

import ojala.flows


def test_usage_statistics_are_off_wherever_flows_are_imported(monkeypatch):
    settings = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    for name in settings:
        monkeypatch.delenv(name, raising=False)
    importlib.reload(ojala.flows)
    assert {name: os.environ[name] for name in settings} == settings
    monkeypatch.setenv("DO_NOT_TRACK", "0")
    importlib.reload(ojala.flows)
    assert os.environ["DO_NOT_TRACK"] == "0", "who sets it decides"
