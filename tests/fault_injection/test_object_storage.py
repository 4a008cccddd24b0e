"""The whole way on s3://, against a real server, with connections that break in the middle of a write."""

import os
import sys
from contextlib import contextmanager
from pathlib import Path

import lsdb
import pyarrow.parquet as pq
import pytest
from upath import UPath

from ojala.catalogs_schema.receipt import Receipt
from ojala.pipeline import run as survey_run
from ojala.pipeline.inference.process import receipt_path
from ojala.pipeline.ingest.errors import IngestError
from ojala.pipeline.ingest.photometry import ingest_photometry
from ojala.pipeline.quality.verify import verify
from ojala.pipeline.release.export import export_release
from ojala.pipeline.runs.releases import ReleaseError
from ojala.pipeline.storage.files import write_whole
from tests.deploy.processes import running
from tests.fault_injection.accounts import check, data_of, photometry_of, settle
from tests.fault_injection.conftest import asking
from tests.fault_injection.object_store import SECRET, connect
from tests.fault_injection.processes import frozen_ingest, kill
from tests.helpers.pace import until
from tests.helpers.survey import ingest_table, photometry_table, plan_run, run_and_publish

pytestmark = pytest.mark.fault

OBJECTS = photometry_table(90, 3)
TILE_ROWS = 30


