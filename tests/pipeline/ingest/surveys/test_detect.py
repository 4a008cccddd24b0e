import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from upath import UPath

from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.surveys.detect import detect_kind
from tests.helpers import spectra_files


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (spectra_files.make_sdss, "SDSS spectrum"),
        (spectra_files.make_lamost, "LAMOST spectrum"),
        (spectra_files.make_desi, "DESI coadd"),
        (spectra_files.make_redrock, "table of DESI objects"),
        (spectra_files.make_quasar_catalogue, "table of DESI objects"),
        (spectra_files.make_fastspec, "table of DESI objects"),
        (spectra_files.make_stellar_table, "table of DESI objects"),
        (spectra_files.make_lamost_table, "table of LAMOST stars"),
        (spectra_files.make_atmosphere, "ck04 atmosphere"),
    ],
)
def test_a_kind_is_told_by_content_and_not_by_name(tmp_path, make, kind):
    make(tmp_path / "a.fits")
    (tmp_path / "anything").write_bytes(gzip.compress((tmp_path / "a.fits").read_bytes()))
    assert detect_kind(UPath(tmp_path / "anything")).name == kind


def test_text_of_two_columns_is_a_template_and_columns_of_no_survey_are_refused(tmp_path):
    (tmp_path / "t").write_text("".join(f"{w} 1.0\n" for w in range(5000, 5900)))
    assert detect_kind(UPath(tmp_path / "t")).name == "template"
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "p")
    with pytest.raises(
        SourceError, match="has the columns id, which are not of spectra known here: expected"
    ):
        detect_kind(UPath(tmp_path / "p"))


def test_another_file_is_refused_with_what_it_holds_and_what_was_expected(tmp_path):
    image = fits.ImageHDU(np.zeros((3, 3)), name="SCI")
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(tmp_path / "image.fits")
    with pytest.raises(
        SourceError, match=r"FITS file with PRIMARY, SCI, .* expected .*a DESI coadd .*an SDSS"
    ):
        detect_kind(UPath(tmp_path / "image.fits"))
    (tmp_path / "README").write_text("a, b\n1, 2\n3, 4\n")
    with pytest.raises(SourceError, match="holds no spectra that are known here: expected"):
        detect_kind(UPath(tmp_path / "README"))
    with pytest.raises(SourceError, match="does not exist"):
        detect_kind(UPath(tmp_path / "nothing"))
