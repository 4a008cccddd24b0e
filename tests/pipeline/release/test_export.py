"""An exported release: it stands alone, LSDB finds all that it expects, and it says how it is cited."""

import json
import shutil
import warnings

import duckdb
import lsdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from astropy import units as u
from astropy.coordinates import SkyCoord, search_around_sky
from hats.io.validation import is_valid_collection
from upath import UPath

from ojala.catalogs_schema.bands import NARROW_BANDS
from ojala.pipeline import run as survey_run
from ojala.pipeline.quality.verify import verify
from ojala.pipeline.release.export import export_release
from ojala.pipeline.run import publish_run
from ojala.pipeline.runs.config import RunConfig
from ojala.pipeline.runs.publication import PublicationInfo
from ojala.pipeline.runs.releases import ReleaseError
from ojala.pipeline.storage.hats import read_leaves
from ojala.pipeline.storage.margins import MARGIN_ARCSEC
from ojala.pipeline.storage.object_index import write_object_index
from tests.helpers.survey import ingest_table, photometry_table, run_and_publish

pytestmark = pytest.mark.integration

N = 600
ABOUT = PublicationInfo(
    title="Value-added catalogue of a small sky",
    creators="Herrera, Ana; The ojala developers",
    publisher="An observatory",
    reference="arXiv:2604.00661",
    reference_url="https://arxiv.org/abs/2604.00661",
    acknowledgement="Based on observations of nobody.",
    licence="CC-BY-4.0",
    licence_url="https://creativecommons.org/licenses/by/4.0/",
    doi="10.5281/zenodo.1234567",
    release_date="2026-11-28",
)


