from __future__ import annotations

import healpy
import numpy as np
import pytest

from ojala.catalogs_schema.bands import MODEL_BANDS
from ojala.models.quantities import CLASSES, FINE_TUNED, QUANTITIES, Kind
from ojala.models.simulation.photometry import noise
from ojala.models.simulation.photometry.exposure import Camera, expose
from ojala.models.simulation.skies.mixed import MixedSky
from ojala.models.simulation.skies.observed import (
    FOLDS,
    SPLIT_ORDER,
    Members,
    ObservedSky,
    ObservedSpectra,
    fold_of,
    split_sides,
    synthesise_photometry,
)
from ojala.models.simulation.skies.photometric import HELD_OUT_FRACTION

pytestmark = pytest.mark.integration

NAMES = [band.name for band in MODEL_BANDS]
REFERENCE = NAMES.index("iSDSS")
GALAXY, STAR, QSO = (CLASSES.index(name) for name in ("GALAXY", "STAR", "QSO"))


def observed(codes: list[int], snr: float = 50.0, **facts: object) -> ObservedSpectra:
    """Power laws of 5000 pixels; galaxies at z = 0.1 of mass 10**10 with EW(H alpha) of 20 A."""
    n = len(codes)
    wavelength = np.arange(3700.0, 9600.0, 1.2)
    flux = [10.0 * (wavelength / 6000.0) ** slope for slope in np.linspace(-1.0, 1.0, n)]
    code = np.array(codes)
    galaxy = code == GALAXY
    unknown = np.full((n, len(MODEL_BANDS)), np.nan)
    known = {
        "object_id": np.arange(n, dtype=np.int64),
        "primary_id": np.arange(n, dtype=np.int64),
        "class_code": code,
        "z": np.where(code == STAR, 0.0, 0.1),
        "relative": np.zeros(n, bool),
        "ebv": np.full(n, 0.02),
        "labels": {
            "log_mass": np.where(galaxy, 10.0, np.nan),
            "log_sfr": np.where(galaxy, 0.5, np.nan),
            "ew_halpha": np.where(galaxy, 20.0, np.nan),
            "teff": np.where(code == STAR, 5000.0, np.nan),
        },
        "label_errors": {"ew_halpha": np.full(n, 1.0)},
        "imaging": unknown,
        "imaging_error": unknown,
    }
    exposure = expose([(wavelength, f, (snr / f) ** 2) for f in flux])
    return ObservedSpectra(exposure=exposure, **(known | facts))  # type: ignore[arg-type]  # facts by name


@pytest.fixture(scope="module")
def camera(photometer) -> Camera:
    return Camera(photometer)


@pytest.fixture(scope="module")
def observed_sky(camera) -> ObservedSky:
    return ObservedSky(synthesise_photometry(observed([GALAXY] * 6 + [STAR] * 3 + [QSO] * 3), camera))


def draw(sky: ObservedSky, n: int = 2000, seed: int = 1, **options: object):
    return sky.draw(n, np.random.default_rng(seed), **options)


def label(members: Members, name: str) -> np.ndarray:
    return members.labels[:, [q.name for q in QUANTITIES if q.kind is not Kind.CLASS].index(name)]


def test_a_draw_has_the_magnitudes_and_shares_that_were_asked_for(observed_sky):
    drawn = draw(observed_sky, i_range=(19.0, 19.001), shares=(0.5, 0.3, 0.2), all_bands=True)
    share = np.bincount(drawn.class_code, minlength=3) / 2000
    np.testing.assert_allclose(share, (0.5, 0.3, 0.2), atol=0.04)
    magnitude = -2.5 * np.log10(drawn.flux[:, REFERENCE] / noise.MICROJANSKY_AT_ZERO)
    assert np.median(magnitude) == pytest.approx(19.0, abs=0.02)
    assert np.isnan(drawn.flux[:, NAMES.index("W1")]).all()
    assert (drawn.error[np.isfinite(drawn.flux)] > 0).all()


def test_draws_reach_the_faint_end(observed_sky):
    drawn = draw(observed_sky, 5000, all_bands=True)
    magnitude = -2.5 * np.log10(np.maximum(drawn.flux[:, REFERENCE], 1e-3) / noise.MICROJANSKY_AT_ZERO)
    assert 0.01 < (magnitude > 22.2).mean() < 0.3


