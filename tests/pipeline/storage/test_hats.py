"""Published catalogues as their readers see them."""

import shutil

import duckdb
import lsdb
import numpy as np
import pandas as pd
import polars
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.table import Table
from hats.io import summary_file
from hats.io.validation import is_valid_catalog, is_valid_collection
from upath import UPath

from ojala.catalogs_schema.ojala import OJALA
from ojala.pipeline.runs.supplemental import SUPPLEMENTAL
from ojala.pipeline.storage.hats import LEAVES, CatalogueError, catalogue_name, read_counts, read_leaves

pytestmark = pytest.mark.integration


def dataset(finished, product="ojala"):
    return (finished.run / product / "dataset").path


def leaf(finished, product="ojala"):
    return sorted((finished.run / product).rglob("Npix=*.parquet"), key=str)[0].path


def test_hats_finds_collection_and_catalogues_valid(finished):
    assert is_valid_collection(finished.out, strict=True)
    for product in ("ojala", "ojala_vectors"):
        assert is_valid_catalog(finished.run / product, strict=True)
    assert is_valid_catalog(finished.photometry, strict=True)


def test_lsdb_joins_the_products_to_the_photometry_object_by_object(finished):
    catalog = lsdb.open_catalog(finished.out.path)
    assert set(catalog.all_extensions) == {"ojala", "ojala_vectors"}
    frame = catalog.load_extension("ojala").compute(progress_bar=False)
    assert len(frame) == 300
    assert frame["object_id"].is_unique
    assert {"flux_isdss", "z_gal", "ojala_class", "ojala_flags", "flags"} <= set(frame.columns)
    assert (frame["tile_id"] * 2**32 + frame["number"] == frame["object_id"]).all()
    assert (frame["tile_id_ojala"] == frame["tile_id"]).all()


def test_hats_writes_its_summary_of_the_collection_and_of_each_catalogue(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(summary_file, "_generate_sky_coverage_images", without_pictures)
    run = finished.run / SUPPLEMENTAL
    for place in (finished.out, finished.photometry, finished.run / "ojala", run / "ojala_vectors"):
        card = summary_file.write_catalog_summary_file(
            place, fmt="markdown", huggingface_metadata=True, output_dir=tmp_path, filename=f"{place.name}.md"
        )
        text = card.read_text()
        assert "object_id" in text
        assert "Minimum value" in text
    assert "photometry_10arcsec" in (tmp_path / f"{finished.out.name}.md").read_text()


def without_pictures(*of_a_catalogue):
    """Stand for a machine without matplotlib: each picture takes two seconds."""
    raise ImportError


def test_lsdb_searches_a_cone(finished):
    catalog = lsdb.open_catalog((finished.run / "ojala").path)
    cone = catalog.cone_search(245.5, 43.9, 600).compute(progress_bar=False)
    everything = pd.read_parquet(dataset(finished))
    near = (
        np.hypot((everything["ra"] - 245.5) * np.cos(np.radians(43.9)), everything["dec"] - 43.9) < 600 / 3600
    )
    assert len(cone) == near.sum() > 0


def test_duckdb_queries_all_leaves(finished):
    query = (
        f"SELECT ojala_class, count(*), avg(z) FROM '{dataset(finished)}/**/*.parquet' GROUP BY ojala_class"
    )
    assert duckdb.connect().execute(query).fetchall() == [("GALAXY", 300, 0.5)]


def test_polars_scans_all_leaves(finished):
    frame = (
        polars.scan_parquet(f"{dataset(finished)}/**/*.parquet")
        .filter(polars.col("p_galaxy") > 0.9)
        .collect()
    )
    assert frame.height == 300


def test_pandas_reads_the_folder(finished):
    frame = pd.read_parquet(dataset(finished))
    assert len(frame) == 300
    assert list(frame.columns[: len(OJALA.names)]) == OJALA.names


def test_astropy_reads_a_leaf_with_units_and_descriptions(finished):
    table = Table.read(leaf(finished), format="parquet.votable")
    assert table.colnames == OJALA.names
    assert table["ra"].unit == u.deg
    assert table["f_halpha"].unit.is_equivalent(u.erg / u.s / u.cm**2)
    assert (1 * table["f_halpha"].unit).to_value(u.erg / u.s / u.cm**2) == pytest.approx(1.0)
    assert table["ew_halpha"].unit == u.AA
    assert table["z"].description.startswith("redshift of the most probable class")
    assert table["z"].meta["ucd"] == "src.redshift.phot"
    assert len(table) == pq.ParquetFile(leaf(finished)).metadata.num_rows
    assert set(table["ojala_class"]) == {"GALAXY"}


def test_astropy_reads_vectors_with_their_shape(finished):
    table = Table.read(leaf(finished, "ojala_vectors"), format="parquet.votable")
    assert len(table["z_gal_pdf"]) == len(table["z_gal_pdf_bin"]) == len(table)
    assert table["embedding"].shape == (len(table), 128)


def test_astropy_reads_a_photometry_leaf_with_units(finished):
    path = sorted(finished.photometry.rglob("Npix=*.parquet"), key=str)[0].path
    table = Table.read(path, format="parquet.votable")
    assert table["flux_isdss"].unit == u.uJy


def test_rows_per_sky_pixel_add_up(finished):
    assert read_counts(finished.run / "ojala").sum() == 300
    assert catalogue_name(finished.run / "ojala") == "ojala"


def test_a_hats_catalogue_made_by_others_is_read_too(finished, tmp_path):
    copy = UPath(tmp_path / "copy")
    shutil.copytree(finished.photometry.path, copy.path)
    ours = read_leaves(copy)
    (copy / LEAVES).unlink()
    assert read_leaves(copy) == ours


def test_a_folder_without_properties_is_no_catalogue(tmp_path):
    with pytest.raises(CatalogueError, match="is no HATS catalogue"):
        read_leaves(UPath(tmp_path))


def test_a_list_of_leaves_of_another_form_is_refused(finished, tmp_path):
    copy = UPath(tmp_path / "copy")
    shutil.copytree(finished.photometry.path, copy.path)
    (copy / LEAVES).write_text("something,else\n")
    with pytest.raises(CatalogueError, match="expected the header"):
        read_leaves(copy)
