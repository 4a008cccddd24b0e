"""ESO's phase-3 spectra: columns by UCD, units that are stated, air or vacuum as the UCD has it."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from upath import UPath

from ojala.models.simulation.wavelength_grid import to_vacuum
from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.surveys.detect import detect_kind
from ojala.pipeline.ingest.surveys.eso import read_eso

DATA = Path(__file__).parents[4].parent / "shared" / "data" / "raw" / "misc_fits"
NANOMETRES = np.linspace(480.0, 489.0, 10)
FLUX_UNIT = "10**(-19).erg.cm**(-2).s**(-1).angstrom**(-1)"


def make(path, ucd="em.wl;obs.atmos", unit=FLUX_UNIT, **primary):
    columns = [
        ("WAVE", "D", NANOMETRES, "nm", ucd),
        ("SKY", "D", np.zeros(10), unit, "phot.flux.density;em.wl"),
        ("FLUX", "D", np.full(10, 200.0), unit, "phot.flux.density;em.wl;src.net;meta.main"),
        ("ERR", "D", np.r_[0.0, np.full(9, 50.0)], unit, "stat.error;phot.flux.density"),
        ("QUAL", "I", np.r_[np.zeros(9), 1], "", "meta.code.qual"),
    ]
    table = fits.BinTableHDU.from_columns(
        [
            fits.Column(name, f"10{form}", unit or None, array=[array])
            for name, form, array, unit, _ in columns
        ]
    )
    table.header["VOCLASS"] = "SPECTRUM V2.0"
    for at, (*_, kind) in enumerate(columns, start=1):
        table.header[f"TUCD{at}"] = kind
    head = fits.PrimaryHDU()
    head.header.update({"OBJECT": "M19_56670", "RA": 149.8, "DEC": 1.8, "FLUXCAL": "ABSOLUTE"} | primary)
    fits.HDUList([head, table]).writeto(path)
    return UPath(path)


def test_the_main_flux_is_read_in_its_units_and_wavelengths_come_to_vacuum(tmp_path):
    path = make(tmp_path / "a.fits")
    assert detect_kind(path).name == "ESO spectrum"
    one = read_eso(path)
    np.testing.assert_allclose(one.wavelength, to_vacuum(10.0 * NANOMETRES))
    np.testing.assert_allclose(one.flux, 2.0)
    np.testing.assert_allclose(one.ivar, [0.0, *[4.0] * 8, 0.0])
    assert (one.survey, one.target, one.ra, one.dec) == ("ESO", "M19_56670", 149.8, 1.8)
    assert (one.from_air, one.relative, np.isnan(one.z)) == (True, False, True)


def test_vacuum_and_fluxes_without_calibration_are_taken_as_stated(tmp_path):
    vacuum = read_eso(make(tmp_path / "a.fits", ucd="em.wl"))
    np.testing.assert_allclose(vacuum.wavelength, 10.0 * NANOMETRES)
    assert not vacuum.from_air
    for name, stated in (
        ("b", {"unit": "adu"}),
        ("c", {"FLUXCAL": "UNCALIBRATED"}),
        ("d", {"CONTNORM": True}),
    ):
        one = read_eso(make(tmp_path / f"{name}.fits", **stated))
        assert one.relative, stated
        np.testing.assert_allclose(one.flux, 200.0)


def test_another_table_of_one_row_is_refused(tmp_path):
    fits.HDUList([fits.PrimaryHDU()]).writeto(tmp_path / "a.fits")
    with pytest.raises(SourceError, match="is no phase-3 spectrum of ESO: expected"):
        read_eso(UPath(tmp_path / "a.fits"))


@pytest.mark.skipif(not DATA.exists(), reason="the observed spectra are not part of the repository")
@pytest.mark.parametrize("name", ["VANDELS_CDFS_017433", "legac_M19_56670_v3.0"])
def test_real_spectra_have_the_signal_to_noise_of_their_headers(name):
    path = DATA / f"{name}.fits.gz"
    one = read_eso(UPath(path))
    assert one.signal_to_noise == pytest.approx(fits.getheader(path)["SNR"], rel=2e-3)
    assert one.from_air
