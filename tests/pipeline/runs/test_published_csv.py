"""Runs of the published OJALÁ as the file that its authors write."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner
from upath import UPath

from ojala.catalogs_schema.ojala_published import DISTINCT, PUBLISHED_ORDER
from ojala.flows.cli.app import app
from ojala.models.ojala_published.inputs import INPUTS, NARROW
from ojala.pipeline.ingest.photometry import ingest_photometry
from ojala.pipeline.runs.config import read_config
from ojala.pipeline.runs.published_csv import PublishedCsvError, added_columns, export_published
from tests.helpers.published import GOLDEN, stand_in, write_checkpoint
from tests.helpers.survey import run_and_publish

pytestmark = pytest.mark.integration

N = 5


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A small table of the authors' kind, not in the order of the sky."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"TILE_ID": [9611] * N, "NUMBER": [4, 1, 5, 3, 2]})
    frame["ALPHA_J2000"], frame["DELTA_J2000"] = 245.0 + rng.random(N), 43.5
    frame["COMMENT"] = ["plain", "a, b", "", "1.50", "NaN"]
    frame["FLAGS_x"] = frame["MAG_I"] = frame["FLUX_APER_COR_6_0_J0378"] = frame["MASK_FLAGS_y"] = 1
    for name in NARROW:
        frame[f"APER_COR_3_0_{name}"] = 1 + 0.1 * rng.standard_normal(N)
    for name in INPUTS[len(NARROW) :]:
        frame[name] = 20 + rng.standard_normal(N)
    frame.loc[2, "MAG_W1"] = np.nan
    frame["AUTO_iSDSS"] = 170.25
    path = tmp_path_factory.mktemp("table") / "photometry.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def finished(table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    ingest_photometry([UPath(table)], UPath(folder / "photometry"))
    settings = {"photometry": str(folder / "photometry"), "out": str(folder / "out"), "engine": "serial"}
    weights = str(write_checkpoint(folder / "weights", stand_in()))
    return run_and_publish(read_config(None, settings | {"model": "ojala-published", "weights": weights}))


def test_the_authors_columns_are_passed_on_as_they_are(finished, table, tmp_path):
    made = export_published(finished.out, UPath(tmp_path / "x.csv"), table=UPath(table))
    written = pd.read_csv(tmp_path / "x.csv", dtype=str, keep_default_na=False)
    source = pd.read_csv(table, dtype=str, keep_default_na=False)
    kept = [
        name for name in source if name not in ("FLAGS_x", "MAG_I", "FLUX_APER_COR_6_0_J0378", "MASK_FLAGS_y")
    ]
    pd.testing.assert_frame_equal(written[kept], source[kept])
    assert (made.rows, made.columns) == (N, len(kept) + 53)
    header = (tmp_path / "x.csv").read_text().splitlines()[0].split(",")
    assert header == [*kept, *PUBLISHED_ORDER]
    assert written.columns[-12:].tolist() == list(PUBLISHED_ORDER[-12:])
    for name in ("P_QSO", "LOGM_ERR", "FEH_ERR"):
        assert (written[name] == written[f"{name}.1"]).all()


def test_numbers_are_those_of_the_product(finished, table, tmp_path):
    export_published(finished.out, UPath(tmp_path / "x.csv.gz"), table=UPath(table))
    written = pd.read_csv(tmp_path / "x.csv.gz")
    leaves = list((finished.run / "ojala_published" / "dataset").rglob("Npix=*.parquet"))
    product = pa.concat_tables([pq.read_table(leaf.path, partitioning=None) for leaf in leaves]).to_pandas()
    product = product.set_index("number").loc[written["NUMBER"]]
    for name in DISTINCT:
        expected = product[name].to_numpy()
        if name == "CLASS":
            assert written[name].tolist() == expected.tolist()
        elif expected.dtype == np.float32:
            np.testing.assert_array_equal(written[name].to_numpy(np.float32), expected)
        else:
            np.testing.assert_array_equal(written[name].to_numpy(), expected)
    with gzip.open(tmp_path / "x.csv.gz") as file:
        assert file.readline().startswith(b"TILE_ID,NUMBER")


def test_without_the_table_inputs_follow_from_the_photometry(finished, table, tmp_path):
    made = CliRunner().invoke(
        app, ["export", "csv", str(finished.out), "--published", "--to", str(tmp_path / "x.csv"), "--json"]
    )
    assert made.exit_code == 0, made.output
    facts = json.loads(made.output)
    assert (facts["rows"], facts["columns"]) == (N, 4 + 60 + 1 + 53)
    written = pd.read_csv(tmp_path / "x.csv").set_index("NUMBER").sort_index()
    source = pd.read_csv(table).set_index("NUMBER").sort_index()
    for name in ("APER_COR_3_0_J0378", "MAG_i", "MAG_W1", "AUTO_iSDSS"):
        np.testing.assert_allclose(written[name], source[name], rtol=1e-6)


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(finished, table, tmp_path):
    frame = pd.read_csv(table)
    frame.loc[3, "NUMBER"] = 77
    frame.to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(PublishedCsvError, match=r"other.csv, row 4: object \(9611, 77\) is not in run"):
        export_published(finished.out, UPath(tmp_path / "x.csv"), table=UPath(tmp_path / "other.csv"))
    frame.drop(columns="TILE_ID").to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(PublishedCsvError, match="column TILE_ID is missing"):
        export_published(finished.out, UPath(tmp_path / "x.csv"), table=UPath(tmp_path / "other.csv"))
    with pytest.raises(PublishedCsvError, match="has no published run of ojala_published"):
        export_published(UPath(tmp_path), UPath(tmp_path / "x.csv"))
    assert [path.name for path in tmp_path.iterdir()] == ["other.csv"]
    refused = CliRunner().invoke(app, ["export", "csv", str(finished.out), "--to", str(tmp_path / "x.csv")])
    assert refused.exit_code == 1


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"there are no golden data at {GOLDEN}")
def test_the_digits_are_those_of_the_authors_file():
    head = pd.read_csv(GOLDEN / "catalogue_head.csv", dtype=str, keep_default_na=False)
    rows = pq.read_table(GOLDEN / "outputs.parquet").slice(0, len(head))
    lines = added_columns(rows).to_csv(index=False, lineterminator="\n").splitlines()
    theirs = (GOLDEN / "catalogue_head.csv").read_text().splitlines()
    for ours, line in zip(lines, theirs, strict=True):
        assert line.endswith("," + ours)
