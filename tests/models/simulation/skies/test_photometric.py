from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from astropy.cosmology import Planck18

from ojala.catalogs_schema.bands import BY_NAME, MODEL_BANDS
from ojala.models.quantities import CLASSES, QUANTITIES, Kind
from ojala.models.simulation.photometry import noise
from ojala.models.simulation.populations import galaxies, quasars, stars
from ojala.models.simulation.skies.photometric import RARE, SURVEY_SHARES, MockSky
from ojala.models.simulation.wavelength_grid import COARSE, FINE, windows

REFERENCE = [band.name for band in MODEL_BANDS].index("iSDSS")


def draw(sky: MockSky, n: int = 1500, seed: int = 1, **options: object):
    return sky.draw(n, np.random.default_rng(seed), **options)


def test_a_draw_has_every_label_of_its_class_and_none_of_another(sky):
    drawn = draw(sky)
    assert drawn.flux.shape == drawn.error.shape == (1500, len(MODEL_BANDS))
    assert drawn.flux.dtype == drawn.error.dtype == drawn.ebv.dtype == np.float32
    assert set(drawn.labels) == {q.name for q in QUANTITIES if q.kind is not Kind.CLASS} | {"log_mbh"}
    quasar = drawn.class_code == CLASSES.index("QSO")
    np.testing.assert_array_equal(np.isfinite(drawn.labels["log_mbh"]), quasar)
    for quantity in QUANTITIES:
        if quantity.kind is Kind.CLASS:
            continue
        known = np.isfinite(drawn.labels[quantity.name])
        own = drawn.class_code == CLASSES.index(quantity.applies_to)
        assert not (known & ~own).any()
        if quantity.applies_to != "STAR":  # stars from templates have no parameters
            assert (known == own).all()
        assert drawn.labels[quantity.name].dtype == np.float32
    assert np.isfinite(drawn.labels["teff"]).any()


def test_fluxes_and_errors_are_usable(sky):
    drawn = draw(sky)
    observed = np.isfinite(drawn.flux)
    np.testing.assert_array_equal(observed, np.isfinite(drawn.error))
    assert observed.any(axis=1).all()
    assert (drawn.error[observed] > 0.0).all()
    assert 0.05 < np.isnan(drawn.ebv).mean() < 0.2


def test_the_same_seed_draws_the_same_sky(sky):
    first, second, other = draw(sky, 200), draw(sky, 200), draw(sky, 200, seed=2)
    np.testing.assert_array_equal(first.flux, second.flux)
    assert not np.array_equal(np.nan_to_num(first.flux), np.nan_to_num(other.flux))


def test_shares_and_magnitudes_are_as_asked(sky):
    drawn = draw(sky, 4000, shares=SURVEY_SHARES, i_range=(19.0, 19.001), all_bands=True)
    share = np.bincount(drawn.class_code, minlength=3) / 4000
    np.testing.assert_allclose(share, SURVEY_SHARES, atol=0.1)
    magnitude = -2.5 * np.log10(drawn.flux[:, REFERENCE] / noise.MICROJANSKY_AT_ZERO)
    assert np.median(magnitude) == pytest.approx(19.0 + 0.025 * BY_NAME["iSDSS"].k_x, abs=0.05)
    assert np.isfinite(drawn.flux).all()


def test_no_member_is_on_both_sides_of_the_split(sky, small):
    train, held_out = sky.members(held_out=False), sky.members(held_out=True)
    for name, library in (("galaxies", small.galaxies), ("stars", small.stars), ("quasars", small.quasars)):
        assert not set(train[name]) & set(held_out[name])
        assert len(train[name]) + len(held_out[name]) == len(library["fine"])
        assert 0 < len(held_out[name]) < 0.15 * len(library["fine"])


def test_held_out_draws_use_held_out_spectra_only(sky, small):
    drawn = draw(sky, 600, held_out=True)
    teff = drawn.labels["teff"]
    allowed = small.stars["teff"][sky.members(held_out=True)["stars"]]
    assert np.isin(teff[np.isfinite(teff)], allowed).all()


