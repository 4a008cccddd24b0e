"""What the command line starts before it has imported its commands."""

import pytest

from ojala.flows import cli
from ojala.flows.cli import app
from ojala.pipeline.execution import forkserver


@pytest.mark.parametrize(
    ("words", "started"),
    [
        ("run --photometry sky --out out", True),
        ("run --out=out --workers 3", True),
        ("run --out out --engine serial", False),
        ("run --out out --model=empty", False),
        ("run --config run.toml", False),
        ("run --help", False),
        ("plan --photometry sky --out out", False),
    ],
)
def test_imports_of_workers_begin_at_once_where_a_run_has_the_workers_of_the_defaults(
    monkeypatch, words, started
):
    calls = []
    monkeypatch.setattr("sys.argv", ["ojala", *words.split()])
    monkeypatch.setattr(forkserver, "start_forkserver", lambda *, network: calls.append(network))
    monkeypatch.setattr(app, "run_app", lambda words: None)
    monkeypatch.setattr("gc.set_threshold", lambda count: None)
    monkeypatch.setattr("ojala.pipeline.storage.threads.bound_all_starts", lambda: None)
    cli.main()
    assert calls == [True] * started
