"""Whatever form the archive gives its rows in, the same photometry comes out."""

import hashlib
import json
import os

import lsdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hats.io.validation import is_valid_catalog
from upath import UPath

from ojala.catalogs_schema.bands import JPAS_BANDS
from ojala.pipeline.ingest.errors import IngestError
from ojala.pipeline.ingest.photometry import PROVENANCE, ingest_photometry
from ojala.pipeline.storage.hats import read_leaves
from ojala.pipeline.storage.parquet import write_leaf
from tests.pipeline.ingest.archive_files import (
    FORMS,
    OBJECTS,
    archive_columns,
    by_key,
    contents,
    expected,
    parquet_of,
    same,
    write_csv,
    write_fits,
    write_votable,
)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_photometry(form, folder):
    summary = ingest_photometry([FORMS[form](folder)], folder / "out")
    assert summary.rows == len(OBJECTS)
    assert len(summary.bands) == 65
    same(contents(folder / "out"), expected(OBJECTS))


def test_result_is_a_valid_hats_catalogue_that_lsdb_opens(folder):
    summary = ingest_photometry([FORMS["contract Parquet"](folder)], folder / "out", tile_rows=15)
    assert is_valid_catalog(folder / "out", strict=True)
    catalogue = lsdb.open_catalog((folder / "out").path)
    assert len(catalogue) == len(OBJECTS)
    near = catalogue.cone_search(246.0, 44.0, 3600.0).compute()
    assert 0 < len(near) < len(OBJECTS)
    assert max(summary.partitions.values()) <= 15
    assert len(summary.partitions) > 1


def test_leaves_hold_their_part_of_the_sky_in_order_and_inputs_say_their_tiles(folder):
    one = write_csv(folder / "one.csv", archive_columns(OBJECTS[:20], "mag"))
    two = write_fits(folder / "two.fits", archive_columns(OBJECTS[20:], "mag"))
    summary = ingest_photometry([one, two], folder / "out", tile_rows=15)
    for partition, rows in summary.partitions.items():
        leaf = pq.read_table((folder / "out" / partition.leaf).path, partitioning=None)
        index = leaf["_healpix_29"].to_numpy()
        assert leaf.num_rows == rows
        assert (np.diff(index) >= 0).all()
        assert set(index >> 2 * (29 - partition.order)) == {partition.pixel}
        assert leaf["object_id"].to_pylist() == [
            tile << 32 | number
            for tile, number in zip(leaf["tile_id"].to_pylist(), leaf["number"].to_pylist(), strict=True)
        ]
    record = json.loads((folder / "out" / PROVENANCE).read_text())
    tiles = {one["name"]: one["tiles"] for one in record["inputs"]}
    assert tiles == {"one.csv": {"9611": 10, "9612": 10}, "two.fits": {"9611": 10, "9612": 10}}


