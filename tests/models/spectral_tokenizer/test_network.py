"""The network: any grid in, any grid out, and no spectrum leans on its neighbours."""

from dataclasses import asdict

import numpy as np
import pytest
import torch

from ojala.models.settings import from_mapping
from ojala.models.spectral_tokenizer.heads import Heads
from ojala.models.spectral_tokenizer.network import PRESETS, SpectralTokenizer, TokenizerConfig
from ojala.models.spectral_tokenizer.patches import collate, patchify, wavelength_code
from tests.models.spectral_tokenizer.spectra_of_kinds import as_spectra, mixed_spectra

pytestmark = pytest.mark.processor

SMALL = TokenizerConfig(width=32, heads=2, encoder=2, decoder=2, patch=16)


def network():
    torch.manual_seed(0)
    return SpectralTokenizer(SMALL).eval(), Heads(SMALL.width, SMALL.heads).eval()


def cuts(n=6):
    return patchify(as_spectra(mixed_spectra(n)), SMALL.patch, SMALL.width)


def test_the_presets_have_the_sizes_that_are_stated():
    sizes = {
        name: sum(p.numel() for p in SpectralTokenizer(shape).parameters()) / 1e6
        for name, shape in PRESETS.items()
    }
    assert 37.0 < sizes["published"] < 39.0
    assert 2.7 < sizes["base"] < 2.9


def test_a_configuration_survives_json():

    assert from_mapping(TokenizerConfig, asdict(SMALL)) == SMALL


@torch.no_grad()
def test_patches_that_are_not_valid_change_nothing():
    model, heads = network()
    batch = collate(cuts(), 128)
    wild = batch._replace(pixels=torch.where(batch.valid[..., None], batch.pixels, 7.0))
    answers = []
    for patches in (batch, wild):
        encoded = model.encode(patches)
        answers.append(
            [
                model.embed(encoded, patches.valid),
                model.reconstruct(encoded, patches.valid, patches.code[:, :5]),
                *heads(encoded, patches.valid),
            ]
        )
    for one, other in zip(*answers, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_what_is_reconstructed_does_not_depend_on_what_else_is_asked_for():
    model, _ = network()
    batch = collate(cuts(), 128)
    encoded = model.encode(batch)
    grid = torch.from_numpy(wavelength_code(np.linspace(2000.0, 20000.0, 160), SMALL.patch, SMALL.width))
    whole = model.reconstruct(encoded, batch.valid, grid.expand(len(encoded), -1, -1))
    part = model.reconstruct(encoded, batch.valid, grid[3:5].expand(len(encoded), -1, -1))
    assert whole.shape == (6, 10, SMALL.patch)
    torch.testing.assert_close(whole[:, 3:5], part, rtol=1e-5, atol=1e-5)


def test_the_heads_teach_the_encoder_nothing():
    model, heads = network()
    batch = collate(cuts(), 128)
    answers = heads(model.encode(batch), batch.valid)
    sum(answer.square().mean() for answer in answers).backward()
    assert all(p.grad is None for p in model.parameters())
    assert all(p.grad is not None for p in heads.parameters())
