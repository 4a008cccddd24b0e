"""Acceptance test of the published weights on tables that this program, or the authors' code, made."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner
from upath import UPath

from ojala.catalogs_schema.errors import InputError
from ojala.catalogs_schema.ojala_published import DISTINCT
from ojala.flows.cli.app import app
from ojala.models.ojala_published import Predictor
from ojala.models.ojala_published.derived import derived_columns
from ojala.models.ojala_published.inputs import INPUTS, NARROW
from ojala.pipeline.ingest.photometry import ingest_photometry
from ojala.pipeline.quality.check_published import VARIANTS, check_published
from tests.helpers.published import GOLDEN, stand_in, write_checkpoint

pytestmark = pytest.mark.integration

N = 30


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("weights"), stand_in())


@pytest.fixture(scope="module")
def files(weights, tmp_path_factory):
    """A table of the authors' kind, and the catalogue of it."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(5)
    table = pd.DataFrame(
        {"TILE_ID": [9611] * N, "NUMBER": range(N), "ALPHA_J2000": 245.0, "DELTA_J2000": 43.5}
    )
    names = [f"APER_COR_3_0_{name}" if name in NARROW else name for name in INPUTS]
    for name in names:
        centre = 1.0 if name.startswith("APER") else 20.0
        table[name] = centre + 0.3 * rng.standard_normal(N)
    table["AUTO_iSDSS"] = 170.0
    predicted = Predictor.load(weights).predict(table[names].to_numpy())
    columns = predicted | derived_columns(predicted, table["AUTO_iSDSS"].to_numpy())
    catalogue = pd.concat([table, pd.DataFrame({name: columns[name] for name in DISTINCT})], axis=1)
    table.to_csv(folder / "photometry.csv", index=False)
    catalogue.sample(frac=1.0, random_state=1).to_csv(folder / "catalogue.csv", index=False)
    return folder / "photometry.csv", folder / "catalogue.csv"


def test_a_catalogue_of_these_weights_agrees_and_settles_bias_and_version(weights, files):
    found = check_published(weights, *files)
    assert (found.rows, found.agrees) == (N, VARIANTS[0])
    without, biased = ({one.column: one for one in found.columns[variant]} for variant in VARIANTS)
    assert all(without[name].agrees for name in DISTINCT)
    assert without["Z_GAL"].median < 1e-6
    assert not biased["Z_GAL"].agrees
    assert "Wavelength bias: the catalogue was made without wavelength bias." in found.settled
    assert "Version of the script: commit a92c88a." in found.settled


def test_another_catalogue_does_not_agree_and_the_command_says_so(weights, files, tmp_path):
    frame = pd.read_csv(files[1])
    frame["TEFF"] += 1.0
    frame.to_csv(tmp_path / "other.csv", index=False)
    options = [
        "--weights",
        weights,
        "--photometry",
        files[0],
        "--catalogue",
        tmp_path / "other.csv",
        "--rows",
        10,
    ]
    done = CliRunner().invoke(app, ["check-published", *map(str, options), "--json"])
    assert done.exit_code == 1
    facts = json.loads(done.output)
    assert (facts["rows"], facts["agrees"]) == (10, "")
    wrong = [one["column"] for one in facts["columns"][VARIANTS[0]] if not one["agrees"]]
    assert wrong[0] == "TEFF"


def test_the_archive_settles_how_the_table_came_from_it(weights, files, tmp_path):
    ingest_photometry([UPath(files[0])], UPath(tmp_path / "photometry"))
    found = check_published(weights, *files, archive=UPath(tmp_path / "photometry"))
    ranked = [line for line in found.settled if "extinction=" in line]
    assert len(ranked) == 8
    assert "mag_i=aperture wavelengths=pivot" in ranked[0]
    assert any(line.startswith("  MAG_W1, archive minus table: ") for line in found.settled)


def test_files_that_do_not_belong_together_are_refused(weights, files, tmp_path):
    table = pd.read_csv(files[0])
    table.assign(NUMBER=table["NUMBER"] + 100).to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(InputError, match="has none of the objects of the photometry"):
        check_published(weights, tmp_path / "x.csv", files[1])
    with pytest.raises(InputError, match=r"x.csv: lacks the columns HALPHA_CONT"):
        check_published(weights, files[0], tmp_path / "x.csv")
    table.astype({"NUMBER": object}).assign(NUMBER="one").to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(InputError, match=r"x.csv, row 1: TILE_ID or NUMBER is no number"):
        check_published(weights, tmp_path / "x.csv", files[1])


def test_weights_are_converted_by_the_command(weights, tmp_path):
    out = tmp_path / "w.safetensors"
    done = CliRunner().invoke(app, ["convert-weights", str(weights), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "106 tensors, 4,699,665 numbers" in done.output
    refused = CliRunner().invoke(app, ["convert-weights", str(weights), "--out", str(tmp_path / "w.pt")])
    assert refused.exit_code == 3


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"there are no golden data at {GOLDEN}")
@pytest.mark.parametrize(("file", "variant"), [("outputs", 0), ("outputs_with_bias", 1)])
def test_what_the_authors_code_made_agrees(weights, tmp_path, file, variant):
    inputs = pq.read_table(GOLDEN / "inputs.parquet").to_pandas()
    outputs = pq.read_table(GOLDEN / f"{file}.parquet").to_pandas()
    rows = [row for row in range(64) if row != 61]  # NaN in all predictions
    inputs.iloc[rows].drop(columns=["FLUX_APER_COR_3_0"]).to_csv(tmp_path / "photometry.csv", index=False)
    outputs.iloc[rows].to_csv(tmp_path / "catalogue.csv", index=False)
    found = check_published(weights, tmp_path / "photometry.csv", tmp_path / "catalogue.csv")
    assert found.agrees == VARIANTS[variant], found.table()
    columns = {one.column: one for one in found.columns[found.agrees]}
    assert all(columns[name].median < 1e-5 for name in DISTINCT if name != "CLASS")
    assert f"Wavelength bias: the catalogue was made {VARIANTS[variant]}." in found.settled
