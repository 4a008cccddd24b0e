"""Corrections of model atmospheres by real stars."""

import numpy as np
import pytest

from ojala.flows.mocks.stellar_corrections import FOLDS, Residuals, check, fit, fold_of
from ojala.models.simulation.populations.stellar_corrections import TERMS, correction, design

WAVELENGTH = np.array([3300.0, 3900.0, 4300.0, 4340.0, 5500.0, 6500.0, 8400.0, 9500.0, 40000.0])


def test_the_blue_of_cool_stars_is_brighter_than_the_grid_has_it():
    factor = correction(WAVELENGTH, 5000.0, 4.5, 0.0)
    assert np.all((factor[2:4] > 1.08) & (factor[2:4] < 1.25))
    assert np.all(np.abs(factor[4:6] - 1.0) < 0.04)
    np.testing.assert_array_equal(factor[6:], 1.0)


def test_hot_stars_are_left_as_they_are_and_the_correction_fades_before():
    np.testing.assert_array_equal(correction(WAVELENGTH, 25000.0, 4.0, 0.0), 1.0)
    cool, between = (np.log(correction(WAVELENGTH, teff, 4.0, 0.0)) for teff in (12000.0, 16000.0))
    np.testing.assert_allclose(between, 0.5 * cool, atol=1e-12)


@pytest.mark.parametrize("teff", [3500.0, 4000.0, 7000.0, 11000.0])
@pytest.mark.parametrize("fe_h", [-4.0, -1.0, 0.5])
def test_no_star_is_changed_beyond_what_real_stars_show(teff, fe_h):
    for logg in (0.0, 2.5, 5.5):
        factor = correction(np.linspace(3000.0, 9000.0, 200), teff, logg, fe_h)
        assert np.all((factor > 0.3) & (factor < 3.0))


def test_a_fit_finds_the_polynomial_in_noise_and_in_spite_of_outliers():
    rng = np.random.default_rng(3)
    n = 2000
    teff, logg, fe_h = rng.uniform(3500, 12000, n), rng.uniform(1, 5, n), rng.uniform(-2, 0.4, n)
    truth = rng.normal(0.0, 0.05, (3, len(TERMS)))
    ratio = design(teff, logg, fe_h) @ truth.T + rng.normal(0.0, 0.01, (n, 3))
    ratio[rng.random(n) < 0.05] += 1.0
    ratio[:100, 1] = np.nan
    fold = np.array([fold_of(f"star{k}") for k in range(n)])
    stars = Residuals(ratio, teff, logg, fe_h, fold)
    fitted = design(teff, logg, fe_h) @ fit(stars, fold != 0).T
    left = fitted - design(teff, logg, fe_h) @ truth.T
    assert np.sqrt(np.mean(left**2)) < 0.004
    assert set(fold) == set(range(FOLDS))
    assert len(check(stars).splitlines()) == 11
