from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ojala.flows.training import spectral_tokenizer
from ojala.flows.training import spectral_tokenizer as tokenizer_training
from ojala.flows.training.spectral_tokenizer import read_settings, train_from
from ojala.models.simulation.populations.population import Population
from ojala.models.spectral_tokenizer.checkpoint import load
from ojala.models.spectral_tokenizer.network import PRESETS, TokenizerConfig
from tests.models.simulation.small_library import libraries

pytestmark = pytest.mark.integration

SETTINGS = """
name = "small"
preset = "small"
minutes = 0.02
batch_size = 4
contrast = 0.1
seed = 3

[masking]
p_unmasked = 0.0

[heads]
minutes = 0.01
batch_size = 2

[heads.masking]
target_fraction = 0.0
p_bottleneck = 0.0
"""


def test_the_settings_that_are_shipped_have_two_stages():
    network, heads = read_settings(
        Path(__file__).parents[3] / "flows" / "training" / "configs" / "spectral_tokenizer.toml"
    )
    assert network.contrast > 0.0
    assert network.batch_size >= 64
    assert (heads.name, heads.version, heads.preset) == (network.name, network.version, network.preset)
    assert heads.masking.target_fraction == 0.0
    assert heads.seed != network.seed


def test_a_file_of_settings_becomes_calibrated_weights(tmp_path, monkeypatch):
    """Of a network, then of its heads, on a small library; asked again, it is done."""
    monkeypatch.setitem(PRESETS, "small", TokenizerConfig(width=32, heads=2, encoder=1, decoder=1, patch=64))
    small = SimpleNamespace(population=Population(libraries()))
    monkeypatch.setattr(tokenizer_training, "load_sky", lambda path: small)
    monkeypatch.setattr(tokenizer_training, "HELD_OUT", 6)
    monkeypatch.setattr(spectral_tokenizer, "DRAWS", 30)
    settings = tmp_path / "tokenizer.toml"
    settings.write_text(SETTINGS)
    records: list[dict[str, object]] = []
    weights = train_from(
        settings, library=tmp_path / "none.npz", folder=tmp_path / "out", report=records.append
    )
    *_, info = load(weights)
    assert info.error_scales is not None
    assert info.training["calibrated"]["draws"] == 120
    assert info.training["before"]["config"]["contrast"] == 0.1
    network = load(tmp_path / "out" / "network" / "small.safetensors")[0].network
    for name, tensor in load(weights)[0].network.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), network.state_dict()[name].numpy())
    steps = max(record["step"] for record in records if isinstance(record["step"], int))
    again = train_from(
        settings, library=tmp_path / "none.npz", folder=tmp_path / "out", report=records.append
    )
    assert max(record["step"] for record in records if isinstance(record["step"], int)) == steps
    assert load(again)[1].training == info.training


@pytest.mark.parametrize("wrong", ["epochs = 3\n", "[heads]\nepochs = 3\n", "[masking]\nepochs = 3\n"])
def test_a_wrong_setting_is_said_with_its_file(tmp_path, wrong):
    settings = tmp_path / "tokenizer.toml"
    settings.write_text(wrong)
    with pytest.raises(ValueError, match=r"tokenizer\.toml: unknown settings: .*epochs"):
        train_from(settings, library=tmp_path / "none.npz", folder=tmp_path)
