"""The log of a run: on a disk each line as it comes, on an object store a bounded number of writes."""

import logging

import pytest
from upath import UPath

from ojala.pipeline.storage import progress
from ojala.pipeline.storage.progress import (
    OBJECT_LOG_BYTES,
    Meter,
    counted,
    counting,
    displaying,
    heartbeat,
    listening,
    log_to,
    note,
    report,
)
from tests.helpers.pace import until


@pytest.fixture
def stored(monkeypatch):
    """A log on an object store, and the sizes with which it was written."""
    path, sizes = UPath("memory://bucket/run.log"), []
    path.write_bytes(b"an earlier start\n")

    def write(to, content):
        sizes.append(len(content))
        to.write_bytes(content)

    monkeypatch.setattr(progress, "write_whole", write)
    yield path, sizes
    path.unlink()


def test_many_lines_cost_an_object_store_two_writes_and_are_all_there(stored):
    path, sizes = stored
    with log_to(path):
        for number in range(500):
            report(f"step {number}")
        assert b"step 0" in path.read_bytes(), "the first line is there at once"
        logging.getLogger("ojala").warning("a warning")
    first, *steps, last = path.read_text().splitlines()
    assert (first, len(steps), last[20:]) == ("an earlier start", 500, " warning: a warning")
    assert len(sizes) == 2


def test_a_log_on_an_object_store_keeps_its_last_lines(stored):
    path, sizes = stored
    with log_to(path):
        for number in range(70):
            report(f"{number} " + "x" * 20_000)
    assert max(sizes) == OBJECT_LOG_BYTES
    assert path.read_text().splitlines()[-1][21:25] == "69 x"


def test_a_store_that_fails_is_no_reason_to_stop(stored, monkeypatch):
    path, _ = stored

    def fail(to, content):
        raise RuntimeError("no connection")

    monkeypatch.setattr(progress, "write_whole", fail)
    with log_to(path):
        report("a step")
    assert path.read_bytes() == b"an earlier start\n"


def test_a_log_on_a_disk_has_each_line_at_once(tmp_path):
    path = UPath(tmp_path / "run.log")
    with log_to(path):
        report("a step")
        assert path.read_text().endswith("Z a step\n")


def test_a_command_at_work_says_what_is_done_and_what_is_left(monkeypatch):
    monkeypatch.setattr(progress, "INTERVAL", 0.02)
    lines, shown = [], []

    def display(meter):
        shown.append((meter.done, meter.ended))

    with listening(lines.append), displaying(display), heartbeat("at work"), counting("files", 4) as meter:
        meter.resume(1)
        meter.advance(2)
        note("100 rows of a.csv")
        until(lambda: lines, "a line")
    assert lines[0].startswith("3 of 4 files, 100 rows of a.csv, about 0 s left (for ")
    assert shown == [(0, False), (1, False), (3, False), (3, False), (3, True)]


def test_what_was_done_before_says_nothing_about_the_time_that_is_left(monkeypatch):
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    meter = Meter("rows", 10)
    meter.resume(6)
    now = 600.0
    meter.set(8)
    assert str(meter) == "8 of 10 rows, about 10 min left"


def test_items_are_counted_as_they_are_used():
    done = []
    with displaying(lambda meter: done.append((meter.done, meter.total))):
        assert list(counted(["a", "b"], "letters")) == ["a", "b"]
    assert done == [(0, 2), (1, 2), (2, 2), (2, 2)]
