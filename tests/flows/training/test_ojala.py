"""Settings of a training are read from TOML, and a mistake in them is named."""

import inspect
import tomllib
from pathlib import Path

import numpy as np
import pytest

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.flows.train import train
from ojala.flows.training.ojala import ObservedPhotometry, train_from
from ojala.models.ojala.training import OjalaTraining
from ojala.models.settings import from_mapping
from tests.helpers.survey import ingest_table, photometry_table

SETTINGS = Path(__file__).parents[3] / "flows" / "training" / "configs" / "ojala.toml"


def test_the_settings_of_the_bundled_weights_are_whole():
    config = from_mapping(OjalaTraining, tomllib.loads(SETTINGS.read_text()))
    assert config.name == "ojala-base"
    assert config.preset == "base"
    assert isinstance(config, OjalaTraining)


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


def test_a_server_is_told_of_a_training_all_that_a_command_is():
    told = train.parameters.properties
    assert set(told) == set(inspect.signature(train_from).parameters) - {"report"}
    assert all(parameter["description"] for parameter in told.values())
    assert train.parameters.required == ["settings", "library", "folder"]


def test_rows_of_a_catalogue_are_drawn_as_they_were_measured_and_without_labels(tmp_path):
    table = photometry_table(50)
    drawn = ObservedPhotometry(ingest_table(table, tmp_path, tile_rows=20)).draw(
        400, np.random.default_rng(1)
    )
    measured = np.stack([table[band.flux_column].to_numpy() for band in MODEL_BANDS], axis=1)
    rows, given = ({tuple(row) for row in np.nan_to_num(flux)} for flux in (drawn.flux, measured))
    assert rows == given, "every row, and nothing else"
    assert (drawn.class_code == -1).all()
    assert drawn.labels == {}
