from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from upath import UPath

from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.surveys.desi import read_desi
from ojala.pipeline.ingest.surveys.label_tables import LabelIndex, read_desi_tables
from tests.helpers.spectra_files import (
    make_desi,
    make_fastspec,
    make_quasar_catalogue,
    make_redrock,
    make_stellar_table,
)


def tables(folder, *makers):
    found = []
    for k, make in enumerate(makers):
        make(folder / f"table-{k}.fits")
        found += read_desi_tables(UPath(folder / f"table-{k}.fits"))
    return LabelIndex(found)


def read(folder, known=None):
    make_desi(folder / "coadd-main-dark-1.fits")
    return list(read_desi(UPath(folder / "coadd-main-dark-1.fits"), known or LabelIndex()))


def test_arms_are_joined_and_averaged_where_they_overlap(tmp_path):
    first, second = read(tmp_path)
    assert (np.diff(first.wavelength) > 0).all()
    assert len(first.wavelength) == 25  # 5000.0 .. 5019.2 A in steps of 0.8
    at = dict(zip(np.round(first.wavelength, 1), first.flux, strict=True))
    assert (at[5000.0], at[5004.0], at[5008.0]) == (1.0, 2.0, 3.0)
    assert not first.valid[-1]
    assert first.mask is not None
    assert first.mask[-1] == 4
    assert second.valid.all()


def test_fibermap_gives_position_reddening_and_imaging(tmp_path):
    first, second = read(tmp_path)
    assert (first.ra, second.ra, first.dec) == (30.0, 31.0, -5.0)
    assert first.target == "7"
    assert first.ebv == pytest.approx(0.02)
    assert set(first.imaging) == {"W1"}
    assert first.imaging["W1"] == pytest.approx((36.31, 3.631 / 2))


def test_a_spectrum_without_redshift_is_kept_without_one(tmp_path):
    first, second = read(tmp_path)
    assert (first.object_class, first.trusted) == ("", False)
    assert np.isnan(second.z)


def test_redshifts_are_redrocks_and_the_quasar_catalogue_knows_better(tmp_path):
    first, second = read(tmp_path, tables(tmp_path, make_quasar_catalogue, make_redrock))
    assert (first.object_class, first.z, first.trusted) == ("QSO", 2.2, True)
    assert (second.object_class, second.subclass, second.trusted) == ("STAR", "M", False)
    assert second.z_err == pytest.approx(1e-5)


def test_labels_come_from_the_value_added_tables(tmp_path):
    first, second = read(tmp_path, tables(tmp_path, make_redrock, make_fastspec, make_stellar_table))
    assert set(first.labels) == {"log_mass", "log_sfr", "ew_halpha"}
    # FastSpecFit's 10**10 is for H0 = 100; with 67.66 distances squared are 2.18 times as large.
    assert first.labels["log_mass"][0] == pytest.approx(10.339, abs=1e-3)
    assert first.labels["log_sfr"][0] == pytest.approx(1.339, abs=1e-3)
    assert first.labels["ew_halpha"] == (12.0, 0.5)
    assert second.labels["teff"] == (3500.0, 20.0)
    assert set(second.labels) == {"teff", "logg", "fe_h"}


def test_positions_come_from_the_tables_where_the_coadd_has_none(tmp_path):
    make_desi(tmp_path / "whole.fits")
    with fits.open(tmp_path / "whole.fits") as hdus:
        bare = fits.BinTableHDU.from_columns([fits.Column("TARGETID", "K", array=[7, 8])], name="FIBERMAP")
        fits.HDUList([hdus[0], bare, *hdus[2:]]).writeto(tmp_path / "bare.fits")
    known = tables(tmp_path, make_quasar_catalogue)
    first, second = read_desi(UPath(tmp_path / "bare.fits"), known)
    assert (first.ra, first.dec) == (33.0, 1.0)
    assert np.isnan(second.ra)


def test_what_is_missing_is_named(tmp_path):
    fits.HDUList([fits.PrimaryHDU()]).writeto(tmp_path / "image.fits")
    with pytest.raises(SourceError, match=r"is no DESI coadd: expected .* it has PRIMARY"):
        list(read_desi(UPath(tmp_path / "image.fits"), LabelIndex()))
    make_desi(tmp_path / "whole.fits")
    with fits.open(tmp_path / "whole.fits") as hdus:
        fits.HDUList([hdu for hdu in hdus if hdu.name != "R_IVAR"]).writeto(tmp_path / "cut.fits")
    with pytest.raises(SourceError, match="lacks R_IVAR"):
        list(read_desi(UPath(tmp_path / "cut.fits"), LabelIndex()))


def test_single_exposures_are_refused(tmp_path):
    columns = [fits.Column("TARGETID", "K", array=[7, 7]), fits.Column("EXPID", "J", array=[1, 2])]
    fibermap = fits.BinTableHDU.from_columns(columns, name="FIBERMAP")
    hdus = [fits.PrimaryHDU(), fibermap, fits.ImageHDU(np.arange(3.0), name="B_WAVELENGTH")]
    fits.HDUList(hdus).writeto(tmp_path / "spectra.fits")
    with pytest.raises(SourceError, match="single exposures; name the coadd"):
        list(read_desi(UPath(tmp_path / "spectra.fits"), LabelIndex()))


def test_a_table_of_something_else_is_refused(tmp_path):
    fits.HDUList([fits.PrimaryHDU()]).writeto(tmp_path / "other.fits")
    with pytest.raises(SourceError, match="is no table of DESI objects"):
        read_desi_tables(UPath(tmp_path / "other.fits"))


