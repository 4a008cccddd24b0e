from __future__ import annotations

import numpy as np
import pytest

from ojala.models.simulation.populations import priors


def test_strong_emitters_nearby_are_drawn_less_often():
    weight = priors.emission_weight(np.array([0.1, 0.1, 0.1, 0.8]), np.array([5.0, 60.0, 300.0, 300.0]))
    assert weight[0] == weight[3] == 1.0
    assert 1.0 > weight[1] > weight[2] > 0.0


def test_stars_give_way_to_galaxies_and_quasars_rise_and_level_off():
    rng = np.random.default_rng(1)
    shares = (0.67, 0.28, 0.05)
    mix = np.array(
        [
            np.bincount(priors.draw_classes(np.full(40000, i), shares, rng), minlength=3) / 40000
            for i in (16.0, 18.0, 20.0, 22.0)
        ]
    )
    assert (np.diff(mix[:, 1]) < 0.0).all()
    assert (np.diff(mix[:, 0]) > 0.0).all()
    assert mix[0, 2] < mix[1, 2] < mix[2, 2]
    np.testing.assert_allclose(mix[2], shares, atol=0.03)


def test_classes_learnt_with_one_mix_carry_over_to_another():
    # P(class | i) for one mix, times the ratio of the shares, is that of the other mix.
    first, second = (0.6, 0.2, 0.2), (0.67, 0.28, 0.05)
    magnitude = np.full(200000, 21.5)
    p, q = (
        np.bincount(priors.draw_classes(magnitude, mix, np.random.default_rng(2)), minlength=3) / 200000
        for mix in (first, second)
    )
    carried = p * np.array(second) / np.array(first)
    np.testing.assert_allclose(carried / carried.sum(), q, atol=0.005)


def test_magnitudes_rise_to_the_faint_end_within_the_range():
    drawn = priors.draw_magnitudes(20000, np.random.default_rng(1), (15.0, 22.8))
    count, _ = np.histogram(drawn, np.linspace(15.0, 22.8, 5))
    assert (np.diff(count) > 0).all()
    assert drawn.min() >= 15.0
    assert drawn.max() <= 22.8


def test_fainter_galaxies_are_farther_and_no_redshift_is_left_out():
    rng = np.random.default_rng(1)
    bright = priors.draw_galaxy_redshifts(np.full(20000, 17.0), rng)
    faint = priors.draw_galaxy_redshifts(np.full(20000, 22.0), rng)
    assert np.median(bright) < 0.25 < 0.5 < np.median(faint)
    for z in (bright, faint):
        assert z.min() > 0.0
        assert z.max() <= 1.28
        assert (np.histogram(z, np.linspace(0.0, 1.28, 17))[0] > 50).all()


def test_quasars_are_drawn_at_all_redshifts_and_bright_ones_are_nearer():
    rng = np.random.default_rng(1)
    z = priors.draw_quasar_redshifts(np.full(20000, 21.0), rng)
    assert (np.histogram(z, np.linspace(0.05, 4.98, 20))[0] > 100).all()
    assert np.median(priors.draw_quasar_redshifts(np.full(20000, 16.0), rng)) < np.median(z) - 0.4


def test_stars_may_lie_within_the_dust():
    star = np.arange(4000) % 2 == 0
    ebv, behind = priors.draw_reddening(4000, np.random.default_rng(1), is_star=star)
    assert (ebv > 0.0).all()
    assert behind[star].mean() < 0.8
    assert behind[~star].mean() == pytest.approx(1.0, abs=0.01)
