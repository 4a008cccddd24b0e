"""Bars of what is counted: on a terminal, one set of them, and nothing elsewhere."""

from ojala.flows.terminal import progress_bars
from ojala.pipeline.storage.progress import counted


def test_a_terminal_shows_a_bar_and_the_lines_that_are_printed_meanwhile(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress_bars(), progress_bars():
        for number in counted(range(3), "files read"):
            print(f"file {number}")
    captured = capsys.readouterr()
    assert "files read" in captured.err
    assert "0/3" in captured.err
    assert captured.out.splitlines() == ["file 0", "file 1", "file 2"], "a pipe gets what is printed"


def test_nothing_is_shown_without_a_terminal(capsys):
    with progress_bars():
        list(counted(range(3), "files read"))
    assert capsys.readouterr().err == ""
