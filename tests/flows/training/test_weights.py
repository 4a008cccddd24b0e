"""Weights get a calibration, a record of known objects and heads, and a catalogue shows it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from upath import UPath

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.flows.training.calibrate import calibrate_weights
from ojala.flows.training.finetune import finetune, head_card, mock_labels, table_labels
from ojala.models.data import LabelledPhotometry
from ojala.models.evaluation.card import render
from ojala.models.ojala.checkpoint import load, save
from ojala.models.ojala.heads import FineTuning
from ojala.models.ojala.network import Ojala, OjalaConfig
from ojala.models.ojala.predictor import OjalaPredictor
from ojala.models.ojala.tokens import N_BANDS, tokenise
from ojala.models.quantities import SCALARS
from ojala.models.settings import read_settings
from ojala.pipeline.inference.model_spec import ModelSpec
from ojala.pipeline.storage.hats import read_leaves

pytestmark = pytest.mark.integration

TINY = OjalaConfig(
    width=16, encoder=((2, 32),), decoder=((2, 32),), trunk=(32,), pre_norm=True, reads_errors=True
)


class Slopes:
    """A toy sky of three classes, whose quasars have a mass that is their slope."""

    def draw(self, n, rng, *, shares, held_out=False) -> LabelledPhotometry:
        code = rng.choice(3, n, p=shares)
        slope = rng.uniform(-1.5, 1.5, n)
        flux = 20.0 * np.exp((slope * 1.0)[:, None] * np.linspace(-1.0, 1.0, N_BANDS) + 0.3 * code[:, None])
        error = rng.uniform(0.2, 5.0, (n, 1)) * np.ones(N_BANDS)
        flux = (flux + error * rng.standard_normal(flux.shape)).astype(np.float32)

        def of(which: int, values: np.ndarray) -> np.ndarray:
            return np.where(code == which, values, np.nan).astype(np.float32)

        labels = {
            "z_gal": of(0, 1.0 + slope / 2),
            "z_qso": of(2, 2.0 + slope),
            "teff": of(1, 5e3 + 9e2 * slope),
        }
        labels["log_mbh"] = of(2, 8.5 + slope)
        return LabelledPhotometry(flux, error.astype(np.float32), np.zeros(n, np.float32), code, labels)


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    model = Ojala(TINY)
    toy = Slopes().draw(500, np.random.default_rng(0), shares=(0.4, 0.3, 0.3))
    model.tokens.fit(tokenise(toy.flux, toy.error, toy.ebv))
    save(tmp_path / "base.safetensors", model, name="tiny", version="1", training={"draws": 3})
    return tmp_path / "base.safetensors"


@pytest.fixture
def settings(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text(
        'name = "log_mbh"\ndescription = "black-hole mass"\nobject_class = "QSO"\ndraws = 600\nepochs = 30'
    )
    return read_settings(FineTuning, path)


def test_calibrated_weights_are_one_file_that_says_how_novel_an_object_is(weights):
    before = load(weights)[1]
    assert before.calibration is None
    measures = calibrate_weights(weights, Slopes(), draws=900)
    after = load(weights)[1]
    assert after.sha256 != before.sha256
    assert after.calibration is not None
    assert after.training["draws"] == 3
    assert after.training["calibrated"] == measures
    assert measures["after"]["z_gal"]["nll"] < measures["before"]["z_gal"]["nll"]
    assert "| z_gal |" in render("ojala/calibration.md.j2", measures=measures)
    toy = Slopes().draw(200, np.random.default_rng(5), shares=(0.4, 0.3, 0.3))
    answers = OjalaPredictor.load(weights).predict(toy.flux, toy.error, toy.ebv)
    assert (answers["novelty"] >= 0).all()
    assert (answers["novelty"] > 1).mean() < 0.1
    assert np.isnan(answers["log_mbh"]).all()
    strange = toy.flux * np.where(np.arange(N_BANDS) % 2, 5.0, 0.2).astype(np.float32)
    odd = OjalaPredictor.load(weights).predict(strange, toy.error, toy.ebv)["novelty"]
    assert np.median(odd) > np.median(answers["novelty"])


def test_floors_of_observed_objects_are_measured_and_stored(weights):
    observed = Slopes().draw(900, np.random.default_rng(8), shares=(0.4, 0.4, 0.2))
    rng = np.random.default_rng(9)
    observed.labels["teff"] *= 10.0 ** rng.normal(0.0, 0.3, len(observed)).astype(np.float32)
    measures = calibrate_weights(weights, Slopes(), observed=observed, draws=900)
    without, floored = (measures["observed"][how]["teff"] for how in ("without", "with"))
    assert without["within_68"] < 0.5
    assert floored["within_68"] == pytest.approx(0.683, abs=0.06)
    calibration = load(weights)[1].calibration
    assert calibration.scalar_log_floor.exp()[[q.name for q in SCALARS].index("teff")] > 1.0
    assert calibration.redshift_kernel.shape[0] == 2
    assert "| teff |" in render("ojala/calibration.md.j2", measures=measures)


def test_a_head_beside_the_weights_predictions_for_its_quantity(weights, settings):
    out = weights.with_name("base-log_mbh.safetensors")
    head = finetune(settings, mock_labels(Slopes(), settings), weights=weights, out=out)
    assert head.measures["head"]["std"] < 0.8 * head.measures["baseline"]["std"]
    card = out.with_suffix(".md").read_text()
    assert card == head_card(head, load(weights)[1])
    assert f"{head.measures['head']['std']:.3f}" in card
    spec = ModelSpec("ojala", str(weights))
    assert [(a.role, a.sha256) for a in spec.read_assets()[1:]] == [("head.log_mbh", head.sha256)]
    wanted = tuple((asset.role, asset.sha256) for asset in spec.read_assets())
    toy = Slopes().draw(100, np.random.default_rng(6), shares=(0.0, 0.0, 1.0))
    answers = spec.load().predict(toy.flux, toy.error, toy.ebv)
    assert np.corrcoef(answers["log_mbh"], toy.labels["log_mbh"])[0, 1] > 0.7
    assert (answers["log_mbh_err"] > 0).all()
    out.unlink()
    with pytest.raises(ValueError, match="every worker needs the same files"):
        ModelSpec("ojala", str(weights), assets=wanted).load()


def test_labels_of_ones_own_are_joined_by_key(photometry, tmp_path, settings):
    files = [photometry / partition.leaf for partition in read_leaves(photometry)]
    table = pa.concat_tables([pq.ParquetFile(pa.BufferReader(file.read_bytes())).read() for file in files])
    number = table["number"].to_numpy()
    truth = pa.table({"tile_id": table["tile_id"], "number": number[::-1], "log_mbh": number[::-1] / 100.0})
    pq.write_table(truth.slice(0, 200), tmp_path / "truth.parquet")
    labels = table_labels(UPath(photometry), tmp_path / "truth.parquet", settings)
    assert len(labels.train) + len(labels.test) == 200
    assert 20 < len(labels.test) < 60
    column = 56
    flux = {
        n / 100.0: f
        for n, f in zip(number.tolist(), table[MODEL_BANDS[column].flux_column].to_pylist(), strict=True)
    }
    for value, row in zip(labels.train.labels["log_mbh"], labels.train.flux, strict=True):
        expected = flux[round(float(value), 2)]
        assert (expected is None) == bool(np.isnan(row[column]))
        assert expected is None or row[column] == pytest.approx(expected)


def test_a_truth_file_that_does_not_fit_is_refused(photometry, tmp_path, settings):
    pq.write_table(pa.table({"tile_id": [1], "number": [1]}), tmp_path / "truth.parquet")
    with pytest.raises(ValueError, match=r"no column log_mbh; it has tile_id, number"):
        table_labels(UPath(photometry), tmp_path / "truth.parquet", settings)
    pq.write_table(pa.table({"tile_id": [-1], "number": [1], "log_mbh": [8.0]}), tmp_path / "truth.parquet")
    with pytest.raises(ValueError, match="none of its objects is in"):
        table_labels(UPath(photometry), tmp_path / "truth.parquet", settings)


def test_a_library_without_the_label_is_refused():
    tuning = FineTuning(name="spin", description="spin", object_class="QSO", draws=50)
    with pytest.raises(ValueError, match="the library's objects of class QSO have no spin"):
        mock_labels(Slopes(), tuning)
