from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from pipeline.sources import spectra
from pipeline.sources.spectra import Spectrum

DATA = Path(__file__).parents[3].parent / "shared" / "data" / "spectra"


def make_sdss(path: Path, z: float = 0.05, zwarning: int = 0, ra: float = 150.0) -> None:
    n = 100
    columns = [
        fits.Column("flux", "E", array=np.linspace(1.0, 2.0, n)),
        fits.Column("loglam", "E", array=3.58 + 1e-4 * np.arange(n)),
        fits.Column("ivar", "E", array=np.r_[0.0, np.full(n - 1, 4.0)]),
    ]
    best = [
        fits.Column("CLASS", "6A", array=["GALAXY"]),
        fits.Column("SUBCLASS", "21A", array=["STARFORMING"]),
        fits.Column("Z", "E", array=[z]),
        fits.Column("ZWARNING", "J", array=[zwarning]),
    ]
    primary = fits.PrimaryHDU()
    primary.header["PLUG_RA"], primary.header["PLUG_DEC"] = ra, 2.0
    tables = [fits.BinTableHDU.from_columns(c) for c in (columns, best)]
    fits.HDUList([primary, *tables]).writeto(path)


def make_lamost(path: Path) -> None:
    primary = fits.PrimaryHDU(np.stack([np.full(50, 3.0), np.full(50, 1.0)]).astype(np.float32))
    primary.header.update(COEFF0=3.5682, COEFF1=1e-4, CLASS="STAR", SUBCLASS="G5", Z=1e-4, RA=10.0, DEC=20.0)
    primary.writeto(path)


def make_desi(path: Path) -> None:
    fibermap = fits.BinTableHDU.from_columns(
        [fits.Column("TARGETID", "K", array=[7, 8]), fits.Column("TARGET_RA", "D", array=[30.0, 31.0])],
        name="FIBERMAP",
    )
    hdus = [fits.PrimaryHDU(), fibermap]
    for arm, first, level in (("B", 5000.0, 1.0), ("R", 5004.0, 3.0), ("Z", 5012.0, 5.0)):
        wavelength = first + 0.8 * np.arange(10)
        hdus += [
            fits.ImageHDU(wavelength, name=f"{arm}_WAVELENGTH"),
            fits.ImageHDU(np.full((2, 10), level), name=f"{arm}_FLUX"),
            fits.ImageHDU(np.full((2, 10), 2.0), name=f"{arm}_IVAR"),
            fits.ImageHDU(np.zeros((2, 10), np.int32), name=f"{arm}_MASK"),
        ]
    hdus[-1].data[0, -1] = 1
    fits.HDUList(hdus).writeto(path)


def test_an_sdss_spectrum_is_read_with_its_class(tmp_path):
    make_sdss(tmp_path / "spec-0266-51602-0001.fits")
    read = spectra.read_sdss(tmp_path / "spec-0266-51602-0001.fits")
    assert (read.source, read.survey, read.object_class, read.subclass) == (
        "spec-0266-51602-0001",
        "SDSS",
        "GALAXY",
        "STARFORMING",
    )
    assert read.z == pytest.approx(0.05)
    assert read.trusted
    assert (read.ra, read.dec) == (150.0, 2.0)
    assert read.wavelength[0] == pytest.approx(10**3.58, rel=1e-5)
    assert not read.valid[0]
    assert read.valid[1:].all()
    assert read.signal_to_noise == pytest.approx(3.0, rel=0.05)


def test_a_lamost_spectrum_is_read_from_its_rows(tmp_path):
    make_lamost(tmp_path / "spec-55862-B6212_sp06-007.fits")
    read = spectra.read_lamost(tmp_path / "spec-55862-B6212_sp06-007.fits")
    assert (read.survey, read.object_class, read.subclass) == ("LAMOST", "STAR", "G5")
    np.testing.assert_allclose(np.diff(np.log10(read.wavelength)), 1e-4)
    assert (read.flux == 3.0).all()


def test_the_arms_of_desi_are_joined_and_averaged_where_they_overlap(tmp_path):
    make_desi(tmp_path / "coadd-main-dark-1.fits")
    known = {7: spectra.Redshift("QSO", "", 2.2, True)}
    first, second = spectra.read_desi(tmp_path / "coadd-main-dark-1.fits", known)
    assert (np.diff(first.wavelength) > 0).all()
    assert len(first.wavelength) == 25  # 5000.0 .. 5019.2 A in steps of 0.8
    at = dict(zip(np.round(first.wavelength, 1), first.flux, strict=True))
    assert (at[5000.0], at[5004.0], at[5008.0]) == (1.0, 2.0, 3.0)
    assert not first.valid[-1]  # masked
    assert (first.object_class, first.z, first.trusted) == ("QSO", 2.2, True)
    assert (second.object_class, second.trusted) == ("", False)
    assert np.isnan(second.z)
    assert second.ra == 31.0
    assert np.isnan(second.dec)


