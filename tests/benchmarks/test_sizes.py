"""What a run costs by its size: the arithmetic, and one small size."""

from dataclasses import replace

import pytest

from ojala.catalogs_schema.receipt import Attempt, Receipt
from tests.benchmarks.sizes import ROWS, Cost, cost, table, worker_memory

pytestmark = pytest.mark.integration


def receipt(pid: int, minute: int, peak: float) -> Receipt:
    attempt = Attempt.model_construct(pid=pid, started=f"2026-11-20T10:{minute:02d}:00+00:00")
    return Receipt.model_construct(attempts=[attempt], peak_rss=int(peak * 2**20))


def test_memory_that_rises_after_the_first_tenth_of_a_workers_partitions_is_told():
    steady = [receipt(1, minute, 500.0) for minute in range(20)]
    leaking = [receipt(2, minute, 500.0 + minute) for minute in range(20)]
    assert worker_memory(steady) == (500.0, 0.0)
    assert worker_memory(leaking[::-1]) == (519.0, 17.0), "whatever the order in which receipts come"
    assert worker_memory(steady + leaking) == (519.0, 8.5)


def test_a_small_run_is_measured_from_parquet_to_published_catalogue():
    found = cost(2 * ROWS, "empty", workers=1)
    assert (found.rows, found.partitions) == (2 * ROWS, 2)
    assert min(found.startup, found.work, found.end, found.driver, found.workers) > 0


def test_the_table_compares_rows_a_second_with_the_bare_network():
    run = Cost(10_000, 2, startup=1.0, work=4.0, end=2.0, driver=600.0, workers=500.0, growth=3.0)
    measured = "| 10,000 | 2 | 1.0 | 4.0 | 2,500 | 2.0 | 600 | 500 | 3 |"
    assert f"{measured}  |  |" in table([run])
    assert f"{measured} 3,000 | 0.83 |" in table([replace(run, bare=3_000.0)])
