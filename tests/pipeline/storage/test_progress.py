"""The log of a run: on a disk each line as it comes, on an object store a bounded number of writes."""

import logging

import pytest
from upath import UPath

from ojala.pipeline.storage import progress
from ojala.pipeline.storage.progress import OBJECT_LOG_BYTES, log_to, report


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
