import pytest

from ojala.catalogs_schema.receipt import Attempt
from ojala.pipeline.runs.receipts import seconds_at_work

pytestmark = pytest.mark.integration


def attempt(pid, begin, seconds):
    return Attempt(host="node", pid=pid, started=f"2026-11-20T10:00:{begin:06.3f}+00:00", seconds=seconds)


def test_time_in_which_a_worker_was_at_several_partitions_counts_once():
    one_by_one = [attempt(1, 0.0, 2.0), attempt(1, 3.0, 2.0)]
    at_once = [attempt(2, 0.0, 4.0), attempt(2, 1.0, 1.0), attempt(2, 3.5, 2.0)]
    found = seconds_at_work([*at_once, *one_by_one])
    assert found == {("node", 1): pytest.approx(4.0), ("node", 2): pytest.approx(5.5)}
