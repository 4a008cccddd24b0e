"""The engine cuda, with worker processes in the place of Dask-CUDA's; and (`pytest -m gpu`) with these."""

import sys
from types import ModuleType

import pyarrow.parquet as pq
import pytest
import torch
from distributed import LocalCluster

from ojala.catalogs_schema.ojala import OJALA
from ojala.pipeline.execution import RetryPolicy, clusters, run_tasks
from ojala.pipeline.execution.clusters import GPU_THREADS, ClusterError
from ojala.pipeline.inference.model_spec import ModelSpec
from ojala.pipeline.runs.config import RunConfig
from tests.helpers.survey import ingest_table, orders, photometry_table, run_and_publish, without_report
from tests.pipeline.execution.deadly import one_that_kills

pytestmark = pytest.mark.integration


@pytest.fixture
def dask_cuda(monkeypatch):
    """Dask-CUDA where there is no GPU: the same arguments, ordinary processes."""
    module = ModuleType("dask_cuda")
    asked = {}

    class LocalCUDACluster(LocalCluster):
        def __init__(self, device_memory_limit, **kwargs):
            asked.update(kwargs, device_memory_limit=device_memory_limit)
            super().__init__(processes=True, **kwargs)

    module.LocalCUDACluster = LocalCUDACluster
    monkeypatch.setitem(sys.modules, "dask_cuda", module)
    monkeypatch.setattr(clusters, "require_device", lambda device: None)
    return asked


def test_a_gpu_has_one_process_that_is_at_several_partitions(dask_cuda, photometry, tmp_path):
    tasks = orders(photometry, tmp_path)
    guilty, spec = one_that_kills(tasks)
    receipts = list(run_tasks(tasks, spec, engine="cuda", workers=1, retries=RetryPolicy(attempts=1)))
    assert dask_cuda["threads_per_worker"] == GPU_THREADS
    assert (dask_cuda["n_workers"], dask_cuda["host"]) == (1, "127.0.0.1")
    assert (dask_cuda["memory_limit"], dask_cuda["device_memory_limit"]) == (0, 0)
    failed = [receipt for receipt in receipts if receipt.status == "failed"]
    assert [(r.partition, r.attempts[-1].cause) for r in failed] == [(guilty.partition.name, "worker lost")]
    done = [receipt for receipt in receipts if receipt.status == "done"]
    assert len(done) == len(tasks) - 1
    assert all("wait" in receipt.seconds for receipt in done), "its threads take turns with the network"


def test_without_dask_cuda_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask_cuda", None)
    with pytest.raises(ClusterError, match=r"pip install '.\[gpu\]'"):
        list(run_tasks([], ModelSpec("empty", ""), engine="cuda", workers=1))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
def test_a_survey_on_gpus_is_that_of_processors_within_rounding(tmp_path, monkeypatch):
    pytest.importorskip("dask_cuda", reason="the extra gpu is not installed")
    without_report(monkeypatch)
    sky = ingest_table(photometry_table(300), tmp_path)
    columns = ["object_id", "p_galaxy", "z_gal", "z_gal_err", "log_mass"]
    found = []
    for engine in ("serial", "cuda"):
        settings = {"photometry": str(sky), "out": str(tmp_path / engine), "engine": engine, "workers": 1}
        run = run_and_publish(RunConfig.model_validate(settings | {"precision": "fp32", "batch_size": 128}))
        leaves = sorted((run.run / OJALA.name).rglob("Npix=*.parquet"), key=lambda leaf: leaf.name)
        found.append([pq.ParquetFile(leaf.path).read(columns).to_pandas() for leaf in leaves])
    for on_processor, on_gpu in zip(*found, strict=True):
        assert on_gpu["object_id"].equals(on_processor["object_id"])
        # Single precision in another order: 1e-3 of an error, 1e-4 of a probability.
        assert (on_gpu["p_galaxy"] - on_processor["p_galaxy"]).abs().max() < 1e-4
        shift = (on_gpu["z_gal"] - on_processor["z_gal"]).abs()
        assert (shift < 1e-3 * on_processor["z_gal_err"] + 1e-5).mean() > 0.99
        assert (on_gpu["log_mass"] - on_processor["log_mass"]).abs().max() < 1e-3