def crowded() -> pa.Table:
    """Objects some 20 arcsec apart, so that margins hold many; half of them have all bands."""
    table = photometry_table(N)
    half = pa.array(np.arange(N) < N // 2)
    for name in table.column_names:
        if name.startswith("flux_"):
            at = table.schema.get_field_index(name)
            filled = pc.if_else(half, pc.fill_null(table[name], 5.0), table[name])
            table = table.set_column(at, name, filled)
    rng = np.random.default_rng(5)
    place = {"ra": 245.5 + rng.uniform(-0.1, 0.1, N), "dec": 43.9 + rng.uniform(-0.07, 0.07, N)}
    for name, values in place.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
    return table


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """An exported release, moved, whose origin does not exist any more."""
    folder = tmp_path_factory.mktemp("release")
    photometry = ingest_table(crowded(), folder, tile_rows=140)
    config = RunConfig(
        photometry=str(photometry), out=str(folder / "out"), model="empty", engine="serial", publication=ABOUT
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(survey_run, "write_report", lambda *of_the_run: None)
        finished = run_and_publish(config)
    publish_run(finished.out, finished.plan.run_id, name="DR1")
    made = export_release(finished.out, UPath(folder / "made"))
    assert (made.name, made.products, made.rows) == ("DR1", ("ojala",), N)
    shutil.rmtree(folder / "out")
    shutil.rmtree(folder / "photometry")
    (folder / "elsewhere").mkdir()
    return UPath(shutil.move(folder / "made", folder / "elsewhere" / "dr1"))


def test_a_copy_is_whole_without_its_origin(release):
    assert [str(damage) for damage in verify(release)] == []
    assert is_valid_collection(release, strict=True)
    assert is_valid_collection(release / "ojala", strict=True)
    for file in release.rglob("*.properties"):
        assert ".." not in (text := file.read_text()), file
        assert "elsewhere" not in text


def test_damage_of_a_copy_is_found(release, tmp_path):
    copy = UPath(shutil.copytree(release.path, tmp_path / "copy"))
    leaf = next((copy / "ojala/ojala").rglob("Npix=*.parquet"))
    leaf.write_bytes(leaf.read_bytes()[:-1] + b"?")
    (copy / "README.md").unlink()
    assert {damage.file for damage in verify(copy)} == {str(leaf), str(copy / "README.md")}


def test_lsdb_joins_searches_and_matches_without_a_warning(release):
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        catalog = lsdb.open_catalog(release.path)
        frame = catalog.load_extension("ojala").compute(progress_bar=False)
        assert len(frame) == N
        assert {"flux_isdss", "z", "ojala_class", "ojala_flags"} <= set(frame.columns)
        assert "ew_halpha" not in frame.columns, "of 77 columns the default ones are read"
        chosen = frame.iloc[17]
        found = catalog.id_search(values={"object_id": int(chosen["object_id"])}).compute(progress_bar=False)
        assert found["ra"].tolist() == [chosen["ra"]]
        moved = pd.DataFrame({"ra": frame["ra"], "dec": frame["dec"] + 8 / 3600, "key": frame["object_id"]})
        given = {"ra_column": "ra", "dec_column": "dec", "lowest_order": 5, "margin_threshold": 10}
        targets = lsdb.from_dataframe(moved, **given)
        product = lsdb.open_catalog((release / "ojala").path)
        for right in (catalog, product):
            pairs = targets.crossmatch(right, radius_arcsec=9, suffixes=("_t", "")).compute(
                progress_bar=False
            )
            assert len(pairs) == N
        outer = targets.crossmatch(product, radius_arcsec=5, how="outer", suffixes=("_t", ""))
        assert N < len(outer.compute(progress_bar=False)) <= 2 * N


def test_margins_hold_all_neighbours_in_other_partitions(release):
    tables = {
        p: pq.read_table((release / "photometry" / p.leaf).path) for p in read_leaves(release / "photometry")
    }
    margin = {
        p: set(pq.read_table(path.path, columns=["object_id"])["object_id"].to_pylist())
        for p in tables
        if (path := release / "photometry_10arcsec" / p.leaf).exists()
    }
    number = np.repeat(np.arange(len(tables)), [table.num_rows for table in tables.values()])
    rows = pa.concat_tables([t.select(["object_id", "ra", "dec"]) for t in tables.values()])
    place = SkyCoord(rows["ra"].to_numpy() * u.deg, rows["dec"].to_numpy() * u.deg)
    one, other, _, _ = search_around_sky(place, place, MARGIN_ARCSEC * u.arcsec)
    apart = number[one] != number[other]
    assert apart.sum() > 20
    partitions = list(tables)
    for a, b in zip(one[apart], other[apart], strict=True):
        assert rows["object_id"][b].as_py() in margin[partitions[number[a]]]
    for partition, keys in margin.items():
        assert not keys & set(tables[partition]["object_id"].to_pylist()), "its own rows are no margin"
    schema = pq.read_schema((release / "photometry_10arcsec" / next(iter(margin)).leaf).path)
    assert schema.equals(tables[partitions[0]].schema)


def test_an_index_of_several_files_finds_every_object(release, tmp_path):
    source, to = release / "photometry", UPath(tmp_path / "index")
    write_object_index(source, to, read_leaves(source), name="i", primary="photometry", part_rows=200)
    assert len(list((to / "dataset/index").iterdir())) > 1
    index = pd.read_parquet(to / "dataset/index")
    assert len(index) == N
    assert index["object_id"].is_monotonic_increasing
    for partition in read_leaves(source):
        keys = pq.read_table((source / partition.leaf).path, columns=["object_id"])["object_id"].to_pylist()
        there = index[(index["Norder"] == partition.order) & (index["Npix"] == partition.pixel)]
        assert set(there["object_id"]) == set(keys)


def test_there_are_statistics_of_each_partition_and_a_thumbnail(release):
    catalogue = release / "ojala/ojala"
    leaves = read_leaves(catalogue)
    statistics = pq.read_table((catalogue / "per_partition_statistics.parquet").path)
    assert statistics.num_rows == pq.read_metadata((catalogue / "data_thumbnail.parquet").path).num_rows
    assert statistics.num_rows == len(leaves)
    columns = (statistics[name].to_pylist() for name in ("Norder", "Npix", "z::row_count"))
    found = {(order, pixel): rows for order, pixel, rows in zip(*columns, strict=True)}
    assert found == {(p.order, p.pixel): leaf.rows for p, leaf in leaves.items()}


def test_the_citation_is_valid_and_stands_in_properties_card_and_leaves(release):
    schema45 = pytest.importorskip("datacite.schema45", reason="the package datacite is not installed")
    metadata = json.loads((release / "datacite.json").read_text())
    schema45.validator.validate(metadata)
    assert [one["name"] for one in metadata["creators"]] == ["Herrera, Ana", "The ojala developers"]
    cff = yaml.safe_load((release / "CITATION.cff").read_text())
    assert cff["doi"] == ABOUT.doi
    assert cff["authors"][0] == {"family-names": "Herrera", "given-names": "Ana"}
    assert f"> {ABOUT.acknowledgement}" in (release / "README.md").read_text()
    for file in ("collection.properties", "ojala/collection.properties", "ojala/ojala/hats.properties"):
        assert f"obs_ack={ABOUT.acknowledgement}" in (release / file).read_text(), file
    assert "collection_version=DR1" in (release / "collection.properties").read_text()
    leaf = next((release / "ojala/ojala").rglob("Npix=*.parquet"))
    assert pq.read_metadata(leaf.path).metadata[b"bib_reference"] == b"arXiv:2604.00661"


def test_clean_samples_are_those_of_the_query(release):
    narrow = " AND ".join(f"{band.flux_column} IS NOT NULL" for band in NARROW_BANDS)
    query = f"""
        SELECT object_id FROM '{release}/ojala/ojala/dataset/**/*.parquet'
        JOIN '{release}/photometry/dataset/**/*.parquet' USING (object_id)
        WHERE p_galaxy >= 0.9 AND 23.9 - 2.5 * log10(greatest(flux_isdss, 1e-9)) < 21 AND {narrow}
    """
    expected = {key for (key,) in duckdb.sql(query).fetchall()}
    found = lsdb.open_catalog((release / "clean_galaxies").path).compute(progress_bar=False)
    assert set(found["object_id"]) == expected
    assert 50 < len(expected) < N // 2
    assert json.loads((release / "release.json").read_text())["samples"] == {
        "clean_galaxies": len(expected),
        "clean_stars": 0,
        "clean_qsos": 0,
    }
    assert "i < 21, p_galaxy >= 0.9, all 54 narrow bands measured" in (release / "README.md").read_text()


def test_an_export_is_whole_or_not_there(config, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(survey_run, "write_report", lambda *of_the_run: None)
        finished = run_and_publish(config)
    to = UPath(tmp_path / "export")
    made = export_release(finished.out, to, source_url="https://example.org/photometry")
    assert made.products == ("ojala",)
    assert [str(damage) for damage in verify(to)] == []
    assert (
        "hats_primary_table_url=https://example.org/photometry" in (to / "collection.properties").read_text()
    )
    assert not (to / "photometry").exists()
    with pytest.raises(ReleaseError, match="is not empty: name a new folder, or empty it"):
        export_release(finished.out, to)
    leaf = next((finished.run / "ojala").rglob("Npix=*.parquet"))
    leaf.write_bytes(leaf.read_bytes()[:-1] + b"?")
    with pytest.raises(ReleaseError, match="is damaged: its SHA-256 is not that of the listing"):
        export_release(finished.out, UPath(tmp_path / "other"))
    assert [path.name for path in tmp_path.iterdir() if "other" in path.name] == []
