"""Adaptation of weights to a survey's photometry."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from upath import UPath

from ojala.catalogs_schema.errors import InputError
from ojala.flows.cli.app import app
from ojala.flows.mocks.library import load_sky, photometry_table, save_library, truth_table
from ojala.flows.training import adapt as adaptation
from ojala.flows.training.adapt import ADDED_NOISE, LabelledSky, adapt
from ojala.flows.training.calibrate import calibrate_weights
from ojala.flows.training.labelled import labelled_rows
from ojala.models.data import LabelledPhotometry
from ojala.models.ojala.checkpoint import load, save
from ojala.models.ojala.network import PRESETS, Ojala
from ojala.models.simulation.skies.mixed import MixedSky
from ojala.pipeline.ingest.photometry import ingest_photometry
from ojala.pipeline.quality.validation.truth import read_truth
from tests.models.simulation.small_library import box_curves, libraries

pytestmark = [pytest.mark.integration, pytest.mark.processor]

ROWS, LABELLED = 400, 300


@dataclass(frozen=True)
class Survey:
    """A catalogue with labels, and weights that were trained on nothing."""

    library: Path
    weights: Path
    photometry: UPath
    truth: Path


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapt")
    shape = replace(PRESETS["base"], width=16, encoder=((2, 32),), decoder=((2, 32),), trunk=(32,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", shape)
        patch.setattr(adaptation, "MOCKS_TO_MEASURE", 200)
        # Each calibration on mocks draws some ten thousand otherwise.
        patch.setattr(
            adaptation, "calibrate_weights", lambda weights, sky: calibrate_weights(weights, sky, draws=1200)
        )
        save_library(folder / "library.npz", libraries(), box_curves())
        sky = load_sky(folder / "library.npz")
        rng = np.random.default_rng(5)
        drawn = sky.draw(ROWS, rng)
        ra, dec = 245.0 + rng.random(ROWS), 43.0 + rng.random(ROWS)
        pq.write_table(photometry_table(drawn, ra, dec, 7), folder / "input.parquet")
        pq.write_table(truth_table(drawn, 7).slice(0, LABELLED), folder / "truth.parquet")
        ingest_photometry([UPath(folder / "input.parquet")], UPath(folder / "photometry"))
        torch.manual_seed(1)
        save(folder / "start.safetensors", Ojala(shape), name="start", version="1", training={})
        yield Survey(
            folder / "library.npz",
            folder / "start.safetensors",
            UPath(folder / "photometry"),
            folder / "truth.parquet",
        )


SETTINGS = (
    'name = "mine"\nparts = ["tokens", "encoder"]\nsteps = 3\nbatch_size = 64\nheld_out = 200\nwarm_up = 1\n'
    "learning_rate = 1e-2\ndiscrepancy = 0.2\nbf16 = false\ncompiled = false\nema_decay = 0.1\n"
)


def test_the_encoder_is_adapted_the_rest_stays_and_the_card_states_the_gain(survey, tmp_path):
    settings = tmp_path / "adapt.toml"
    settings.write_text(SETTINGS)
    adapted = adapt(
        settings,
        weights=survey.weights,
        photometry=survey.photometry,
        truth=survey.truth,
        library=survey.library,
        folder=tmp_path / "run",
    )
    before, after = load(survey.weights)[0].state_dict(), load(adapted)[0].state_dict()
    changed = {
        name.partition(".")[0] for name, tensor in after.items() if not torch.equal(tensor, before[name])
    }
    assert changed == {"tokens", "encoder"}
    calibration = load(adapted)[1].calibration
    assert calibration is not None
    card = adapted.with_suffix(".md").read_text()
    assert f"| {LABELLED * 15 // 100} labelled objects, before |" in card
    assert "| 200 mocks, after |" in card
    assert f"{int(0.7 * LABELLED)} labelled objects of photometry" in card
    assert adapted.with_suffix(".svg").exists()


def test_labels_decide_about_classes_and_redshifts_and_mocks_about_all_else(survey, tmp_path):
    sky, rows = load_sky(survey.library), labelled_rows(survey.photometry, read_truth(UPath(survey.truth)))
    assert len(rows) == LABELLED
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(survey.weights.read_bytes())
    calibrate_weights(weights, sky, draws=1200)
    model, info = load(weights)
    few = rows.rows(np.flatnonzero((rows.class_code != 2) | (np.arange(len(rows)) < 30)))
    mixed = adaptation._calibrate(info.calibration, adaptation.predict_uncalibrated(model, few))
    same = {
        name
        for name, tensor in mixed.tensors().items()
        if torch.equal(tensor, info.calibration.tensors()[name])
    }
    assert {"scalar_log_factor", "band_log_factor", "redshift_kernel", "knots"} <= same
    assert not {"class_bias", "redshift_population"} & same
    assert torch.equal(mixed.redshift_population[1], info.calibration.redshift_population[1]), (
        "too few quasars"
    )


def test_labelled_objects_are_drawn_as_often_as_their_class_occurs_in_the_loss():
    code = np.repeat([0, 2], [90, 10])
    flux = np.ones((100, 63), np.float32)
    objects = LabelledPhotometry(flux, flux, np.zeros(100, np.float32), code, {})
    drawn = LabelledSky(objects, (2.0, 1.0, 0.5)).draw(20_000, np.random.default_rng(1))
    weight = np.array([2.0, 1.0, 0.5])[drawn.class_code]
    assert weight[drawn.class_code == 2].sum() / weight.sum() == pytest.approx(0.1, abs=0.01)
    assert np.std(drawn.flux) == pytest.approx(ADDED_NOISE, rel=0.02)
    assert drawn.error[0, 0] == pytest.approx(np.hypot(1.0, ADDED_NOISE))


def test_what_one_source_does_not_know_is_unknown_in_the_mix(survey):
    objects = labelled_rows(survey.photometry, read_truth(UPath(survey.truth)))
    sky = MixedSky(load_sky(survey.library), LabelledSky(objects, (1.0, 1.0, 1.0)), 0.5)
    drawn = sky.draw(200, np.random.default_rng(2))
    known = np.isfinite(drawn.noiseless).all(axis=1)
    assert 60 < known.sum() < 140
    assert np.isnan(drawn.noiseless[~known]).all()


def test_too_few_labels_are_an_error_that_names_the_file(survey, tmp_path):
    truth = tmp_path / "few.parquet"
    pq.write_table(pq.read_table(survey.truth).slice(0, 20), truth)
    with pytest.raises(InputError, match=r"few\.parquet: 20 objects of known class .* at least 100"):
        labelled_rows(survey.photometry, read_truth(UPath(truth)))


def test_a_part_that_the_network_lacks_is_an_error(survey, tmp_path):
    settings = tmp_path / "adapt.toml"
    settings.write_text(SETTINGS.replace('"tokens"', '"tokenz"'))
    with pytest.raises(InputError, match=r"the network has no tokenz; it has tokens, "):
        adapt(
            settings,
            weights=survey.weights,
            photometry=survey.photometry,
            truth=survey.truth,
            library=survey.library,
            folder=tmp_path / "run",
        )


def test_the_command_is_there(capsys):
    with pytest.raises(SystemExit):
        app(["adapt", "--help"])
    assert "--truth" in capsys.readouterr().out
