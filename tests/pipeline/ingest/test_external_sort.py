"""More rows than fit in memory are sorted by the sky, and keys that come twice are found among them."""

import numpy as np
import pyarrow as pa
import pytest
from upath import UPath

from ojala.pipeline.ingest.duplicates import Duplicate, KeyWriter, find_duplicates
from ojala.pipeline.ingest.external_sort import SOURCE, SortedRuns
from ojala.pipeline.ingest.tasks import run_here
from ojala.pipeline.storage.healpix import spatial_index


def rows(count: int, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    ra, dec = rng.uniform(0, 360, count), np.degrees(np.arcsin(rng.uniform(-1, 1, count)))
    return pa.table({"_healpix_29": spatial_index(ra, dec), "object_id": rng.permutation(count)})


def test_rows_come_back_by_partition_in_the_order_of_the_sky(tmp_path, monkeypatch):
    monkeypatch.setattr("ojala.pipeline.ingest.external_sort.RUN_ROWS", 300)
    runs = SortedRuns(UPath(tmp_path))
    tables = [rows(250, seed) for seed in range(5)]
    for source, table in enumerate(tables):
        runs.add(table, source)
    runs.flush()
    partitions = runs.partitions(100)
    parts = [runs.read(partition) for partition in partitions]
    assert all(0 < part.num_rows <= 100 for part in parts)
    found = pa.concat_tables(parts)
    wanted = np.sort(np.concatenate([table["_healpix_29"].to_numpy() for table in tables]))
    np.testing.assert_array_equal(found["_healpix_29"].to_numpy(), wanted)
    assert np.bincount(found[SOURCE].to_numpy()).tolist() == [250] * 5
    assert runs.skymap().sum() == 1250


def test_runs_are_merged_until_few_overlap_and_no_row_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr("ojala.pipeline.ingest.external_sort.FAN_IN", 3)
    runs = SortedRuns(UPath(tmp_path), run_rows=128)
    tables = [rows(100, seed) for seed in range(30)]
    for source, table in enumerate(tables):
        runs.add(table, source)
    runs.flush()
    partitions = runs.partitions(40)
    before = [runs.read(partition) for partition in partitions]
    index = runs.index()
    runs.merge()
    assert [runs.read(partition) for partition in partitions] == before
    assert (runs.index() == index).all()
    edges = [(run.first, run.last) for run in runs._runs]
    assert max(sum(a <= first <= b for a, b in edges) for first, _ in edges) <= 3
    assert len(list(tmp_path.rglob("run-*.arrow"))) == len(edges) < 2 * 3000 / 128


def test_crowds_that_cannot_be_divided_are_refused(tmp_path):
    runs = SortedRuns(UPath(tmp_path))
    runs.add(pa.table({"_healpix_29": np.zeros(5, np.int64), "object_id": np.arange(5)}), 0)
    runs.flush()
    with pytest.raises(ValueError, match="18/0 alone holds 5 rows"):
        runs.partitions(4)


def test_keys_that_come_twice_are_found_wherever_they_are(tmp_path, monkeypatch):
    keys = KeyWriter(UPath(tmp_path))
    keys.add(np.array([5, 70, 5 + (1 << 40)]), 0, np.arange(1, 4))
    keys.add(np.array([6, 7]), 0, np.arange(4, 6))
    keys.flush()
    keys.add(np.array([70, 8, 7]), 1, np.arange(1, 4))
    keys.flush()
    monkeypatch.setattr("ojala.pipeline.ingest.duplicates.KEYS_AT_ONCE", 1 << 12)
    found = find_duplicates(run_here, UPath(tmp_path), keys.chunks)
    assert (
        found.first
        == (
            Duplicate(7, first=(0, 5), second=(1, 3)),
            Duplicate(70, first=(0, 2), second=(1, 1)),
        )[::-1]
    )
    assert found.count == 2
