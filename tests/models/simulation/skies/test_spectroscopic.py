from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ojala.models.data import LabelledSpectra
from ojala.models.quantities import CLASSES
from ojala.models.simulation.populations import galaxies
from ojala.models.simulation.populations.population import Libraries
from ojala.models.simulation.skies.photometric import MockSky
from ojala.models.simulation.skies.spectroscopic import INSTRUMENTS, LINE_WAVELENGTH, Objects, SpectraSky
from ojala.models.simulation.wavelength_grid import FINE

DESI, SDSS = INSTRUMENTS["DESI"], INSTRUMENTS["SDSS"]
HALPHA = int(np.abs(LINE_WAVELENGTH - 6564.6).argmin())


@pytest.fixture(scope="module")
def spectra_sky(sky: MockSky) -> SpectraSky:
    return SpectraSky(sky.population)


def images(drawn: LabelledSpectra) -> tuple[np.ndarray, np.ndarray]:
    return drawn.spectra.flux.reshape(len(drawn), -1), drawn.spectra.ivar.reshape(len(drawn), -1)


def only_lines(objects: Objects) -> Objects:
    flux = np.zeros_like(objects.line_flux)
    flux[:, HALPHA] = 100.0
    return replace(objects, line_flux=flux, continuum=np.zeros_like(objects.continuum))


def test_desi_has_the_wavelengths_of_its_joined_arms():
    assert len(DESI.wavelength) == 7781
    np.testing.assert_allclose(DESI.wavelength[[0, 1, -1]], (3600.0, 3600.8, 9824.0), atol=1e-9)


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_a_line_lies_at_its_redshifted_wavelength_and_has_its_flux(spectra_sky, name):
    instrument = INSTRUMENTS[name]
    objects = only_lines(spectra_sky.draw_objects(60, np.random.default_rng(1), targets="bgs"))
    centre = LINE_WAVELENGTH[HALPHA] * (1.0 + objects.z)
    seen = spectra_sky.noiseless(objects, instrument)
    whole = np.interp(centre, instrument.wavelength, np.gradient(instrument.wavelength))
    around = centre[:, None] + np.linspace(-60.0, 60.0, 13)
    off = np.abs(around[..., None] - instrument.wavelength).min(axis=-1).max(axis=1)
    tried = np.flatnonzero(off < 2.5)  # lines that no edge of the instrument cuts
    assert len(tried) > 3
    for k in tried:
        total = np.trapezoid(seen[k], instrument.wavelength)
        place = np.trapezoid(seen[k] * instrument.wavelength, instrument.wavelength) / total
        assert total == pytest.approx(100.0, rel=0.01)
        assert abs(place - centre[k]) < 0.1 * whole[k]


def test_the_continuum_moves_with_the_redshift_and_not_by_whole_pixels(small: Libraries, sky: MockSky):
    """A narrow absorption line at redshifts that are a third of a pixel of the lattice apart."""
    library = dict(small.galaxies)
    grid = FINE.rest_wavelength(galaxies.Z_MAX)
    dip = 1.0 - 0.8 * np.exp(-0.5 * (np.log(grid / 5600.0) / 6e-4) ** 2)
    library["fine"] = np.tile(dip.astype(np.float16), (len(library["z"]), 1))
    spectra_sky = SpectraSky(Libraries(library, small.stars, small.quasars))
    spectra_sky._errors.apply = lambda *_: None  # type: ignore[method-assign]  # exact spectra
    z = np.expm1(np.log1p(0.2) + np.arange(4) * FINE.step / 3.0)
    seen = spectra_sky._continua_of_galaxies(np.arange(4), z, np.full(4, 60.0), np.random.default_rng(1))
    near = np.abs(FINE.wavelength / 6720.0 - 1.0) < 0.01
    depth = 1.0 - seen[:, near]
    place = (depth * np.log(FINE.wavelength[near])).sum(axis=1) / depth.sum(axis=1)
    np.testing.assert_allclose(np.diff(place), FINE.step / 3.0, atol=0.05 * FINE.step)
    np.testing.assert_allclose(np.exp(place) / (1.0 + z), 5600.0, atol=0.1)


@pytest.mark.parametrize("name", ["DESI", "LAMOST"])
def test_noise_is_what_the_inverse_variance_says(spectra_sky, name):
    instrument = replace(INSTRUMENTS[name], calibration=0.0, relative=False)
    objects = spectra_sky.draw_objects(50, np.random.default_rng(2))
    flux, ivar = images(spectra_sky.observe(objects, instrument, np.random.default_rng(3)))
    used = ivar > 0.0
    assert 0.995 < used.mean() < 1.0
    pull = (flux - spectra_sky.noiseless(objects, instrument)) * np.sqrt(ivar)
    assert np.mean(pull[used] ** 2) == pytest.approx(1.0, abs=0.01)
    assert np.mean(pull[used]) == pytest.approx(0.0, abs=0.01)