def test_the_same_seed_draws_the_same_objects(observed_sky):
    first, second, other = draw(observed_sky), draw(observed_sky), draw(observed_sky, seed=2)
    np.testing.assert_array_equal(first.flux, second.flux)
    assert not np.array_equal(np.nan_to_num(first.flux), np.nan_to_num(other.flux))


def test_labels_have_a_meaning_for_the_class_only(observed_sky):
    drawn = draw(observed_sky)
    for quantity in QUANTITIES:
        if quantity.kind is not Kind.CLASS:
            known = np.isfinite(drawn.labels[quantity.name])
            assert not known[drawn.class_code != CLASSES.index(quantity.applies_to)].any()
            assert drawn.labels[quantity.name].dtype == np.float32
    assert (drawn.labels["teff"][drawn.class_code == STAR] == 5000.0).all()
    assert (drawn.labels["ew_halpha"][drawn.class_code == GALAXY] == 20.0).all()


def test_masses_and_rates_shift_with_the_flux(observed_sky, camera, photometer):
    spectra = observed([GALAXY])
    members = synthesise_photometry(spectra, camera)
    wavelength = np.arange(3700.0, 9600.0, 1.2)
    true = photometer.observe(wavelength, 10.0 * (wavelength / 6000.0) ** -1.0 * 1e-17)[0][REFERENCE]
    magnitude = -2.5 * np.log10(true / noise.MICROJANSKY_AT_ZERO)
    sky = ObservedSky(members)
    same = draw(sky, 50, i_range=(magnitude, magnitude + 1e-4))
    fainter = draw(sky, 50, i_range=(magnitude + 2.5, magnitude + 2.5001))
    np.testing.assert_allclose(same.labels["log_mass"], 10.0, atol=0.01)
    np.testing.assert_allclose(fainter.labels["log_mass"], 9.0, atol=0.01)
    np.testing.assert_allclose(fainter.labels["log_sfr"], -0.5, atol=0.01)


def test_a_galaxy_farther_away_at_the_same_magnitude_is_more_massive(camera):
    members = synthesise_photometry(observed([GALAXY]), camera, moves=(-0.02, 0.02))
    assert len(members) == 3
    z, mass = label(members, "z_gal"), label(members, "log_mass")
    order = np.argsort(z)
    assert (np.diff(mass[order]) > 0.1).all()
    np.testing.assert_allclose(np.log1p(z[order]), np.log(1.1) + np.array([-0.02, 0.0, 0.02]), atol=4e-4)


def test_stars_and_quasars_stay_at_their_redshift(camera):
    assert len(synthesise_photometry(observed([STAR, QSO]), camera, moves=(-0.04, -0.02, 0.02, 0.04))) == 2


def test_continua_are_read_beside_the_lines(camera):
    members = synthesise_photometry(observed([GALAXY] * 3), camera)
    # Power laws of slope -1, 0 and 1: at H alpha (7221 A at z = 0.1) over the pivot of iSDSS (7656 A).
    np.testing.assert_allclose(
        label(members, "cont_halpha"), (7221.0 / 7656.0) ** np.array([-1, 0, 1]), rtol=0.01
    )


def test_spectra_whose_own_noise_would_rule_are_left_out(camera):
    assert len(synthesise_photometry(observed([GALAXY], snr=0.8), camera)) == 0
    assert len(synthesise_photometry(observed([GALAXY], snr=8.0), camera)) == 1
    with pytest.raises(ValueError, match="no spectrum of this side can be drawn from"):
        ObservedSky(synthesise_photometry(observed([GALAXY], snr=0.8), camera))


def test_errors_are_never_below_the_spectrums_own(camera):
    members = synthesise_photometry(observed([GALAXY], snr=4.0), camera)
    drawn = draw(ObservedSky(members), 200, i_range=(12.0, 12.1), all_bands=True)
    seen = np.isfinite(drawn.flux)
    own = np.broadcast_to(members.error[0] / members.flux[0], seen.shape)
    assert (drawn.error[seen] / drawn.flux[seen] > 0.8 * own[seen]).all()


