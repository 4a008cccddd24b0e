"""Margins, index and statistics of a catalogue: exact, and the same whether made at once or continued."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord, search_around_sky
from hats.catalog.index.index_catalog import IndexCatalog
from hats.io.parquet_metadata import write_parquet_metadata
from hats.io.validation import is_valid_catalog
from hats.loaders.read_hats import read_hats
from upath import UPath

from ojala.pipeline.storage import statistics
from ojala.pipeline.storage.hats import LEAVES, CatalogueError, leaves_text
from ojala.pipeline.storage.healpix import partitions_of, pixel_at, spatial_index
from ojala.pipeline.storage.margins import MARGIN_ARCSEC, MARGINS, read_margins, stale_margins, write_margins
from ojala.pipeline.storage.object_index import is_stale, read_parts, write_object_index
from ojala.pipeline.storage.parquet import LeafRecord
from ojala.pipeline.storage.statistics import STATISTICS, THUMBNAIL, write_statistics

N = 4000
CENTRES = {"a tile": (245.5, 43.9), "the pole": (30.0, 89.98), "a corner of eight": (90.0, 41.8103149)}


def objects(centre: tuple[float, float], n: int = N, size: float = 0.08) -> pa.Table:
    """Objects in a square [deg], denser to one side, so that partitions differ in size."""
    rng = np.random.default_rng(1)
    ra, dec = centre
    dec = dec + size * rng.uniform(-0.5, 0.5, n)
    ra = (ra + rng.power(3, n) * size / np.cos(np.radians(np.minimum(np.abs(dec), 89.99)))) % 360
    dec = np.minimum(dec, 180 - dec)
    index = spatial_index(ra, dec)
    key = np.arange(n) * 7 + 2**32
    columns = {"object_id": key, "ra": ra, "dec": dec, "flux": ra.astype(np.float32), "_healpix_29": index}
    return pa.table(columns).sort_by("_healpix_29")


def catalogue(root: Path, table: pa.Table, rows: int = 400, order: int = 12):
    """The leaves of a catalogue and what readers need besides."""
    leaves, index = {}, table["_healpix_29"].to_numpy()
    for p in partitions_of(index, order, rows):
        part = table.filter(pa.array(pixel_at(index, p.order) == p.pixel))
        path = root / p.leaf
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(part, path)
        content = path.read_bytes()
        leaves[p] = LeafRecord(p.leaf, part.num_rows, len(content), hashlib.sha256(content).hexdigest())
    pq.write_metadata(table.schema, root / "dataset" / "_common_metadata")
    (root / LEAVES).write_text(leaves_text(leaves))
    (root / "hats.properties").touch()
    return UPath(root), leaves


def files(folder: UPath) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "properties" not in path.name
    }


def inodes(folder: UPath) -> dict[str, int]:
    return {p.relative_to(folder).as_posix(): os.stat(p.path).st_ino for p in folder.rglob("*.parquet")}


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """A catalogue with its margins, index and statistics."""
    folder = tmp_path_factory.mktemp("before")
    root, leaves = catalogue(folder / "all", objects(CENTRES["a tile"]))
    margin, index = UPath(folder / "margin"), UPath(folder / "index")
    write_margins(root, margin, leaves, name="all")
    write_object_index(root, index, leaves, name="index", primary="all", part_rows=300)
    write_statistics(root, leaves)
    return root, leaves, margin, index


@pytest.fixture(scope="module")
def after(before, tmp_path_factory):
    """The same catalogue in which one object has moved from one leaf into another."""
    table = objects(CENTRES["a tile"])
    place = {name: table[name].to_numpy().copy() for name in table.column_names}
    moved = N // 3
    place["ra"][moved] += 0.01
    place["_healpix_29"][moved] = spatial_index(place["ra"][[moved]], place["dec"][[moved]])[0]
    root, leaves = catalogue(tmp_path_factory.mktemp("after") / "all", pa.table(place).sort_by("_healpix_29"))
    changed = {p for p in before[1] if before[1][p] != leaves.get(p)}
    assert (len(changed), leaves.keys()) == (2, before[1].keys())
    return root, leaves, changed


@pytest.mark.parametrize("place", CENTRES)
def test_margins_hold_all_neighbours_in_other_partitions(tmp_path, place):
    n = 600
    table = objects(CENTRES[place], n, 0.03)
    # Partitions down to order 14 are smaller than the pixels by which margins are found.
    root, leaves = catalogue(tmp_path / "all", table, rows=20, order=16)
    margins = write_margins(root, UPath(tmp_path / "margin"), leaves, name="all")
    assert len({p.order for p in leaves}) > 2
    index, number = table["_healpix_29"].to_numpy(), np.empty(n, int)
    for i, p in enumerate(leaves):
        number[pixel_at(index, p.order) == p.pixel] = i
    sky = SkyCoord(table["ra"].to_numpy() * u.deg, table["dec"].to_numpy() * u.deg)
    one, other, _, _ = search_around_sky(sky, sky, MARGIN_ARCSEC * u.arcsec)
    near = {(number[a], int(table["object_id"][int(b)].as_py())) for a, b in zip(one, other, strict=True)}
    own = {(n, key) for n, key in zip(number, table["object_id"].to_pylist(), strict=True)}
    held = set()
    for i, p in enumerate(leaves):
        if margins[p].rows:
            part = pq.read_table(tmp_path / "margin" / p.leaf, partitioning=None)
            held |= {(i, key) for key in part["object_id"].to_pylist()}
            assert part.num_rows == margins[p].rows
            assert part.schema.equals(table.schema)
    assert near - own <= held
    assert not held & own, "its own rows are no margin"
    assert len(near - own) > 100


def test_margins_that_are_continued_are_those_made_at_once_and_the_untouched_are_linked(
    before, after, tmp_path
):
    root, leaves, _ = after
    whole, continued = UPath(tmp_path / "whole"), UPath(tmp_path / "continued")
    write_margins(root, whole, leaves, name="all")
    write_margins(root, continued, leaves, name="all", base=before[2])
    assert files(continued) == files(whole)
    assert is_valid_catalog(continued)
    old, new = read_margins(before[2]), read_margins(continued)
    same = {p.leaf for p in new if new[p].rows and old[p].key == new[p].key}
    first, now = inodes(before[2]), inodes(continued)
    assert {name for name in now if now[name] == first.get(name)} == same
    assert 0 < len(same) < len(now)
    assert stale_margins(continued, leaves) == []
    touched = set(stale_margins(before[2], leaves))
    assert touched
    assert touched == {p for p in new if old[p].key != new[p].key}


def test_a_margin_whose_file_is_lost_is_made_again(before, tmp_path):
    root, leaves, margin, _ = before
    write_margins(root, copy := UPath(tmp_path / "copy"), leaves, name="all", base=margin)
    lost = next(p for p, one in read_margins(copy).items() if one.rows)
    (copy / lost.leaf).unlink()
    write_margins(root, again := UPath(tmp_path / "again"), leaves, name="all", base=copy)
    assert files(again) == files(margin)


def test_a_damaged_list_of_margins_is_told(before, tmp_path):
    write_margins(before[0], copy := UPath(tmp_path / "copy"), before[1], name="all", base=before[2])
    (copy / MARGINS).write_text((copy / MARGINS).read_text() + "5/1,many\n")
    with pytest.raises(CatalogueError, match=r"margins.csv: '5/1,many' is no margin"):
        read_margins(copy)


def rows_of_index(index: UPath) -> list[dict]:
    tables = [pq.read_table((index / part.path).path) for part in read_parts(index)]
    return pa.concat_tables(tables).to_pylist()


def test_an_index_that_is_continued_is_that_made_at_once_and_the_untouched_files_are_linked(
    before, after, tmp_path
):
    root, leaves, changed = after
    whole, continued = UPath(tmp_path / "whole"), UPath(tmp_path / "continued")
    write_object_index(root, whole, leaves, name="i", primary="all", part_rows=300)
    write_object_index(root, continued, leaves, name="i", primary="all", part_rows=300, base=before[3])
    assert rows_of_index(continued) == rows_of_index(whole)
    assert len(rows_of_index(whole)) == N
    assert (is_stale(before[3], leaves), is_stale(continued, leaves)) == (True, False)
    first, now = inodes(before[3]), inodes(continued)
    linked = {name for name in now if now[name] == first.get(name)}
    names = {p.name for p in changed}
    assert linked == {part.path for part in read_parts(before[3]) if names.isdisjoint(part.partitions)}
    catalog = read_hats(continued)
    assert isinstance(catalog, IndexCatalog)
    partition = next(iter(changed))
    key = pq.read_table((root / partition.leaf).path, partitioning=None)["object_id"][0].as_py()
    found = catalog.loc_partitions([key])
    assert [(p.order, p.pixel) for p in found] == [(partition.order, partition.pixel)]


def test_an_index_loses_the_objects_of_partitions_that_are_gone_and_gets_those_of_new_ones(before, tmp_path):
    root, leaves, _, index = before
    some = dict(list(leaves.items())[::2])
    fewer, all_again = UPath(tmp_path / "fewer"), UPath(tmp_path / "all")
    write_object_index(root, fewer, some, name="i", primary="all", part_rows=300, base=index)
    assert len(rows_of_index(fewer)) == sum(leaf.rows for leaf in some.values())
    write_object_index(root, all_again, leaves, name="i", primary="all", part_rows=300, base=fewer)
    assert rows_of_index(all_again) == rows_of_index(index)


def test_statistics_do_not_depend_on_how_many_leaves_are_read_at_once(after, monkeypatch):
    root, leaves, _ = after
    write_statistics(root, leaves)
    at_once = [(root / name).read_bytes() for name in (STATISTICS, THUMBNAIL)]
    monkeypatch.setattr(statistics, "_LEAVES_AT_ONCE", 2)
    write_statistics(root, leaves)
    assert [(root / name).read_bytes() for name in (STATISTICS, THUMBNAIL)] == at_once


def test_statistics_are_those_of_hats_and_the_same_when_they_are_continued(before, after, tmp_path):
    root, leaves, _ = after
    write_statistics(root, leaves)
    made = {name: pq.read_table((root / name).path) for name in (STATISTICS, THUMBNAIL)}
    (root / STATISTICS).unlink()
    write_statistics(root, leaves, base=before[0])
    assert {name: pq.read_table((root / name).path) for name in made} == made
    write_parquet_metadata(root, output_path=tmp_path, create_thumbnail=True, create_per_partition_stats=True)
    theirs = pq.read_table(tmp_path / STATISTICS)
    assert (
        made[STATISTICS]
        .select(theirs.column_names)
        .sort_by("object_id::min_value")
        .equals(theirs.sort_by("object_id::min_value"))
    )
    assert made[THUMBNAIL].equals(pq.read_table(tmp_path / THUMBNAIL).cast(made[THUMBNAIL].schema))
