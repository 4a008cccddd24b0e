"""The public functions of the package, as scripts and notebooks use them."""

import asyncio
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ojala
from ojala.catalogs_schema.errors import InputError
from ojala.catalogs_schema.ojala import OJALA
from ojala.models.checkpoint import WeightsError
from ojala.pipeline.runs.releases import ReleaseError
from tests.helpers.pace import scaled
from tests.helpers.survey import Finished, photometry_table

pytestmark = pytest.mark.integration


def test_the_import_loads_no_torch_and_takes_a_fifth_of_a_second():
    code = (
        "import sys, time; begin = time.process_time(); import ojala; seconds = time.process_time() - begin\n"
        "assert not {'torch', 'numpy', 'pyarrow', 'dask', 'prefect', 'pydantic'} & set(sys.modules)\n"
        "assert set(ojala.__all__) <= set(dir(ojala)) | {'__version__'}; print(seconds)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < scaled(0.2)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    pq.write_table(photometry_table(200), tmp_path / "objects.parquet")
    return tmp_path


SCRIPT = """
import ojala
print("started", flush=True)
ojala.ingest("objects.parquet", "photometry", tile_rows=60)
print(ojala.plan("out", photometry="photometry", model="empty").states())
record = ojala.run("out", photometry="photometry", model="empty", workers=1, engine="local")
print(record.status, record.rows_out, __file__)
import sys
assert "torch" not in sys.modules, "workers load networks, not the driver"
"""


@pytest.mark.integration
def test_a_script_without_guard_runs_once_with_worker_processes(files):
    (files / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"],
        capture_output=True,
        text=True,
        cwd=files,
        check=False,
        timeout=scaled(120),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("started") == 1
    assert "complete 200" in done.stdout
    assert "script.py" in done.stdout


@pytest.mark.integration
def test_a_run_inside_a_running_event_loop_publishes_a_catalogue(files):
    async def cell():
        ojala.ingest(files / "objects.parquet", files / "photometry", tile_rows=100)
        return ojala.run(
            files / "out", photometry=files / "photometry", model="empty", workers=1, engine="local"
        )

    record = asyncio.run(cell())
    assert (record.status, record.rows_out) == ("complete", 200)
    assert ojala.plan(files / "out", photometry=files / "photometry", model="empty").states() == {
        "done": record.partitions
    }
    again = ojala.run(files / "out", photometry=files / "photometry", model="empty", workers=1)
    assert again.run_id == record.run_id


def test_the_published_run_is_opened_with_its_photometry_by_lsdb(finished: Finished):
    frame = ojala.open_catalog(finished.out.path).compute(progress_bar=False)
    rows = finished.record.rows_out
    assert len(frame) == rows
    dataset = ojala.open_catalog(finished.out.path, engine="pyarrow")
    assert dataset.count_rows() == rows
    assert set(dataset.schema.names) >= set(OJALA.names)
    assert set(dataset.to_table(columns=["object_id"])["object_id"].to_pylist()) == set(frame["object_id"])


def test_what_cannot_be_opened_is_refused_with_what_there_is(finished: Finished, tmp_path):
    with pytest.raises(ReleaseError, match="has no published run"):
        ojala.open_catalog(tmp_path)
    with pytest.raises(ReleaseError, match="no product 'redshifts': choose from ojala"):
        ojala.open_catalog(finished.out.path, "redshifts")


def test_a_catalogue_is_validated(finished: Finished, tmp_path):
    truth = tmp_path / "truth.csv"
    truth.write_text("tile_id,number,class,z\n7,1,GALAXY,0.5\n7,2,STAR,\n")
    assert ojala.validate(finished.out.path, truth, out=tmp_path / "page").matched == 2
    assert (tmp_path / "page" / "index.html").exists()


def test_a_predictor_answers_tables_as_a_run_does_and_arrays_as_the_model_does(finished: Finished):
    leaf = next(finished.photometry.rglob("Npix=*.parquet"))
    table = pq.read_table(leaf.path, partitioning=None)
    predictor = ojala.Predictor.load("ojala")
    rows = predictor.predict(table)
    assert OJALA.violations(rows) == []
    assert rows["object_id"].equals(table["object_id"])
    flux = np.full((2, 63), 10.0, np.float32)
    answers = predictor.predict(flux, 0.1 * flux, np.zeros(2, np.float32))
    assert answers["z"].shape == (2,)
    with pytest.raises(InputError, match=r"no photometry for ojala.*column tile_id: missing"):
        predictor.predict(pa.table({"object_id": [1]}))


def test_the_model_of_a_file_of_weights_is_found_by_its_header(tmp_path):
    from ojala.pipeline.inference.adapters.registry import ADAPTERS

    copy = tmp_path / "mine.safetensors"
    copy.write_bytes(Path(ADAPTERS["specpt"].weights).read_bytes())
    assert ojala.Predictor.load(copy).name == "specpt"
    with pytest.raises(WeightsError, match="neither the name of a model nor a file"):
        ojala.Predictor.load(tmp_path / "none")
    copy.write_bytes(b"{}")
    with pytest.raises(WeightsError, match="no safetensors file"):
        ojala.Predictor.load(copy)
