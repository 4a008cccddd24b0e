"""APOGEE: apStar, aspcapStar, allStar, and SDSS-V's files of the Milky Way Mapper."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from upath import UPath

from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.surveys.apogee import read_allstar, read_apogee
from ojala.pipeline.ingest.surveys.detect import detect_kind
from ojala.pipeline.ingest.surveys.label_tables import LabelIndex
from ojala.pipeline.ingest.surveys.milky_way_mapper import read_mwm

NAME = "2M05560393-0133549"


def images(*arrays):
    grid = {"CRVAL1": 4.179, "CDELT1": 6e-6, "CRPIX1": 1.0, "BUNIT": "Flux (10^-17 erg/s/cm^2/Ang)"}
    return [fits.ImageHDU(np.asarray(array), fits.Header(grid)) for array in arrays]


def make_apstar(path, visits):
    """Flux 10 with error 0.5; pixel 1 bad, pixel 2 with a sky line, pixel 3 without an error."""
    flux, error, mask = np.full(8, 10.0, "f4"), np.full(8, 0.5, "f4"), np.zeros(8, "i2")
    mask[1], mask[2], error[3] = 1 << 0, 1 << 12, 1e10
    primary = fits.PrimaryHDU()
    primary.header.update(NVISITS=visits, OBJID=NAME, RA=89.0, DEC=-1.5, STARFLAG=0)
    arrays = [np.stack([array] * (visits + 2)) if visits > 1 else array for array in (flux, error, mask)]
    fits.HDUList([primary, *images(*arrays)]).writeto(path)
    return UPath(path)


@pytest.mark.parametrize("visits", [1, 3])
def test_the_combined_spectrum_of_apstar_is_at_rest_and_absolute(tmp_path, visits):
    path = make_apstar(tmp_path / f"apStar-dr17-{NAME}.fits", visits)
    assert detect_kind(path).name == "APOGEE spectrum"
    star = read_apogee(path)
    np.testing.assert_allclose(star.wavelength, 10.0 ** (4.179 + 6e-6 * np.arange(8)))
    assert star.ivar.tolist() == [4.0, 0.0, 4.0, 0.0, 4.0, 4.0, 4.0, 4.0]
    assert (star.target, star.ra, star.dec, star.z, star.relative) == (NAME, 89.0, -1.5, 0.0, False)
    assert star.trusted


def test_the_normalised_spectrum_has_its_own_parameters_or_those_of_allstar(tmp_path):
    path = tmp_path / f"aspcapStar-dr17-{NAME}.fits"
    table = fits.BinTableHDU(Table({"PARAM": [[4800.0, 2.5, 0.3, -0.2, 0.0, 0.0, 0.1, 1.0, -9999.0]]}))
    fits.HDUList([fits.PrimaryHDU(), *images(np.ones(8), np.full(8, 0.01), np.ones(8)), table]).writeto(path)
    star = read_apogee(UPath(path))
    assert (star.target, star.relative, np.isnan(star.ra)) == (NAME, True, True)
    assert {name: value for name, (value, _) in star.labels.items()} == {
        "teff": 4800.0,
        "logg": 2.5,
        "fe_h": -0.2,
        "alpha_fe": 0.1,
    }
    rows = {"APOGEE_ID": [NAME, NAME], "RA": [89.0, 0.0], "DEC": [-1.5, 0.0], "EXTRATARG": [0, 16]}
    rows |= {"TEFF": [4810.0, 1.0], "TEFF_ERR": [9.0, 1.0], "LOGG": [2.4, 1.0], "M_H": [-0.3, 1.0]}
    rows |= {"STARFLAG": [1 << 4, 0], "ALPHA_M": [-9999.0, 1.0]}
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU(Table(rows))]).writeto(tmp_path / "allStar.fits")
    assert detect_kind(UPath(tmp_path / "allStar.fits")).name == "APOGEE catalogue"
    star = read_apogee(UPath(path), LabelIndex([read_allstar(UPath(tmp_path / "allStar.fits"))]))
    assert star.labels["teff"] == (4810.0, 9.0)
    assert star.labels["fe_h"][0] == -0.3
    assert set(star.labels) == {"teff", "logg", "fe_h"}
    assert (star.ra, star.trusted) == (89.0, False)


def test_stars_of_sdss_v_are_read_from_all_observatories(tmp_path):
    path = tmp_path / "mwmStar-0.6.0-103020000.fits"
    primary = fits.PrimaryHDU()
    primary.header.update(V_ASTRA="0.6.0", SDSS_ID=103020000, RA=10.0, DEC=20.0)
    boss = {"FLUX": [np.ones(6)], "IVAR": [np.r_[0.0, np.full(5, 4.0)]], "PIXEL_FLAGS": [np.arange(6)]}
    hdus = [fits.BinTableHDU(Table(boss), name="BOSS/APO")]
    hdus[0].header.update(CRVAL=3.5523, CDELT=1e-4)
    hdus.append(fits.BinTableHDU(Table({"FLUX": np.empty((0, 6))}), name="BOSS/LCO"))
    visits = {"WAVELENGTH": np.tile(15100.0 + np.arange(6), (2, 1)), "FLUX": np.ones((2, 6))}
    hdus.append(fits.BinTableHDU(Table(visits | {"IVAR": np.ones((2, 6))}), name="APOGEE/APO"))
    fits.HDUList([primary, *hdus]).writeto(path)
    assert detect_kind(UPath(path)).name == "SDSS-V star"
    first, *others = read_mwm(UPath(path))
    assert [s.survey for s in (first, *others)] == ["SDSS", "APOGEE", "APOGEE"]
    assert len({s.source for s in (first, *others)}) == 3
    np.testing.assert_allclose(first.wavelength, 10.0 ** (3.5523 + 1e-4 * np.arange(6)))
    assert first.ivar.tolist() == [0.0, 4.0, 4.0, 4.0, 4.0, 4.0]
    assert (first.target, first.ra, first.dec) == ("103020000", 10.0, 20.0)
    assert others[0].wavelength[0] == 15100.0


def test_other_files_are_refused(tmp_path):
    fits.HDUList([fits.PrimaryHDU()]).writeto(tmp_path / "a.fits")
    for read in (read_apogee, read_allstar, lambda path: list(read_mwm(path))):
        with pytest.raises(SourceError, match=r"is no .*: expected"):
            read(UPath(tmp_path / "a.fits"))
