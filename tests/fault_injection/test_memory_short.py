"""The kernel gives no more memory: the network goes on with fewer rows at a time, and all are answered."""

import math
import resource
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from upath import UPath

from ojala.catalogs_schema.receipt import Receipt
from ojala.models import WEIGHTS_FOLDER
from ojala.pipeline.inference.model_spec import ModelSpec
from ojala.pipeline.inference.process import process
from tests.fault_injection.processes import start
from tests.helpers.survey import ingest_table, orders, photometry_table

pytestmark = pytest.mark.fault

ROWS = 600
SLACK = 32 << 20
"""Memory beyond that of a quarter of the rows at a time [bytes]; all of them need several times as much."""


def addressed(mark: str) -> int:
    """What this process has of addresses, now (VmSize) or at most (VmPeak) [bytes]."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{mark}:")) * 1024


def starve(photometry: str, plenty: str, little: str) -> None:
    """Do one partition as one batch, first with plenty of memory in quarters, then with too little."""
    model = ModelSpec("ojala", str(WEIGHTS_FOLDER / "ojala-base.safetensors"), batch_size=ROWS // 4).load()
    process(*orders(UPath(photometry), UPath(plenty)), model)
    model.batch_size = ROWS
    most = addressed("VmPeak") + SLACK
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    process(*orders(UPath(photometry), UPath(little)), model)


@pytest.mark.timeout(900)
def test_where_the_kernel_gives_no_more_memory_all_rows_are_answered_in_smaller_batches(tmp_path, ledger):
    fault = ledger("memory withheld (RLIMIT_AS) from a network of 600 rows a batch")
    photometry = ingest_table(photometry_table(ROWS), tmp_path, tile_rows=ROWS)
    plenty, little = tmp_path / "plenty", tmp_path / "little"
    with fault.recovered():
        child = start(starve, str(photometry), str(plenty), str(little))
        child.join()
    assert child.exitcode == 0
    unhindered, hindered = (
        Receipt.model_validate_json(next(run.glob("receipts/*/*.json")).read_text())
        for run in (plenty, little)
    )
    assert unhindered.batch_size == ROWS // 4
    assert hindered.batch_size in (ROWS // 2, ROWS // 4, ROWS // 8), "it was halved"
    fault.injected = round(math.log2(ROWS / hindered.batch_size))
    assert [hindered.status, len(hindered.attempts)] == ["done", 1]
    tables = [
        pq.ParquetFile(run / r.leaves[0].path).read() for run, r in ((plenty, unhindered), (little, hindered))
    ]
    for column in ("object_id", "ojala_class", "n_bands"):
        assert tables[0][column].equals(tables[1][column])
    fault.partitions, fault.rows = 1, tables[1].num_rows
    fault.rows_lost = ROWS - tables[1].num_rows
    assert fault.rows_lost == 0
    fault.survived = fault.injected
