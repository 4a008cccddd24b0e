"""The bundled patch of sky, end to end: what a newcomer sees."""

import json
import os
import re
import shutil
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from ojala.catalogs_schema.ojala import Flag
from ojala.flows.demo import run
from ojala.flows.demo.run import PATCH
from ojala.pipeline.quality.validation.result import Validation
from ojala.pipeline.runs.config import RunConfig
from tests.helpers.commands import here, ojala

pytestmark = pytest.mark.integration


MOCKS = 1_200
"""Objects of the mock sky in the short form, a fifth of them."""


@pytest.fixture(scope="module")
def rows(request):
    """Number of objects: all of the patch in the long form, else all real ones and `MOCKS`."""
    return 6_300 if request.config.getoption("--soak") else 300 + MOCKS


@pytest.fixture(scope="module")
def demo(rows, tmp_path_factory):
    """Output and folder of `ojala demo`; in the long form as a person starts it, else in this process."""
    folder = tmp_path_factory.mktemp("demo")
    out = folder / "out"
    if rows == 6_300:
        done = ojala("demo", "--out", out)
        assert done.returncode == 0, done.stderr
        return done.stdout, out
    smaller = shutil.copytree(PATCH, folder / "patch")
    for name in ("mock_sky.parquet", "mock_sky_truth.parquet"):
        pq.write_table(pq.read_table(PATCH / name).slice(0, MOCKS), smaller / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "PATCH", smaller)
        patch.setattr(run, "RunConfig", partial(RunConfig, engine="serial"))
        done = here("demo", "--out", out)
    assert done.exit_code == 0, done.stderr
    return done.stdout, out


@pytest.fixture(scope="module")
def answers(demo):
    """Answers beside truth for all objects."""
    leaves = next((demo[1] / "catalogue" / "runs").iterdir()) / "ojala" / "dataset"
    catalogue = pd.read_parquet(leaves)
    truth = pd.read_parquet(demo[1] / "truth.parquet").rename(columns={"class": "true_class", "z": "true_z"})
    return catalogue.merge(truth[["tile_id", "number", "true_class", "true_z", "sample"]], validate="1:1")


def quality(demo):
    return json.loads(next(demo[1].rglob("quality.json")).read_text())


def test_the_demo_says_what_was_made_where_and_how_to_open_it(demo, rows):
    text, out = demo
    assert f"{rows:,} rows in" in text
    assert "verified" in text
    for path in re.findall(r"(?:photometry|catalogue|report) {3,}(\S+)", text):
        assert Path(path).exists()
    assert all(reader in text for reader in ("LSDB", "DuckDB", "Polars", "pandas", "astropy"))
    assert str(out) in text


def test_the_query_that_the_demo_prints_works(demo, rows):
    query = re.search(r"SELECT .*", demo[0]).group()
    found = duckdb.connect().execute(query).fetchall()
    assert {row[0] for row in found} >= {"GALAXY", "STAR", "QSO"}
    assert sum(row[1] for row in found) == rows


def test_a_second_demo_does_not_overwrite_the_first(demo):
    done = here("demo", "--out", demo[1])
    assert done.exit_code == 3
    assert "exists" in done.stderr


def test_every_object_of_the_patch_is_in_the_catalogue_once(answers, rows):
    assert len(answers) == rows
    assert answers["object_id"].is_unique


def nmad(dz):
    return 1.4826 * np.median(np.abs(dz - np.median(dz)))


@pytest.mark.parametrize(("sample", "least"), [("real objects", 0.88), ("mock sky", 0.88)])
def test_classes_are_visibly_right(demo, sample, least):
    found = Validation.model_validate(quality(demo)["truth"])
    assert found.samples[sample].classification.f1_weighted.value > least


def test_redshifts_of_real_galaxies_and_quasars_are_visibly_right(answers):
    real = answers[answers["sample"] == "real objects"]
    galaxies = real[(real["true_class"] == "GALAXY") & (real["ojala_class"] == "GALAXY")]
    dz = (galaxies["z"] - galaxies["true_z"]) / (1 + galaxies["true_z"])
    assert nmad(dz) < 0.01
    assert (np.abs(dz) > 0.15).mean() < 0.05
    quasars = real[(real["true_class"] == "QSO") & (real["ojala_class"] == "QSO")]
    dz = (quasars["z"] - quasars["true_z"]) / (1 + quasars["true_z"])
    assert nmad(dz) < 0.015
    assert (np.abs(dz) > 0.15).mean() < 0.25


def test_redshift_quantiles_are_in_order(answers):
    z = answers.loc[answers["z"].notna(), ["z_q02", "z_q16", "z_q50", "z_q84", "z_q98"]].to_numpy()
    assert (np.diff(z, axis=1) >= 0).all()


def test_stars_have_temperatures_and_no_redshift(answers):
    stars = answers[answers["ojala_class"] == "STAR"]
    assert stars["z"].isna().all()
    assert stars["teff"].between(2000, 60000).all()


def test_no_prediction_is_flagged_out_of_range_or_lost(answers):
    assert not (answers["ojala_flags"] & int(Flag.NOT_PREDICTED)).any()
    assert (answers["ojala_flags"] & int(Flag.OUT_OF_RANGE)).astype(bool).mean() < 0.01


def test_the_report_judges_real_objects_and_mocks_apart(demo):
    page = next(demo[1].rglob("index.html")).read_text()
    assert set(quality(demo)["truth"]["samples"]) == {"real objects", "mock sky"}
    assert "real objects" in page
    assert not re.search(r"(?:src|href)=[\"']https?:", page), "the page needs no network"


def test_the_patch_is_small_enough_for_a_repository():
    assert sum(file.stat().st_size for file in PATCH.iterdir()) < 5e6
    assert os.path.getsize(PATCH / "real_objects.csv") < 5e5
