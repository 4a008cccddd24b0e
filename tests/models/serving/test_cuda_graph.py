"""The network on a GPU: what can be shown without one, and (`pytest -m gpu`) what cannot."""

import time

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ojala.models.ojala.predictor import OjalaPredictor
from ojala.models.ojala.tokens import N_BANDS, tokenise
from ojala.models.serving.batching import BatchPipeline
from ojala.models.serving.cuda_graph import CudaBuffer, CudaGraphRunner

pytestmark = [pytest.mark.integration, pytest.mark.processor]

ROWS = 4

with_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")


class Crossings(TorchDispatchMode):
    """Notes the operations that have to do with a tensor in the host's memory while it is in force."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, torch.Tensor)]
        if any(tensor.device.type == "cpu" for tensor in tensors):
            self.found.add(str(func))
        return out


def test_a_batch_is_computed_without_a_copy_to_or_from_the_device():
    """Such a copy would wait for the device, and a CUDA graph could not be recorded.

    Nor does it ask for a value: the device here has no values.
    """
    model = OjalaPredictor.load(precision="bf16", batch_size=ROWS)
    model.network.to("meta")
    for head in model._heads:
        head.mlp.to("meta")
    model._calibration, model._novelty = model._calibration.to("meta"), model._novelty.to("meta")
    model._zero_points = model._zero_points.to("meta")
    columns = [torch.empty(ROWS, N_BANDS, device="meta") for _ in range(2)]
    columns.append(torch.empty(ROWS, device="meta"))
    model._predict_batch(*columns)  # constants are made once
    with Crossings() as crossings:
        answers = model._predict_batch(*columns)
    assert crossings.found == set()
    assert {answer.device.type for answer in answers.values()} == {"meta"}
    assert {len(answer) for answer in answers.values()} == {ROWS}


def test_the_network_is_one_graph_for_the_compiler():
    model = OjalaPredictor.load(batch_size=ROWS)
    # Without the compiler's last step, which makes code for one kind of device and takes a minute.
    forward = torch.compile(model.predict_uncalibrated, dynamic=False, fullgraph=True, backend="eager")
    rng = np.random.default_rng(1)
    flux = rng.uniform(1.0, 9.0, (ROWS, N_BANDS)).astype(np.float32)
    tokens = tokenise(flux, 0.1 * flux, np.zeros(ROWS, np.float32))
    found, embedding = forward(tokens)
    expected, known = model.predict_uncalibrated(tokens)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(embedding, known)


def photometry(rows):
    rng = np.random.default_rng(2)
    flux = rng.lognormal(2.0, 1.0, (rows, N_BANDS)).astype(np.float32)
    flux[rng.random(flux.shape) < 0.1] = np.nan
    return flux, 0.1 * np.abs(flux) + 0.3, rng.uniform(0.0, 0.1, rows).astype(np.float32)


@pytest.mark.gpu
@with_gpu
@pytest.mark.parametrize("rows", [1, 700, 2_600])
def test_the_recorded_network_answers_as_the_eager_one(rows):
    model = OjalaPredictor.load(device="cuda", precision="fp32", batch_size=512)
    columns = photometry(rows)
    found = model._pipeline("catalogue", model._predict_batch).run(*columns)
    model._forward = model.predict_uncalibrated
    with torch.inference_mode():
        for start in range(0, rows, 512):
            batch = [torch.full((512, *c.shape[1:]), torch.nan, device="cuda") for c in columns]
            part = slice(start, start + 512)
            for there, column in zip(batch, columns, strict=True):
                there[: len(column[part])] = torch.from_numpy(column[part])
            for name, answer in model._predict_batch(*batch).items():
                expected = answer[: len(columns[0][part])].cpu().numpy()
                np.testing.assert_allclose(found[name][part], expected, rtol=2e-3, atol=2e-3, err_msg=name)


@pytest.mark.gpu
@with_gpu
def test_bf16_on_a_gpu_agrees_with_single_precision_on_a_processor():
    columns = photometry(1_000)
    exact = OjalaPredictor.load(batch_size=128).predict(*columns)
    model = OjalaPredictor.load(device="cuda", precision="bf16", batch_size=1_024)
    found = model.predict(*columns)
    assert (found["class_code"] == exact["class_code"]).mean() > 0.98
    assert np.abs(found["p_galaxy"] - exact["p_galaxy"]).mean() < 0.01
    shift = np.abs(found["z_gal"] - exact["z_gal"]) / exact["z_gal_err"]
    assert np.median(shift) < 0.1, "a tenth of the stated error"
    shift = np.abs(found["log_mass"] - exact["log_mass"]) / exact["log_mass_err"]
    assert np.median(shift) < 0.1


@pytest.mark.gpu
@with_gpu
def test_a_batch_that_does_not_fit_is_halved_until_it_does():
    from ojala.pipeline.inference.adapters.registry import ADAPTERS
    from ojala.pipeline.inference.photometry import Photometry
    from ojala.pipeline.inference.process import _predict

    flux, error, ebv = photometry(100)
    model = OjalaPredictor.load(device="cuda", precision="bf16", batch_size=1 << 24)
    inputs = Photometry(flux, error, ebv, np.isfinite(flux))
    answers, size = _predict(ADAPTERS["ojala"], model, inputs)
    assert size < 1 << 24
    assert len(answers["z"]) == 100


@pytest.mark.gpu
@with_gpu
def test_copies_do_not_keep_the_gpu_waiting():
    model = OjalaPredictor.load(device="cuda", precision="bf16", batch_size=16_384)
    columns = photometry(16 * 16_384)
    recorded = CudaGraphRunner(model._predict_batch, ((N_BANDS,), (N_BANDS,), ()), model.batch_size)
    pipeline = BatchPipeline(lambda: CudaBuffer(recorded), model.batch_size)
    pipeline.run(*columns)
    before, begin = recorded.busy, time.perf_counter()
    pipeline.run(*columns)
    assert (recorded.busy - before) / (time.perf_counter() - begin) > 0.8
