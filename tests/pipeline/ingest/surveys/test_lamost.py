import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from upath import UPath

from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.surveys.detect import detect_kind
from ojala.pipeline.ingest.surveys.label_tables import LabelIndex, read_lamost_table
from ojala.pipeline.ingest.surveys.lamost import read_lamost
from tests.helpers.spectra_files import make_lamost, make_lamost_table

NAME = "spec-55862-B6212_sp06-007.fits"


def test_a_spectrum_is_read_from_its_rows(tmp_path):
    make_lamost(tmp_path / NAME)
    read = read_lamost(UPath(tmp_path / NAME))
    assert (read.survey, read.object_class, read.subclass) == ("LAMOST", "STAR", "G5")
    assert (read.target, read.relative) == ("J0040+2000", True)
    np.testing.assert_allclose(np.diff(np.log10(read.wavelength)), 1e-4)
    assert (read.flux == 3.0).all()
    np.testing.assert_array_equal(read.mask, np.arange(50))
    assert read.labels == {}


def test_a_spectrum_of_the_later_releases_is_read_from_its_table(tmp_path):
    arrays = {
        "FLUX": np.full((1, 60), 2.0),
        "IVAR": np.ones((1, 60)),
        "WAVELENGTH": 3700.0 + np.arange(60.0)[None],
    }
    table = fits.BinTableHDU.from_columns(
        [fits.Column(n, "60E", array=a) for n, a in arrays.items()], name="COADD_1"
    )
    primary = fits.PrimaryHDU()
    primary.header.update(TELESCOP="LAMOST", CLASS="QSO", Z=1.5)
    fits.HDUList([primary, table]).writeto(tmp_path / NAME)
    read = read_lamost(UPath(tmp_path / NAME))
    assert (read.object_class, read.z) == ("QSO", 1.5)
    assert read.wavelength[-1] == 3759.0
    assert (read.flux == 2.0).all()


def test_stellar_parameters_are_joined_by_visit(tmp_path):
    make_lamost(tmp_path / NAME)
    make_lamost(tmp_path / "other.fits", fibre=8)
    make_lamost_table(tmp_path / "stars.csv")
    known = LabelIndex([read_lamost_table(UPath(tmp_path / "stars.csv"))])
    labels = read_lamost(UPath(tmp_path / NAME), known).labels
    assert set(labels) == {"teff", "logg"}  # [Fe/H] stands as -9999: not measured
    assert labels["teff"] == pytest.approx((4945.4, 142.5))
    assert read_lamost(UPath(tmp_path / "other.fits"), known).labels == {}


@pytest.mark.parametrize("form", ["fits", "fits.gz"])
def test_stellar_parameters_are_read_from_fits(tmp_path, form):
    make_lamost(tmp_path / NAME)
    star = {"obsid": [1], "lmjd": [55862], "planid": ["B6212"], "spid": [6], "fiberid": [7]}
    labels = {"teff": [4945.4], "teff_err": [142.5], "logg": [4.775], "feh": [-9999.0]}
    Table(star | labels).write(tmp_path / f"stars.{form}")
    kind = detect_kind(UPath(tmp_path / f"stars.{form}"))
    assert kind.name == "table of LAMOST stars"
    assert kind.read_labels is not None
    found = read_lamost(
        UPath(tmp_path / NAME), LabelIndex(kind.read_labels(UPath(tmp_path / f"stars.{form}")))
    )
    assert found.labels["teff"] == pytest.approx((4945.4, 142.5))
    assert set(found.labels) == {"teff", "logg"}


def test_a_row_without_a_key_labels_nothing_and_one_that_is_no_key_is_named(tmp_path):
    make_lamost(tmp_path / NAME)
    head = "obsid|lmjd|planid|spid|fiberid|teff|logg|feh"
    rows = ["1||B6212|6|7|9999.0|1.0|1.0", "2|55862|B6212|6|7|4945.4|4.7|0.1", "3||||8|5000.0|4.0|0.0"]
    path = UPath(tmp_path / "stars.csv")
    path.write_text("\n".join([head, *rows]) + "\n")
    table = read_lamost_table(path)
    assert len(table.key) == 1
    assert read_lamost(UPath(tmp_path / NAME), LabelIndex([table])).labels["teff"][0] == 4945.4
    path.write_text("\n".join([head, rows[1], rows[0].replace("||", "|night|", 1)]) + "\n")
    with pytest.raises(SourceError, match=r"row 2, column lmjd, .*: night, B6212, 6, 7 is no visit"):
        read_lamost_table(path)


def test_another_file_is_refused(tmp_path):
    fits.HDUList([fits.PrimaryHDU()]).writeto(tmp_path / "image.fits")
    with pytest.raises(SourceError, match="is no LAMOST spectrum: expected"):
        read_lamost(UPath(tmp_path / "image.fits"))
