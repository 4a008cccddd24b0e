import json
import os
import time

import pytest

from ojala.catalogs_schema.urls import redact, without_credentials
from ojala.pipeline.runs.config import ConfigError, RunConfig, read_config
from ojala.pipeline.runs.gates import GateLimits
from ojala.pipeline.runs.resolved import resolve_run

SECRET = "wJalr/XUtnFEMI+K7MDENG"


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        (f"s3://AKIA:{SECRET}@bucket/survey", "s3://bucket/survey"),
        ("s3://AKIA:a%2Fb@bucket/survey?token=abc", "s3://bucket/survey"),
        ("https://user:word@host:8080/a@b", "https://host:8080/a@b"),
        ("https://host.example:8080/a@b", "https://host.example:8080/a@b"),
        ("s3://AKIA:12/ab+c@bucket/survey", "s3://bucket/survey"),
        ("s3://AKIA:a@b/c@bucket/survey", "s3://bucket/survey"),
        ("https://user:12/ab@host/survey", "https://host/survey"),
        ("simplecache::s3://AKIA:12/a@bucket/survey", "simplecache::s3://bucket/survey"),
        ("zip://a.csv::s3://AKIA:a/b@bucket/z.zip", "zip://a.csv::s3://bucket/z.zip"),
        ("gs://bucket/survey", "gs://bucket/survey"),
        ("tls://10.0.0.5:8786", "tls://10.0.0.5:8786"),
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


def test_no_secret_is_in_a_text_that_is_shown(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "there already")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of the environment")
    text = "FileNotFoundError: 's3://AKIA:12/34@bucket/a' and (simplecache::s3://AKIA:a@b@bucket/c)"
    assert redact(text) == "FileNotFoundError: 's3://bucket/a' and (simplecache::s3://bucket/c)"
    assert redact("signature of of the environment is wrong") == "signature of *** is wrong"
    assert redact("7zs3://k:s@bucket") == "7zs3://bucket"


def test_a_long_word_is_searched_for_urls_in_no_time():
    begin = time.process_time()
    assert redact("x" * 200_000) == "x" * 200_000
    assert time.process_time() - begin < 1.0


def test_credentials_go_to_the_environment_and_nowhere_else(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    url = f"s3://AKIA:{SECRET}@bucket"
    config = RunConfig(photometry=f"{url}/photometry", out=f"{url}/out", truth=f"{url}/truth", model="empty")
    said = repr(config) + config.model_dump_json() + json.dumps(config.to_record())
    assert SECRET not in said
    assert "AKIA" not in said
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == SECRET
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")


@pytest.mark.parametrize(
    ("toml", "name"),
    [
        ("model = ['ojala']", "model"),
        ("engine = {a = 1}", "engine"),
        ("device = [1]", "device"),
        ("weights = 3", "weights"),
        ("out = ''", "out"),
        ("photometry = ''", "photometry"),
        ("partition_seconds = inf", "partition_seconds"),
        ("workers = 99999999999999999999999", "workers"),
        ("attempts = 2026-01-01", "attempts"),
        ("a = " + "[" * 3000 + "]" * 3000, "recursion"),
        ("[[[", "line 1"),
    ],
)
def test_odd_values_in_a_file_are_refused_by_name(tmp_path, toml, name):
    (tmp_path / "run.toml").write_text(toml)
    given = {"photometry": "p", "out": "o"}
    with pytest.raises(ConfigError, match=rf"run\.toml: .*{name}"):
        read_config(tmp_path / "run.toml", {k: v for k, v in given.items() if not toml.startswith(k)})


def test_a_record_keeps_all_settings_and_gives_them_back():
    config = RunConfig(photometry="/p", out="s3://b/o", model="empty", gates=GateLimits(few_rows=7))
    assert config.to_record()["gates.few_rows"] == 7
    assert RunConfig.from_record(json.loads(json.dumps(config.to_record()))) == config
    assert RunConfig.from_record(config.to_record() | {"gone": 1, "gates.gone": 2}) == config


def test_a_record_keeps_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    described = RunConfig(photometry="p", out="o", model="empty").absolute().to_record()
    assert (described["photometry"], described["out"]) == (str(tmp_path / "p"), str(tmp_path / "o"))
    assert described["truth"] is None


def asked(**settings):
    return RunConfig.model_validate({"photometry": "/p", "out": "/o"} | settings)


def test_a_gpu_has_its_own_precision_and_batch_and_what_was_asked_for_holds():
    config = asked(engine="cuda")
    assert (config.device, config.precision, config.batch_size) == ("cuda", "bf16", 16_384)
    assert config.spec().device == "cuda"
    config = asked(engine="cuda", precision="fp32", batch_size=512, workers=3)
    assert (config.precision, config.batch_size, config.workers) == ("fp32", 512, 3)
    for engine in ("address", "slurm", "serial"):
        assert asked(engine=engine, device="cuda").batch_size == 16_384
        assert asked(engine=engine).device == "cpu"
    assert RunConfig.from_record(config.to_record()) == config


def test_numbers_of_a_gpu_are_other_numbers():
    on_gpu = asked(engine="address", device="cuda")
    same = {"precision": on_gpu.precision, "batch_size": on_gpu.batch_size}
    assert resolve_run(asked(**same)).config_sha256 != resolve_run(on_gpu).config_sha256
    elsewhere = resolve_run(asked(engine="cuda", **same))
    assert elsewhere.config_sha256 == resolve_run(on_gpu).config_sha256, "wherever the GPU is"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"engine": "cuda", "device": "cpu"}, "leave --device cpu out"),
        ({"engine": "local", "device": "cuda"}, "take --engine cuda"),
        ({"device": "cuda"}, "take --engine cuda"),
    ],
)
def test_engines_and_devices_that_do_not_fit_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        asked(**settings)


def test_limits_of_gates_are_settings_that_change_no_numbers():
    config = RunConfig(photometry="p", out="o", model="empty")
    other = config.model_copy(update={"gates": GateLimits(flagged_warn=0.1)})
    assert resolve_run(other).config_sha256 == resolve_run(config).config_sha256


@pytest.mark.parametrize(("fast", "precision"), [(True, "bf16"), (False, "fp32")])
def test_precision_follows_the_processor_and_is_settled_before_it_is_kept(monkeypatch, fast, precision):
    monkeypatch.setattr("ojala.models.serving.precision.has_native_bf16", lambda: fast)
    config = asked()
    assert config.precision == config.to_record()["precision"] == config.spec().precision == precision
    assert resolve_run(config).config_sha256 == resolve_run(asked(precision=precision)).config_sha256
    assert asked(precision="fp32").precision == "fp32"
    assert asked(model="empty").precision == "fp32"


def test_a_run_begun_elsewhere_keeps_its_precision(monkeypatch):
    monkeypatch.setattr("ojala.models.serving.precision.has_native_bf16", lambda: False)
    kept = asked(precision="bf16").to_record()
    assert RunConfig.from_record(kept).precision == "bf16"


def test_batches_suit_what_the_model_reads():
    assert RunConfig(photometry="p", out="o", model="ojala").batch_size == 128
    spectra = RunConfig(spectra="s", out="o", model="specpt")
    assert (spectra.batch_size, spectra.precision) == (16, "fp32")
    assert RunConfig(spectra="s", out="o", model="specpt", batch_size=8).batch_size == 8