def test_no_galaxy_is_older_than_the_universe_at_its_redshift(sky, small):
    z = np.linspace(0.01, 1.28, 400)
    luminosity = np.random.default_rng(2).uniform(37.5, 40.5, 400)
    rows = sky.population.galaxy_rows(
        z, luminosity, sky.population.members(held_out=False), np.random.default_rng(1)
    )
    assert (small.galaxies["age"][rows] <= Planck18.age(z).to_value("Gyr") + 1e-2).all()


def test_trainings_see_luminous_starbursts_that_a_survey_does_not_have(sky, small):
    training, held_out = (sky.population.members(held_out=side) for side in (False, True))
    assert len(held_out.starbursts) == 0
    assert (small.galaxies["log_ssfr"][training.starbursts] > -9.0).all()
    z = np.full(500, 1.2)
    row = sky.population.starburst_rows(np.zeros(500, int), z, training, np.random.default_rng(1))
    assert set(row) <= {0, *training.starbursts}
    assert (small.galaxies["age"][row[row > 0]] <= Planck18.age(1.2).to_value("Gyr") + 1e-2).all()

    def distant(side: bool) -> float:
        drawn = sky.draw(
            8000, np.random.default_rng(3), shares=(1.0, 0.0, 0.0), held_out=side, i_range=(19.0, 20.0)
        )
        return float((drawn.labels["z_gal"] > 0.8).mean())

    assert distant(False) > distant(True) + 0.01


def test_an_old_library_is_refused_with_what_it_lacks(small, photometer):
    old = {name: values for name, values in small.quasars.items() if name not in ("fwhm", "levels")}
    with pytest.raises(ValueError, match=r"quasars lacks fwhm, levels.*build_library"):
        MockSky(replace(small, quasars=old), photometer)


@pytest.fixture(scope="module")
def sky_without_rare(small, photometer) -> MockSky:
    return MockSky(small, photometer, without=frozenset(RARE))


@pytest.mark.parametrize("kind", RARE)
def test_rare_kinds_can_be_left_out_and_drawn_alone(sky_without_rare, kind):
    sky = sky_without_rare

    def is_rare(drawn) -> np.ndarray:
        if kind == "extreme emitters":
            return drawn.labels["ew_oiii_5007"] > 500.0
        if kind == "distant quasars":
            return drawn.labels["z_qso"] > 4.0
        return np.zeros(len(drawn.class_code), bool)  # white dwarfs: see the test of the members

    assert not is_rare(draw(sky, 1500)).any()
    alone = sky.draw_rare(kind, 300, np.random.default_rng(3))
    assert (kind == "white dwarfs") | is_rare(alone).all()
    assert len(np.unique(alone.class_code)) == 1


def test_white_dwarfs_are_among_the_members_only_where_they_are_asked_for(sky_without_rare, small):
    sky = sky_without_rare
    white = [stars.KINDS.index(name) for name in stars.WHITE_DWARFS]
    assert not np.isin(small.stars["kind"][sky.members(held_out=False)["stars"]], white).any()
    alone = sky.population.members(held_out=False, only="white dwarfs").stars
    assert len(alone)
    assert np.isin(small.stars["kind"][alone], white).all()


def test_an_unknown_rare_kind_is_refused(sky, small, photometer):
    with pytest.raises(ValueError, match="comets"):
        sky.draw_rare("comets", 1, np.random.default_rng(1))
    with pytest.raises(ValueError, match="comets"):
        MockSky(small, photometer, without=frozenset(("comets",)))


def test_black_holes_are_heavier_in_brighter_quasars(sky):
    bright = draw(sky, 1500, shares=(0.0, 0.0, 1.0), i_range=(17.0, 17.01)).labels
    faint = draw(sky, 1500, shares=(0.0, 0.0, 1.0), i_range=(22.0, 22.01)).labels
    near = [(b["z_qso"] > 1.0) & (b["z_qso"] < 3.0) for b in (bright, faint)]
    difference = np.median(bright["log_mbh"][near[0]]) - np.median(faint["log_mbh"][near[1]])
    assert difference == pytest.approx(0.5 * 2.0, abs=0.25)  # five magnitudes are two dex of luminosity


