"""The published OJALÁ over a survey: run, released, verified and validated as any other model."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

import ojala
from ojala.catalogs_schema.bands import BANDS, MODEL_BANDS
from ojala.catalogs_schema.ojala_published import DISTINCT, OJALA_PUBLISHED, PublishedFlag
from ojala.models.ojala_published import Predictor, convert
from ojala.models.ojala_published.derived import derived_columns
from ojala.pipeline.inference.adapters.base import ModelError
from ojala.pipeline.inference.adapters.registry import ADAPTERS
from ojala.pipeline.quality.validation.locate import locate, match
from ojala.pipeline.quality.validation.truth import read_truth
from ojala.pipeline.quality.verify import verify
from ojala.pipeline.runs.config import ConfigError, RunConfig, read_config
from ojala.pipeline.runs.region import parse_region
from ojala.pipeline.storage.hats import read_leaves
from tests.helpers.published import stand_in, write_checkpoint
from tests.helpers.survey import ingest_table, photometry_table, plan_run, run_and_publish

pytestmark = [pytest.mark.integration, pytest.mark.processor]

N = 60


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("weights"), stand_in())


@pytest.fixture(scope="module")
def photometry(tmp_path_factory):
    """Sixty objects, of which some lack bands, iSDSS or the Kron flux."""
    table = photometry_table(N)
    kron = np.where(np.arange(N) < 10, np.nan, np.arange(N) + 10.0).astype(np.float32)
    table = table.append_column("flux_isdss_auto", pa.array(kron, from_pandas=True))
    columns = {name: table[name].to_numpy(zero_copy_only=False).copy() for name in table.column_names}
    for band in BANDS:
        columns[band.flux_column][20] = columns[band.error_column][20] = np.nan
    columns["flux_j0500"][21], columns["flux_j0500_err"][21] = np.inf, 1.0
    columns["flux_isdss"][22] = np.nan
    columns["flux_ls_g"][23], columns["flux_ls_g_err"][23] = 3631e6 * 10**-39.6, 1.0
    columns = {
        name: pa.array(values, table[name].type, from_pandas=True)
        if name.startswith("flux_")
        else table[name]
        for name, values in columns.items()
    }
    return ingest_table(pa.table(columns), tmp_path_factory.mktemp("sky"), tile_rows=40)


def settings(photometry, weights, out, **changes):
    given = {"photometry": str(photometry), "out": str(out), "model": "ojala-published", "engine": "serial"}
    # A batch that is not full costs as much as one that is.
    return read_config(None, given | {"weights": str(weights), "batch_size": 16} | changes)


@pytest.fixture(scope="module")
def finished(photometry, weights, tmp_path_factory):
    return run_and_publish(settings(photometry, weights, tmp_path_factory.mktemp("out") / "c"), report=True)


def rows_of(root):
    tables = [pq.read_table((root / partition.leaf).path) for partition in read_leaves(root)]
    return pa.concat_tables(tables).sort_by("number")


def test_a_run_writes_the_published_columns_of_every_row(finished, photometry, weights):
    assert finished.record.status == "complete"
    made, source = rows_of(finished.run / "ojala_published"), rows_of(photometry)
    assert made["object_id"].to_pylist() == source["object_id"].to_pylist()
    assert not OJALA_PUBLISHED.violations(made)
    assert [name for name in made.column_names if name in DISTINCT] == list(DISTINCT)

    adapter = ADAPTERS["ojala-published"]
    values, kron = adapter.read_inputs(source).script_columns()
    expected = Predictor.load(weights).predict(values)
    for name in ("Z_GAL", "TEFF", "HALPHA_CONT_ERR", "P_QSO"):
        np.testing.assert_allclose(made[name].to_numpy(), expected[name], rtol=1e-3, atol=1e-4)
    stored = {name: made[name].to_numpy() for name in DISTINCT if name != "CLASS"}
    derived = derived_columns(stored, kron)
    for name, column in derived.items():
        np.testing.assert_allclose(made[name].to_numpy(), column, rtol=1e-12, err_msg=name)
    assert (made["FLUX_HALPHA"].to_numpy()[:10] == 0).all(), "without a Kron flux"


def test_flags_tell_the_rows_that_should_not_be_trusted(finished):
    flags = rows_of(finished.run / "ojala_published")["published_flags"].to_numpy()
    names = [{flag.name for flag in PublishedFlag if mask & flag} for mask in flags]
    assert {"NO_BANDS", "NO_REFERENCE_BAND"} <= names[20]
    assert "BAND_REJECTED" in names[21]
    assert "NO_REFERENCE_BAND" in names[22]
    assert "ABSURD_INPUT" in names[23]
    assert [row for row in range(N) if "NO_KRON_FLUX" in names[row]] == list(range(10))
    assert sum("NO_BANDS" in one for one in names) == 1


def test_receipts_and_record_name_the_files_of_the_user(finished, weights):
    import hashlib

    sha256 = {
        file: hashlib.sha256((weights.parent / file).read_bytes()).hexdigest()
        for file in ("weights.pt", "config.json")
    }
    assert finished.record.weights_sha256 == sha256["weights.pt"]
    assert finished.record.assets["config"] == sha256["config.json"]
    receipt = json.loads(next((finished.run / "receipts").rglob("*.json")).read_text())
    assert receipt["ingredients"]["weights_sha256"] == sha256["weights.pt"]
    assert receipt["model"].startswith("ojala-published ")
    assert set(receipt["summary"]["classes"]) == {"GALAXY", "STAR", "QSO", "none"}
    assert sum(receipt["summary"]["expected"].values()) == pytest.approx(receipt["rows_out"], rel=1e-3)


def test_a_release_is_verified_resumed_and_reprocessed_by_flag(finished):
    assert list(verify(finished.out)) == []
    assert plan_run(finished.config).to_do == []
    region = parse_region("flagged:NO_KRON_FLUX>0", finished.config.adapter.flags)
    assert plan_run(finished.config, region).states()["reprocess"] > 0
    page = (finished.run / "report" / "index.html").read_text()
    assert "the Kron flux in iSDSS is missing" in page


def test_another_option_or_config_makes_all_partitions_stale(finished, weights, tmp_path):
    changed = finished.config.model_copy(update={"options": ("extinction=correct",)})
    assert set(plan_run(changed).states()) == {"stale: configuration"}
    assert RunConfig.from_record(changed.to_record()) == changed
    default = finished.config.model_copy(update={"options": ("extinction=keep",)})
    assert plan_run(default).to_do == []
    for file in weights.parent.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text + "\n")
    other = finished.config.model_copy(update={"weights": str(tmp_path / "weights.pt")})
    assert set(plan_run(other).states()) == {"stale: configuration"}


def test_with_its_wavelength_bias_it_is_another_product(photometry, weights, tmp_path, finished):
    converted = tmp_path / "w.safetensors"
    convert(weights, converted)
    config = settings(photometry, converted, tmp_path / "c", model="ojala-published-bias")
    made = run_and_publish(config)
    one, other = rows_of(finished.run / "ojala_published"), rows_of(made.run / "ojala_published_bias")
    receipt = json.loads(next((made.run / "receipts").rglob("*.json")).read_text())
    assert receipt["model"].startswith("ojala-published-bias ")
    assert np.abs(one["Z_GAL"].to_numpy() - other["Z_GAL"].to_numpy()).max() > 1e-3
    assert receipt["key"] != json.loads(next((finished.run / "receipts").rglob("*.json")).read_text())["key"]


def test_true_values_judge_the_published_columns(finished, tmp_path):
    made = rows_of(finished.run / "ojala_published")
    truth = pa.table(
        {
            "tile_id": made["tile_id"],
            "number": made["number"],
            "class": made["CLASS"],
            "z": made["Z_GAL"].cast(pa.float64()),
            "log_mass": made["LOGM"],
        }
    ).slice(30)
    pq.write_table(truth, tmp_path / "truth.parquet")
    matched = match(read_truth(UPath(tmp_path / "truth.parquet")), locate(finished.run), None)
    assert matched.rows.num_rows == N - 30
    assert matched.words("class").tolist() == matched.words("true_class").tolist()
    galaxies = matched.words("class") == "GALAXY"
    np.testing.assert_allclose(matched.numbers("z")[galaxies], matched.z_true[galaxies], rtol=1e-6)
    assert np.isnan(matched.numbers("z")[matched.words("class") == "STAR"]).all()


def test_what_is_missing_or_unknown_is_refused_with_a_remedy(photometry, weights, tmp_path):
    config = settings(photometry, weights, tmp_path / "c")
    with pytest.raises(ModelError, match=r"fetch weights.pt and config.json from https://github"):
        plan_run(config.model_copy(update={"weights": ""}))
    with pytest.raises(ConfigError, match="no option 'mag_i=total': choose from extinction=keep"):
        settings(photometry, weights, tmp_path / "c", options=("mag_i=total",))
    with pytest.raises(ConfigError, match="model ojala has no option 'a=b': leave --option out"):
        read_config(None, {"photometry": str(photometry), "out": "c", "options": ("a=b",)})
    with pytest.raises(ConfigError, match="an option is given twice"):
        settings(photometry, weights, tmp_path / "c", options=("mag_i=kron", "mag_i=aperture"))


def test_workers_need_the_very_files_of_the_plan(finished):
    spec = finished.config.spec()
    wanted = {asset.role: asset.sha256 for asset in spec.read_assets()}
    assert replace(spec, assets=tuple(wanted.items())).load().name == "ojala-published"
    with pytest.raises(ModelError, match=r"SHA-256 of config is .*: every worker needs the same files"):
        replace(spec, assets=tuple((wanted | {"config": "0" * 64}).items())).load()


def test_numbers_are_in_single_precision_on_every_device():
    for name in ("ojala-published", "ojala-published-bias"):
        for device in ("cpu", "cuda"):
            assert ADAPTERS[name].device_defaults(device)["precision"] == "fp32"


def test_a_catalogue_of_the_older_contract_is_read():
    table = photometry_table(3)
    inputs = ADAPTERS["ojala-published"].read_inputs(table)
    assert np.isnan(inputs.kron).all()
    assert inputs.flux.shape == (3, len(MODEL_BANDS))


def test_tables_in_memory_are_predicted_also_those_of_the_older_contract(photometry, weights, finished):
    source = rows_of(photometry)
    predictor = ojala.Predictor.load("ojala-published", weights=weights)
    made, stored = predictor.predict(source), rows_of(finished.run / "ojala_published")
    np.testing.assert_allclose(made["Z_GAL"].to_numpy(), stored["Z_GAL"].to_numpy(), rtol=1e-3, atol=1e-4)
    older = predictor.predict(source.drop_columns(["flux_isdss_auto", "flux_isdss_auto_err"]))
    assert (older["published_flags"].to_numpy() & PublishedFlag.NO_KRON_FLUX).all()
