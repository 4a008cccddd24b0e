from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ojala.catalogs_schema.bands import JPAS_BANDS, MODEL_BANDS
from ojala.flows.mocks import real_objects
from ojala.flows.mocks.real_objects import PATCH
from ojala.models.simulation.photometry import noise
from ojala.models.simulation.photometry.photometer import Photometer
from ojala.pipeline.ingest.surveys.spectrum import Spectrum
from tests.models.simulation.small_library import box_curves

pytestmark = pytest.mark.integration

NAMES = [band.name for band in MODEL_BANDS]
DATA = Path(__file__).parents[3].parent / "shared" / "data"


def spectrum(
    object_class: str = "GALAXY", z: float = 0.1, snr: float = 20.0, red: float = 9300.0
) -> Spectrum:
    wavelength = np.arange(3800.0, red, 1.0)
    flux = np.full_like(wavelength, 10.0)
    ivar = np.full_like(wavelength, (snr / 10.0) ** 2)
    return Spectrum("s-1", "SDSS", wavelength, flux, ivar, 1.0, 2.0, object_class, z=z, trusted=True)


@pytest.fixture(scope="module")
def photometer() -> Photometer:
    return Photometer(box_curves())


def read_csv(path: Path) -> tuple[str, list[dict[str, str]]]:
    with path.open(newline="") as file:
        query = file.readline().strip()
        return query, list(csv.DictReader(file))


def test_objects_are_scaled_to_the_magnitude_with_the_surveys_errors(photometer):
    seen = real_objects.observe_spectra([spectrum()] * 200, photometer, 20.0, np.random.default_rng(1))
    reference = NAMES.index("iSDSS")
    assert np.median(seen.flux[:, reference]) == pytest.approx(noise.to_flux(np.array(20.0)), rel=0.01)
    band = NAMES.index("J0500")
    depth = real_objects.SURVEY_DEPTH[band]
    expected = np.hypot(noise.to_flux(depth) / 5.0, 0.012 * np.median(seen.flux[:, band]))
    assert np.median(seen.error[:, band]) == pytest.approx(expected, rel=0.05)
    assert np.isnan(seen.flux[:, NAMES.index("uJAVA")]).all()
    assert np.isnan(seen.flux[:, NAMES.index("W1")]).all()


def test_unusable_spectra_are_left_out(photometer):
    short, noisy, good = spectrum(red=8000.0), spectrum(snr=0.5), spectrum()
    seen = real_objects.observe_spectra([short, noisy, good], photometer, 20.0, np.random.default_rng(1))
    assert seen.spectra == [good]
    assert len(seen.flux) == 1


def test_the_archive_form_says_what_was_measured(photometer, tmp_path):
    seen = real_objects.observe_spectra(
        [spectrum(), spectrum("QSO", 0.8)], photometer, 19.0, np.random.default_rng(2)
    )
    real_objects.write_archive_csv(tmp_path / "a.csv", seen, np.random.default_rng(3))
    real_objects.write_truth_csv(tmp_path / "t.csv", seen)
    query, rows = read_csv(tmp_path / "a.csv")
    assert query == "#SELECT * FROM jpas.FNuDualObj"
    flux = np.array(rows[0]["FLUX_APER_COR_3_0"].split(), float)
    relative = np.array(rows[0]["FLUX_RELERR_APER_COR_3_0"].split(), float)
    assert len(flux) == len(relative) == 57
    at = [NAMES.index(band.name) for band in JPAS_BANDS]
    np.testing.assert_allclose(flux[flux != 0] / 10.0, seen.flux[0, at][flux != 0], rtol=1e-4)
    np.testing.assert_allclose((flux * relative / 10.0)[flux != 0], seen.error[0, at][flux != 0], rtol=1e-4)
    assert flux[0] == 0.0  # uJAVA, not covered
    g = NAMES.index("ls_g")
    assert float(rows[0]["FLUX_G"]) * 3.631 == pytest.approx(seen.flux[0, g], rel=1e-4)
    assert 3.631 / np.sqrt(float(rows[0]["FLUX_IVAR_G"])) == pytest.approx(seen.error[0, g], rel=1e-4)
    assert rows[0]["FLUX_IVAR_Z"] == "0"
    with (tmp_path / "t.csv").open(newline="") as file:
        truth = list(csv.DictReader(file))
    assert [row["class"] for row in truth] == ["GALAXY", "QSO"]
    assert [float(row["z"]) for row in truth] == [0.1, 0.8]