@contextmanager
def cutting(port, mark, cuts, log, patch):
    """All requests go through a proxy that cuts uploads; gives what tells how many it cut."""
    with running([sys.executable, Path(__file__).with_name("cutting_proxy.py"), port, mark, cuts, log], log):
        until(lambda: log.read_text().strip(), "the proxy", seconds=60, log=log)
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{log.read_text().split()[0]}")
        connect()
        yield lambda: log.read_text().count("cut")
        patch.undo()
        connect()


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The same survey on a local disk: its photometry and the data of its run."""
    folder = tmp_path_factory.mktemp("local")
    photometry = ingest_table(OBJECTS, folder, tile_rows=TILE_ROWS)
    return photometry, data_of(run_and_publish(asking(photometry, folder / "out")).run)


@pytest.fixture(scope="module")
def photometry(port, local, tmp_path_factory):
    """A photometry catalogue on the object store, made from a file there."""
    file = tmp_path_factory.mktemp("file") / "input.parquet"
    pq.write_table(OBJECTS, file)
    connect().put_file(str(file), "survey/input.parquet")
    ingest_photometry(
        [UPath("s3://survey/input.parquet")], UPath("s3://survey/photometry"), tile_rows=TILE_ROWS
    )
    return UPath("s3://survey/photometry")


def test_an_ingest_writes_the_same_as_on_a_disk(photometry, local):
    assert photometry_of(photometry) == photometry_of(local[0])
    assert list(verify(photometry)) == []
    assert not (photometry / "ingest.unfinished").exists()


def test_a_run_is_resumed_published_verified_and_read(photometry, local):
    asked = asking(photometry, "s3://survey/out").model_copy(update={"margins": True})
    plan = plan_run(asked)
    survey_run.begin(plan)
    receipts = survey_run.execute(plan)
    next(receipts)
    receipts.close()
    again = plan_run(asked)
    assert again.run_id == plan.run_id
    assert again.states() == {"done": 1, "missing": len(plan.entries) - 1}

    finished = run_and_publish(asked)
    assert finished.record.status == "complete"
    assert data_of(finished.run) == local[1]
    assert plan_run(asked).to_do == []
    assert list(verify(finished.out)) == []
    collection = lsdb.open_catalog("s3://survey/out", storage_options={"anon": False})
    assert len(collection.load_extension("ojala").compute()) == OBJECTS.num_rows
    key = OBJECTS["tile_id"][0].as_py() * 2**32 + OBJECTS["number"][0].as_py()
    assert len(collection.id_search(values={"object_id": key}).compute()) == 1
    store = connect()
    told = [name for name in store.find("survey/out") if SECRET.encode() in store.cat_file(name)]
    assert told == [], "credentials are nowhere in what is written"


def test_an_export_to_an_object_store_stands_alone_when_its_origin_is_gone(photometry, local, tmp_path):
    here = asking(local[0], tmp_path / "out").model_copy(update={"margins": True})
    made = export_release(run_and_publish(here).out, UPath("s3://survey/export/release"))
    assert (made.products, made.rows) == (("ojala",), OBJECTS.num_rows)
    store = connect()
    for name in store.find("survey/export/release"):
        store.cp_file(name, name.replace("/export/release", "/elsewhere/dr1"))
    store.rm("survey/export", recursive=True)
    connect()
    copy = UPath("s3://survey/elsewhere/dr1")
    assert [str(damage) for damage in verify(copy)] == []
    sizes = [store.size(name) for name in store.find("survey/elsewhere/dr1")]
    assert (made.files, made.bytes) == (len(sizes), sum(sizes))
    catalog = lsdb.open_catalog("s3://survey/elsewhere/dr1", storage_options={"anon": False})
    assert catalog.margin is not None
    assert len(catalog.load_extension("ojala").compute()) == OBJECTS.num_rows
    with pytest.raises(ReleaseError, match="is not empty"):
        export_release(UPath(here.out), copy)


def test_an_upload_that_is_cut_shows_no_object_and_is_tried_again(
    photometry, port, local, tmp_path, monkeypatch, ledger
):
    fault = ledger("connection to the object store cut in the middle of an upload")
    asked = asking(photometry, "s3://survey/cut")
    with cutting(port, "parquet", 9, tmp_path / "log", monkeypatch) as cuts:
        plan = plan_run(asked)
        survey_run.begin(plan)
        receipts = list(survey_run.execute(plan))
        fault.injected = cuts()
    assert fault.injected == 9, "s3fs sends each of two uploads at a time up to five times"
    assert {receipt.status for receipt in receipts} == {"done"}
    attempts = [attempt for receipt in receipts for attempt in receipt.attempts]
    assert len(attempts) > len(receipts), "an attempt failed"
    assert {attempt.cause for attempt in attempts if attempt.error} == {"storage"}
    check(fault, run_and_publish(asked), local[1])


def test_a_connection_that_stays_broken_leaves_no_object_and_the_run_goes_on_later(
    photometry, port, local, tmp_path, monkeypatch, ledger
):
    fault = ledger("object store that takes no more uploads")
    asked = asking(photometry, "s3://survey/broken").model_copy(update={"attempts": 1})
    with cutting(port, "parquet", 10**6, tmp_path / "log", monkeypatch) as cuts:
        plan = plan_run(asked)
        survey_run.begin(plan)
        receipt = next(survey_run.execute(plan))
        fault.injected = cuts()
    assert (receipt.status, receipt.attempts[-1].cause) == ("failed", "storage")
    visible = [name for name in connect().find("survey/broken") if "parquet" in name]
    assert visible == [], "no half of a leaf can be seen"
    finished = settle(fault, asked, local[1])
    paths = [receipt_path(finished.run, entry.partition) for entry in finished.plan.entries]
    tries = [len(Receipt.model_validate_json(path.read_bytes()).attempts) for path in paths]
    assert max(tries) == 2, "the receipt keeps the attempt of the earlier start"


def test_a_multipart_upload_that_is_cut_shows_no_object(request, port, tmp_path, monkeypatch, ledger):
    if not request.config.getoption("--soak"):
        pytest.skip("uploads of more than 100 MB go in parts; see make soak")
    fault = ledger("connection cut in the middle of the third part of an upload in parts")
    big, path = os.urandom(1 << 20) * 101, "s3://survey/big"
    with (
        cutting(port, "partNumber=3", 10**6, tmp_path / "log", monkeypatch) as cuts,
        pytest.raises(Exception, match=r"(?i)connect|closed"),
    ):
        write_whole(UPath(path), big)
    fault.injected = cuts()
    assert fault.injected > 0
    store = connect()
    assert not store.exists(path)
    with fault.recovered():
        write_whole(UPath(path), big)
    assert store.cat_file(path) == big
    fault.survived = fault.injected
    store.rm(path)


def test_an_ingest_that_is_killed_on_an_object_store_is_cleaned_up_by_the_next(photometry, local, ledger):
    fault = ledger("SIGKILL of an ingest on an object store")
    source, out = "s3://survey/input.parquet", UPath("s3://survey/killed")
    kill(frozen_ingest([source], str(out), TILE_ROWS))
    fault.injected = 1
    assert not (out / "hats.properties").exists(), "what is not whole cannot be opened"
    connect()
    with fault.recovered():
        summary = ingest_photometry([UPath(source)], out, tile_rows=TILE_ROWS)
    assert photometry_of(out) == photometry_of(local[0])
    assert not connect().exists(f"{out}/ingest.unfinished")
    fault.partitions, fault.rows, fault.survived = len(summary.partitions), summary.rows, 1
    with pytest.raises(IngestError, match="is not empty"):
        ingest_photometry([UPath(source)], out, tile_rows=TILE_ROWS)
