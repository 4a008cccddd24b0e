"""Whatever rows come in, all arrive unchanged and are answered, or the first bad one is named and none does.

25 cases each are tried, and for `make soak` 5,000 each.
"""

import math
import tempfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from upath import UPath

from ojala.pipeline.inference.adapters.dummy import DummyModel
from ojala.pipeline.inference.process import process
from ojala.pipeline.ingest.errors import IngestError
from ojala.pipeline.ingest.external_sort import FINEST_ORDER
from ojala.pipeline.ingest.jpas.flux_units import LARGEST_FLUX, MISSING_FLUXES
from ojala.pipeline.ingest.photometry import ingest_photometry
from ojala.pipeline.storage.healpix import pixel_at, spatial_index
from tests.helpers.survey import orders

pytestmark = pytest.mark.fault

HOUR = 3600  # of 5,000 cases on a machine with other work

FLUX = st.one_of(
    st.floats(width=32),
    st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, -1.0, 99.0, 1e300, -1e300, 5e-324]),
)
GOOD_ROW = st.fixed_dictionaries(
    {
        "tile_id": st.one_of(st.integers(1, 3), st.integers(0, 2**31 - 1)),
        "number": st.one_of(st.integers(1, 6), st.integers(0, 2**31 - 1)),
        "ra": st.one_of(st.floats(0, 360), st.floats(10, 10.01)),
        "dec": st.one_of(st.floats(-90, 90), st.floats(-0.01, 0.01)),
        "flux_j0660": FLUX,
        "flux_j0660_err": FLUX,
    }
)
BAD_CELL = st.one_of(
    st.tuples(st.sampled_from(["tile_id", "number"]), st.sampled_from([-1, 2**31, 2**53 + 1, -(2**62)])),
    st.tuples(st.just("ra"), st.sampled_from([math.nan, math.inf, -math.inf, -1e-9, 360.0000001, 1e300])),
    st.tuples(st.just("dec"), st.sampled_from([math.nan, math.inf, -math.inf, -90.0000001, 91.0])),
)


def write_parquet(path: UPath, rows: list[dict]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path.path)


def write_csv(path: UPath, rows: list[dict]) -> None:
    names = list(rows[0])
    lines = [",".join(names).upper(), *(",".join(repr(row[name]) for name in names) for row in rows)]
    path.write_text("\n".join(lines) + "\n")


def write_fits(path: UPath, rows: list[dict]) -> None:
    Table({name: [row[name] for row in rows] for name in rows[0]}).write(path.path, format="fits")


WRITERS = st.sampled_from([write_parquet, write_csv, write_fits])


def crowd(rows: list[dict]) -> int:
    """Most rows in one pixel of the finest order."""
    ra, dec = (np.array([row[name] for row in rows]) for name in ("ra", "dec"))
    return int(np.unique(pixel_at(spatial_index(ra, dec), FINEST_ORDER), return_counts=True)[1].max())


def as_stored(value: float) -> float | None:
    with np.errstate(over="ignore"):
        stored = float(np.float32(value))
    stands_for_none = value in MISSING_FLUXES or LARGEST_FLUX <= abs(value) < math.inf
    return None if math.isnan(stored) or stands_for_none else stored


@pytest.fixture
def hostile(ledger):
    return ledger("hostile rows that can be understood")


@pytest.fixture
def bad_rows(ledger):
    return ledger("hostile rows of which one cannot be understood")


# One line of the table of faults counts all cases of a test.
CASES = settings(
    max_examples=25 if settings.default.max_examples <= 100 else settings.default.max_examples,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.mark.timeout(3 * HOUR)
@given(rows=st.lists(GOOD_ROW, min_size=1, max_size=12), write=WRITERS, tile_rows=st.integers(3, 12))
@CASES
def test_rows_that_can_be_understood_all_arrive_unchanged_and_are_answered(hostile, rows, write, tile_rows):
    hostile.injected += 1
    rows = list({(row["tile_id"], row["number"]): row for row in rows}.values())
    with tempfile.TemporaryDirectory() as name:
        folder = UPath(name)
        write(folder / "rows", rows)
        if crowd(rows) > tile_rows:
            with pytest.raises(IngestError, match="raise --tile-rows"):
                ingest_photometry([folder / "rows"], folder / "out", tile_rows=tile_rows)
            tile_rows = len(rows)
        ingest_photometry([folder / "rows"], folder / "out", tile_rows=tile_rows)
        found = []
        for task in orders(folder / "out", folder / "run"):
            receipt = process(task, DummyModel())
            assert (receipt.status, receipt.rows_out) == ("done", task.rows), receipt.attempts
            answered = pq.read_table((folder / "run" / receipt.leaves[0].path).path, partitioning=None)
            found.append(pq.read_table((folder / "out" / task.partition.leaf).path, partitioning=None))
            assert answered["object_id"].equals(found[-1]["object_id"])
    arrived = pa.concat_tables(found).select(list(rows[0])).to_pylist()
    stored = [
        {name: as_stored(value) if name.startswith("flux") else value for name, value in row.items()}
        for row in rows
    ]
    assert sorted(arrived, key=key) == sorted(stored, key=key)
    hostile.partitions, hostile.rows = hostile.partitions + len(found), hostile.rows + len(rows)
    hostile.survived += 1


@pytest.mark.timeout(3 * HOUR)
@given(
    rows=st.lists(GOOD_ROW, min_size=1, max_size=10),
    bad=st.lists(st.tuples(st.integers(0, 9), BAD_CELL), min_size=1, max_size=4),
    write=WRITERS,
)
@CASES
def test_the_first_row_that_cannot_be_understood_is_named_and_nothing_is_written(bad_rows, rows, bad, write):
    bad_rows.injected += 1
    rows = [dict(row) for row in rows]
    spoilt = set()
    for at, (column, value) in bad:
        rows[at % len(rows)][column] = value
        spoilt.add((at % len(rows) + 1, column))
    first = min(row for row, _ in spoilt)
    with tempfile.TemporaryDirectory() as name:
        folder = UPath(name)
        write(folder / "rows", rows)
        with pytest.raises(IngestError, match=f"rows, row {first}, column "):
            ingest_photometry([folder / "rows"], folder / "out")
        assert [path.name for path in folder.iterdir()] == ["rows"]
    bad_rows.rows += len(rows)
    bad_rows.survived += 1


def key(row: dict) -> tuple[int, int]:
    return row["tile_id"], row["number"]