def write_redshifts(path, key, z, name="ZCATALOG", **columns):
    n = len(z)
    table = {"TARGETID": key, "Z": z, "SPECTYPE": ["GALAXY"] * n, "ZWARN": np.zeros(n, int)} | columns
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU(Table(table), name=name)]).writeto(path)
    return LabelIndex(read_desi_tables(UPath(path)))


@pytest.mark.parametrize(
    ("columns", "z"),
    [
        ({"ZCAT_PRIMARY": [False, True, False], "SV_PRIMARY": [False, False, True]}, 0.2),
        ({"MAIN_PRIMARY": [True, False, False], "SV_PRIMARY": [False, False, True]}, 0.1),
        ({"ZCAT_PRIMARY": [0, 1, 0]}, 0.2),
        ({"ZWARN": [0, 0, 4]}, 0.2),
        ({}, 0.3),
    ],
)
def test_of_several_rows_of_a_target_the_primary_one_counts(tmp_path, columns, z):
    labels = write_redshifts(tmp_path / "zall.fits", [7, 7, 7], [0.1, 0.2, 0.3], **columns)
    assert labels.lookup("DESI", [7])[0].z == z


def test_unsigned_and_scaled_keys_are_exact_and_floats_are_refused(tmp_path):
    key = 39627652595614901
    unsigned = np.array([key], np.uint64)
    assert write_redshifts(tmp_path / "unsigned.fits", unsigned, [0.5]).lookup("DESI", [key])[0].z == 0.5
    with pytest.raises(SourceError, match=r"row 1, column TARGETID: .* is no exact key"):
        write_redshifts(tmp_path / "float.fits", np.array([float(key)]), [0.5])
    table = fits.BinTableHDU(
        Table({"TARGETID": [7, 8], "Z": np.array([100, -32768], "i2"), "SPECTYPE": ["QSO"] * 2})
    )
    table.header["TSCAL2"], table.header["TZERO2"], table.header["TNULL2"] = 0.01, 1.0, -32768
    table.name = "ZCATALOG"
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(tmp_path / "scaled.fits")
    known, unknown = LabelIndex(read_desi_tables(UPath(tmp_path / "scaled.fits"))).lookup("DESI", [7, 8])
    assert known.z == 2.0
    assert np.isnan(unknown.z)


def test_fibres_without_a_target_are_no_objects_and_have_no_labels(tmp_path):
    make_desi(tmp_path / "coadd-main-dark-1.fits", targets=(-21, 8))
    labels = write_redshifts(tmp_path / "z.fits", [-21, 8], [0.1, 0.2])
    fibre, target = read_desi(UPath(tmp_path / "coadd-main-dark-1.fits"), labels)
    assert (fibre.target, fibre.object_class) == ("", "")
    assert (target.target, target.object_class) == ("8", "GALAXY")


def test_wavelengths_come_from_the_unit_that_the_file_states(tmp_path):
    make_desi(tmp_path / "coadd-main-dark-1.fits")
    with fits.open(tmp_path / "coadd-main-dark-1.fits", mode="update") as file:
        for arm in "BRZ":
            file[f"{arm}_WAVELENGTH"].data /= 10.0
            file[f"{arm}_WAVELENGTH"].header["BUNIT"] = "nm"
    (first, _) = read_desi(UPath(tmp_path / "coadd-main-dark-1.fits"), LabelIndex())
    assert first.wavelength[0] == pytest.approx(5000.0)


def test_sky_fibres_have_no_labels_and_other_names_of_positions_are_known(tmp_path):
    make_desi(tmp_path / "whole.fits", targets=(7, 8, 616088619186127404), ra=(30.0, 31.0, 32.0))
    with fits.open(tmp_path / "whole.fits") as hdus:
        table = Table(hdus["FIBERMAP"].data)
        table["OBJTYPE"] = ["SKY", "TGT", "SKY"]
        table.rename_columns(["TARGET_RA", "TARGET_DEC"], ["RA_TARGET", "DEC_TARGET"])
        hdus["B_IVAR"].data[1], hdus["R_IVAR"].data[1], hdus["Z_IVAR"].data[1] = 0.0, 0.0, 0.0
        fits.HDUList([hdus[0], fits.BinTableHDU(table, name="FIBERMAP"), *hdus[2:]]).writeto(
            tmp_path / "c.fits"
        )
    known = tables(tmp_path, make_redrock)
    sky, without_data, other = read_desi(UPath(tmp_path / "c.fits"), known)
    assert (sky.object_class, sky.subclass, sky.trusted, sky.ra) == ("", "SKY", False, 30.0)
    assert np.isnan(sky.z)
    assert other.subclass == "SKY"
    assert (without_data.object_class, without_data.signal_to_noise) == ("STAR", 0.0)
    assert not without_data.valid.any()


DATA = Path(__file__).parents[4].parent / "shared" / "data" / "raw" / "desi_specutils"


@pytest.mark.skipif(not DATA.exists(), reason="the observed spectra are not part of the repository")
@pytest.mark.parametrize(("name", "with_data"), [("coadd", 2), ("spectra", 1)])
def test_every_fibre_of_a_real_file_is_a_row(name, with_data):
    found = list(read_desi(UPath(DATA / f"{name}-sv3-dark-26065.fits.gz"), LabelIndex()))
    assert [bool(s.valid.any()) for s in found].count(True) == with_data
    assert [s.subclass for s in found] == ["", "", "", "SKY", ""]
    assert [s.target for s in found][:2] == ["", ""], "negative numbers are no targets"
    assert len({s.source for s in found}) == 5
