"""Regions as people name them, against the sky drawn pixel by pixel."""

import time

import healpy
import numpy as np
import pytest
from mocpy import MOC

from ojala.catalogs_schema.ojala import Flag
from ojala.catalogs_schema.receipt import Leaf
from ojala.pipeline.inference.adapters.registry import ADAPTERS
from ojala.pipeline.runs.receipts import PartitionStatus
from ojala.pipeline.runs.region import RegionError, coverage, parse_region
from ojala.pipeline.storage.healpix import Partition

ORDER, FINE = 4, 8
SKY = [Partition(ORDER, pixel) for pixel in range(healpy.order2npix(ORDER))]
PIXELS = np.arange(healpy.order2npix(FINE))
RA, DEC = healpy.pix2ang(healpy.order2nside(FINE), PIXELS, nest=True, lonlat=True)
DIRECTIONS = np.array(healpy.ang2vec(RA, DEC, lonlat=True))


def touched(text, sky=SKY):
    return {partition.pixel for partition in parse_region(text).touched(sky, {})}


def drawn(inside):
    """Partitions of which at least one fine pixel's centre lies inside."""
    return set((PIXELS[inside] >> 2 * (FINE - ORDER)).tolist())


def within(ra, dec, radius):
    return DIRECTIONS @ healpy.ang2vec(ra, dec, lonlat=True) >= np.cos(np.radians(radius))


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("cone:150,2,5", within(150, 2, 5)),
        ("cone:0.5,-3,4", within(0.5, -3, 4)),
        ("cone:77,90,6", within(0, 90, 6)),
        ("cone:200,-88,5", within(200, -88, 5)),
        *(
            (f"cone:{ra},{dec},{radius}", within(ra, dec, radius))
            for ra, dec in ((10, 20), (200, -85), (0, 90))
            for radius in (89, 91, 120, 150, 165, 175, 179, 179.99, 180)
        ),
        ("box:150,160,40,50", (RA >= 150) & (RA <= 160) & (DEC >= 40) & (DEC <= 50)),
        ("box:350,10,-5,5", ((RA >= 350) | (RA <= 10)) & (np.abs(DEC) <= 5)),
        ("box:0,360,80,90", DEC >= 80),
        ("box:0,5,-5,5", (RA <= 5) & (np.abs(DEC) <= 5)),
        ("box:10,350,-5,5", (RA >= 10) & (RA <= 350) & (np.abs(DEC) <= 5)),
    ],
)
def test_cones_and_boxes_touch_what_lies_in_them_over_ra_0_and_at_the_poles(text, inside):
    found = touched(text)
    assert drawn(inside) <= found
    # What else is touched is so by a corner at most: its neighbour is inside.
    neighbours = healpy.get_all_neighbours(healpy.order2nside(ORDER), sorted(drawn(inside)), nest=True)
    assert found <= drawn(inside) | set(neighbours.ravel().tolist())
    assert len(found) <= 2 * len(drawn(inside))


@pytest.mark.parametrize(
    "corners",
    [
        [(355, -5), (5, -5), (5, 5), (355, 5)],
        [(0, 80), (90, 80), (180, 80), (270, 80)],
        [(270, -75), (180, -75), (90, -75), (0, -75)],
        [(100, 20), (140, 25), (120, 50)],
    ],
)
def test_polygons_are_drawn_with_great_circles_over_ra_0_and_around_the_poles(corners):
    vectors = healpy.ang2vec(*np.array(corners, float).T, lonlat=True)
    inside = np.ones(len(PIXELS), bool)
    for one, two in zip(vectors, np.roll(vectors, -1, axis=0), strict=True):
        normal = np.cross(one, two)
        inside &= DIRECTIONS @ (normal * np.sign(normal @ vectors.sum(axis=0))) > 0
    found = touched("polygon:" + ";".join(f"{ra},{dec}" for ra, dec in corners))
    assert drawn(inside) <= found
    assert len(found) < 1.2 * len(drawn(inside)) + 4


STAR = ";".join(f"{200 + i * 40 / 5000},{30 + (i % 2) * 10}" for i in range(5000))
FOLDED = ";".join(f"{200 + (i * 2003 % 5000) * 40 / 5000},{30 + i / 500}" for i in range(5000))


@pytest.mark.parametrize("corners", ["0,0;10,10;10,0;0,10", "350,0;10,10;10,0;350,10", STAR, FOLDED])
def test_a_polygon_that_crosses_itself_is_refused_soon(corners):
    begin = time.process_time()
    with pytest.raises(RegionError, match=r"edges \d+ and \d+ .* cross; give the corners in their order"):
        parse_region(f"polygon:{corners}")
    assert time.process_time() - begin < 20


def test_polygons_of_many_corners_are_drawn_or_refused():
    angle = np.linspace(0, 2 * np.pi, 1000, endpoint=False)
    corners = [f"{200 + 8 * np.cos(a):.6f},{30 + 6 * np.sin(a):.6f}" for a in angle]
    inside = ((RA - 200) / 8) ** 2 + ((DEC - 30) / 6) ** 2 < 1
    found = touched("polygon:" + ";".join(corners))
    assert drawn(inside) <= found
    assert len(found) < 1.5 * len(drawn(inside))
    with pytest.raises(RegionError, match=r"10,001 corners: at most 10,000 are drawn"):
        parse_region("polygon:" + ";".join(f"{i / 100},{(i % 7) / 10}" for i in range(10_001)))


