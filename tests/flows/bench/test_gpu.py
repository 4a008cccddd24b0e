"""The benchmark of a GPU: what it says where there is none, and that it runs where there is one."""

import pytest
import torch

from ojala.flows.bench.gpu import Gpu, bench_gpu


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_nothing_is_measured():
    assert bench_gpu() is None


def test_rates_are_told_with_their_share_of_what_the_gpu_allows():
    figures = Gpu(
        name="Some GPU",
        torch="2.13.0",
        batch=16_384,
        matrix=8e14,
        copy=4e12,
        roofline=2e6,
        forward={"eager": 4e5, "compiled": 1e6},
        predict=9e5,
        predict_busy=0.9,
        flow=6e5,
        flow_busy=0.8,
        rows=1_000_000,
        partitions=20,
        workers=1,
    )
    lines = figures.table().splitlines()
    assert "| network alone, eager | 400,000 objects/s (20% of it) |" in lines
    assert "| network alone, compiled | 1,000,000 objects/s (50% of it) |" in lines
    assert "| flow, 1 GPU | 600,000 rows/s, GPU busy 80% |" in lines


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
def test_it_runs_on_a_gpu():
    pytest.importorskip("dask_cuda", reason="the extra gpu is not installed")
    figures = bench_gpu(rows=6_000, tile_rows=1_000)
    assert figures.rows == 6_000
    assert 0.0 < figures.forward["compiled"] <= figures.roofline
    assert 0.0 < figures.predict_busy <= 1.0
