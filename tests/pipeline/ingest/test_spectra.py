"""Spectra become a catalogue: all of them, each with what is known of it."""

import json
from collections import Counter
from pathlib import Path

import duckdb
import lsdb
import numpy as np
import polars
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table
from hats.io.validation import is_valid_catalog
from upath import UPath

from ojala.catalogs_schema.spectra import SPECTRA
from ojala.pipeline.ingest.errors import IngestError
from ojala.pipeline.ingest.spectra import PROVENANCE, ingest_spectra
from ojala.pipeline.quality.verify import verify
from tests.helpers import spectra_files

DATA = Path(__file__).parents[3].parent / "shared" / "data"


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    """Seven spectra of six objects, with tables that know some of them, and files of other kinds."""
    folder = tmp_path_factory.mktemp("sources")
    spectra_files.make_sdss(folder / "spec-1.fits", ra=150.0)
    spectra_files.make_sdss(folder / "spec-2.fits", ra=150.0 + 1.0 / 3600.0)  # the same galaxy
    spectra_files.make_sdss(folder / "spec-3.fits", ra=151.0, z=-9999.0, object_class="UNKNOWN")
    spectra_files.make_lamost(folder / "lamost.fits")
    spectra_files.make_desi(folder / "coadd.fits")
    spectra_files.make_redrock(folder / "redrock.fits")
    spectra_files.make_fastspec(folder / "fastspec.fits")
    spectra_files.make_lamost_table(folder / "stars.csv")
    spectra_files.make_atmosphere(folder / "star.fits")
    (folder / "README").write_text("spectra")
    return folder


@pytest.fixture(scope="module")
def made(sources, tmp_path_factory):
    out = UPath(tmp_path_factory.mktemp("out") / "spectra")
    return ingest_spectra([UPath(sources)], out, tile_rows=3), out


def rows(out: UPath) -> dict[str, dict[str, object]]:
    table = pq.read_table(sorted((out / "dataset").rglob("Npix=*.parquet"), key=str)[0].path)
    tables = [pq.read_table(path.path) for path in (out / "dataset").rglob("Npix=*.parquet")]
    assert all(one.schema.equals(table.schema) for one in tables)
    return {row["source_id"]: row for one in tables for row in one.to_pylist()}


def test_every_spectrum_is_a_row_with_what_is_known_of_it(made):
    summary, out = made
    found = rows(out)
    assert summary.spectra == len(found) == 7
    assert summary.counts == {
        "DESI": {"GALAXY": 1, "STAR": 1},
        "LAMOST": {"STAR": 1},
        "SDSS": {"GALAXY": 2, "NONE": 1},
        "TEMPLATE": {"STAR": 1},
    }
    assert [Path(line.split()[0]).name for line in summary.not_read] == ["README"]
    galaxy = found["coadd-7"]
    assert (galaxy["class"], galaxy["target_id"], galaxy["relative_flux"]) == ("GALAXY", "7", False)
    assert galaxy["log_mass"] == pytest.approx(10.339, abs=1e-3)
    assert (galaxy["ew_halpha"], galaxy["ew_halpha_err"]) == (12.0, 0.5)
    assert galaxy["ew_nii_6584"] is None
    assert galaxy["flux_w1"] == pytest.approx(36.31)
    assert found["lamost"]["teff"] == pytest.approx(4945.4)
    assert found["lamost"]["relative_flux"]


def test_arrays_are_of_one_length_and_bad_pixels_have_no_weight(made):
    for row in rows(made[1]).values():
        assert len(row["wavelength"]) == len(row["flux"]) == len(row["ivar"]) == len(row["mask"])
        assert (np.diff(row["wavelength"]) > 0).all()
    galaxy = rows(made[1])["coadd-7"]
    assert (galaxy["ivar"][-1], galaxy["mask"][-1]) == (0.0, 4)
    assert galaxy["snr"] == pytest.approx(
        np.median(np.sqrt(galaxy["ivar"][:-1]) * galaxy["flux"][:-1]), rel=0.1
    )


def test_a_spectrum_without_redshift_or_position_is_a_row_with_nulls(made):
    summary, out = made
    unknown, template = rows(out)["spec-3"], rows(out)["star-g45"]
    assert (unknown["z"], unknown["class"]) == (None, "NONE")
    assert summary.without_redshift == 1
    assert (template["ra"], template["dec"]) == (None, None)
    assert template["_healpix_29"] >= 0


def test_visits_of_one_object_point_at_the_best_of_them(made):
    summary, out = made
    found = rows(out)
    first, second = found["spec-1"], found["spec-2"]
    assert first["n_spectra"] == second["n_spectra"] == 2
    assert first["primary_id"] == second["primary_id"] in (first["object_id"], second["object_id"])
    assert found["spec-3"]["primary_id"] == found["spec-3"]["object_id"]
    assert summary.objects == 6


