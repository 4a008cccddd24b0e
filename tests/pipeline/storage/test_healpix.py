import healpy
import numpy as np
import pytest

from ojala.pipeline.storage.healpix import (
    INDEX_ORDER,
    Partition,
    adaptive_partitions,
    pixel_at,
    sky_order,
    spatial_index,
)


def scattered(n, seed=0):
    rng = np.random.default_rng(seed)
    return spatial_index(rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n))))


def test_the_leaf_lies_where_hats_looks_for_it():
    assert Partition(7, 39285).leaf == "dataset/Norder=7/Dir=30000/Npix=39285.parquet"


@pytest.mark.parametrize("name", ["", "5", "5/", "a/b", "5/12288", "30/1", "-1/0", "5/-1", "5/1/2"])
def test_a_name_that_is_no_pixel_is_refused(name):
    with pytest.raises(ValueError, match="no partition"):
        Partition.parse(name)


def test_a_partition_is_known_by_its_name():
    assert Partition.parse(Partition(5, 1234).name) == Partition(5, 1234)


def test_the_spatial_index_is_healpys_nested_pixel_of_order_29():
    index = spatial_index(np.array([245.5]), np.array([43.9]))
    assert index[0] == healpy.ang2pix(2**29, 245.5, 43.9, nest=True, lonlat=True)
    assert pixel_at(index, 7)[0] == healpy.ang2pix(2**7, 245.5, 43.9, nest=True, lonlat=True)


def test_partitions_cover_every_row_once_and_hold_no_more_than_asked_for():
    index = scattered(20_000)
    partitions = adaptive_partitions(*np.unique(pixel_at(index, 8), return_counts=True), 8, 300)
    rows = [int((pixel_at(index, p.order) == p.pixel).sum()) for p in partitions]
    assert sum(rows) == len(index)
    assert max(rows) <= 300


def test_partitions_are_as_coarse_as_the_bound_allows():
    index = scattered(20_000)
    for p in adaptive_partitions(*np.unique(pixel_at(index, 8), return_counts=True), 8, 300):
        if p.order > 0:
            assert (pixel_at(index, p.order - 1) == p.pixel >> 2).sum() > 300


def test_partitions_are_those_of_hats():
    from hats.pixel_math.partition_stats import generate_alignment

    index = scattered(5_000)
    counts = np.bincount(pixel_at(index, 6), minlength=12 * 4**6)
    theirs = {tuple(map(int, a[:2])) for a in generate_alignment(counts, 6, 0, 200) if a is not None and a[2]}
    ours = adaptive_partitions(*np.unique(pixel_at(index, 6), return_counts=True), 6, 200)
    assert {(p.order, p.pixel) for p in ours} == theirs


def test_a_pixel_that_cannot_be_divided_further_is_named():
    with pytest.raises(ValueError, match=r"3/5 alone holds 11 rows.*raise --tile-rows"):
        adaptive_partitions(np.array([5]), np.array([11]), 3, 10)


def test_no_rows_make_no_partitions():
    assert adaptive_partitions(np.array([], np.int64), np.array([], np.int64), 3, 10) == []


def test_partitions_of_different_orders_are_sorted_by_place():
    small, next_to_it, far = Partition(2, 5), Partition(1, 2), Partition(0, 11)
    assert sky_order([far, next_to_it, small]) == [small, next_to_it, far]
    assert INDEX_ORDER == 29
