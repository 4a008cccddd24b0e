"""What many partitions cost the driver, on a few."""

import pytest

from tests.benchmarks.catalogues import simulate
from tests.benchmarks.partitions import Costs, costs, straight_line, table

pytestmark = pytest.mark.integration


def test_a_simulated_survey_is_planned_ended_and_published(tmp_path):
    found = costs(simulate(tmp_path, partitions=4, rows=3), 4)
    assert set(found.seconds) >= {"plan of a new run", "catalogues and provenance", "publish"}
    assert 0 < found.memory["after imports"] <= found.memory["peak"]


def test_a_cost_that_grows_with_partitions_is_a_straight_line():
    found = [Costs(n, {"plan": 0.5 + n / 500}, {"peak": 600.0}) for n in (1_000, 2_000, 4_000)]
    assert straight_line(found, [cost.seconds["plan"] for cost in found]) == pytest.approx((2.0, 0.0))
    assert straight_line(found, [1.0, 2.0, 9.0])[1] > 0.1
    assert "| plan [s] | 2.50 | 4.50 | 8.50 | 2.00 | 0 % |" in table(found)
