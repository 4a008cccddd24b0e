"""A spectra catalogue is drawn from, on one side of its split, into files that can be gone on with."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from typer.testing import CliRunner
from upath import UPath

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.flows.cli.app import app
from ojala.flows.mocks import draws as draws_module
from ojala.flows.mocks import observed as sky_module
from ojala.flows.mocks.draws import write_draws
from ojala.flows.mocks.observed import open_observed_sky
from ojala.flows.training.ojala import sky_to_train_on
from ojala.models.simulation.skies.mixed import MixedSky
from ojala.models.simulation.skies.observed import FOLDS, SPLIT_ORDER
from ojala.models.simulation.skies.photometric import MockSky
from ojala.pipeline.ingest.photometry import ingest_photometry
from ojala.pipeline.ingest.spectra import ingest_spectra
from ojala.pipeline.storage.hats import CatalogueError
from ojala.pipeline.storage.healpix import pixel_at, spatial_index
from tests.helpers.mmu_files import make_catalogue
from tests.models.simulation.small_library import box_curves

pytestmark = pytest.mark.integration

DATA = Path(__file__).parents[3].parent / "shared" / "data"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> UPath:
    folder = tmp_path_factory.mktemp("spectra")
    make_catalogue(folder / "in.parquet", 120)
    ingest_spectra([UPath(folder / "in.parquet")], UPath(folder / "spectra"))
    return UPath(folder / "spectra")


@pytest.fixture(autouse=True)
def _curves(monkeypatch) -> None:
    """Curves by formula, as the measured ones are not part of the repository."""
    for module in (draws_module, sky_module):
        monkeypatch.setattr(module, "read_curves", lambda _: box_curves())


def cells(table: pa.Table) -> set[int]:
    index = spatial_index(table["ra"].to_numpy(), table["dec"].to_numpy())
    return set(pixel_at(index, SPLIT_ORDER).tolist())


def test_draws_of_both_sides_share_no_object_and_no_cell(root, tmp_path):
    found = {}
    for held_out in (False, True):
        out = UPath(tmp_path / str(held_out))
        write_draws(root, Path("curves"), out, draws=1500, held_out=held_out)
        found[held_out] = [
            pq.read_table((out / f"{kind}-00000.parquet").path) for kind in ("photometry", "truth")
        ]
    (sky, truth), (other_sky, other_truth) = found[False], found[True]
    for name in ("primary_id", "spectrum_id"):
        assert set(truth[name].to_pylist()).isdisjoint(other_truth[name].to_pylist())
    assert cells(sky).isdisjoint(cells(other_sky))
    assert len(set(truth["primary_id"].to_pylist())) > 100
    assert len(set(other_truth["primary_id"].to_pylist())) > 3


def test_every_draw_has_its_truth_and_the_photometry_can_be_ingested(root, tmp_path):
    write_draws(root, Path("curves"), UPath(tmp_path / "draws"), draws=500, shard_rows=300)
    sky = pa.concat_tables(pq.read_table(path) for path in sorted((tmp_path / "draws").glob("photometry-*")))
    truth = pa.concat_tables(pq.read_table(path) for path in sorted((tmp_path / "draws").glob("truth-*")))
    for name in ("tile_id", "number"):
        assert sky[name].equals(truth[name])
    kind = np.array(truth["class"].to_pylist())
    np.testing.assert_array_equal(truth["z"].is_null().to_numpy(), kind == "STAR")
    np.testing.assert_allclose(truth["ew_halpha"].drop_null().to_numpy(), 11.0, rtol=1e-3)
    files = [UPath(path) for path in sorted((tmp_path / "draws").glob("photometry-*"))]
    summary = ingest_photometry(files, UPath(tmp_path / "photometry"))
    assert summary.rows == 500


def test_a_stopped_synthesis_goes_on_and_ends_as_if_it_had_not_been_stopped(root, tmp_path):
    whole, stopped = UPath(tmp_path / "whole"), UPath(tmp_path / "stopped")
    for out in (whole, stopped):
        assert write_draws(root, Path("curves"), out, draws=500, shard_rows=200) == 3
    (stopped / "truth-00001.parquet").unlink()
    assert write_draws(root, Path("curves"), stopped, draws=500, shard_rows=200) == 1
    assert write_draws(root, Path("curves"), stopped, draws=500, shard_rows=200) == 0
    for path in whole.iterdir():
        assert path.read_bytes() == (stopped / path.name).read_bytes()


def test_draws_of_other_settings_are_not_mixed(root, tmp_path):
    write_draws(root, Path("curves"), UPath(tmp_path), draws=100)
    with pytest.raises(ValueError, match="holds draws with another seed"):
        write_draws(root, Path("curves"), UPath(tmp_path), draws=100, seed=2)


def test_another_catalogue_is_refused(photometry):
    with pytest.raises(CatalogueError, match=r"is no spectra catalogue .* lacks survey, source_id"):
        open_observed_sky(photometry, Path("curves"), held_out=False)


def test_a_catalogue_of_untrusted_spectra_cannot_be_drawn_from(tmp_path):
    fits.PrimaryHDU(np.ones((2, 50), np.float32)).writeto(tmp_path / "a.fits")
    with fits.open(tmp_path / "a.fits", mode="update") as hdus:
        hdus[0].header.update(COEFF0=3.6, COEFF1=1e-4, CLASS="UNKNOWN")
    ingest_spectra([UPath(tmp_path / "a.fits")], UPath(tmp_path / "spectra"))
    with pytest.raises(ValueError, match="no spectrum of known class and redshift"):
        open_observed_sky(UPath(tmp_path / "spectra"), Path("curves"), held_out=False)


def test_the_command_draws_from_a_catalogue(root, tmp_path):
    command = [
        "synthesise",
        "--spectra",
        root.path,
        "--curves",
        str(tmp_path),
        "--out",
        str(tmp_path / "draws"),
    ]
    result = CliRunner().invoke(app, [*command, "--draws", "50", "--held-out", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["draws"] == 50
    assert pq.read_table(tmp_path / "draws" / "photometry-00000.parquet").num_rows == 50
    assert CliRunner().invoke(app, command).exit_code == 3  # a catalogue needs to be told how many


def test_a_training_draws_from_the_spectra_that_are_not_held_out(root):
    mock = MockSky.__new__(MockSky)  # never drawn from here
    assert sky_to_train_on(mock, None, None) == (mock, "")
    with pytest.raises(ValueError, match="give their folder as well"):
        sky_to_train_on(mock, root, None)
    sky, said = sky_to_train_on(mock, root, Path("curves"))
    assert isinstance(sky, MixedSky)
    trained = set(sky.observed.members.primary_id.tolist())
    checked = set(open_observed_sky(root, Path("curves"), held_out=True).members.primary_id.tolist())
    assert trained.isdisjoint(checked)
    assert said == f"10% of the draws are from the observed spectra of {len(trained)} objects."


def test_the_folds_of_the_objects_are_whole_and_apart(root):
    mock = MockSky.__new__(MockSky)  # never drawn from here
    every = set(sky_to_train_on(mock, root, Path("curves"))[0].observed.members.primary_id.tolist())
    left_out = []
    for fold in range(FOLDS):
        sky, said = sky_to_train_on(mock, root, Path("curves"), fold)
        assert f"fold {fold} of {FOLDS} was left out" in said
        own = open_observed_sky(root, Path("curves"), held_out=False, folds=[fold]).members.primary_id
        left_out.append(every - set(sky.observed.members.primary_id.tolist()))
        assert left_out[-1] == set(own.tolist())
    assert sum(map(len, left_out)) == len(every) == len(set().union(*left_out))
    for spectra, fold in ((None, 0), (root, FOLDS)):
        with pytest.raises(ValueError, match="a fold to leave out is one of 0 to 3"):
            sky_to_train_on(mock, spectra, Path("curves"), fold)


@pytest.mark.skipif(not DATA.exists(), reason="the observed spectra are not part of the repository")
def test_real_spectra_are_drawn_from_as_they_are_seen_one_by_one(tmp_path, monkeypatch):
    monkeypatch.undo()
    files = sorted((DATA / "spectra" / "sdss").glob("spec-*"))[::12]
    files += (DATA / "spectra" / "desi" / "fastspecfit").glob("*.fits.gz")
    sources = [UPath(path) for path in files if "stack" not in path.name]
    ingest_spectra(sources, UPath(tmp_path / "spectra"))
    sky = open_observed_sky(UPath(tmp_path / "spectra"), DATA / "filters", held_out=False)
    w1 = [band.name for band in MODEL_BANDS].index("W1")
    assert np.isfinite(sky.members.flux[:, w1]).any()  # of the targets of DESI
    drawn = sky.draw(500, np.random.default_rng(1))
    assert np.isfinite(drawn.flux).any(axis=1).all()
