from __future__ import annotations

import numpy as np

from ojala.models.simulation.populations.mismatch import ModelErrors
from ojala.models.simulation.wavelength_grid import FINE, redshifts


def deviations(n: int, shift: int, seed: int = 1) -> np.ndarray:
    fine = np.ones((n, FINE.size), np.float32)
    ModelErrors(1.0).apply(fine, np.full(n, shift), np.random.default_rng(seed))
    return fine - 1.0


def test_models_are_wrong_by_about_a_per_cent_and_worse_in_the_ultraviolet():
    off = deviations(400, 0)
    optical = (FINE.wavelength > 4500.0) & (FINE.wavelength < 7000.0)
    assert 0.006 < np.median(np.std(off[:, optical], axis=1)) < 0.025
    assert abs(off[:, optical].mean()) < 0.004
    assert np.std(off[:, FINE.wavelength < 3300.0]) > 1.15 * np.std(off[:, optical])


def test_the_deviation_stays_at_its_rest_wavelength():
    at_rest, moved = deviations(30, 0), deviations(30, 700)
    np.testing.assert_allclose(moved[:, 700:], at_rest[:, :-700], atol=2e-3)
    assert redshifts(np.array(700)) > 0.2


def test_the_deviation_is_smooth():
    off = deviations(50, 0)
    assert np.abs(np.diff(off, axis=1)).max() < 0.01