def test_catalogue_says_what_it_was_made_from(folder):
    file = FORMS["CSV, magnitudes"](folder)
    summary = ingest_photometry([file], folder / "out", tile_rows=15)
    record = json.loads((folder / "out" / PROVENANCE).read_text())
    (source,) = record["inputs"]
    assert source["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (source["name"], source["form"], source["rows"]) == ("a.csv", "CSV", 40)
    assert source["ignored"] == ["CLASS_STAR"], "the Kron magnitude is kept in iSDSS"
    assert record["rows"] == summary.rows == 40
    assert record["options"] == {
        "tile_rows": 15,
        "aperture": "APER_COR_3_0",
        "units": None,
        "ignore": [],
        "columns": {},
    }
    assert str(folder) not in json.dumps(record)


def digests(out: UPath) -> dict[str, str]:
    paths = [UPath(path) for path in (out / "dataset").rglob("*.parquet")] + [out / PROVENANCE]
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def test_result_depends_neither_on_the_order_of_files_nor_on_batches(folder, monkeypatch):
    files = [
        write_csv(folder / "one.csv", archive_columns(OBJECTS[:11], "mag")),
        write_fits(folder / "two.fits", archive_columns(OBJECTS[11:25], "mag")),
        write_votable(folder / "three.vot", archive_columns(OBJECTS[25:], "mag")),
    ]
    ingest_photometry(files, folder / "out", tile_rows=15)
    monkeypatch.setattr("ojala.pipeline.ingest.external_sort.RUN_ROWS", 6)
    for form in ("csv", "fits", "votable"):
        monkeypatch.setattr(f"ojala.pipeline.ingest.formats.{form}.BATCH_ROWS", 4)
    ingest_photometry(files[::-1], folder / "again", tile_rows=15)
    assert digests(folder / "again") == digests(folder / "out")


def test_objects_at_one_place_are_ordered_by_their_key(folder):
    rows = {
        "tile_id": [1, 1, 1],
        "number": [3, 1, 2],
        "ra": [10.0] * 3,
        "dec": [0.0] * 3,
        "flux_j0660": [1.0] * 3,
    }
    ingest_photometry([parquet_of(folder / "a.parquet", rows)], folder / "out")
    assert contents(folder / "out")["number"].to_pylist() == [1, 2, 3]


def test_fluxes_are_kept_however_absurd_unless_single_precision_cannot_hold_them(folder):
    values = [float("nan"), float("inf"), -float("inf"), -3.5, 0.0, 1e39, None]
    count = len(values)
    file = parquet_of(
        folder / "a.parquet",
        {
            "tile_id": [1] * count,
            "number": range(count),
            "ra": np.linspace(0, 360, count),
            "dec": np.linspace(-90, 90, count),
            "flux_j0660": values,
            "flux_j0660_err": values[::-1],
        },
    )
    ingest_photometry([file], folder / "out")
    found = by_key(contents(folder / "out"))
    inf = float("inf")
    assert found["flux_j0660"].to_pylist() == [None, inf, -inf, -3.5, 0.0, None, None]
    assert found["flux_j0660_err"].to_pylist() == [None, None, 0.0, -3.5, -inf, inf, None]
    assert found["flux_j0670"].null_count == count


def test_apertures_can_be_chosen(folder):
    file = FORMS["CSV, magnitudes"](folder)
    ingest_photometry([file], folder / "out", aperture="AUTO")
    np.testing.assert_allclose(contents(folder / "out")["flux_j0660"].to_numpy(), 36.31, rtol=1e-6)
    with pytest.raises(IngestError, match=r"has no aperture PETRO.*APER_COR_3_0, AUTO"):
        ingest_photometry([file], folder / "other", aperture="PETRO")


def test_fluxes_of_unknown_units_need_a_word(folder):
    file = write_csv(folder / "a.csv", archive_columns(OBJECTS, "flambda"), None)
    with pytest.raises(IngestError, match=r"column FLUX_APER_COR_3_0: does not say its units.*--units fnu"):
        ingest_photometry([file], folder / "out")
    ingest_photometry([file], folder / "out", units="flambda")
    same(contents(folder / "out"), expected(OBJECTS))


def test_contradictory_units_are_refused(folder):
    file = write_fits(folder / "a.fits", archive_columns(OBJECTS, "fnu"), "1e-30 erg / (s cm2 Hz)")
    with pytest.raises(IngestError, match="different units"):
        ingest_photometry([file], folder / "out", units="flambda")


def test_arrays_of_other_filters_are_understood_when_they_are_named(folder):
    columns = archive_columns(OBJECTS, "mag")
    for name, values in columns.items():
        if values.ndim == 2:
            columns[name] = np.hstack([values[:, :1] * 0 + 1, values, values[:, :2] * 0 + 1])
    file = write_csv(folder / "a.csv", columns)
    with pytest.raises(IngestError, match="row 1, column FLAGS: holds 60 values, expected 57"):
        ingest_photometry([file], folder / "out")
    names = " ".join(["uJPAS", *(band.name for band in JPAS_BANDS), "gSDSS", "rSDSS"])
    file.write_text(f"#FILTERS {names}\n{file.read_text()}")
    ingest_photometry([file], folder / "out")
    same(contents(folder / "out"), expected(OBJECTS))
    file.write_text(file.read_text().replace("J0660", "J0999"))
    with pytest.raises(IngestError, match="unknown filter 'J0999'"):
        ingest_photometry([file], folder / "again")


def test_single_filters_picked_in_a_query_are_understood(folder):
    columns = archive_columns(OBJECTS, "mag")
    slot = [band.name for band in JPAS_BANDS].index("J0660")
    picked = {name: columns[name] for name in ("TILE_ID", "NUMBER", "ALPHA_J2000", "DELTA_J2000")}
    for kind in ("MAG", "MAG_ERR"):
        picked[f"{kind}_APER_COR_3_0[jpas::J0660]"] = columns[f"{kind}_APER_COR_3_0"][:, slot]
    summary = ingest_photometry([write_csv(folder / "a.csv", picked)], folder / "out")
    assert summary.bands == ("J0660",)
    wanted = expected(OBJECTS).select(["tile_id", "number", "flux_j0660", "flux_j0660_err"])
    same(contents(folder / "out"), wanted)


def test_nothing_stays_behind_when_the_disk_is_full(folder):
    # A limit on the size of files is what a test can have of a full disk without being root.
    resource = pytest.importorskip("resource", reason="limits on file size are a thing of Unix")
    file = FORMS["contract Parquet"](folder)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(IngestError, match="File too large"):
            ingest_photometry([file], folder / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in folder.iterdir()] == [file.name]


def test_an_ingest_that_was_interrupted_goes_on_from_what_is_finished(folder, monkeypatch):
    written = []

    def write(path, *arguments):
        if len(written) == 1:
            written.append(path)
            raise KeyboardInterrupt
        written.append(path)
        return write_leaf(path, *arguments)

    file = FORMS["contract Parquet"](folder)
    ingest_photometry([file], folder / "once" / "out", tile_rows=15)
    monkeypatch.setattr("ojala.pipeline.ingest.leaves.write_leaf", write)
    monkeypatch.setattr("ojala.pipeline.ingest.leaves.TASK_ROWS", 1)
    with pytest.raises(KeyboardInterrupt):
        ingest_photometry([file], folder / "out", tile_rows=15)
    first, interrupted = written
    monkeypatch.setattr("ojala.pipeline.ingest.pieces.open_table", None)  # the file is not read again
    summary = ingest_photometry([file], folder / "out", tile_rows=15)
    assert written.count(first) == 1
    assert written.count(interrupted) == 2
    assert len(written) == len(summary.partitions) + 1
    assert digests(folder / "out") == digests(folder / "once" / "out")
    assert sorted(path.name for path in folder.iterdir()) == sorted([file.name, "once", "out"])


def test_what_an_interrupted_ingest_had_finished_is_for_the_same_request_alone(folder, monkeypatch):
    file = FORMS["contract Parquet"](folder)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("ojala.pipeline.ingest.leaves.write_leaf", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ingest_photometry([file], folder / "out")
        (kept,) = folder.glob(".out.*")
        with pytest.raises(KeyboardInterrupt):
            ingest_photometry([file], folder / "out", tile_rows=15)
        (other,) = folder.glob(".out.*")
    assert other != kept
    os.utime(file, ns=(0, 0))
    ingest_photometry([file], folder / "out", tile_rows=15)
    assert sorted(path.name for path in folder.iterdir()) == sorted([file.name, "out"])


def test_rows_can_come_from_an_object_store_and_go_to_one(folder):
    store = UPath("memory://ingest-test")
    try:
        source = store / "a.fits"
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_bytes(FORMS["FITS, magnitudes"](folder).read_bytes())
        ingest_photometry([source], store / "out", tile_rows=15)
        found = [
            pq.read_table(pa.BufferReader((store / "out" / p.leaf).read_bytes()))
            for p in read_leaves(store / "out")
        ]
        same(pa.concat_tables(found), expected(OBJECTS))
        with pytest.raises(IngestError, match="not empty"):
            ingest_photometry([source], store / "out")
    finally:
        store.fs.rm(store.path, recursive=True)
