"""Images become a catalogue of cut-outs: one row for every object, with and without image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table
from upath import UPath

from ojala.catalogs_schema.cutouts import CUTOUTS, FLAG_MEANINGS, NOT_MEASURED, CutoutFlag
from ojala.pipeline.inference.cutouts import read_cutouts
from ojala.pipeline.ingest.cutouts import PROVENANCE, CutoutsSummary, ingest_cutouts
from ojala.pipeline.ingest.errors import IngestError
from ojala.pipeline.ingest.images.extract import estimated_ivar
from ojala.pipeline.ingest.spectra import ingest_spectra
from ojala.pipeline.quality.verify import verify
from ojala.pipeline.storage.hats import read_leaves
from tests.helpers import image_files, spectra_files
from tests.helpers.survey import ingest_table, photometry_table

DATA = Path(__file__).parents[3].parent / "shared" / "data"
NANOMAGGY = 3.631
PLACES = {
    "1": (50.2, 140.3),
    "2": (5.2, 100.2),
    "3": (198.8, 198.8),
    "4": (105.2, 105.2),
    "5": (62.0, 66.0),
    "6": (-3.0, 50.0),
}


def table_of(out: UPath) -> pa.Table:
    """All rows by their key."""
    tables = [pq.read_table((out / partition.leaf).path) for partition in read_leaves(out)]
    return pa.concat_tables(tables).sort_by("object_id")


def rows_of(out: UPath) -> dict[str, dict[str, object]]:
    rows = {}
    for row in table_of(out).to_pylist():
        row["image"] = np.reshape(row["image"], (3, 64, 64))
        row["ivar"] = np.reshape(row["ivar"], (3, 8, 8))
        row["mask"] = np.reshape(row["mask"], (64, 64))
        rows[str(row["object_id"])] = row
    return rows


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[CutoutsSummary, UPath]:
    folder = tmp_path_factory.mktemp("cutouts")
    image_files.make_brick(folder / "brick")
    objects = image_files.write_objects(folder / "objects.csv", PLACES)
    out = UPath(folder / "cutouts")
    return ingest_cutouts([UPath(folder / "brick")], UPath(objects), out), out


def test_a_cutout_is_the_box_of_the_brick_about_its_object(made):
    row = rows_of(made[1])["1"]
    for k, band in enumerate("grz"):
        box = image_files.pixels(band)[109:173, 19:83] * NANOMAGGY
        np.testing.assert_allclose(row["image"][k], box, rtol=1e-6)
    np.testing.assert_allclose(
        row["ivar"], np.array([4.0, 5.0, 6.0])[:, None, None] / NANOMAGGY**2 * np.ones((3, 8, 8))
    )
    assert (row["x"], row["y"]) == pytest.approx((31.2, 31.3), abs=1e-4)
    assert (row["shift_x"], row["shift_y"], row["brick"], row["bands"]) == (0, 0, "1500p020", "grz")
    assert [row[f"psf_fwhm_{band}"] for band in "grz"] == pytest.approx([1.3, 1.2, 1.1])
    assert row["flags"] == 0
    assert not row["mask"].any()


def test_near_an_edge_the_cutout_is_shifted_and_says_so(made):
    rows = rows_of(made[1])
    west, corner = rows["2"], rows["3"]
    np.testing.assert_allclose(west["image"][1], image_files.pixels("r")[69:133, :64] * NANOMAGGY, rtol=1e-6)
    assert (west["shift_x"], west["shift_y"]) == (26, 0)
    assert (west["x"], west["y"]) == pytest.approx((5.2, 31.2), abs=1e-4)
    np.testing.assert_allclose(corner["image"][1], image_files.pixels("r")[136:, 136:] * NANOMAGGY, rtol=1e-6)
    assert (corner["shift_x"], corner["shift_y"]) == (-31, -31)
    assert (corner["x"], corner["y"]) == pytest.approx((62.8, 62.8), abs=1e-4)
    assert west["flags"] == corner["flags"] == CutoutFlag.SHIFTED


def test_pixels_without_measurement_are_masked_and_left_out_of_the_mean(made):
    row = rows_of(made[1])["4"]
    lost = np.zeros(64, bool)
    lost[100 - 74 : 110 - 74] = True
    assert (row["image"][0][:, lost] == 0.0).all()
    assert (row["image"][0][:, ~lost] > 0.0).all()
    assert (row["image"][1:] > 0.0).all()
    np.testing.assert_array_equal(row["mask"], np.where(lost, NOT_MEASURED[0], 0) * np.ones((64, 1), int))
    blocks = row["ivar"][0]
    assert set(np.round(blocks[blocks > 0.0] * NANOMAGGY**2, 5)) == {4.0}
    assert row["flags"] == CutoutFlag.HOLES | CutoutFlag.CENTRE_LOST


def test_a_saturated_neighbour_within_two_arcsec_is_told(made):
    row = rows_of(made[1])["5"]
    assert row["flags"] == CutoutFlag.SATURATED
    assert row["mask"].max() == 1 << 4
    y, x = np.argwhere(row["mask"] == 1 << 4)[0]
    assert np.hypot(x - row["x"], y - row["y"]) == pytest.approx(np.hypot(2.0, 6.0), abs=1e-3)


def test_an_object_outside_of_all_images_keeps_its_row(made):
    summary, out = made
    row = rows_of(out)["6"]
    assert row["flags"] == CutoutFlag.NO_IMAGE | CutoutFlag.NOT_COVERED
    assert not row["image"].any()
    assert not row["ivar"].any()
    assert (row["mask"] == sum(NOT_MEASURED)).all()
    assert (row["x"], row["pixel_scale"], row["bands"], row["brick"]) == (None, None, "NONE", "NONE")
    assert (summary.objects, summary.without_image, summary.fields) == (6, 1, 1)


def test_the_catalogue_is_whole_and_says_what_it_was_made_from(made):
    summary, out = made
    assert list(verify(out)) == []
    record = json.loads((out / PROVENANCE).read_text())
    assert record["objects_of"] == "objects.csv"
    assert record["flags"]["SHIFTED"] == summary.flags["SHIFTED"] == 2
    assert [one["name"] for one in record["inputs"]] == sorted(one["name"] for one in record["inputs"])
    assert len(record["inputs"]) == 10
    leaf = out / next(iter(read_leaves(out))).leaf
    leaf.write_bytes(leaf.read_bytes()[:-1])
    assert "SHA-256 differs" in str(next(iter(verify(out))))


def test_models_read_arrays_with_an_inverse_variance_for_each_pixel(tmp_path):
    image_files.make_brick(tmp_path / "brick")
    objects = image_files.write_objects(tmp_path / "objects.csv", {"1": PLACES["1"], "4": PLACES["4"]})
    ingest_cutouts([UPath(tmp_path / "brick")], UPath(objects), UPath(tmp_path / "out"))
    images = read_cutouts(table_of(UPath(tmp_path / "out")))
    assert images.flux.shape == images.ivar.shape == (2, 3, 64, 64)
    assert images.flux.dtype == images.ivar.dtype == np.float32
    np.testing.assert_array_equal(images.ivar > 0.0, images.flux != 0.0)
    np.testing.assert_allclose(images.ivar[1, 0][images.ivar[1, 0] > 0.0], 4.0 / NANOMAGGY**2, rtol=1e-6)
    np.testing.assert_allclose(images.psf_fwhm, [[1.3, 1.2, 1.1]] * 2, rtol=1e-6)


def test_cutouts_have_the_partitions_and_the_rows_of_a_spectra_catalogue(tmp_path):
    """Spectra near and far from the brick, and a template that has no position."""
    (tmp_path / "in").mkdir()
    for number, x in enumerate((60.0, 120.0)):
        ra = image_files.sky_of(x, 100.0)[0]
        spectra_files.make_sdss(tmp_path / "in" / f"spec-{number}.fits", ra=ra)
    spectra_files.make_sdss(tmp_path / "in" / "spec-far.fits", ra=10.0)
    spectra_files.make_atmosphere(tmp_path / "in" / "star.fits")
    spectra = UPath(tmp_path / "spectra")
    ingest_spectra([UPath(tmp_path / "in")], spectra, tile_rows=2)
    image_files.make_brick(tmp_path / "brick")
    out = UPath(tmp_path / "cutouts")
    summary = ingest_cutouts([UPath(tmp_path / "brick")], spectra, out)
    assert list(summary.partitions) == list(read_leaves(spectra))
    names = ["_healpix_29", "object_id", "primary_id", "ra", "dec"]
    for partition in summary.partitions:
        ours, theirs = (pq.read_table((root / partition.leaf).path, columns=names) for root in (out, spectra))
        assert ours.equals(theirs)
    assert summary.objects - summary.without_image == 2
    assert summary.flags["NO_POSITION"] >= 1
    assert list(verify(out)) == []


def test_cutouts_have_the_partitions_of_a_photometry_catalogue(tmp_path):
    photometry = ingest_table(photometry_table(30), tmp_path / "photometry", tile_rows=10)
    image_files.make_brick(tmp_path / "brick", "r")
    summary = ingest_cutouts([UPath(tmp_path / "brick")], photometry, UPath(tmp_path / "cutouts"))
    assert list(summary.partitions) == list(read_leaves(photometry))
    assert (summary.objects, summary.without_image, summary.fields) == (30, 30, 0)
    table = table_of(UPath(tmp_path / "cutouts"))
    assert table["primary_id"].equals(table["object_id"])


def test_of_overlapping_bricks_that_is_taken_in_which_the_object_lies_farther_from_the_edge(tmp_path):
    east = image_files.RA + 120 * image_files.SCALE / 3600.0
    image_files.make_brick(tmp_path / "brick", "r")
    image_files.make_brick(tmp_path / "brick", "r", brick="1501p020", ra=east)
    places = {
        "1": (45.0, 100.0),
        "2": (35.0, 100.0),
    }  # the bricks share columns 0 to 80, the middle is at 39.5
    objects = image_files.write_objects(tmp_path / "objects.csv", places)
    ingest_cutouts([UPath(tmp_path / "brick")], UPath(objects), UPath(tmp_path / "out"))
    rows = rows_of(UPath(tmp_path / "out"))
    assert [rows[name]["brick"] for name in places] == ["1500p020", "1501p020"]
    missing = CutoutFlag.BAND_MISSING
    assert all(row["flags"] & missing and row["bands"] == "r" for row in rows.values())


def test_what_is_written_does_not_depend_on_the_order_of_the_sources(tmp_path):
    image_files.make_brick(tmp_path / "a", "r", whole=False)
    image_files.make_cutout(tmp_path / "b.fits")
    image_files.make_cutout(tmp_path / "c.fits", "g")
    sources = [UPath(tmp_path / name) for name in ("a", "b.fits", "c.fits")]
    objects = UPath(
        image_files.write_objects(tmp_path / "objects.csv", {"1": (99.5, 99.5), "2": (40.0, 50.0)})
    )
    one, two = UPath(tmp_path / "one"), UPath(tmp_path / "two")
    ingest_cutouts(sources, objects, one)
    ingest_cutouts(sources[::-1], objects, two)
    assert (one / "leaves.csv").read_text() == (two / "leaves.csv").read_text()
    assert (one / PROVENANCE).read_text() == (two / PROVENANCE).read_text()


def test_a_cutout_of_the_viewer_is_read_with_and_without_inverse_variance(tmp_path):
    middle = image_files.header(shape=(64, 64))
    objects = UPath(image_files.write_objects(tmp_path / "objects.csv", {"1": (31.5, 31.5)}, middle))
    cube = image_files.make_cutout(tmp_path / "given.fits")
    image_files.make_cutout(tmp_path / "none.fits", ivar=None)
    for name, flags in (
        ("given", CutoutFlag.NO_PSF),
        ("none", CutoutFlag.NO_PSF | CutoutFlag.IVAR_ESTIMATED),
    ):
        ingest_cutouts([UPath(tmp_path / f"{name}.fits")], objects, UPath(tmp_path / name))
        row = rows_of(UPath(tmp_path / name))["1"]
        np.testing.assert_allclose(row["image"], cube * NANOMAGGY, rtol=1e-6)
        assert (row["flags"], row["bands"], row["brick"], row["shift_x"]) == (flags, "grz", "NONE", 0)
        assert (row["x"], row["y"]) == pytest.approx((31.5, 31.5), abs=1e-4)
        wanted = 9.0 if name == "given" else 1.0 / 0.1**2
        np.testing.assert_allclose(row["ivar"] * NANOMAGGY**2, wanted, rtol=1e-5 if name == "given" else 0.1)


def test_the_estimated_inverse_variance_is_that_of_the_noise_and_not_of_the_sources():
    rng = np.random.default_rng(3)
    y, x = np.indices((64, 64)) - 31.5
    image = rng.normal(0.0, 0.2, (64, 64)) + 50.0 * np.exp(-0.5 * (x**2 + y**2) / 3.0**2)
    image[:, :10] = 0.0
    ivar = estimated_ivar(image.astype(np.float32))
    assert (ivar[:, :10] == 0.0).all()
    assert ivar[0, 40] == pytest.approx(25.0, rel=0.3)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("id,ra\n1,150.0\n", "objects.csv, column dec: is missing; one of dec, target_dec is needed"),
        ("name,ra,dec\n1,150.0,2.0\n", "column object_id: is missing; one of object_id, id, targetid"),
        ("id,ra,dec\n1,150.0,2.0\n1,151.0,2.0\n", "column id: 1 comes more than once: an object has one"),
        ("id,ra,dec\n1,150.0,2.0\n,151.0,2.0\n", "row 2, column id: is missing"),
        ("id,ra,dec\n1,10h,2.0\n", "row 1, column ra: '10h' is no number"),
        ("id,ra,dec\n", "objects.csv has no rows"),
        ("id,ra,dec\n3.96e+16,150.0,2.0\n5.0,151.0,2.0\n", "row 1, column id: '3.96e.16' has lost its last"),
        ("id,ra,dec\n5.5,150.0,2.0\n", "row 1, column id: '5.5' is no whole number"),
        ("id,ra,dec\n-5,150.0,2.0\n", "row 1, column id: '-5' is outside 0"),
    ],
)
def test_a_table_that_is_not_understood_is_refused_and_nothing_is_written(tmp_path, text, problem):
    image_files.make_cutout(tmp_path / "a.fits")
    (tmp_path / "objects.csv").write_text(text)
    with pytest.raises(IngestError, match=problem):
        ingest_cutouts([UPath(tmp_path / "a.fits")], UPath(tmp_path / "objects.csv"), UPath(tmp_path / "out"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.fits", "objects.csv"]


def test_names_become_keys_and_an_object_without_position_keeps_its_row(tmp_path):
    image_files.make_cutout(tmp_path / "a.fits")
    (tmp_path / "objects.csv").write_text("target_dec,ID,target_ra\n2.0,NGC 1,150.0\n,NGC 2,\n")
    ingest_cutouts([UPath(tmp_path / "a.fits")], UPath(tmp_path / "objects.csv"), UPath(tmp_path / "out"))
    rows = sorted(rows_of(UPath(tmp_path / "out")).values(), key=lambda row: row["flags"] & 1)
    assert [row["ra"] for row in rows] == [150.0, None]
    assert rows[1]["flags"] == CutoutFlag.NO_IMAGE | CutoutFlag.NO_POSITION


def test_right_ascension_in_hours_comes_to_degrees_and_other_units_are_refused(tmp_path):
    image_files.make_cutout(tmp_path / "a.fits")
    table = Table({"id": [1], "ra": [10.0], "dec": [2.0]})
    for unit, form in (("h", "fits"), ("hourangle", "ecsv"), ("h", "parquet")):
        table["ra"].unit = unit
        table.write(tmp_path / f"o.{form}")
        out = UPath(tmp_path / form)
        ingest_cutouts([UPath(tmp_path / "a.fits")], UPath(tmp_path / f"o.{form}"), out)
        assert rows_of(out)["1"]["ra"] == 150.0
        assert rows_of(out)["1"]["bands"] == "grz"
    table["dec"].unit = "K"
    table.write(tmp_path / "kelvin.fits")
    with pytest.raises(IngestError, match="column dec: has the unit 'K', expected deg"):
        ingest_cutouts([UPath(tmp_path / "a.fits")], UPath(tmp_path / "kelvin.fits"), UPath(tmp_path / "out"))


@pytest.mark.parametrize("packed", [False, True])
def test_an_image_whose_bits_are_not_those_of_its_checksum_is_refused(tmp_path, packed):
    path = image_files.write_plane(tmp_path, "image", "r", image_files.pixels("r"), packed=packed)
    objects = UPath(image_files.write_objects(tmp_path / "objects.csv", {"1": (100.0, 100.0)}))
    with fits.open(path, mode="update", disable_image_compression=packed) as file:
        for hdu in file:
            hdu.add_checksum()
    ingest_cutouts([UPath(path)], objects, UPath(tmp_path / "whole"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)
    with pytest.raises(IngestError, match=rf"{path.name} is a damaged FITS file: the checksum of HDU"):
        ingest_cutouts([UPath(path)], objects, UPath(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_odd_headers_are_no_damage_and_other_units_of_fluxes_are_refused(tmp_path):
    path = image_files.write_plane(tmp_path, "image", "r", image_files.pixels("r"), packed=False)
    objects = UPath(image_files.write_objects(tmp_path / "objects.csv", {"1": (100.0, 100.0)}))
    with fits.open(path, mode="update", output_verify="ignore") as file:
        file[0].header["BLANK"] = -32768  # of a floating-point image
        file[0].header["BUNIT"] = "nanomaggy"
    path.write_bytes(path.read_bytes() + bytes(2880))
    ingest_cutouts([UPath(path)], objects, UPath(tmp_path / "out"))
    assert rows_of(UPath(tmp_path / "out"))["1"]["bands"] == "r"
    path.write_bytes(path.read_bytes().replace(b"'nanomaggy'", b"'uJy'      "))
    with pytest.raises(IngestError, match=r"has fluxes in 'uJy' \(BUNIT\), expected nanomaggies"):
        ingest_cutouts([UPath(path)], objects, UPath(tmp_path / "again"))


def test_a_damaged_image_is_named_and_nothing_stays(tmp_path):
    image_files.make_brick(tmp_path / "brick", "r", whole=False)
    weights = tmp_path / "brick" / "legacysurvey-1500p020-invvar-r.fits"
    weights.write_bytes(weights.read_bytes()[:90_000])
    objects = UPath(image_files.write_objects(tmp_path / "objects.csv", {"1": (100.0, 150.0)}))
    with pytest.raises(IngestError, match=r"invvar-r\.fits .*damaged"):
        ingest_cutouts(
            [
                UPath(weights),
                UPath(
                    tmp_path / "brick" / weights.name.replace("invvar", "image").replace("fits", "fits.fz")
                ),
            ],
            objects,
            UPath(tmp_path / "out"),
        )
    assert not (tmp_path / "out").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_folder_that_is_no_catalogue_is_refused(tmp_path):
    image_files.make_cutout(tmp_path / "a.fits")
    (tmp_path / "spectra").mkdir()
    with pytest.raises(IngestError, match="is no HATS catalogue"):
        ingest_cutouts([UPath(tmp_path / "a.fits")], UPath(tmp_path / "spectra"), UPath(tmp_path / "out"))


def test_every_flag_has_one_bit_of_its_own_and_a_meaning():
    assert set(FLAG_MEANINGS) == set(CutoutFlag) == set(CUTOUTS.flag_meanings)
    assert [flag.value for flag in CutoutFlag] == [1 << bit for bit in range(len(CutoutFlag))]


BRICK = DATA / "images" / "desitarget_legacysurvey" / "dr6" / "coadd"


@pytest.mark.skipif(not BRICK.exists(), reason="the real brick is not here")
def test_a_real_brick_gives_cutouts_at_its_corners_and_within(tmp_path):
    """0959p805 of the sixth release: g and z, no r; only its south-east was observed."""
    (tmp_path / "objects.csv").write_text(
        "id,ra,dec\n"
        "1,96.7331621439281,80.3681546336213\n"  # three corners, by the cards of the header
        "2,95.1676643023529,80.3681546336213\n"
        "3,95.1459877308958,80.6300562805638\n"
        "4,95.9504132231405,80.5\n"  # the middle
        "5,96.6,80.40\n"
        "6,97.5,80.40\n"  # beyond
    )
    out = UPath(tmp_path / "out")
    summary = ingest_cutouts([UPath(BRICK)], UPath(tmp_path / "objects.csv"), out)
    rows = rows_of(out)
    assert [(rows[k]["x"], rows[k]["y"]) for k in "123"] == [
        pytest.approx(place, abs=1e-2) for place in ((0.0, 0.0), (63.0, 0.0), (63.0, 63.0))
    ]
    assert [(rows[k]["shift_x"], rows[k]["shift_y"]) for k in "1234"] == [
        (32, 32),
        (-32, 32),
        (-32, -32),
        (0, 0),
    ]
    assert (rows["4"]["x"], rows["4"]["y"]) == pytest.approx((31.5, 31.5), abs=1e-2)
    assert rows["4"]["flags"] == CutoutFlag.NO_IMAGE
    assert rows["6"]["flags"] == CutoutFlag.NO_IMAGE | CutoutFlag.NOT_COVERED
    inside = rows["5"]
    assert inside["flags"] & CutoutFlag.BAND_MISSING
    assert inside["bands"] in ("g", "gz")
    sky = np.median(inside["image"][0])
    noise = 1.4826 * np.median(np.abs(inside["image"][0] - sky))
    assert noise == pytest.approx(inside["ivar"][0].mean() ** -0.5, rel=0.25)
    assert summary.fields == 1
    assert list(verify(out)) == []