def test_redshifts_of_desi_come_from_redrock_and_from_quasar_catalogues(tmp_path):
    redrock = fits.BinTableHDU.from_columns(
        [
            fits.Column("TARGETID", "K", array=[1, 2]),
            fits.Column("Z", "D", array=[0.1, 0.2]),
            fits.Column("ZWARN", "K", array=[0, 4]),
            fits.Column("SPECTYPE", "6A", array=["GALAXY", "STAR"]),
            fits.Column("SUBTYPE", "6A", array=["", "M"]),
        ],
        name="REDSHIFTS",
    )
    fits.HDUList([fits.PrimaryHDU(), redrock]).writeto(tmp_path / "redrock.fits")
    read = spectra.read_desi_redshifts(tmp_path / "redrock.fits")
    assert read[1] == spectra.Redshift("GALAXY", "", 0.1, True)
    assert not read[2].trusted
    fits.HDUList([fits.PrimaryHDU()]).writeto(tmp_path / "other.fits")
    with pytest.raises(ValueError, match="neither a REDSHIFTS nor a QSO_CAT"):
        spectra.read_desi_redshifts(tmp_path / "other.fits")


@pytest.mark.parametrize("reader", [spectra.read_sdss, spectra.read_lamost])
def test_another_file_is_refused_by_name(tmp_path, reader):
    fits.HDUList([fits.PrimaryHDU()]).writeto(tmp_path / "image.fits")
    with pytest.raises(ValueError, match=r"image\.fits"):
        reader(tmp_path / "image.fits")


def test_a_file_that_is_no_coadd_is_refused_by_name(tmp_path):
    fits.HDUList([fits.PrimaryHDU()]).writeto(tmp_path / "image.fits")
    with pytest.raises(ValueError, match=r"image\.fits is no DESI coadd"):
        spectra.read_desi(tmp_path / "image.fits", {})


def test_a_folder_gives_each_trusted_object_once(tmp_path):
    (tmp_path / "sdss").mkdir()
    make_sdss(tmp_path / "sdss" / "spec-1-1-1.fits")
    make_sdss(tmp_path / "sdss" / "spec-1-2-1.fits")  # the same object, seen again
    make_sdss(tmp_path / "sdss" / "spec-1-1-2.fits", ra=151.0, zwarning=4)
    make_sdss(tmp_path / "sdss" / "spec-1-1-3.fits", ra=152.0)
    row = {
        "id": ["somewhere/1"],
        "class": ["QSO"],
        "subclass": [None],
        "z": [1.5],
        "ra": [None],
        "dec": [None],
        "wavelength": [[4000.0, 4001.0]],
        "flux": [[1.0, 2.0]],
        "ivar": [[1.0, 1.0]],
    }
    schema = {"subclass": pa.string(), "ra": pa.float64(), "dec": pa.float64()}
    table = pa.table({name: pa.array(values, type=schema.get(name)) for name, values in row.items()})
    pq.write_table(table, tmp_path / "more_spectra.parquet")
    read = spectra.read_folder(tmp_path)
    assert [(s.object_class, s.ra if np.isfinite(s.ra) else None) for s in read] == [
        ("QSO", None),
        ("GALAXY", 150.0),
        ("GALAXY", 152.0),
    ]


def test_moving_an_object_stretches_its_wavelengths():
    spectrum = Spectrum(
        "a", "SDSS", np.array([4000.0, 8000.0]), np.ones(2), np.ones(2), "GALAXY", "", 0.1, True, 0.0, 0.0
    )
    moved = spectrum.moved_to(0.32)
    np.testing.assert_allclose(moved.wavelength, [4800.0, 9600.0])
    assert moved.z == 0.32
    assert spectrum.z == 0.1


@pytest.mark.skipif(not DATA.exists(), reason="the observed spectra are not part of the repository")
def test_the_real_spectra_are_read(tmp_path):
    for name in ("lamost", "desi", "more_spectra.parquet"):
        (tmp_path / name).symlink_to(DATA / name)
    (tmp_path / "sdss").mkdir()
    for path in sorted((DATA / "sdss").glob("spec-*"))[::6]:
        (tmp_path / "sdss" / path.name).symlink_to(path)
    read = spectra.read_folder(tmp_path)
    count = Counter((s.survey, s.object_class) for s in read)
    assert count["SDSS", "GALAXY"] > 450
    assert count["SDSS", "QSO"] > 150
    assert count["LAMOST", "STAR"] > 100
    assert count["DESI", "QSO"] >= 10
    for s in read:
        assert (np.diff(s.wavelength) > 0).all(), s.source
        assert len(s.wavelength) == len(s.flux) == len(s.ivar)
        assert -0.01 < s.z < 7.0
    # A line where it belongs: [O III] 5007 of the quasars with the strongest signal below z = 0.5.
    near = [s for s in read if s.object_class == "QSO" and s.z < 0.5 and s.signal_to_noise > 10]
    assert near
    for s in near:
        rest = s.wavelength / (1.0 + s.z)
        window = (rest > 4985.0) & (rest < 5030.0)
        assert rest[window][s.flux[window].argmax()] == pytest.approx(5008.2, abs=8.0), s.source
