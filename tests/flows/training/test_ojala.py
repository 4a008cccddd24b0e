"""Settings of a training are read from TOML, and a mistake in them is named."""

import inspect
import json
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.flows.mocks.library import save_library
from ojala.flows.train import train
from ojala.flows.training.avis import train_from as train_avis
from ojala.flows.training.learning_curve import learning_curve
from ojala.flows.training.ojala import CURVE_CHECKS, CURVE_LOSSES, ObservedPhotometry, train_from
from ojala.models.ojala.network import PRESETS
from ojala.models.ojala.training import OjalaTraining
from ojala.models.settings import from_mapping
from tests.helpers.survey import ingest_table, photometry_table
from tests.models.simulation.small_library import box_curves, libraries

pytestmark = pytest.mark.integration

CONFIGS = Path(__file__).parents[3] / "flows" / "training" / "configs"


@pytest.mark.parametrize("settings", ["ojala.toml", "ojala_0_4.toml"])
def test_the_settings_of_the_bundled_weights_are_whole(settings):
    config = from_mapping(OjalaTraining, tomllib.loads((CONFIGS / settings).read_text()))
    assert config.name == "ojala-base"
    assert config.preset == "base"
    assert isinstance(config, OjalaTraining)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("lerning_rate = 1e-3", "unknown settings: lerning_rate"),
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
    inputs = [set(inspect.signature(training).parameters) for training in (train_from, train_avis)]
    assert set(told) == set.union(*inputs) - {"report"} | {"model"}
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


def test_the_learning_curve_is_a_picture_of_the_records(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    checks = {"z_gal": {"sigma_nmad": 0.01, "outliers_15": 0.1}, "log_mass": {"nmad": 0.2}}
    records = [{"step": k, "loss": {"class": 1.0 / k, "z_gal": 4.0}} for k in range(1, 100)]
    records += [{"step": 50, "held_out": checks}, {"step": 99, "held_out": checks}]
    metrics.write_text("".join(json.dumps(record) + "\n" for record in records))
    picture = learning_curve(metrics, 128, CURVE_LOSSES, CURVE_CHECKS)
    assert picture.startswith(b"<?xml")
    assert picture.count(b'<g id="line2d') > 5
    assert learning_curve(metrics, 128, CURVE_LOSSES, CURVE_CHECKS) == picture, (
        "the same records give the same bytes"
    )
    metrics.write_text(json.dumps(records[0]) + "\n")
    assert learning_curve(metrics, 128, CURVE_LOSSES, CURVE_CHECKS).startswith(b"<?xml")


def test_a_training_from_settings_leaves_weights_card_and_curve(tmp_path, monkeypatch):
    library = tmp_path / "library.npz"
    save_library(library, libraries(), box_curves())
    shape = replace(PRESETS["base"], width=16, encoder=((2, 32),), decoder=((2, 32),), trunk=(32,))
    monkeypatch.setitem(PRESETS, "tiny", shape)
    settings = tmp_path / "mine.toml"
    settings.write_text(
        'name = "mine"\npreset = "tiny"\nsteps = 2\nbatch_size = 32\nheld_out = 200\n'
        "bf16 = false\ncompiled = false"
    )
    weights = train_from(settings, library=library, folder=tmp_path / "run")
    assert "![Learning curve](mine.svg)" in weights.with_suffix(".md").read_text()
    assert weights.with_suffix(".svg").read_bytes().startswith(b"<?xml")
