import json
import os

import pytest

from pipeline.config import GateLimits, RunConfig, without_credentials

SECRET = "wJalr/XUtnFEMI+K7MDENG"


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        (f"s3://AKIA:{SECRET}@bucket/survey", "s3://bucket/survey"),
        ("s3://AKIA:a%2Fb@bucket/survey?token=abc", "s3://bucket/survey"),
        ("https://user:word@host:8080/a@b", "https://host:8080/a@b"),
        ("https://host:8080/a@b", "https://host:8080/a@b"),
        ("https://token@host/a", "https://host/a"),
        ("s3://bucket/a@b:c@d", "s3://bucket/a@b:c@d"),
        ("/data/a@b:c@d?e", "/data/a@b:c@d?e"),
    ],
)
def test_credentials_are_taken_out_of_urls(monkeypatch, url, clean):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "there already")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "there already")
    assert without_credentials(url) == clean
    assert os.environ["AWS_ACCESS_KEY_ID"] == "there already"


def test_credentials_go_to_the_environment_and_nowhere_else(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    url = f"s3://AKIA:{SECRET}@bucket"
    config = RunConfig(photometry=f"{url}/photometry", out=f"{url}/out", truth=f"{url}/truth", model="empty")
    said = repr(config) + config.model_dump_json() + json.dumps(config.described())
    assert SECRET not in said
    assert "AKIA" not in said
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == SECRET
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")


def test_a_record_keeps_all_settings_and_gives_them_back():
    config = RunConfig(photometry="/p", out="s3://b/o", model="empty", gates=GateLimits(few_rows=7))
    assert config.described()["gates.few_rows"] == 7
    assert RunConfig.from_description(json.loads(json.dumps(config.described()))) == config
    assert RunConfig.from_description(config.described() | {"gone": 1, "gates.gone": 2}) == config


def test_a_record_keeps_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    described = RunConfig(photometry="p", out="o", model="empty").described()
    assert (described["photometry"], described["out"]) == (str(tmp_path / "p"), str(tmp_path / "o"))
    assert described["truth"] is None


def test_limits_of_gates_are_settings_that_change_no_numbers():
    config = RunConfig(photometry="p", out="o", model="empty")
    other = config.model_copy(update={"gates": GateLimits(flagged_warn=0.1)})
    assert other.numbers_sha256() == config.numbers_sha256()
