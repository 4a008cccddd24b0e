import numpy as np
import pytest

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.models.simulation.photometry.exposure import Camera, expose
from ojala.models.simulation.photometry.photometer import Photometer
from ojala.models.simulation.wavelength_grid import FINE
from tests.models.simulation.small_library import box_curves

NAMES = [band.name for band in MODEL_BANDS]
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def camera(photometer: Photometer) -> Camera:
    return Camera(photometer)


def spectrum(blue: float = 3800.0, red: float = 9300.0, step: float = 0.8, snr: float = 20.0) -> Arrays:
    """A sloping continuum with a line at 6600 A."""
    wavelength = np.arange(blue, red, step)
    flux = 10.0 * (wavelength / 6000.0) ** -0.7 + 30.0 * np.exp(-0.5 * ((wavelength - 6600.0) / 4.0) ** 2)
    return wavelength, flux, (snr / flux) ** 2


@pytest.mark.parametrize("step", [0.8, 1.5, 2.3])
def test_fluxes_are_those_of_the_photometer(camera, photometer, step):
    wavelength, flux, ivar = spectrum(step=step)
    seen, _ = camera.synthesise_photometry(expose([(wavelength, flux, ivar)]))
    expected, _ = photometer.observe(wavelength, flux * 1e-17)
    np.testing.assert_array_equal(np.isnan(seen[0]), np.isnan(expected))
    np.testing.assert_allclose(seen[0], expected, rtol=0.005)


def test_bands_that_the_spectrum_does_not_reach_are_missing(camera):
    seen, error = camera.synthesise_photometry(expose([spectrum(blue=4500.0, red=8600.0)]))
    missing = {name for name, flux in zip(NAMES, seen[0], strict=True) if np.isnan(flux)}
    assert {"uJAVA", "J0440", "J0900", "W1"} <= missing
    assert not {"J0470", "J0660", "iSDSS"} & missing
    np.testing.assert_array_equal(np.isnan(seen), np.isnan(error))


def test_errors_are_the_scatter_of_noisy_spectra(camera):
    wavelength, flux, ivar = spectrum(snr=3.0)
    rng = np.random.default_rng(1)
    noisy = [(wavelength, flux + rng.standard_normal(len(flux)) / np.sqrt(ivar), ivar) for _ in range(300)]
    seen, error = camera.synthesise_photometry(expose(noisy))
    bands = np.isfinite(seen[0])
    ratio = seen[:, bands].std(axis=0) / error[:, bands].mean(axis=0)
    assert np.median(ratio) == pytest.approx(1.0, abs=0.05)
    assert ratio.min() > 0.8
    assert ratio.max() < 1.2


def test_bad_pixels_are_bridged_and_wide_gaps_lose_their_bands(camera):
    wavelength, flux, ivar = spectrum()
    speck = np.where(np.abs(wavelength - 5000.0) < 4.0, 0.0, ivar)
    gap = np.where(np.abs(wavelength - 5000.0) < 60.0, 0.0, ivar)
    spoiled = np.where(ivar == 0.0, np.nan, flux)
    seen, _ = camera.synthesise_photometry(
        expose([(wavelength, flux, ivar), (wavelength, spoiled, speck), (wavelength, spoiled, gap)])
    )
    at = NAMES.index("J0500")
    assert seen[1, at] == pytest.approx(seen[0, at], rel=1e-3)
    assert np.isnan(seen[2, at])
    assert seen[2, NAMES.index("J0520")] == pytest.approx(seen[0, NAMES.index("J0520")], rel=1e-6)


def test_a_masked_telluric_band_does_not_lose_the_reference_band(camera):
    wavelength, flux, ivar = spectrum()
    ivar = np.where((wavelength > 7580.0) & (wavelength < 7680.0), 0.0, ivar)
    seen, error = camera.synthesise_photometry(expose([(wavelength, flux, ivar)]))
    assert np.isfinite(seen[0, NAMES.index("iSDSS")])
    assert np.isfinite(error[0, NAMES.index("iSDSS")])
    assert np.isnan(seen[0, NAMES.index("J0760")])


def test_a_shift_is_a_redshift(camera, photometer):
    wavelength, flux, ivar = spectrum()
    pixels = 100
    factor = np.exp(pixels * FINE.step)
    moved, _ = camera.synthesise_photometry(expose([(wavelength, flux, ivar)]).shifted(pixels))
    expected, _ = photometer.observe(wavelength * factor, flux * 1e-17)
    both = np.isfinite(moved[0]) & np.isfinite(expected)
    assert both.sum() > 40
    np.testing.assert_allclose(moved[0, both], expected[both], rtol=0.01)
    back = expose([(wavelength, flux, ivar)]).shifted(-pixels)
    assert back.fine[0, -pixels:].max() == 0.0


def test_a_spectrum_without_pixels_is_seen_in_no_band(camera):
    wavelength, flux, _ = spectrum()
    seen, _ = camera.synthesise_photometry(expose([(wavelength, flux, np.zeros_like(flux))]))
    assert np.isnan(seen).all()


def test_a_source_of_constant_f_nu_has_it_in_every_band():
    camera = Camera(Photometer(box_curves()))
    flat = np.ones_like(FINE.wavelength)
    seen, _ = camera.synthesise_photometry(expose([(FINE.wavelength, FINE.wavelength**-2.0 * 1e9, flat)]))
    optical = np.isfinite(seen[0])
    # 1e9 * 1e-17 / 2.998e18 erg/s/cm2/Hz.
    np.testing.assert_allclose(seen[0, optical], 1e9 * 1e-17 / 2.99792458e18 * 1e29, rtol=1e-3)
