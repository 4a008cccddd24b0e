import gzip

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from upath import UPath

from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.surveys.sdss import read_sdss
from tests.helpers.spectra_files import make_sdss


def test_a_spectrum_is_read_with_its_class_and_lines(tmp_path):
    make_sdss(tmp_path / "spec-0266-51602-0001.fits")
    read = read_sdss(UPath(tmp_path / "spec-0266-51602-0001.fits"))
    assert (read.source, read.survey, read.object_class, read.subclass) == (
        "spec-0266-51602-0001",
        "SDSS",
        "GALAXY",
        "STARFORMING",
    )
    assert read.z == pytest.approx(0.05)
    assert read.z_err == pytest.approx(1e-5)
    assert read.trusted
    assert read.wavelength[0] == pytest.approx(10**3.58, rel=1e-5)
    assert not read.valid[0]
    assert read.valid[1:].all()
    assert read.mask is not None
    assert read.mask[0] == 1 << 24
    assert read.signal_to_noise == pytest.approx(3.0, rel=0.05)


def test_the_position_is_the_objects_and_not_the_plates(tmp_path):
    make_sdss(tmp_path / "spec.fits", ra=150.0)
    read = read_sdss(UPath(tmp_path / "spec.fits"))
    assert (read.ra, read.dec) == (150.0, 2.0)


def test_equivalent_widths_come_to_the_rest_frame_and_unmeasured_lines_are_left_out(tmp_path):
    make_sdss(tmp_path / "spec.fits", z=0.05)
    labels = read_sdss(UPath(tmp_path / "spec.fits")).labels
    assert set(labels) == {"ew_halpha"}
    assert labels["ew_halpha"] == pytest.approx((10.0, 2.0), rel=1e-5)


def test_a_gzipped_spectrum_reads_the_same(tmp_path):
    make_sdss(tmp_path / "spec.fits")
    (tmp_path / "spec.fits.gz").write_bytes(gzip.compress((tmp_path / "spec.fits").read_bytes()))
    plain, zipped = (read_sdss(UPath(tmp_path / name)) for name in ("spec.fits", "spec.fits.gz"))
    np.testing.assert_array_equal(plain.flux, zipped.flux)
    assert plain.labels == zipped.labels


def test_another_file_is_refused(tmp_path):
    fits.HDUList([fits.PrimaryHDU()]).writeto(tmp_path / "image.fits")
    with pytest.raises(SourceError, match=r"is no SDSS spectrum: expected .* FLUX, LOGLAM and IVAR"):
        read_sdss(UPath(tmp_path / "image.fits"))


def test_a_file_that_is_cut_off_is_named_as_damaged(tmp_path):
    make_sdss(tmp_path / "spec.fits")
    content = (tmp_path / "spec.fits").read_bytes()
    (tmp_path / "spec.fits").write_bytes(content[: len(content) // 3])
    with pytest.raises(SourceError, match=r"damaged|cut off"):
        read_sdss(UPath(tmp_path / "spec.fits"))


def write_sdss_v(path, **position):
    """A spectrum of SDSS-V, whose primary header has the position of the field."""
    n = 100
    coadd = {"flux": np.ones(n), "loglam": 3.58 + 1e-4 * np.arange(n), "ivar": np.ones(n)}
    best = {"CLASS": ["GALAXY"], "Z": [0.05], "ZWARNING": [0], **{k: [v] for k, v in position.items()}}
    primary = fits.PrimaryHDU()
    primary.header["RA"], primary.header["DEC"] = 150.0, 2.0
    tables = [fits.BinTableHDU(Table(columns)) for columns in (coadd, best)]
    fits.HDUList([primary, *tables]).writeto(path, checksum=True)


@pytest.mark.parametrize(
    ("columns", "position"),
    [
        ({"RACAT": 149.2, "DECCAT": 2.1, "FIBER_RA": 149.3, "FIBER_DEC": 2.2}, (149.2, 2.1)),
        ({"RACAT": -999.0, "DECCAT": -999.0, "FIBER_RA": 149.3, "FIBER_DEC": 2.2}, (149.3, 2.2)),
        ({"PLUG_RA": np.nan, "PLUG_DEC": np.nan, "RA": 149.4, "DEC": 2.3}, (149.4, 2.3)),
        ({}, (np.nan, np.nan)),
    ],
)
def test_the_position_of_a_field_is_no_position_of_an_object(tmp_path, columns, position):
    write_sdss_v(tmp_path / "spec.fits", **columns)
    read = read_sdss(UPath(tmp_path / "spec.fits"))
    np.testing.assert_array_equal((read.ra, read.dec), position)


def test_a_changed_bit_is_damage_and_a_letter_beyond_ascii_is_none(tmp_path):
    path = tmp_path / "spec.fits"
    write_sdss_v(path, RACAT=149.2, DECCAT=2.1)
    content = path.read_bytes()
    spoilt = bytearray(content)
    spoilt[-1500] ^= 1
    path.write_bytes(spoilt)
    with pytest.raises(SourceError, match="is a damaged FITS file: the checksum of HDU 2"):
        read_sdss(UPath(path))
    # A card put in by hand changes CHECKSUM, but not DATASUM.
    at = content.rindex(b"END" + b" " * 77)
    card = "OBSERVER= 'Jos\xe9'".encode("latin-1").ljust(80)
    path.write_bytes(content[:at] + card + b"END" + b" " * 77 + content[at + 160 :])
    assert read_sdss(UPath(path)).ra == 149.2
