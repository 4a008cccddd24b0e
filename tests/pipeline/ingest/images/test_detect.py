import shutil

import numpy as np
import pytest
from astropy.io import fits
from upath import UPath

from ojala.pipeline.ingest.errors import IngestError, SourceError
from ojala.pipeline.ingest.images.detect import find_fields, read_image
from tests.helpers import image_files


def test_a_brick_is_put_together_from_its_files_whatever_folder_they_are_in(tmp_path):
    image_files.make_brick(tmp_path / "coadd" / "150")
    (tmp_path / "coadd" / "README").write_text("images")
    fields, not_read = find_fields([UPath(tmp_path)])
    assert [(field.brick, sorted(field.image), sorted(field.ivar)) for field in fields] == [
        ("1500p020", ["g", "r", "z"], ["g", "r", "z"])
    ]
    assert fields[0].mask is not None
    assert len(fields[0].files) == 10
    assert [line.rsplit("/", 1)[1] for line in not_read] == [
        "legacysurvey-1500p020-nexp-g.fits.fz is a map of nexp, which cut-outs do not need",
        "README is neither FITS, Parquet nor HDF5",
    ]


def test_a_field_knows_where_it_is(tmp_path):
    image_files.make_brick(tmp_path)
    (field,), _ = find_fields([UPath(tmp_path)])
    np.testing.assert_allclose(field.centre, (image_files.RA, image_files.DEC), atol=1e-9)
    assert field.scale == pytest.approx(0.262, rel=1e-6)
    ra, dec = (np.array([value]) for value in image_files.sky_of(150.0, 20.0))
    x, y = field.pixels(ra, dec)
    np.testing.assert_allclose((x[0], y[0]), (150.0, 20.0), atol=1e-6)
    np.testing.assert_allclose(field.margin(x, y), 20.5, atol=1e-6)


def test_the_band_is_told_by_the_name_where_the_filter_is_spelled_as_its_camera_does(tmp_path):
    path = image_files.write_plane(tmp_path, "image", "z", image_files.pixels("z"))
    assert read_image(UPath(path))[1].band == "z"  # its FILTER is "zd DECam k1038"
    shutil.move(path, tmp_path / "a.fits.fz")
    with pytest.raises(SourceError, match="is of the band 'zd DECam k1038', which cut-outs do not need"):
        read_image(UPath(tmp_path / "a.fits.fz"))


@pytest.mark.parametrize("bands", ["grz", "griz", "z"])
def test_the_viewers_cutouts_have_the_bands_that_they_name(tmp_path, bands):
    image_files.make_cutout(tmp_path / "cutout.fits", bands)
    _, field = read_image(UPath(tmp_path / "cutout.fits"))
    wanted = [band for band in "grz" if band in bands]
    assert list(field.image) == list(field.ivar) == wanted
    layer = field.image["z"].layer
    assert layer == (None if bands == "z" else bands.index("z"))


def test_what_cannot_be_cut_from_is_refused_with_what_to_do(tmp_path):
    image_files.make_cutout(tmp_path / "coarse.fits", scale=0.524)
    with pytest.raises(SourceError, match=r"pixels of 0.524 x 0.524 arcsec, expected 0.262: ask .* pixscale"):
        read_image(UPath(tmp_path / "coarse.fits"))
    image_files.make_cutout(tmp_path / "small.fits", size=50)
    with pytest.raises(
        SourceError, match="has 50 x 50 pixels, but a cut-out has 64 x 64: get a larger image"
    ):
        read_image(UPath(tmp_path / "small.fits"))
    image_files.make_cutout(tmp_path / "iy.fits", "iy")
    with pytest.raises(SourceError, match="none of g, r, z: ask for bands=grz"):
        read_image(UPath(tmp_path / "iy.fits"))
    fits.PrimaryHDU(np.zeros((64, 64))).writeto(tmp_path / "plain.fits")
    with pytest.raises(SourceError, match="there are no images known here: expected a coadd of the Legacy"):
        read_image(UPath(tmp_path / "plain.fits"))
    with fits.open(tmp_path / "iy.fits", mode="update") as hdus:
        hdus[0].header["BANDS"] = "grz"
    with pytest.raises(SourceError, match="has 2 planes in HDU 0, but its BANDS are 'grz'"):
        read_image(UPath(tmp_path / "iy.fits"))


def test_files_of_a_brick_that_do_not_belong_together_are_refused(tmp_path):
    image_files.make_brick(tmp_path / "south", "g")
    image_files.make_brick(tmp_path / "north", "g")
    with pytest.raises(IngestError, match="are both the image g of brick 1500p020: name one of them"):
        find_fields([UPath(tmp_path)])
    image_files.write_plane(tmp_path / "other", "image", "g", image_files.pixels("g")[:100])
    with pytest.raises(IngestError, match=r"200 x 200 pixels, but .* of the same brick has 200 x 100"):
        find_fields(
            [UPath(tmp_path / "other"), UPath(tmp_path / "south/legacysurvey-1500p020-invvar-g.fits")]
        )


def test_no_image_at_all_is_an_error(tmp_path):
    (tmp_path / "README").write_text("images")
    with pytest.raises(IngestError, match=r"no images were found: expected .*; 1 files were looked at"):
        find_fields([UPath(tmp_path)])
