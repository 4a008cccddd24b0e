"""Runs of OJALA with predicted bands, by an untrained network: the product, and nothing else changed."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.catalogs_schema.contract import NONE
from ojala.catalogs_schema.ojala import OJALA, OJALA_BANDS, predicted_flux
from ojala.models.data import CALIBRATION_FLOOR
from ojala.models.ojala.checkpoint import save
from ojala.models.ojala.network import PRESETS, Ojala
from ojala.models.ojala.tokens import tokenise
from ojala.pipeline.inference.adapters.base import ModelError
from ojala.pipeline.quality.verify import verify
from ojala.pipeline.runs.config import ConfigError, RunConfig, read_config
from ojala.pipeline.runs.receipts import all_receipts
from ojala.pipeline.storage.hats import read_leaves
from tests.helpers.survey import ingest_table, photometry_table, plan_run, run_and_publish
from tests.helpers.survey import replace as replaced

pytestmark = pytest.mark.integration

N = 120
COMPARISON = ["chi2_bands", "n_chi2_bands", "worst_band", "worst_band_sigma"]


@pytest.fixture(scope="module")
def photometry(tmp_path_factory):
    """Objects of one tile; the first has no band at all."""
    table = photometry_table(N)
    for band in MODEL_BANDS:
        table = replaced(replaced(table, band.flux_column, 0, None), band.error_column, 0, None)
    return ingest_table(table, tmp_path_factory.mktemp("bands"), 1000)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(5)
    shape = replace(PRESETS["base"], width=128, encoder=((2, 32),), decoder=((2, 32),), trunk=(32,))
    model = Ojala(shape)
    rng = np.random.default_rng(1)
    flux = rng.lognormal(2.0, 1.0, (300, len(MODEL_BANDS))).astype(np.float32)
    model.tokens.fit(tokenise(flux, 0.1 * flux, np.zeros(300, np.float32)))
    with torch.no_grad():  # sure of the usual flux of each band, so that residuals stand out of the errors
        model.heads["bands"].weight.mul_(0.1)
        model.heads["bands"].bias[1] = -3.0
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save(path, model, name="small", version="9.9", training={})
    return path


def configured(photometry, weights, out, **changed):
    return RunConfig(
        photometry=str(photometry), weights=str(weights), out=str(out), engine="serial", **changed
    )


def counted(monkeypatch):
    """Number of encodings so far, as a list of one."""
    calls, encode = [0], Ojala.encode

    def counting(self, *arguments):
        calls[0] += 1
        return encode(self, *arguments)

    monkeypatch.setattr(Ojala, "encode", counting)
    return calls


@pytest.fixture(scope="module")
def runs(photometry, weights, tmp_path_factory):
    """Runs with and without bands, and their encodings."""
    made = {}
    for bands in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            calls = counted(patch)
            config = configured(photometry, weights, tmp_path_factory.mktemp("out"), bands=bands)
            made[bands] = run_and_publish(config, report=bands), calls[0]
    return made


def product(run, name):
    return rows_of(run.run / name)


def rows_of(catalogue):
    paths = [(catalogue / leaf.leaf).path for leaf in read_leaves(catalogue)]
    return pa.concat_tables(pq.read_table(path, partitioning=None) for path in paths).sort_by("object_id")


def test_the_product_is_whole_and_in_the_units_of_the_photometry(runs, photometry):
    run, _ = runs[True]
    assert run.record.status == "complete"
    assert run.record.products == ("ojala", "ojala_bands")
    assert list(verify(run.out)) == []
    made, main = product(run, "ojala_bands"), product(run, "ojala")
    assert OJALA_BANDS.violations(made) == []
    given = rows_of(photometry)
    chi2, count, worst = np.zeros(N), np.zeros(N, int), np.zeros((N, len(MODEL_BANDS)))
    for k, band in enumerate(MODEL_BANDS):
        flux, error, predicted, its_error = (
            table[name].to_numpy(zero_copy_only=False).astype(float)
            for table, name in (
                (given, band.flux_column),
                (given, band.error_column),
                (made, predicted_flux(band)),
                (made, f"{predicted_flux(band)}_err"),
            )
        )
        assert np.isnan(predicted[0])
        assert np.isfinite(predicted[1:]).all()
        sigma = (flux - predicted) / np.hypot(np.maximum(error, CALIBRATION_FLOOR * np.abs(flux)), its_error)
        chi2, count = chi2 + np.nan_to_num(sigma) ** 2, count + np.isfinite(sigma)
        worst[:, k] = np.nan_to_num(np.abs(sigma))
    np.testing.assert_allclose(main["chi2_bands"].to_numpy(zero_copy_only=False)[1:], chi2[1:], rtol=1e-3)
    assert main["n_chi2_bands"].to_pylist() == [None, *count[1:].tolist()]
    assert main["worst_band"].to_pylist() == [NONE, *(MODEL_BANDS[k].name for k in worst[1:].argmax(axis=1))]
    largest = main["worst_band_sigma"].to_numpy(zero_copy_only=False)
    np.testing.assert_allclose(np.abs(largest[1:]), worst[1:].max(axis=1), rtol=1e-3)
    assert main["chi2_bands"][0].as_py() is main["worst_band_sigma"][0].as_py() is None


def test_without_bands_there_is_no_further_pass_and_nothing_else_differs(runs):
    (with_bands, many), (without, one) = runs[True], runs[False]
    partitions = len(without.plan.entries)
    assert (one, many) == (partitions, 10 * partitions)
    both = product(with_bands, "ojala"), product(without, "ojala")
    assert both[0].drop_columns(COMPARISON).equals(both[1].drop_columns(COMPARISON))
    assert set(both[1]["worst_band"].to_pylist()) == {NONE}
    assert all(both[1][name].null_count == N for name in COMPARISON if name != "worst_band")
    assert OJALA.violations(both[1]) == []
    assert [receipt.summary.band_residuals for receipt in all_receipts(without.run)] == [{}]


def test_receipts_page_and_gates_have_the_residuals_of_the_tile(runs):
    run, _ = runs[True]
    (receipt,) = all_receipts(run.run)
    residuals = receipt.summary.band_residuals["7"]
    assert residuals.rows == N
    assert residuals.ra == pytest.approx(245.5, abs=0.2)
    assert "Zero points" in (run.run / "report" / "index.html").read_text()
    assert (run.run / "report" / "zero_points.csv").exists()


def test_weights_without_band_requests_are_refused_when_planning(photometry, tmp_path):
    shape = replace(PRESETS["base"], encoder=((2, 32),), decoder=((2, 32),), trunk=(32,), band_requests=False)
    path = tmp_path / "old.safetensors"
    save(path, Ojala(shape), name="old", version="0.3", training={})
    config = configured(photometry, path, tmp_path / "out", bands=True)
    with pytest.raises(ModelError, match=r"old.safetensors: .* weights of version 0.4 or later.* --bands"):
        plan_run(config)
    assert not (tmp_path / "out").exists()


def test_models_that_cannot_be_asked_for_bands_refuse_the_option(photometry, tmp_path):
    with pytest.raises(ConfigError, match="model empty has no use for bands: leave --bands out"):
        read_config(None, {"photometry": str(photometry), "out": "o", "model": "empty", "bands": True})
