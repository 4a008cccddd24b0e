from __future__ import annotations

import numpy as np
import pytest

from ojala.models.simulation.populations import abundances
from ojala.models.simulation.populations.galaxies import Z_MAX
from ojala.models.simulation.wavelength_grid import FINE, shifts, windows


def test_enhancement_deepens_magnesium_and_weakens_iron():
    grid = FINE.rest_wavelength(Z_MAX)
    response = dict(zip(abundances.ELEMENTS, abundances.abundance_response(), strict=True))
    assert response["Mg"][np.abs(grid - 5165.0).argmin()] == pytest.approx(-0.024, abs=0.002)
    assert response["Fe"][np.abs(grid - 5266.0).argmin()] == pytest.approx(0.020, abs=0.002)
    assert not any(r[np.abs(grid - 6500.0).argmin()] for r in response.values())
    old = abundances.draw_enhancement(np.full(5000, -13.0), np.random.default_rng(1))
    young = abundances.draw_enhancement(np.full(5000, -9.0), np.random.default_rng(1))
    np.testing.assert_allclose(old.mean(axis=0), 1.05, atol=0.05)
    assert np.abs(young).mean() < 0.1
    assert abs(np.corrcoef(old.T)[0, 1]) < 0.05


@pytest.mark.parametrize("z", [0.0, 0.3, 1.25])
def test_abundance_features_move_with_the_galaxy(z):
    shift = np.array([int(shifts(np.array(z)))])
    fine = np.ones((1, FINE.size), np.float32)
    magnesium = np.array([[1.0, 0.0, 0.0, 0.0, 0.0]], np.float32)
    abundances.AbundanceFeatures().apply(fine, shift, magnesium)
    expected = windows(
        abundances.abundance_response()[:1], FINE.rest_first(Z_MAX), np.array([0]), shift, FINE
    )
    np.testing.assert_allclose(fine, 1.0 + expected, atol=1e-6)
    assert (fine.min() < 0.98) == (5165.0 * (1.0 + z) < 11000.0)
