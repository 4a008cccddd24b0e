import numpy as np
import pytest
from upath import UPath

from ojala.pipeline.ingest.errors import SourceError
from ojala.pipeline.ingest.surveys.templates import read_atmosphere, read_template_text
from tests.helpers.spectra_files import make_atmosphere


def test_an_atmosphere_gives_a_spectrum_for_each_gravity_that_it_has(tmp_path):
    make_atmosphere(tmp_path / "ckm05_5000.fits")
    (star,) = read_atmosphere(UPath(tmp_path / "ckm05_5000.fits"))
    assert (star.source, star.survey, star.object_class) == ("ckm05_5000-g45", "TEMPLATE", "STAR")
    assert {name: value for name, (value, _) in star.labels.items()} == {
        "teff": 5000,
        "logg": 4.5,
        "fe_h": -0.5,
    }
    assert star.relative
    assert star.wavelength.min() > 900.0
    assert star.signal_to_noise == pytest.approx(100.0)


def test_a_template_of_a_spectral_type_is_a_star(tmp_path):
    (tmp_path / "g2v.sed").write_text("# air\n5000.0 1.0\n5001.0 2.0 # line\n5002.0 3.0\n")
    (tmp_path / "elliptical.dat").write_text("5000.0 1.0\n5001.0 2.0\n5002.0 3.0\n")
    star, other = (read_template_text(UPath(tmp_path / name)) for name in ("g2v.sed", "elliptical.dat"))
    assert (star.source, star.target) == ("g2v.sed", "g2v")
    assert (star.object_class, star.subclass, star.trusted) == ("STAR", "g2v", True)
    np.testing.assert_allclose(star.flux, [0.5, 1.0, 1.5])
    assert star.wavelength[0] == pytest.approx(5001.4, abs=0.1)  # in vacuum
    assert (other.object_class, other.trusted) == ("", False)
    assert np.isnan(other.z)


def test_a_line_without_two_numbers_is_named(tmp_path):
    (tmp_path / "bad.sed").write_text("5000.0 1.0\n5001.0\n")
    with pytest.raises(SourceError, match=r"row 2: holds '5001.0', expected wavelength and flux"):
        read_template_text(UPath(tmp_path / "bad.sed"))