# astropy wants the length of free text in the footer; it finds it out by itself.
@pytest.mark.filterwarnings("ignore:No table..len..")
def test_readers_of_catalogues_read_it(made):
    out = made[1]
    assert is_valid_catalog(out, strict=True)
    assert list(verify(out)) == []
    near = lsdb.open_catalog(out.path).cone_search(150.0, 2.0, 60).compute(progress_bar=False)
    assert len(near) == 2
    assert len(near["flux"].iloc[0]) == 100
    pattern = f"{out.path}/dataset/**/*.parquet"
    query = f"SELECT count(*), sum(len(flux)) FROM '{pattern}' WHERE survey = 'DESI'"
    assert duckdb.connect().execute(query).fetchall() == [(2, 50)]
    assert polars.scan_parquet(pattern).select(polars.col("flux").list.len()).collect().height == 7
    leaf = next(path for path in (out / "dataset").rglob("Npix=*.parquet"))
    assert set(Table.read(leaf.path, format="parquet").colnames) == set(SPECTRA.names)


def test_leaves_hold_as_many_rows_as_asked(made):
    summary = made[0]
    assert max(summary.partitions.values()) <= 3
    assert sum(summary.partitions.values()) == 7


def test_what_it_was_made_from_is_written_down(made):
    record = json.loads((made[1] / PROVENANCE).read_text())
    kinds = {one["name"]: (one["kind"], one["spectra"]) for one in record["inputs"]}
    assert kinds["coadd.fits"] == ("DESI coadd", 2)
    assert kinds["redrock.fits"] == ("table of DESI objects", 0)
    assert all(len(one["sha256"]) == 64 for one in record["inputs"])


def test_the_order_of_the_files_does_not_matter(made, sources, tmp_path):
    files = sorted(path for path in sources.iterdir() if path.name != "README")
    ingest_spectra([UPath(path) for path in files[::-1]], UPath(tmp_path / "spectra"), tile_rows=3)
    for leaf in (made[1] / "dataset").rglob("Npix=*.parquet"):
        again = tmp_path / "spectra" / leaf.relative_to(made[1])
        assert again.read_bytes() == leaf.read_bytes()


def test_a_file_that_is_named_must_be_understood(sources, tmp_path):
    fits.HDUList([fits.PrimaryHDU()]).writeto(tmp_path / "image.fits")
    with pytest.raises(IngestError, match=r"image\.fits is a FITS file with PRIMARY.*expected"):
        ingest_spectra([UPath(sources), UPath(tmp_path / "image.fits")], UPath(tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["image.fits"]


def test_a_damaged_file_leaves_nothing_behind(sources, tmp_path):
    (tmp_path / "in").mkdir()
    content = (sources / "coadd.fits").read_bytes()
    (tmp_path / "in" / "coadd.fits").write_bytes(content[:-6000])
    with pytest.raises(IngestError, match=r"coadd\.fits is a damaged FITS file"):
        ingest_spectra([UPath(tmp_path / "in")], UPath(tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_the_same_spectrum_twice_is_refused(sources, tmp_path):
    (tmp_path / "spec-1.fits").write_bytes((sources / "spec-1.fits").read_bytes())
    with pytest.raises(IngestError, match=r"1 spectra come twice, .*spec-1\.fits and in .*spec-1\.fits"):
        ingest_spectra([UPath(sources), UPath(tmp_path / "spec-1.fits")], UPath(tmp_path / "out"))


def test_a_folder_without_spectra_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "README").write_text("nothing")
    with pytest.raises(IngestError, match="no spectra were found; 1 files were looked at"):
        ingest_spectra([UPath(tmp_path / "in")], UPath(tmp_path / "out"))


@pytest.mark.skipif(not DATA.exists(), reason="the observed spectra are not part of the repository")
def test_real_spectra_become_a_catalogue(tmp_path):
    sources = [DATA / "spectra" / "desi", DATA / "labels" / "lamost" / "my_data3.csv"]
    sources += sorted((DATA / "spectra" / "sdss").glob("spec-*"))[::20]
    sources += sorted((DATA / "spectra" / "lamost").glob("spec-*"))[::4]
    summary = ingest_spectra([UPath(path) for path in sources], UPath(tmp_path / "spectra"))
    found = rows(UPath(tmp_path / "spectra"))
    kinds = Counter(row["survey"] for row in found.values())
    assert kinds["DESI"] == 16
    assert summary.spectra == len(found) == sum(kinds.values())
    assert all(
        row["class"] in ("QSO", "GALAXY") and row["trusted"]
        for row in found.values()
        if row["survey"] == "DESI"
    )
    assert sum(row["teff"] is not None for row in found.values()) > 5
    assert sum(row["ew_halpha"] is not None for row in found.values()) > 1
