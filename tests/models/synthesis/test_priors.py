from __future__ import annotations

import numpy as np
import pytest

from models.synthesis import galaxies, priors

AT = {name: k for k, (name, _, _) in enumerate(galaxies.LINES)}
HALPHA, HBETA, OIII = AT["H  1  6562.80A"], AT["H  1  4861.32A"], AT["O  3  5006.84A"]


def strong_library(n: int) -> tuple[np.ndarray, np.ndarray]:
    """A library with far too strong and too excited lines."""
    rng = np.random.default_rng(1)
    lines = np.zeros((n, len(galaxies.LINES)))
    lines[:, HALPHA] = 10.0 ** rng.uniform(-2.0, 3.0, n)
    lines[:, HBETA] = lines[:, HALPHA] / 3.0
    lines[:, OIII] = lines[:, HBETA] * 10.0 ** rng.normal(0.3, 0.5, n)
    return lines, np.ones((n, 3))


def test_lines_are_as_strong_as_observed():
    lines, levels = strong_library(20000)
    weight = priors.galaxy_weights(lines, levels)
    assert weight.sum() == pytest.approx(1.0)
    assert (weight > 0).all()
    chosen = np.random.default_rng(2).choice(20000, 20000, p=weight)
    ew = lines[chosen, HALPHA]
    assert np.median(ew) == pytest.approx(5.6, rel=0.35)  # of DESI's bright galaxies
    assert np.percentile(ew, 75) == pytest.approx(20.3, rel=0.35)
    assert np.percentile(ew, 90) < 80.0


def test_lines_are_as_excited_as_observed():
    lines, levels = strong_library(20000)
    chosen = np.random.default_rng(2).choice(20000, 20000, p=priors.galaxy_weights(lines, levels))
    typical = (lines[chosen, HALPHA] > 15.0) & (lines[chosen, HALPHA] < 40.0)
    ratio = np.log10(lines[chosen, OIII] / lines[chosen, HBETA])[typical]
    assert np.median(ratio) == pytest.approx(-0.3, abs=0.12)


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


def test_quasars_are_drawn_at_all_redshifts():
    z = priors.draw_quasar_redshifts(20000, np.random.default_rng(1))
    assert (np.histogram(z, np.linspace(0.05, 4.98, 20))[0] > 100).all()


def test_stars_may_lie_within_the_dust():
    star = np.arange(4000) % 2 == 0
    ebv, behind = priors.draw_reddening(4000, np.random.default_rng(1), is_star=star)
    assert (ebv > 0.0).all()
    assert behind[star].mean() < 0.8
    assert behind[~star].mean() == pytest.approx(1.0, abs=0.01)