def test_lines_of_the_night_sky_are_noisier(spectra_sky):
    at = [int(np.abs(DESI.wavelength - line).argmin()) for line in (5578.4, 8830.4, 9378.4)]
    assert (DESI.noise[at] > 4.0 * DESI.quiet[at]).all()
    assert np.median(DESI.noise / DESI.quiet) < 1.1


def test_two_instruments_see_the_same_object(spectra_sky):
    objects = spectra_sky.draw_objects(40, np.random.default_rng(4))
    first, second = (spectra_sky.noiseless(objects, instrument) for instrument in (DESI, SDSS))
    both = np.arange(4000.0, 9500.0, 50.0)

    def smooth(seen: np.ndarray, wavelength: np.ndarray) -> np.ndarray:
        total = np.concatenate([[0.0], np.cumsum(0.5 * (seen[1:] + seen[:-1]) * np.diff(wavelength))])
        return np.diff(np.interp(both, wavelength, total))

    fine, coarse = (
        np.array([smooth(row.astype(float), instrument.wavelength) for row in seen])
        for seen, instrument in ((first, DESI), (second, SDSS))
    )
    lit = coarse > 1e-3 * coarse.max(axis=1, keepdims=True)  # not what the intergalactic medium absorbs
    difference = np.abs(fine[lit] / coarse[lit] - 1.0)
    assert np.percentile(difference, 90) < 1e-3
    assert np.percentile(difference, 99) < 0.02  # a strong line at the edge of a bin, seen less sharply


def test_an_exposure_reaches_the_signal_to_noise_that_is_asked_for(spectra_sky):
    objects = spectra_sky.draw_objects(40, np.random.default_rng(5), targets="bgs")
    asked = (3.0, 3.001)
    flux, ivar = images(spectra_sky.observe(objects, SDSS, np.random.default_rng(6), signal_to_noise=asked))
    np.testing.assert_allclose(np.median(flux * np.sqrt(ivar), axis=1), 3.0, rtol=0.3)


def test_bright_galaxies_and_emission_line_galaxies_are_as_desi_selects_them(spectra_sky):
    bright = spectra_sky.draw_objects(200, np.random.default_rng(7), targets="bgs")
    assert bright.z.max() <= 0.6
    assert bright.magnitude.max() <= 20.2
    faint = spectra_sky.draw_objects(200, np.random.default_rng(12), targets="faint")
    assert 21.0 < faint.magnitude.max() <= 22.0
    assert not faint.bright_time.any()
    emitters = spectra_sky.draw_objects(200, np.random.default_rng(8), targets="elg")
    assert emitters.z.min() >= 0.6
    rate = emitters.labels["log_sfr"] - emitters.labels["log_mass"]
    assert rate.min() > -9.51
    doublet = emitters.line_flux[:, np.abs(LINE_WAVELENGTH - 3728.5) < 2.0].sum(axis=1)
    assert np.percentile(doublet, 5) > 3.5  # 6e-17 erg/s/cm2 before the Galaxy's dust


def test_all_classes_are_drawn_with_their_labels(spectra_sky):
    drawn = spectra_sky.draw(300, np.random.default_rng(9), DESI)
    assert set(np.unique(drawn.class_code)) == {0, 1, 2}
    galaxy, star = (drawn.class_code == CLASSES.index(name) for name in ("GALAXY", "STAR"))
    assert np.isfinite(drawn.labels["log_mass"][galaxy]).all()
    assert np.isnan(drawn.labels["log_mass"][~galaxy]).all()
    assert np.isnan(drawn.labels["teff"][~star]).all()
    assert np.isfinite(drawn.labels["teff"][star]).any()
    assert np.isfinite(drawn.labels["z"]).all()
    assert (np.abs(drawn.labels["z"][star]) < 6e-4).all()


def test_the_same_seed_draws_the_same_spectra(spectra_sky):
    first, second = (spectra_sky.draw(20, np.random.default_rng(10), SDSS) for _ in range(2))
    np.testing.assert_array_equal(first.spectra.flux, second.spectra.flux)
    np.testing.assert_array_equal(first.member, second.member)


def test_held_out_objects_are_those_that_photometry_holds_out(spectra_sky, sky):
    allowed = sky.members(held_out=True)
    objects = spectra_sky.draw_objects(300, np.random.default_rng(11), held_out=True)
    for name, library in (("GALAXY", "galaxies"), ("STAR", "stars"), ("QSO", "quasars")):
        drawn = objects.member[objects.class_code == CLASSES.index(name)]
        assert len(drawn)
        assert np.isin(drawn, allowed[library]).all()
