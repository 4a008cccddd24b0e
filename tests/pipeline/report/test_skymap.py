import healpy
import numpy as np
import pytest

from ojala.catalogs_schema.receipt import Receipt
from ojala.pipeline.report.skymap import sky_drawing
from ojala.pipeline.runs.totals import totals_of
from ojala.pipeline.storage.hats import SKYMAP_ORDER
from ojala.pipeline.storage.healpix import Partition, pixel_at, spatial_index
from tests.pipeline.report.small_run import SmallRun, failed


def field(ra: np.ndarray, dec: np.ndarray, order: int, like: Receipt) -> tuple[list[Receipt], np.ndarray]:
    """Receipts of the partitions of an order that hold some positions, and the map of these."""
    index = spatial_index(ra, dec)
    receipts = [
        like.model_copy(update={"partition": Partition(order, int(pixel)).name})
        for pixel in np.unique(pixel_at(index, order))
    ]
    return receipts, np.bincount(pixel_at(index, SKYMAP_ORDER), minlength=healpy.order2npix(SKYMAP_ORDER))


@pytest.mark.parametrize(("ra", "dec"), [(0.0, 0.0), (359.9, -60.0), (120.0, 89.5), (245.5, 43.9)])
def test_a_small_field_is_enlarged_wherever_it_lies(small_run: SmallRun, ra: float, dec: float) -> None:
    rng = np.random.default_rng(1)
    vectors = healpy.dir2vec(ra, dec, lonlat=True)[:, None] + rng.normal(0.0, 0.005, (3, 200))
    lon, lat = healpy.vec2dir(vectors, lonlat=True)
    receipts, counts = field(lon, lat, 6, small_run.receipts[0])
    drawing = sky_drawing(totals_of(receipts), counts)
    assert "the enlarged patch" in drawing.caption
    assert "right ascension [deg]" in drawing.svg


def test_a_survey_of_the_sky_is_shown_once(small_run: SmallRun) -> None:
    rng = np.random.default_rng(2)
    ra, dec = rng.uniform(0.0, 360.0, 500), np.degrees(np.arcsin(rng.uniform(0.0, 1.0, 500)))
    receipts, counts = field(ra, dec, 3, small_run.receipts[0])
    drawing = sky_drawing(totals_of(receipts), counts)
    assert "enlarged" not in drawing.caption
    assert "right ascension" not in drawing.svg


def test_rows_outside_the_run_are_not_shown(small_run: SmallRun) -> None:
    ra, dec = np.array([10.0, 200.0]), np.array([5.0, 60.0])
    receipts, counts = field(ra, dec, 5, small_run.receipts[0])
    both = sky_drawing(totals_of(receipts), counts)
    one = sky_drawing(totals_of(receipts[:1]), counts)
    assert "rows on 0.1 square degrees" in both.alt
    assert "enlarged" not in both.caption
    assert "RA 10" in one.alt or "RA 200" in one.alt
    assert "enlarged" in one.caption


def test_failed_partitions_are_marked(small_run: SmallRun) -> None:
    receipts = [failed(small_run.receipts[0]), *small_run.receipts[1:]]
    counts = np.zeros(healpy.order2npix(SKYMAP_ORDER), dtype=np.int64)
    drawing = sky_drawing(totals_of(receipts), counts)
    assert f"{len(receipts)} partitions, 1 of them failed" in drawing.alt
    assert "var(--vermilion)" in drawing.svg