def test_widths_that_are_well_known_are_part_of_the_truth(photometer, tmp_path):
    widths = {"ew_halpha": (12.0, 0.5), "ew_hbeta": (80.0, 30.0), "log_mass": (10.0, 0.1)}
    lined = replace(spectrum(), labels=widths)
    seen = real_objects.observe_spectra([lined, spectrum()], photometer, 19.0, np.random.default_rng(2))
    real_objects.write_truth_csv(tmp_path / "t.csv", seen)
    with (tmp_path / "t.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["ew_halpha"], first["ew_halpha_err"]) == ("12.0000", "0.5000")
    assert first["ew_hbeta"] == first["ew_hbeta_err"] == "", "too uncertain to judge by"
    assert second["ew_halpha"] == ""
    assert "log_mass" not in first, "a scaled spectrum has another mass"


def test_the_choice_is_balanced_and_sees_the_rare():
    rng = np.random.default_rng(1)
    many = [spectrum("GALAXY", z) for z in rng.uniform(0.01, 0.06, 400)] + [spectrum("QSO", 1.0)] * 150
    many += [spectrum("STAR", 0.0)] * 30
    chosen = real_objects.choose_objects(many, rng)
    count = {name: sum(s.object_class == name for s in chosen) for name in ("GALAXY", "QSO", "STAR")}
    assert count == {"GALAXY": 120, "QSO": 100, "STAR": 30}
    assert sum(s.z > 0.05 for s in chosen if s.object_class == "GALAXY") >= 55
    assert len({id(s) for s in chosen if s.object_class == "GALAXY"}) == 120


def test_the_bundled_real_objects_are_well_formed():
    query, rows = read_csv(PATCH / "real_objects.csv")
    assert query.startswith("#SELECT")
    with (PATCH / "real_objects_truth.csv").open(newline="") as file:
        truth = list(csv.DictReader(file))
    assert len(rows) == len(truth) == 300
    keys = [(row["TILE_ID"], row["NUMBER"]) for row in rows]
    assert len(set(keys)) == 300
    assert keys == [(row["tile_id"], row["number"]) for row in truth]
    count = {name: sum(row["class"] == name for row in truth) for name in ("GALAXY", "QSO", "STAR")}
    assert count == {"GALAXY": 120, "QSO": 100, "STAR": 80}
    reference = [band.name for band in JPAS_BANDS].index("iSDSS")
    for row in rows:
        assert abs(float(row["ALPHA_J2000"]) - 245.5) < 1.0
        assert abs(float(row["DELTA_J2000"]) - 43.9) < 0.7
        flux = np.array(row["FLUX_APER_COR_3_0"].split(), float)
        assert len(flux) == len(row["FLUX_RELERR_APER_COR_3_0"].split()) == 57
        assert (flux[1:55] != 0).sum() >= 30
        assert 17.3 < 31.4 - 2.5 * np.log10(flux[reference] * 100.0) < 21.4  # 1e-30 cgs is 100 nJy


def test_the_bundled_mock_sky_is_well_formed():
    sky, truth = pq.read_table(PATCH / "mock_sky.parquet"), pq.read_table(PATCH / "mock_sky_truth.parquet")
    assert sky.num_rows == truth.num_rows == 6000
    assert set(sky["tile_id"].to_pylist()) == {real_objects.MOCK_TILE} != {real_objects.REAL_TILE}
    assert len(set(sky["number"].to_pylist())) == 6000
    assert sky["number"].equals(truth["number"])
    kinds = truth["class"].to_pylist()
    assert 0.6 < kinds.count("GALAXY") / 6000 < 0.75
    assert sum(path.stat().st_size for path in PATCH.iterdir()) < 3.5e6


@pytest.mark.skipif(not DATA.exists(), reason="the observed spectra are not part of the repository")
def test_real_spectra_make_a_table(tmp_path):
    (tmp_path / "spectra" / "sdss").mkdir(parents=True)
    for path in sorted((DATA / "spectra" / "sdss").glob("spec-*"))[::4]:
        (tmp_path / "spectra" / "sdss" / path.name).symlink_to(path)
    seen = real_objects.write_real_table(
        tmp_path / "spectra", DATA / "filters", tmp_path / "a.csv", tmp_path / "t.csv", galaxies_moved=True
    )
    assert len(seen.spectra) > 25
    moved = seen.z[seen.class_code == 0]
    assert moved.min() >= 0.08
    assert moved.max() <= 0.40
    blue = np.isnan(seen.flux[:, NAMES.index("J0430")])
    assert blue[seen.class_code == 0].mean() > 0.5
    assert not blue[seen.class_code == 2].any()
    assert len(read_csv(tmp_path / "a.csv")[1]) == len(seen.spectra)
