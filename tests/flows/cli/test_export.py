"""Redshift PDFs of the trained network on mocks: their widths, and the same PDFs in qp."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner
from upath import UPath

from ojala.catalogs_schema.ojala import PDF_BINS, PDF_COLUMNS, PDF_STEP
from ojala.catalogs_schema.redshift_pdfs import RedshiftPdfs
from ojala.flows.cli.app import app
from ojala.flows.demo.run import PATCH
from ojala.models.layers.redshift_pdf import summarise
from ojala.pipeline.quality.validation.calibration import redshift_calibration
from ojala.pipeline.quality.validation.locate import locate, match
from ojala.pipeline.quality.validation.truth import read_truth
from ojala.pipeline.runs import qp_export
from ojala.pipeline.runs.config import RunConfig
from ojala.pipeline.runs.qp_export import ExportError, export_qp
from ojala.pipeline.storage.hats import read_leaves
from tests.helpers.survey import ingest_table, run_and_publish

pytestmark = pytest.mark.integration

ROWS = 768
TRUTH = UPath(PATCH / "mock_sky_truth.parquet")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    table = pq.read_table(PATCH / "mock_sky.parquet").slice(0, ROWS)
    photometry = str(ingest_table(table, folder, 500))
    config = RunConfig(photometry=photometry, out=str(folder / "out"), engine="serial", vectors=True)
    return run_and_publish(config)


@pytest.fixture(scope="module")
def tables(run):
    """Catalogue and vectors in the same order."""
    leaves = read_leaves(run.run / "ojala")
    return tuple(
        pa.concat_tables(
            pq.read_table((run.run / product / leaf.leaf).path, partitioning=None) for leaf in leaves
        )
        for product in ("ojala", "ojala_vectors")
    )


@pytest.mark.parametrize(("objects", "redshift"), [("GALAXY", "z_gal"), ("QSO", "z_qso")])
def test_the_width_of_stored_pdfs_is_the_error_in_every_bin_of_it(tables, objects, redshift):
    catalogue, vectors = tables
    pdfs = RedshiftPdfs.from_table(vectors, PDF_COLUMNS[objects])
    error = catalogue[f"{redshift}_err"].to_numpy(zero_copy_only=False)
    there = pdfs.count > 0
    np.testing.assert_array_equal(there, np.isfinite(error))

    again = summarise(torch.as_tensor(pdfs.take(there).dense()))
    ratio = again.error.numpy() / error[there]
    edges = np.quantile(error[there], np.linspace(0, 1, 9))
    cell = np.searchsorted(edges[1:-1], error[there])
    medians = np.array([np.median(ratio[cell == k]) for k in range(8)])
    assert medians == pytest.approx(1.0, abs=0.02)
    z = catalogue[redshift].to_numpy(zero_copy_only=False)[there]
    assert np.median(np.abs(again.z.numpy() - z) / (1 + z)) < 1e-5


def test_the_median_row_takes_at_most_600_bytes_and_the_leaf_tells_the_grid(run, tables):
    _, vectors = tables
    stored = sum(vectors[name].combine_chunks().value_lengths().to_numpy() for name in PDF_COLUMNS.values())
    leaves = sorted((run.run / "ojala_vectors").rglob("Npix=*.parquet"), key=str)
    size = bins = 0
    for leaf in leaves:
        group = pq.ParquetFile(leaf.path).metadata.row_group(0)
        columns = [group.column(i) for i in range(group.num_columns)]
        size += sum(c.total_uncompressed_size for c in columns if "_pdf" in c.path_in_schema)
    bins = stored.sum()
    assert np.median(stored) * size / bins < 600
    file = pq.ParquetFile(leaves[0].path)
    grid = json.loads(file.schema_arrow.field("z_qso_pdf").metadata[b"grid"])
    assert (grid["start"], grid["step"], grid["bins"]) == (0.0, PDF_STEP, PDF_BINS)
    assert json.loads(file.metadata.metadata[b"z_gal_pdf_bin.grid"]) == grid


@pytest.mark.parametrize(("which", "objects"), [("galaxy", "GALAXY"), ("quasar", "QSO")])
def test_measures_by_qp_are_those_of_the_validation(run, tmp_path, which, objects):
    qp = pytest.importorskip("qp")
    from qp.metrics.concrete_metric_classes import CDELossMetric
    from qp.metrics.pit import PIT

    to = UPath(tmp_path / "pdfs.hdf5")
    made = export_qp(run.out, to, run.plan.run_id, which)
    ensemble = qp.read(to.path)
    assert ensemble.npdf == made.rows
    assert made.rows + made.without == ROWS
    truth = read_truth(TRUTH)
    matched = match(truth, locate(run.run), None)
    found = next(c for c in redshift_calibration(matched) if c.objects == objects)
    right = (matched.words("true_class") == objects) & (matched.words("class") == objects)
    ids = matched.rows["object_id"].to_numpy()[right]
    order = {key: row for row, key in enumerate(ensemble.ancil["object_id"])}
    chosen = ensemble[[order[key] for key in ids]]
    z_true = matched.z_true[right]
    pit = PIT(chosen, z_true)
    assert found.n == len(z_true) > 20
    assert found.ks_distance.value == pytest.approx(pit.evaluate_PIT_KS().statistic, abs=1e-6)
    assert found.pit_cvm == pytest.approx(pit.evaluate_PIT_CvM().statistic, abs=1e-6)
    with pytest.warns(UserWarning, match="variant"):
        assert found.pit_ad == pytest.approx(pit.evaluate_PIT_anderson_ksamp().statistic, abs=1e-6)
    loss = CDELossMetric(eval_grid=chosen.x_samples()).evaluate(chosen, z_true)
    assert found.cde_loss.value == pytest.approx(loss, abs=1e-6)
    assert (ensemble.ancil["pdf_class"].astype(str) == objects).all()
    assert (ensemble.ancil["p_class"] >= 0.0099).all()


def test_best_gives_the_pdf_of_the_most_probable_class_and_no_star(run, tables, tmp_path):
    qp = pytest.importorskip("qp")
    catalogue, _ = tables
    to = UPath(tmp_path / "best.hdf5")
    export_qp(run.out, to, run.plan.run_id)
    ensemble = qp.read(to.path)
    words = np.array(catalogue["ojala_class"].to_pylist())
    assert ensemble.npdf == (words != "STAR").sum()
    np.testing.assert_array_equal(
        ensemble.ancil["object_id"], catalogue["object_id"].to_numpy()[words != "STAR"]
    )
    median = catalogue["z_q50"].to_numpy(zero_copy_only=False)[words != "STAR"]
    # Where a PDF has two modes of equal mass, its median may lie anywhere between them.
    assert ensemble.cdf(median[:, np.newaxis])[:, 0] == pytest.approx(0.5, abs=0.002)


def test_the_command_exports_the_published_run_and_says_what_it_wrote(run, tmp_path):
    pytest.importorskip("qp")
    to = tmp_path / "pdfs.hdf5"
    arguments = ["export", "pdf", str(run.out), "--as", "qp", "--to", str(to), "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    facts = json.loads(done.output)
    assert facts["rows"] + facts["without"] == ROWS
    assert facts["bytes"] == to.stat().st_size
    assert facts["run_id"] == run.plan.run_id


def test_what_cannot_be_exported_is_said_and_nothing_stays(run, tmp_path, monkeypatch):
    to = UPath(tmp_path / "pdfs.hdf5")
    monkeypatch.setattr(qp_export, "find_spec", lambda name: None)
    with pytest.raises(ExportError, match=r"pip install '.\[qp\]'"):
        export_qp(run.out, to)
    monkeypatch.setattr(qp_export, "find_spec", lambda name: name)
    with pytest.raises(ExportError, match=r"more than 10; .* --limit"):
        export_qp(run.out, to, run.plan.run_id, "best", 10)
    with pytest.raises(ExportError, match="has no run nothing"):
        export_qp(run.out, to, "nothing")
    with pytest.raises(ExportError, match=r"end in \.hdf5"):
        export_qp(run.out, UPath(tmp_path / "pdfs.fits"))
    with pytest.raises(ExportError, match="no published run"):
        export_qp(UPath(tmp_path / "nowhere"), to)
    to.write_bytes(b"mine")
    with pytest.raises(ExportError, match="exists"):
        export_qp(run.out, to)
    assert [path.name for path in tmp_path.iterdir()] == ["pdfs.hdf5"]
