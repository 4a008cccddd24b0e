"""GALAH: cameras joined, wavelengths from air, labels of the catalogue by sobject_id."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from upath import UPath

from ojala.models.simulation.wavelength_grid import to_vacuum
from ojala.pipeline.ingest.errors import IngestError, SourceError
from ojala.pipeline.ingest.spectra import ingest_spectra
from ojala.pipeline.ingest.surveys.detect import detect_kind
from ojala.pipeline.ingest.surveys.galah import read_galah, read_galah_table
from ojala.pipeline.ingest.surveys.label_tables import LabelIndex

STAR = 170418003701205
FIRST = {1: 4713.0, 2: 5649.0, 3: 6478.0, 4: 7585.0}


def make_camera(folder, camera, release, star=STAR):
    """A spectrum of 20 pixels of flux 100 with a relative error of 2 %, and one pixel without data."""
    error = np.full(20, 0.02, "f4")
    error[5] = np.nan
    primary = fits.PrimaryHDU(np.full(20, 100.0, "f4"))
    primary.header.update(CRVAL1=FIRST[camera], CDELT1=0.05, CRPIX1=0 if release == 3 else 1)
    extra = [fits.ImageHDU(np.ones(20, "f4"), name=name) for name in ("normalized", "sky")]
    name = "input_sigma" if release == 3 else "relative_error"
    path = folder / f"{star}{camera}.fits"
    fits.HDUList([primary, *extra, fits.ImageHDU(error, name=name)]).writeto(path)
    return UPath(path)


def make_catalogue(path, release, **columns):
    position = ("ra_dr2", "dec_dr2") if release == 3 else ("ra", "dec")
    table = {"sobject_id": [STAR, 7], position[0]: [150.0, 0.0], position[1]: [-2.0, 0.0]}
    table |= {"teff": [5000.0, 1.0], "e_teff": [80.0, 1.0], "logg": [4.5, 1.0], "fe_h": [-0.1, np.nan]}
    velocity = "rv_galah" if release == 3 else "rv_comp_1"
    Table(table | {velocity: [29.9792458, 0.0], "flag_sp": [0, 1]} | columns).write(path)
    return UPath(path)


@pytest.mark.parametrize("release", [3, 4])
def test_cameras_are_one_spectrum_with_the_catalogues_labels(tmp_path, release):
    paths = [make_camera(tmp_path, camera, release) for camera in (2, 1, 4)]  # one is missing
    assert detect_kind(paths[0]).name == "GALAH spectrum"
    catalogue = make_catalogue(tmp_path / "main.fits", release)
    assert detect_kind(catalogue).name == "GALAH catalogue"
    star = read_galah(paths, LabelIndex([read_galah_table(catalogue)]))
    assert (star.source, star.ra, star.dec, star.trusted) == (str(STAR), 150.0, -2.0, True)
    assert star.z == pytest.approx(1e-4)
    assert star.labels["teff"] == (5000.0, 80.0)
    assert star.labels["fe_h"][0] == -0.1
    air = np.concatenate([FIRST[camera] + 0.05 * np.arange(20) for camera in (1, 2, 4)])
    np.testing.assert_allclose(star.wavelength, to_vacuum(air))
    assert star.from_air
    assert star.relative
    np.testing.assert_allclose(star.ivar[[0, 5, 6]], [0.25, 0.0, 0.25])


def test_a_folder_of_stars_is_ingested_star_by_star(tmp_path):
    for star in (STAR, STAR + 1):
        for camera in (1, 2):
            make_camera(tmp_path, camera, 4, star)
    make_catalogue(tmp_path / "main.csv", 4)
    summary = ingest_spectra([UPath(tmp_path)], UPath(tmp_path / "out"))
    assert (summary.spectra, summary.without_redshift) == (2, 1)
    assert sum(one.from_air for one in summary.inputs) == 2
    assert {one.kind for one in summary.inputs} == {"GALAH spectrum", "GALAH catalogue"}


def test_two_files_of_a_camera_and_other_files_are_refused(tmp_path):
    path = make_camera(tmp_path, 1, 4)
    (tmp_path / f"{STAR}1.fits.gz").write_bytes(path.read_bytes())
    with pytest.raises(IngestError, match="is not the only spectrum of its camera"):
        ingest_spectra([UPath(tmp_path)], UPath(tmp_path / "out"))
    fits.PrimaryHDU(np.ones(3)).writeto(tmp_path / "image.fits")
    with pytest.raises(SourceError, match="is no GALAH spectrum: expected"):
        read_galah([UPath(tmp_path / "image.fits")])
