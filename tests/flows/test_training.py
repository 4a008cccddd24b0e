"""Settings of a training are read from TOML, and a mistake in them is named."""

import tomllib
from pathlib import Path

import pytest

from flows.training import train_from
from models.training import TrainingConfig, config_from

SETTINGS = Path(__file__).parents[2] / "flows" / "training.toml"


def test_the_settings_of_the_bundled_weights_are_whole():
    config = config_from(tomllib.loads(SETTINGS.read_text()))
    assert config.name == "ojala-base"
    assert config.preset == "base"
    assert isinstance(config, TrainingConfig)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("lerning_rate = 1e-3", "unknown training settings: lerning_rate"),
        ("steps = ", "Invalid value"),
        ('preset = "gigantic"', "unknown preset 'gigantic'"),
    ],
)
def test_a_mistake_in_the_settings_is_named_with_the_file(text, complaint, tmp_path):
    settings = tmp_path / "mine.toml"
    settings.write_text(text)
    with pytest.raises(ValueError, match=rf"mine\.toml: .*{complaint}"):
        train_from(settings, library=tmp_path / "library.npz", folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()
