import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from upath import UPath

from ojala.catalogs_schema.receipt import Receipt
from ojala.pipeline.inference.adapters.dummy import DummyModel
from ojala.pipeline.inference.failures import WorkerLost
from ojala.pipeline.inference.model_spec import ModelSpec
from ojala.pipeline.inference.process import failed_receipt, process, receipt_path
from ojala.pipeline.storage.healpix import Partition
from tests.helpers.survey import orders


@pytest.fixture
def task(photometry, tmp_path):
    return orders(photometry, tmp_path / "run", ("ojala", "ojala_vectors"))[0]


def files(folder):
    return sorted(file.name for file in UPath(folder).rglob("*") if file.is_file())


def test_a_partition_becomes_leaves_of_the_same_name_and_a_receipt(task):
    receipt = process(task, DummyModel())
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
    process(task, DummyModel())
    before = pq.ParquetFile((UPath(task.source) / task.partition.leaf).path).read(["object_id"])
    after = pq.ParquetFile((UPath(task.run) / "ojala" / task.partition.leaf).path).read(["object_id"])
    assert after.equals(before)


def test_twice_the_same_task_makes_the_same_bytes(task, tmp_path):
    first = process(task, DummyModel())
    second = process(replace(task, run=str(tmp_path / "again")), DummyModel())
    assert [leaf.sha256 for leaf in first.leaves] == [leaf.sha256 for leaf in second.leaves]


def test_a_photometry_leaf_that_was_changed_is_refused_by_name(task):
    changed = replace(task, fingerprint=task.fingerprint.model_copy(update={"input_sha256": "0" * 64}))
    receipt = process(changed, DummyModel())
    assert receipt.status == "failed"
    assert receipt.rows_out == 0
    assert f"DamagedInput: {task.source}/{task.partition.leaf}: SHA-256 is" in receipt.attempts[0].error
    assert files(task.run) == [f"Npix={task.partition.pixel}.json"]


NO_MEMORY = torch.OutOfMemoryError("CUDA out of memory")


class Narrow(DummyModel):
    """Has memory for so many rows a batch."""

    def __init__(self, batch_size, room, problem=NO_MEMORY):
        self.batch_size, self._room, self._problem = batch_size, room, problem
        self.tried = []

    def halve_batch(self):
        self.batch_size //= 2

    def predict(self, flux, error, ebv):
        self.tried.append(self.batch_size)
        if self.batch_size > self._room:
            raise self._problem
        return super().predict(flux, error, ebv)


@pytest.mark.parametrize("problem", [NO_MEMORY, MemoryError()])
def test_where_memory_does_not_suffice_the_batch_is_halved_and_stays_so(task, problem):
    model = Narrow(64, 20, problem)
    receipt = process(task, model)
    assert (receipt.status, receipt.batch_size) == ("done", 16)
    assert len(receipt.attempts) == 1, "the partition goes on"
    assert process(task, model).batch_size == 16
    assert model.tried == [64, 32, 16, 16], "the next partition begins with the smaller batch"


def test_a_single_row_that_does_not_fit_fails_its_partition_for_want_of_memory(task):
    model = Narrow(4, 0)
    receipt = process(task, model)
    assert (receipt.status, receipt.attempts[0].cause) == ("failed", "out of memory")
    assert receipt.attempts[0].error == "OutOfMemoryError: CUDA out of memory"
    assert receipt.leaves == []
    assert model.tried == [4, 2, 1]


def test_a_fault_of_the_program_halves_nothing(task):
    model = Narrow(4, 0, RuntimeError("expected scalar type Float"))
    receipt = process(task, model)
    assert (receipt.status, receipt.attempts[0].cause) == ("failed", "program")
    assert model.tried == [4]


def test_attempts_of_earlier_starts_stay_in_the_receipt(task):
    assert process(task, Narrow(1, 0)).status == "failed"
    receipt = process(task, DummyModel())
    assert [attempt.cause for attempt in receipt.attempts] == ["out of memory", None]
    stored = Receipt.model_validate_json(receipt_path(UPath(task.run), task.partition).read_bytes())
    assert stored == receipt


def test_a_torn_receipt_is_replaced(task):
    path = receipt_path(UPath(task.run), task.partition)
    path.parent.mkdir(parents=True)
    path.write_text('{"version": "1.')
    assert len(process(task, DummyModel()).attempts) == 1
    assert Receipt.model_validate_json(path.read_bytes()).status == "done"


def test_a_missing_photometry_leaf_is_named_with_what_to_do(task, tmp_path):
    receipt = process(replace(task, source=str(tmp_path / "nowhere")), DummyModel())
    assert receipt.attempts[0].cause == "data"
    assert f"{tmp_path}/nowhere/{task.partition.leaf} is missing" in receipt.attempts[0].error


@pytest.mark.parametrize("name", ["../1", "3/../../x", "3/1/../..", "/etc/passwd", "3/-1", "30/1", "3/768"])
def test_a_partition_has_no_name_that_leads_out_of_the_run(name):
    with pytest.raises(ValueError):
        Partition.parse(name)


def test_a_model_that_loses_a_row_is_found_out(task):
    class Lossy(DummyModel):
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
    receipt = process(replace(task, rows=task.rows + 1), DummyModel())
    assert "rows, its catalogue lists" in receipt.attempts[0].error


def test_vectors_have_the_shape_of_their_contract(task):
    process(task, DummyModel())
    table = pq.read_table((UPath(task.run) / "ojala_vectors" / task.partition.leaf).path, partitioning=None)
    assert set(table["z_gal_pdf"].to_pylist()[0]) == set(), "the model that answers nothing has no PDF"
    assert np.stack(table["embedding"].to_numpy()).shape == (task.rows, 128)