def test_hosts_rule_faint_nearby_nuclei_and_never_luminous_ones(sky):
    rng = np.random.default_rng(5)
    faint = sky.population.host_ratio(np.full(2000, 19.0), np.full(2000, 0.15), rng)
    luminous = sky.population.host_ratio(np.full(2000, 16.5), np.full(2000, 0.9), rng)
    assert np.median(faint) > 1.0
    assert np.median(luminous) < 0.05
    assert faint.max() <= 10.0**quasars.HOST_MAX + 1e-9


def test_masses_follow_from_light_and_distance(sky):
    drawn = draw(sky, 3000, i_range=(20.0, 20.001))
    galaxy = drawn.class_code == 0
    z, mass = drawn.labels["z_gal"][galaxy], drawn.labels["log_mass"][galaxy]
    near = (z > 0.095) & (z < 0.105)
    # i = 20 at z = 0.1 (460 Mpc): f_lambda 1.9e-17 at 7500 A, so L = 5.1e38 * (1 + z) erg/s/A, 10^38.8;
    # at 10^29.5 erg/s/A per solar mass this is 10^9.3, give or take the slope from 7500 A to 6000 A.
    if near.any():
        assert np.median(mass[near]) == pytest.approx(9.3, abs=0.3)
    order = np.argsort(z)
    assert np.corrcoef(np.log10(z[order]), mass[order])[0, 1] > 0.9
    assert (mass < 12.5).all()


def test_a_strong_line_shows_in_its_band(sky, small):
    library, photometer = small.galaxies, sky.photometer
    level = galaxies.line_levels(library["fine"])
    lines = np.zeros((1, len(galaxies.LINES)), np.float32)
    lines[0, 0] = 145.0 * level[0, 0]  # EW(H alpha) of 145 A, the width of a band, at z = 0.0066
    band = [b.name for b in MODEL_BANDS].index("J0660")
    shift = np.array([22])
    continuum = sky.photometer.continuum(
        *_exact(library, 0, shift),
    )
    added = photometer.lines(galaxies.LINE_WAVELENGTH[None] * np.exp(22 * 3e-4), lines * np.exp(22 * 3e-4))
    assert (added / continuum)[0, band] == pytest.approx(1.0, abs=0.1)


def _exact(library, row: int, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (
        windows(library["fine"], FINE.rest_first(galaxies.Z_MAX), np.array([row]), shift, FINE),
        windows(library["coarse"], COARSE.rest_first(galaxies.Z_MAX), np.array([row]), shift // 16, COARSE),
    )


def test_continua_refer_to_the_reference_band(sky):
    drawn = draw(sky, 3000)
    galaxy = drawn.class_code == 0
    z, level = drawn.labels["z_gal"][galaxy], drawn.labels["cont_halpha"][galaxy]
    ew = drawn.labels["ew_halpha"][galaxy]
    inside = (np.abs(6564.6 * (1.0 + z) - 7656.2) < 50.0) & (ew < 5.0)
    assert inside.sum() > 3
    np.testing.assert_allclose(level[inside], 1.0, atol=0.08)


def test_more_dust_makes_redder_photometry(sky):
    drawn = draw(sky, 6000, all_bands=True, i_range=(16.0, 16.001))
    star = (drawn.class_code == 1) & np.isfinite(drawn.ebv)
    blue = [b.name for b in MODEL_BANDS].index("J0400")
    colour = -2.5 * np.log10(drawn.flux[star, blue] / drawn.flux[star, REFERENCE])
    dusty = drawn.ebv[star] > 0.12
    assert np.nanmean(colour[dusty]) > np.nanmean(colour[~dusty])


def test_the_noiseless_flux_is_known_in_every_band_and_measurements_scatter_about_it(sky):
    drawn = sky.draw(400, np.random.default_rng(3))
    assert np.isfinite(drawn.noiseless).all()
    assert (drawn.noiseless_error == 0).all()
    seen = np.isfinite(drawn.flux)
    assert 0.4 < seen.mean() < 0.95
    pull = ((drawn.flux - drawn.noiseless) / drawn.error)[seen]
    assert pull.std() == pytest.approx(1.0, abs=0.05)
    assert abs(pull.mean()) < 0.03