def test_imaging_stands_in_where_the_spectrum_does_not_reach(camera):
    spectra = observed([GALAXY])
    flux, _ = camera.synthesise_photometry(spectra.exposure)
    imaging = np.full((1, len(MODEL_BANDS)), np.nan)
    imaging[0, NAMES.index("ls_r")] = 2.0 * flux[0, NAMES.index("ls_r")]  # half of the light is in the fibre
    imaging[0, NAMES.index("W1")] = 6.0 * flux[0, REFERENCE]
    members = synthesise_photometry(
        observed([GALAXY], imaging=imaging, imaging_error=np.full_like(imaging, 1e-3 * flux[0, REFERENCE])),
        camera,
    )
    assert members.flux[0, NAMES.index("W1")] == pytest.approx(3.0)
    alone = synthesise_photometry(spectra, camera)
    # The mass belongs to all of the light: at a given flux it is half of what the fibre's light suggests.
    assert label(members, "log_mass")[0] == pytest.approx(label(alone, "log_mass")[0] - np.log10(2.0))


def test_poor_equivalent_widths_are_no_labels(camera):
    members = synthesise_photometry(observed([GALAXY], label_errors={"ew_halpha": np.array([9.0])}), camera)
    assert np.isnan(label(members, "ew_halpha")).all()


def test_an_object_is_drawn_as_often_as_any_other_however_often_it_was_observed(camera):
    spectra = observed([GALAXY] * 10, primary_id=np.array([0] * 9 + [9], np.int64))
    sky = ObservedSky(synthesise_photometry(spectra, camera))
    _, member = sky.draw_members(4000, np.random.default_rng(1))
    assert (sky.members.primary_id[member] == 9).mean() == pytest.approx(0.5, abs=0.03)


def catalogue(n: int = 4000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions all over the sky, each object seen twice (far apart, so that some straddle a border)."""
    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    ra, dec = np.concatenate([ra, ra + 0.05]), np.concatenate([dec, dec])
    index = healpy.ang2pix(2**29, ra, np.clip(dec, -90, 90), nest=True, lonlat=True)
    object_id = np.arange(2 * n, dtype=np.int64)
    return index, object_id, np.tile(object_id[:n], 2)


def test_no_object_and_no_cell_is_on_both_sides():
    index, object_id, primary_id = catalogue()
    side = split_sides(index, object_id, primary_id)
    cell = index >> 2 * (29 - SPLIT_ORDER)
    assert not set(primary_id[side == 0]) & set(primary_id[side == 1])
    assert not set(cell[side == 0]) & set(cell[side == 1])
    assert (side == 1).mean() == pytest.approx(HELD_OUT_FRACTION, abs=0.015)
    assert 0 < (side == -1).sum() < 60  # the second visit lies in a cell of the other side


def test_adding_spectra_moves_none_to_the_other_side():
    index, object_id, primary_id = catalogue()
    some = np.random.default_rng(2).random(len(index)) < 0.3
    some |= np.isin(object_id, primary_id[some])
    np.testing.assert_array_equal(
        split_sides(index, object_id, primary_id)[some],
        split_sides(index[some], object_id[some], primary_id[some]),
    )


def test_simulated_and_observed_spectra_are_drawn_side_by_side(sky, observed_sky):
    mixed = MixedSky(sky, observed_sky, 0.25).draw(800, np.random.default_rng(1))
    assert len(mixed) == 800
    assert mixed.flux.dtype == np.float32
    observed_share = np.isclose(mixed.ebv, 0.02).mean()
    assert observed_share == pytest.approx(0.25, abs=0.06)
    assert set(mixed.labels) == {q.name for q in QUANTITIES if q.kind is not Kind.CLASS} | {
        q.name for q in FINE_TUNED
    }


def test_observed_spectra_say_what_a_band_would_measure_and_how_well_they_know_it(observed_sky):
    drawn = draw(observed_sky, 500)
    level = drawn.noiseless[:, REFERENCE]
    assert np.isfinite(level).all()
    assert np.isnan(drawn.noiseless[:, NAMES.index("W1")]).all(), "the spectra do not reach it"
    known = np.isfinite(drawn.noiseless)
    assert (np.isfinite(drawn.flux) <= known).all()
    assert known.sum() > np.isfinite(drawn.flux).sum()
    assert (drawn.noiseless_error[known] > 0).all()


def test_folds_hold_a_quarter_of_the_objects_each_whatever_else_there_is():
    keys = np.arange(4000, dtype=np.int64)
    fold = fold_of(keys)
    np.testing.assert_allclose(np.bincount(fold) / 4000, 1.0 / FOLDS, atol=0.03)
    np.testing.assert_array_equal(fold_of(keys[::7]), fold[::7])
