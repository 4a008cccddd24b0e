from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ojala.pipeline.ingest.surveys.folder import read_folder
from ojala.pipeline.ingest.surveys.spectrum import Spectrum
from tests.helpers.mmu_files import convert_collection, plain_row, struct_table
from tests.helpers.spectra_files import make_sdss

DATA = Path(__file__).parents[4].parent / "shared" / "data" / "spectra"


def test_a_folder_gives_each_trusted_object_once(tmp_path):
    (tmp_path / "sdss").mkdir()
    make_sdss(tmp_path / "sdss" / "spec-1-1-1.fits")
    make_sdss(tmp_path / "sdss" / "spec-1-2-1.fits")  # the same object, seen again
    make_sdss(tmp_path / "sdss" / "spec-1-1-2.fits", ra=151.0, zwarning=4)
    make_sdss(tmp_path / "sdss" / "spec-1-1-3.fits", ra=152.0)
    quasar = plain_row("SDSS", "somewhere/1", *np.ones((3, 2)) * [4000.0, 4001.0], CLASS="QSO", Z=1.5)
    pq.write_table(struct_table([quasar]), tmp_path / "more.parquet")
    read = read_folder(tmp_path)
    assert [(s.object_class, s.ra if np.isfinite(s.ra) else None) for s in read] == [
        ("QSO", None),
        ("GALAXY", 150.0),
        ("GALAXY", 152.0),
    ]


def test_moving_an_object_stretches_its_wavelengths():
    spectrum = Spectrum(
        "a",
        "SDSS",
        np.array([4000.0, 8000.0]),
        np.ones(2),
        np.ones(2),
        0.0,
        0.0,
        "GALAXY",
        z=0.1,
        trusted=True,
    )
    moved = spectrum.moved_to(0.32)
    np.testing.assert_allclose(moved.wavelength, [4800.0, 9600.0])
    assert moved.z == 0.32
    assert spectrum.z == 0.1


@pytest.mark.skipif(not DATA.exists(), reason="the observed spectra are not part of the repository")
def test_the_real_spectra_are_read(tmp_path):
    for name in ("lamost", "desi"):
        (tmp_path / name).symlink_to(DATA / name)
    convert_collection(DATA / "more_spectra.parquet", tmp_path / "mmu")
    (tmp_path / "sdss").mkdir()
    for path in sorted((DATA / "sdss").glob("spec-*"))[::6]:
        (tmp_path / "sdss" / path.name).symlink_to(path)
    read = read_folder(tmp_path)
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
