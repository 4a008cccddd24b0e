"""HATS catalogues of others: run where they can be read, else refused before anything is computed."""

import shutil

import lsdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hats.io.skymap import write_skymap
from upath import UPath

from ojala.pipeline.runs.config import RunConfig
from ojala.pipeline.storage.hats import LEAVES, SKYMAP_ORDER, CatalogueError, read_counts, read_leaves
from tests.helpers.survey import ingest_table, photometry_table, plan_run, run_and_publish, without_report

BAND = ["flux_j0660", "flux_j0660_err"]


@pytest.fixture(scope="module")
def ours(tmp_path_factory) -> UPath:
    return ingest_table(photometry_table(60), tmp_path_factory.mktemp("ours"), tile_rows=25)


@pytest.fixture
def theirs(ours, tmp_path) -> UPath:
    """The same catalogue without what this program alone writes."""
    root = UPath(tmp_path / "theirs")
    shutil.copytree(ours.path, root.path)
    (root / LEAVES).unlink()
    return root


def config(source: UPath, tmp_path) -> RunConfig:
    return RunConfig(photometry=str(source), out=str(tmp_path / "out"), model="empty", engine="serial")


def change(root: UPath, changed) -> None:
    """Change the tables of all leaves, and the common metadata."""
    for leaf in sorted(root.glob("dataset/**/Npix=*.parquet")):
        table = changed(pq.read_table(leaf.path, partitioning=None))
        pq.write_table(table, leaf.path)
    pq.write_metadata(table.schema, (root / "dataset" / "_common_metadata").path)


def test_a_missing_band_and_other_widths_of_numbers_are_read(theirs, tmp_path, monkeypatch):
    without_report(monkeypatch)

    def changed(table: pa.Table) -> pa.Table:
        table = table.drop_columns(BAND).append_column("theirs", pa.array(np.arange(table.num_rows)))
        at = table.schema.get_field_index("flux_ujava")
        return table.set_column(at, "flux_ujava", table["flux_ujava"].cast(pa.float64()))

    change(theirs, changed)
    (theirs / "skymap.fits").unlink()
    finished = run_and_publish(config(theirs, tmp_path))
    assert finished.record.status == "complete"
    assert finished.record.rows_out == 60
    assert read_counts(finished.run / "ojala").sum() == 60


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (
            lambda table: table.drop_columns(["object_id", "ra"]),
            "column object_id is missing; column ra is mis",
        ),
        (
            lambda table: table.set_column(0, "_healpix_29", table["_healpix_29"].cast(pa.string())),
            "column _healpix_29 holds string, expected int64",
        ),
        (
            lambda table: table.cast(
                pa.schema(
                    [f.with_metadata({"unit": "mJy"}) if f.name == BAND[0] else f for f in table.schema],
                    metadata=table.schema.metadata,
                )
            ),
            "column flux_j0660 has the unit 'mJy', expected 'uJy'",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_by_the_plan(changed, problem, theirs, tmp_path):
    change(theirs, changed)
    with pytest.raises(CatalogueError, match=problem):
        plan_run(config(theirs, tmp_path))


def test_a_leaf_with_numbers_that_do_not_fit_is_named(theirs, tmp_path, monkeypatch):
    without_report(monkeypatch)
    tile = pa.array(np.full(60, 2**40))
    change(theirs, lambda table: table.set_column(2, "tile_id", tile[: table.num_rows]))
    finished = run_and_publish(config(theirs, tmp_path))
    assert finished.record.status == "incomplete"
    assert all("column tile_id is no int32" in error for error in finished.record.failed.values())


def test_leaves_in_folders_and_missing_leaves_are_refused(theirs):
    leaf = next(iter(theirs.glob("dataset/**/Npix=*.parquet")))
    content = leaf.read_bytes()
    leaf.unlink()
    with pytest.raises(CatalogueError, match=rf"{leaf.name}, a leaf that the catalogue lists, cannot"):
        read_leaves(theirs)
    leaf.write_bytes(content)
    for name in ("hats.properties", "properties"):
        text = (theirs / name).read_text()
        (theirs / name).write_text(text.replace("hats_npix_suffix=.parquet", "hats_npix_suffix=/"))
    with pytest.raises(CatalogueError, match="hats_npix_suffix is '/'"):
        read_leaves(theirs)


def test_a_collection_is_refused_with_the_catalogue_in_it(theirs, tmp_path):
    (tmp_path / "collection.properties").write_text("obs_collection=x\nhats_primary_table_url=theirs\n")
    with pytest.raises(CatalogueError, match=r"is a HATS collection: name the catalogue in it \(.*/theirs\)"):
        read_leaves(UPath(tmp_path))


@pytest.mark.parametrize("order", [None, 3])
def test_rows_are_counted_where_there_is_no_sky_map_or_a_coarse_one(order, ours, theirs):
    wanted = read_counts(ours)
    (theirs / "skymap.fits").unlink()
    if order is not None:
        write_skymap(wanted.reshape(12 * 4**order, -1).sum(axis=1), theirs)
        for name in ("hats.properties", "properties"):
            text = (theirs / name).read_text()
            (theirs / name).write_text(
                text.replace(f"hats_skymap_order={SKYMAP_ORDER}", f"hats_skymap_order={order}")
            )
    np.testing.assert_array_equal(read_counts(theirs), wanted)


@pytest.mark.filterwarnings("ignore")
def test_a_catalogue_that_lsdb_wrote_is_run(ours, tmp_path, monkeypatch):
    without_report(monkeypatch)
    lsdb.open_catalog(ours.path).to_hats(tmp_path / "lsdb", catalog_name="lsdb", as_collection=False)
    finished = run_and_publish(config(UPath(tmp_path / "lsdb"), tmp_path))
    assert finished.record.status == "complete"
    assert finished.record.rows_out == 60
