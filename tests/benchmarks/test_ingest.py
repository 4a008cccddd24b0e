"""Cost of an ingest: rows where they are said to be, and one small measurement."""

import numpy as np
import pytest

from ojala.pipeline.storage.healpix import spatial_index
from tests.benchmarks.ingest import SKY, sizes, survey_tables

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("shuffled", [False, True])
def test_rows_follow_each_other_on_the_sky_or_do_not(shuffled, monkeypatch):
    monkeypatch.setattr("tests.benchmarks.ingest.FILE_ROWS", 40)
    tables = [table() for table in survey_tables(100, shuffled=shuffled)]
    assert [table.num_rows for table in tables] == [40, 40, 20]
    ra, dec = (np.concatenate([t[name].to_numpy() for t in tables]) for name in ("ra", "dec"))
    index = spatial_index(ra, dec)
    assert index.max() < SKY
    assert (np.diff(index) >= 0).all() != shuffled
    assert len({(t["tile_id"][0].as_py(), t["number"][k].as_py()) for t in tables for k in range(20)}) == 60


def test_a_small_ingest_is_measured(tmp_path):
    *_, last = sizes([200], ["shuffled"], 1, tmp_path)
    rows, order, cpu, *_ = (cell.strip() for cell in last.strip("|").split("|"))
    assert (rows, order) == ("200", "shuffled")
    assert float(cpu) > 0
    assert not list(tmp_path.iterdir())
