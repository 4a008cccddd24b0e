from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ojala.catalogs_schema.bands import BANDS
from ojala.catalogs_schema.errors import ExitCode
from ojala.flows.mocks.library import (
    build_library,
    check_sources,
    load_sky,
    save_library,
    write_mock_catalogue,
)
from tests.helpers.commands import here
from tests.models.simulation.small_library import box_curves, libraries

pytestmark = pytest.mark.integration

DATA = Path(__file__).parents[3].parent / "shared" / "data"


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("library") / "library.npz"
    save_library(path, libraries(), box_curves())
    return path


def test_a_library_read_back_draws_the_same_sky(library):
    first, again = (load_sky(library).draw(50, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first.flux, again.flux)
    assert [p.name for p in library.parent.iterdir()] == ["library.npz"]


def test_another_file_is_no_library(tmp_path):
    np.savez(tmp_path / "other.npz", weights=np.ones(3))
    with pytest.raises(ValueError, match=r"other\.npz is not a library"):
        load_sky(tmp_path / "other.npz")


def test_a_library_of_an_older_version_is_refused_by_name(library, tmp_path):
    with np.load(library) as arrays:
        np.savez(tmp_path / "old.npz", **{key: arrays[key] for key in arrays.files if key != "stars/kind"})
    with pytest.raises(ValueError, match=r"old\.npz: the library of stars lacks kind"):
        load_sky(tmp_path / "old.npz")


def test_a_mock_catalogue_has_the_contracts_columns_and_its_truth(library, tmp_path):
    rng = np.random.default_rng(1)
    positions = (rng.uniform(240.0, 241.0, 120), rng.uniform(40.0, 41.0, 120))
    write_mock_catalogue(
        load_sky(library),
        tmp_path / "sky.parquet",
        tmp_path / "truth.parquet",
        positions=positions,
        tile_id=5,
        rng=rng,
    )
    sky, truth = pq.read_table(tmp_path / "sky.parquet"), pq.read_table(tmp_path / "truth.parquet")
    assert sky.num_rows == truth.num_rows == 120
    for band in BANDS:
        assert str(sky.schema.field(band.flux_column).type) == "float"
        np.testing.assert_array_equal(sky[band.flux_column].is_null(), sky[band.error_column].is_null())
    assert sky["flux_w3"].null_count == 120
    assert sky["flux_isdss"].null_count < 40
    assert not np.isnan(sky["flux_isdss"].drop_null().to_numpy()).any()
    assert sky["number"].to_pylist() == list(range(1, 121))
    assert truth["number"].to_pylist() == list(range(1, 121))
    kind = np.array(truth["class"].to_pylist())
    np.testing.assert_array_equal(truth["z"].is_null().to_numpy(), kind == "STAR")


def test_a_library_cannot_be_built_without_its_templates(tmp_path):
    with pytest.raises(FileNotFoundError, match="qsosed_emlines"):
        build_library(tmp_path / "library.npz", templates=tmp_path, curves=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_check_names_each_source_that_is_missing(tmp_path):
    found = here("library", "--check", "--templates", tmp_path, "--curves", tmp_path)
    assert found.exit_code == ExitCode.INPUT
    assert (
        f"quasar model, IGM coefficients: nothing like qsosed_emlines_*.dat* under {tmp_path}" in found.stdout
    )
    assert "transmission curves: " in found.stdout
    assert "transmission curves: found" not in found.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not DATA.exists(), reason="the templates are not part of the repository")
def test_a_check_reads_the_real_templates():
    problems = check_sources(DATA / "templates", DATA / "filters")
    assert {name for name, problem in problems.items() if problem} <= {"bagpipes"}


@pytest.mark.skipif(not DATA.exists(), reason="the templates are not part of the repository")
def test_a_small_library_is_built_from_the_real_templates(tmp_path):
    pytest.importorskip("bagpipes", reason="bagpipes is in the extra 'training'")
    build_library(
        tmp_path / "library.npz",
        templates=DATA / "templates",
        curves=DATA / "filters",
        n_galaxies=150,
        n_stars=150,
        n_quasars=150,
    )
    drawn = load_sky(tmp_path / "library.npz").draw(100, np.random.default_rng(1))
    assert np.isfinite(drawn.flux).any(axis=1).all()
