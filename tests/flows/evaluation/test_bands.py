"""Bands are hidden in turn, compared with the truth, and their errors calibrated."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.flows.evaluation.bands import COLUMNS, band_measures, main, zero_point_table
from ojala.flows.mocks.library import load_sky, save_library
from ojala.flows.training.calibrate import calibrate_weights
from ojala.models.data import LabelledPhotometry
from ojala.models.evaluation.card import render
from ojala.models.ojala.checkpoint import load, save
from ojala.models.ojala.network import PRESETS, Ojala
from ojala.models.ojala.tokens import N_BANDS, tokenise
from tests.models.simulation.small_library import box_curves, libraries

pytestmark = pytest.mark.integration

BAND = [band.name for band in MODEL_BANDS].index("J0660")


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("library") / "library.npz"
    save_library(path, libraries(), box_curves())
    return path


def test_errors_that_hold_the_truth_as_often_as_they_say_are_told_from_those_that_do_not():
    rng, n = np.random.default_rng(1), 3000
    true = rng.uniform(5.0, 20.0, (n, N_BANDS)).astype(np.float32)
    flux = np.where(rng.random(true.shape) < 0.5, true, np.nan).astype(np.float32)
    flux[:, 3] = np.nan
    scatter = np.where(np.arange(N_BANDS) == 7, 2.0, 1.0)
    found = {
        "band_flux": true + scatter * rng.standard_normal(true.shape),
        "band_flux_err": np.ones_like(true),
        "band_sigma": np.where(np.isfinite(flux), rng.standard_normal(true.shape), np.nan),
    }
    drawn = LabelledPhotometry(flux, flux, np.zeros(n), np.zeros(n, np.int64), {}, true, 0.0 * true)
    measures = band_measures(found, drawn)
    assert set(measures) == {band.name for band in MODEL_BANDS} | {"all"}
    good, poor, nothing = (measures[MODEL_BANDS[k].name] for k in (10, 7, 3))
    assert good["sigma_nmad"] == pytest.approx(1.0, abs=0.06)
    assert good["within_68"] == pytest.approx(0.683, abs=0.04)
    assert good["unobserved_within_68"] == pytest.approx(0.683, abs=0.04)
    assert poor["sigma_nmad"] == pytest.approx(2.0, abs=0.12)
    assert poor["within_68"] < 0.45
    assert nothing["n"] == 0
    assert np.isnan(nothing["sigma_nmad"])
    with pytest.raises(ValueError, match="noiseless"):
        band_measures(found, replace(drawn, noiseless=None))


def test_a_moved_zero_point_is_told_from_one_that_was_not_moved():
    rng, tiles, objects = np.random.default_rng(4), 4, 2000
    true = (10 ** rng.uniform(0.5, 2.5, (tiles * objects, 1)) * np.ones(N_BANDS)).astype(np.float32)
    error = (0.5 + 0.02 * true).astype(np.float32)
    flux = true + error * rng.standard_normal(true.shape).astype(np.float32)
    nothing = np.zeros(len(true), np.float32)

    class Model:
        """Predicts all bands 1 % too bright."""

        def predict_bands(self, flux, error, ebv):
            own = true[: len(flux)]
            noise = np.random.default_rng(6).standard_normal(own.shape)
            return {"band_flux": own * (1.01 + 0.05 * noise), "band_flux_err": 0.05 * own}

    drawn = LabelledPhotometry(flux, error, nothing, nothing.astype(np.int64), {}, true, 0.0 * true)
    moved, plain = zero_point_table(Model(), drawn, tiles, BAND, (1.03, 1.0)).values()
    last = re.fullmatch(r"J0660 of tile 0: \+(.*)% \(\+(.*) sigma\); gate: warn", moved.splitlines()[-1])
    assert float(last[1]) == pytest.approx(3.0, abs=0.7)
    assert float(last[2]) > 5.0
    assert [line.split(" | ")[-1] for line in moved.splitlines()[2:6]] == ["J0660 |", *["- |"] * 3]
    assert plain.splitlines()[-1].endswith("gate: pass")


def test_weights_are_calibrated_for_bands_and_the_command_prints_them(library, tmp_path, capsys):
    sky = load_sky(library)
    shape = replace(PRESETS["base"], width=16, encoder=((2, 32),), decoder=((2, 32),), trunk=(32,))
    torch.manual_seed(1)
    model = Ojala(shape)
    drawn = sky.draw(500, np.random.default_rng(2))
    model.tokens.fit(tokenise(drawn.flux, drawn.error, drawn.ebv))
    weights = tmp_path / "tiny.safetensors"
    save(weights, model, name="tiny", version="1", training={"draws": 0})
    measures = calibrate_weights(weights, sky, draws=1800)
    off = {stage: abs(measures[stage]["bands"]["within_68"] - 0.683) for stage in ("before", "after")}
    assert off["after"] < 0.03 < off["before"]
    assert "| bands |" in render("ojala/calibration.md.j2", measures=measures)
    assert (load(weights)[1].calibration.band_log_factor != 0).any()
    arguments = ["--library", str(library), "--weights", str(weights), "--draws", "200"]
    main(arguments)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "| band | " + " | ".join(COLUMNS) + " |"
    assert len(printed) == 2 + N_BANDS + 1 + 2
    assert "median of chi2_bands" in printed[-1]
    main([*arguments, "--moved", "J0660", "--tiles", "2", "--tile-objects", "60"])
    text = capsys.readouterr().out
    assert text.count("zero point of J0660 in tile 0 times ") == 2
