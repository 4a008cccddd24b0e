from __future__ import annotations

import numpy as np
import pytest

from ojala.models.simulation.populations import line_ratios


def medians(ew: float) -> np.ndarray:
    return np.median(line_ratios.draw_ratios(np.full(20000, ew), np.random.default_rng(1)), axis=0)


def test_ratios_are_those_of_desi_at_the_same_strength_of_halpha():
    # Medians of DESI's bright galaxies with EW(H alpha) of 25 to 50 A: [N II]/Ha, [O III]/Hb.
    np.testing.assert_allclose(medians(35.0)[:2], [-0.50, -0.26], atol=0.08)


def test_strong_emitters_are_excited_and_poor_in_nitrogen():
    weak, strong = medians(12.0), medians(250.0)
    assert strong[0] < weak[0] - 0.4
    assert strong[1] > weak[1] + 0.4


def test_nitrogen_and_excitation_go_opposite_ways_among_strong_emitters():
    ratios = line_ratios.draw_ratios(np.full(20000, 80.0), np.random.default_rng(2))
    assert np.corrcoef(ratios[:, 0], ratios[:, 1])[0, 1] < -0.4
    assert np.std(ratios[:, 1]) == pytest.approx(0.3, abs=0.12)
