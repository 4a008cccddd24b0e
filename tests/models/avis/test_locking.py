"""A locked side of spectra: its embedding is a tokenizer's, and images start from a regression on it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from ojala.catalogs_schema.errors import InputError
from ojala.models.avis.checkpoint import AvisInfo
from ojala.models.avis.locking import lock_spectra
from ojala.models.avis.network import Avis
from ojala.models.avis.predictor import AvisPredictor
from ojala.models.spectral_tokenizer.checkpoint import save
from ojala.models.spectral_tokenizer.evaluation import retrieval
from ojala.models.spectral_tokenizer.heads import TokenizerWithHeads
from tests.models.avis.pairs_of_kinds import SMALL, alike

pytestmark = pytest.mark.processor


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.safetensors"
    save(path, TokenizerWithHeads(SMALL.spectrum), name="t", version="0", training={})
    return path


@pytest.fixture(scope="module")
def network(tokenizer):
    torch.manual_seed(0)
    network = Avis(dataclasses.replace(SMALL, pooling="mean")).eval()
    lock_spectra(network, tokenizer, [alike(64, seed) for seed in range(20)])
    return network


@pytest.fixture(scope="module")
def predictions(network):
    info = AvisInfo("small", "", network.config, {}, "")
    predictor = AvisPredictor(network, info, device="cpu", precision="fp32", batch_size=32)
    return predictor.predict(alike(64, 107))


def test_an_image_finds_its_spectrum_before_any_training(predictions):
    ranks = retrieval(predictions["embedding_image"], predictions["embedding_spectrum"])
    assert ranks["median_rank"] < 10.0  # by chance 32


def test_components_are_principal_and_the_first_does_not_dominate(predictions):
    vectors = predictions["embedding_spectrum"] - predictions["embedding_spectrum"].mean(axis=0)
    assert np.abs(np.corrcoef(vectors[:, :3], rowvar=False) - np.eye(3)).max() < 0.4
    scatter = vectors.std(axis=0)
    assert scatter[0] < 3.0 * scatter[3]


def test_the_side_of_spectra_is_locked_and_that_of_images_is_not(network):
    learning = {name.split(".")[0] for name, p in network.named_parameters() if p.requires_grad}
    assert learning == {"image", "pool_image"}


def test_the_last_component_is_the_brightness(network):
    weight = network.pool_spectrum.features.weight
    assert not weight[:-1].any()
    assert weight[-1, 0] > 0.0


def test_a_tower_of_another_shape_is_refused(tokenizer):
    with pytest.raises(InputError, match="pooling by 'mean'"):
        lock_spectra(Avis(SMALL), tokenizer, ())
