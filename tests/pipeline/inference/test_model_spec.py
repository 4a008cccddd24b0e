"""Weights are taken for what their hash says they are."""

import pytest
import torch

from ojala.pipeline.inference.adapters.registry import ADAPTERS
from ojala.pipeline.inference.model_spec import ModelSpec

WEIGHTS = ADAPTERS["ojala"].weights

OTHER = "0" * 64


def test_weights_with_the_hash_that_is_wanted_are_loaded():
    wanted = ModelSpec("ojala", WEIGHTS).read_assets()[0].sha256
    assert ModelSpec("ojala", WEIGHTS, sha256=wanted).load().weights_sha256 == wanted


def test_other_weights_are_refused_before_and_at_loading():
    spec = ModelSpec("ojala", WEIGHTS, sha256=OTHER)
    for use in (spec.read_assets, spec.load):
        with pytest.raises(ValueError, match=f"wanted are the weights {OTHER}"):
            use()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_where_there_is_no_gpu_it_is_said_what_to_do():
    with pytest.raises(ValueError, match=r"device cuda: .* or run on processors with --engine local"):
        ModelSpec("empty", "", device="cuda").load()
