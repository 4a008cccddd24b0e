import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from upath import UPath

from catalogs_schema.receipt import Receipt
from pipeline.failure import WorkerLost
from pipeline.model import EmptyModel, ModelSpec
from pipeline.partition import failed_receipt, process, receipt_path
from tests.survey import orders


@pytest.fixture
def task(photometry, tmp_path):
    return orders(photometry, tmp_path / "run", ("ojala", "ojala_vectors"))[0]


def files(folder):
    return sorted(file.name for file in UPath(folder).rglob("*") if file.is_file())


def test_a_partition_becomes_leaves_of_the_same_name_and_a_receipt(task):
    receipt = process(task, EmptyModel())
    assert receipt.status == "done"
    assert receipt.rows_in == receipt.rows_out == task.rows
    for product in task.products:
        leaf = UPath(task.run) / product / task.partition.leaf
        assert pq.ParquetFile(leaf.path).metadata.num_rows == task.rows
        assert pq.ParquetFile(leaf.path).metadata.metadata[b"ojala.run_id"] == b"r1"
    written = Receipt.model_validate_json(receipt_path(UPath(task.run), task.partition).read_bytes())
    assert written == receipt
    assert set(receipt.seconds) == {"read", "predict", "derive", "write"}
    assert receipt.peak_rss > 1e6


def test_the_objects_are_those_of_the_photometry_in_its_order(task):
    process(task, EmptyModel())
    before = pq.ParquetFile((UPath(task.photometry) / task.partition.leaf).path).read(["object_id"])
    after = pq.ParquetFile((UPath(task.run) / "ojala" / task.partition.leaf).path).read(["object_id"])
    assert after.equals(before)


def test_twice_the_same_task_makes_the_same_bytes(task, tmp_path):
    first = process(task, EmptyModel())
    second = process(replace(task, run=str(tmp_path / "again")), EmptyModel())
    assert [leaf.sha256 for leaf in first.leaves] == [leaf.sha256 for leaf in second.leaves]


def test_a_photometry_leaf_that_was_changed_is_refused_by_name(task):
    changed = replace(task, ingredients=task.ingredients.model_copy(update={"input_sha256": "0" * 64}))
    receipt = process(changed, EmptyModel())
    assert receipt.status == "failed"
    assert receipt.rows_out == 0
    assert f"DamagedInput: {task.photometry}/{task.partition.leaf}: SHA-256 is" in receipt.attempts[0].error
    assert files(task.run) == [f"Npix={task.partition.pixel}.json"]


def test_a_model_that_raises_fails_its_partition_alone(task):
    class Broken(EmptyModel):
        def predict(self, flux, error, ebv):
            raise MemoryError("no memory")

    receipt = process(task, Broken())
    assert (receipt.status, receipt.attempts[0].error) == ("failed", "MemoryError: no memory")
    assert receipt.leaves == []


def test_a_model_that_loses_a_row_is_found_out(task):
    class Lossy(EmptyModel):
        def predict(self, flux, error, ebv):
            return {name: values[1:] for name, values in super().predict(flux, error, ebv).items()}

    assert process(task, Lossy()).status == "failed"


def test_a_worker_that_was_lost_leaves_a_receipt(task):
    receipt = failed_receipt(task, ModelSpec("empty", ""), WorkerLost("gone"), host="node-7", seconds=2.5)
    stored = json.loads(receipt_path(UPath(task.run), task.partition).read_text())
    assert stored["status"] == "failed"
    attempt = receipt.attempts[0]
    assert (attempt.error, attempt.cause) == ("WorkerLost: gone", "worker lost")
    assert (attempt.host, attempt.pid, attempt.seconds) == ("node-7", 0, 2.5)


def test_rows_of_the_task_are_checked_against_the_file(task):
    receipt = process(replace(task, rows=task.rows + 1), EmptyModel())
    assert "rows, the photometry catalogue lists" in receipt.attempts[0].error


def test_vectors_have_the_shape_of_their_contract(task):
    process(task, EmptyModel())
    table = pq.read_table((UPath(task.run) / "ojala_vectors" / task.partition.leaf).path, partitioning=None)
    assert np.stack(table["z_pdf"].to_numpy()).shape == (task.rows, 457)
    assert np.stack(table["embedding"].to_numpy()).shape == (task.rows, 128)
