"""Bands are hidden in turn, compared with the truth, and their errors calibrated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.flows.evaluation.bands import COLUMNS, band_measures, main
from ojala.flows.mocks.library import load_sky, save_library
from ojala.flows.training.calibrate import calibrate_weights
from ojala.models.data import LabelledPhotometry
from ojala.models.evaluation.card import render
from ojala.models.ojala.checkpoint import load, save
from ojala.models.ojala.network import PRESETS, Ojala
from ojala.models.ojala.tokens import N_BANDS, tokenise
from tests.models.simulation.small_library import box_curves, libraries

pytestmark = pytest.mark.integration


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


def test_weights_are_calibrated_for_bands_and_the_command_prints_them(library, tmp_path, capsys):
    sky = load_sky(library)
    shape = replace(PRESETS["base"], width=16, encoder=((2, 32),), decoder=((2, 32),), trunk=(32,))
    torch.manual_seed(1)
    model = Ojala(shape)
    drawn = sky.draw(500, np.random.default_rng(2))
    model.tokens.fit(tokenise(drawn.flux, drawn.error, drawn.ebv))
    weights = tmp_path / "tiny.safetensors"
    save(weights, model, name="tiny", version="1", training={"draws": 0})
    measures = calibrate_weights(weights, sky, draws=900)
    off = {stage: abs(measures[stage]["bands"]["within_68"] - 0.683) for stage in ("before", "after")}
    assert off["after"] < 0.03 < off["before"]
    assert "| bands |" in render("ojala/calibration.md.j2", measures=measures)
    assert (load(weights)[1].calibration.band_log_factor != 0).any()
    main(["--library", str(library), "--weights", str(weights), "--draws", "200"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "| band | " + " | ".join(COLUMNS) + " |"
    assert len(printed) == 2 + N_BANDS + 1 + 2
    assert "median of chi2_bands" in printed[-1]