def test_a_small_region_touches_the_partition_that_it_lies_in():
    assert touched("box:150.00,150.01,2.00,2.01") == {
        int(healpy.ang2pix(2**ORDER, 150.005, 2.005, nest=True, lonlat=True))
    }
    assert len(touched("cone:150,2,0.001")) == 1


def test_boxes_touch_partitions_of_the_finest_order():
    finest = [Partition(29, 12 * 4**29 - 1), Partition(29, 0)]
    assert touched("box:0,360,-90,90", finest) == {partition.pixel for partition in finest}


@pytest.mark.parametrize("share", ["1.2.3", ".", "...", "", "nan"])
def test_a_share_that_is_no_number_is_refused(share):
    with pytest.raises(RegionError, match=r"expected flagged or flagged:NAME>0\.1"):
        parse_region(f"flagged:any>{share}")


def test_tiles_touch_their_parents_and_children():
    assert touched(f"tiles:{ORDER}/17") == {17}
    assert touched(f"tiles:{ORDER - 1}/4") == {16, 17, 18, 19}
    assert touched(f"tiles:{ORDER + 2}/{17 * 16 + 3}, {ORDER}/0") == {17, 0}


@pytest.mark.parametrize(("name", "form"), [("m.fits", "fits"), ("m.json", "json"), ("m.txt", "ascii")])
def test_a_moc_file_is_a_region(tmp_path, name, form):
    coverage([Partition(ORDER, 5), Partition(ORDER + 1, 80)]).save(tmp_path / name, format=form)
    assert touched(f"moc:{tmp_path / name}") == {5, 20}


def test_the_coverage_of_partitions_is_exact():
    partitions = [Partition(3, 7), Partition(5, 900)]
    moc = coverage(partitions)
    assert moc.sky_fraction == pytest.approx(1 / healpy.order2npix(3) + 1 / healpy.order2npix(5))
    assert coverage(SKY) == MOC.from_string(f"0/0-11 {ORDER}/")


def known(status="done", **flags):
    leaf = Leaf(product="ojala", path="x", rows=1, bytes=1, sha256="")
    return PartitionStatus("r", status, "", None, (leaf,), flags, {}, 0)


def test_flagged_are_partitions_that_failed_or_carry_a_flag_in_more_than_a_share_of_rows():
    one, two, three, four = SKY[:4]
    base = {one: known(FAINT=0.3, any=0.4), two: known("failed"), three: known(FAINT=0.05, any=0.05)}
    assert parse_region("flagged").touched(SKY[:4], base) == {two, four}
    assert parse_region("flagged:FAINT>0.1", Flag).touched(SKY[:4], base) == {one}
    assert parse_region("flagged:any>0.01").touched(SKY[:4], base) == {one, three}


@pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=list(ADAPTERS))
def test_the_flags_of_every_model_make_regions_and_no_others_do(adapter):
    first, *_, last = (flag.name for flag in adapter.flags)
    base = {SKY[0]: known(**{last: 0.2}), SKY[1]: known(**{first: 0.2})}
    assert parse_region(f"flagged:{last}>0.1", adapter.flags).touched(SKY[:2], base) == {SKY[0]}
    with pytest.raises(RegionError, match=f"no flag 'OTHER' of the model: choose from any, {first}"):
        parse_region("flagged:OTHER>0.1", adapter.flags)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sphere:1,2,3", "is none of: cone:RA,DEC,RADIUS"),
        ("cone:1,2", "expected cone:RA,DEC,RADIUS"),
        ("cone:1,2,nan", "expected cone"),
        ("cone:1,2,0", "radius must be above 0"),
        ("cone:400,2,1", "between 0 and 360"),
        ("cone:1,91,1", "between -90 and 90"),
        ("box:1,2,5,4", "DEC1 must be below DEC2"),
        ("box:1,1,4,5", "RA1 and RA2 must differ"),
        ("polygon:1,2;3,4", "at least three corners"),
        ("polygon:1,2;3,4;1,2", "a corner is given twice"),
        ("tiles:5/99999999", "no such HEALPix pixel"),
        ("tiles:5", "expected ORDER/PIXEL"),
        ("moc:/nowhere.fits", "there is no file"),
        ("flagged:NONSENSE>0.1", "there is no flag 'NONSENSE'"),
        ("flagged:FAINT", "expected flagged or flagged:NAME>0.1"),
        ("", "is none of"),
    ],
)
def test_what_is_no_region_is_refused_with_the_form_expected(text, message):
    with pytest.raises(RegionError, match=message):
        parse_region(text)


def test_a_file_that_is_no_moc_is_refused(tmp_path):
    (tmp_path / "m.fits").write_bytes(b"no FITS")
    with pytest.raises(RegionError, match="cannot be read as a MOC"):
        parse_region(f"moc:{tmp_path / 'm.fits'}").touched(SKY, {})


def test_a_region_without_partitions_is_an_error():
    with pytest.raises(RegionError, match="touches none of the 1 partitions"):
        parse_region("cone:150,2,1").touched([Partition(ORDER, 0)], {})
