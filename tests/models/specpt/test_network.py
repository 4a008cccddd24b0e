from __future__ import annotations

import dataclasses
import json
from dataclasses import asdict

import numpy as np
import pytest
import torch

from ojala.models.settings import from_mapping
from ojala.models.specpt.network import (
    N_BINS,
    PRESETS,
    CorrelationRedshift,
    RestFrame,
    SpecPT,
    SpecPTConfig,
    input_channels,
    standardise,
)
from ojala.models.specpt.wavelength_grid import GRIDS

pytestmark = pytest.mark.processor

SMALL = dataclasses.replace(
    PRESETS["base"], channels=(8, 8, 16), width=32, hidden=64, encoder=1, decoder=1, evidence=4, rest=3
)


def noise(n: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    flux = torch.randn(n, GRIDS["log"].size, generator=generator)
    return input_channels(flux, torch.ones_like(flux))


@pytest.mark.parametrize(
    "config",
    [SMALL, dataclasses.replace(SMALL, grid="desi", strides=(2, 2, 2), redshift=("softplus",), rest=0)],
)
@torch.inference_mode()
def test_every_grid_is_given_back_whole_with_a_redshift(config):
    model = SpecPT(config).eval()
    flux = torch.randn(2, model.grid.size)
    local, tokens = model.encode(input_channels(flux, torch.ones_like(flux)))
    assert tokens.shape == (2, config.tokens, 32)
    assert model.reconstruct(tokens, torch.zeros(2)).shape == flux.shape
    answers = model.redshift(local, tokens)
    assert set(answers) == set(config.redshift)
    assert answers["softplus"].shape == (2,)
    assert (answers["softplus"] > 0.0).all()


@torch.inference_mode()
def test_an_answer_does_not_depend_on_the_other_rows():
    """The published head lets the rows of a batch attend to each other."""
    model = SpecPT(SMALL).eval()
    x = noise(8)
    local, tokens = model.encode(x)
    z = torch.linspace(0.1, 0.8, 8)
    together = model.redshift(local, tokens) | {"spectrum": model.reconstruct(tokens, z)}
    local, tokens = model.encode(x[3:4])
    alone = model.redshift(local, tokens) | {"spectrum": model.reconstruct(tokens, z[3:4])}
    for name, values in together.items():
        torch.testing.assert_close(alone[name], values[3:4], rtol=1e-4, atol=1e-5)


def test_the_published_shape_has_its_widths_and_no_billion_weights():
    config = PRESETS["published"]
    assert (config.channels, config.kernels) == ((64, 128, 256), (41, 21, 11))
    assert config.tokens == 487
    with torch.device("meta"):
        assert 15e6 < sum(p.numel() for p in SpecPT(config).parameters()) < 40e6


@torch.inference_mode()
def test_a_shift_of_the_evidence_shifts_the_logits_of_the_redshift():
    head = CorrelationRedshift(SMALL, 1008).eval()
    for layer in (head.context, head.whole[0], head.whole[2]):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    local = torch.zeros(1, 8, 1008)
    local[0, :, 500] = torch.arange(8.0)
    moved = torch.roll(local, 25, dims=2)
    tokens = torch.zeros(1, SMALL.tokens, SMALL.width)
    at_rest, shifted = head(local, tokens)[0], head(moved, tokens)[0]
    constant = head(torch.zeros_like(local), tokens)[0]
    torch.testing.assert_close((shifted - constant)[25:], (at_rest - constant)[:-25], rtol=1e-3, atol=1e-5)
    assert len(at_rest) == N_BINS


@torch.inference_mode()
def test_rest_frame_spectra_move_with_the_redshift():
    rest = RestFrame(SMALL)
    place = np.arange(rest.size)
    line = np.exp(-0.5 * ((place - 1000.0) / 3.0) ** 2)
    rest.spectra.copy_(torch.from_numpy(np.tile(line, (3, 1))))
    z = torch.tensor([0.0, 0.3, 0.50003])
    seen = rest(torch.ones(3, SMALL.tokens, SMALL.width), z).numpy()
    middle = np.log(GRIDS["log"].wavelength)
    at = (seen * middle).sum(axis=1) / seen.sum(axis=1)
    np.testing.assert_allclose(at - at[0], np.log1p(z.numpy()), atol=1e-5)


def test_what_shifts_with_the_redshift_is_refused_on_pixels_even_in_wavelength():
    with pytest.raises(ValueError, match=r"bins need steps of 0\.001"):
        SpecPT(dataclasses.replace(SMALL, grid="desi"))
    with pytest.raises(ValueError, match="rest-frame spectra need"):
        SpecPT(dataclasses.replace(SMALL, grid="desi", redshift=("softplus",)))


def test_the_configuration_survives_its_json():
    for config in PRESETS.values():
        assert from_mapping(SpecPTConfig, json.loads(json.dumps(asdict(config)))) == config


def test_spectra_are_read_in_units_of_their_median():
    flux = np.array([[2.0, 4.0, 8.0, 99.0], [1.0, 1.0, 1.0, 1.0], [-1.0, -2.0, -3.0, 5.0]], np.float32)
    ivar = np.array([[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]], np.float32)
    scaled, weight, median = standardise(flux, ivar)
    assert median[0] == 4.0
    np.testing.assert_allclose(scaled[0, :3], (0.5, 1.0, 2.0))
    np.testing.assert_allclose(weight[0], (16.0, 16.0, 16.0, 0.0))
    assert np.isnan(median[1:]).all()
    assert not weight[1:].any()


def test_pixels_that_are_not_used_look_alike_whatever_they_hold():
    flux = torch.tensor([[1.0, 5.0], [1.0, -7.0]])
    ivar = torch.tensor([[4.0, 0.0], [4.0, 0.0]])
    x = input_channels(flux, ivar)
    torch.testing.assert_close(x[0], x[1])
    assert not x[..., 1].any()
