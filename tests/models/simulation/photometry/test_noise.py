from __future__ import annotations

import numpy as np
import pytest

from ojala.catalogs_schema.bands import MODEL_BANDS, System
from ojala.models.simulation.photometry import noise
from ojala.models.simulation.photometry.depths import DEEP, SHALLOW

N = 4000


def test_a_source_at_the_depth_is_seen_at_five_sigma():
    true = np.broadcast_to(noise.to_flux(DEEP), (N, 63))
    flux, error = noise.observe(true, DEEP, np.random.default_rng(1))
    np.testing.assert_allclose(np.median(true / error, axis=0), 5.0, rtol=0.03)
    np.testing.assert_allclose(np.mean(flux / true, axis=0), 1.0, atol=0.03)


def test_reported_errors_describe_the_scatter_of_faint_sources():
    true = np.zeros((N, 63))
    flux, error = noise.observe(true, DEEP, np.random.default_rng(2))
    pull = flux / error
    np.testing.assert_allclose(np.std(pull, axis=0), 1.0, atol=0.06)
    assert np.std(error[:, 20] / np.median(error[:, 20])) == pytest.approx(noise.REPORTED_SCATTER, rel=0.1)


def test_bright_sources_are_limited_by_calibration_and_zero_points():
    true = np.full((N, 63), 1e6)
    flux, error = noise.observe(true, DEEP, np.random.default_rng(3))
    band = 30
    assert np.median(error[:, band] / flux[:, band]) == pytest.approx(noise.CALIBRATION_FLOOR, rel=0.05)
    expected = np.hypot(noise.CALIBRATION_FLOOR, 0.921 * noise.ZERO_POINT_JITTER)
    assert np.std(flux[:, band] / 1e6) == pytest.approx(expected, rel=0.06)


def test_the_offset_between_surveys_is_the_same_in_all_bands_of_a_survey():
    flux, _ = noise.observe(np.full((N, 63), 1e6), DEEP, np.random.default_rng(4))
    g, r, w1 = ([band.name for band in MODEL_BANDS].index(name) for name in ("ls_g", "ls_r", "W1"))
    together = np.corrcoef(np.log(flux[:, [g, r, w1]]).T)
    assert together[0, 1] > 0.5
    assert abs(together[0, 2]) < 0.1


def test_missing_bands_stay_missing():
    true = np.full((3, 63), 10.0)
    true[:, 7] = np.nan
    flux, error = noise.observe(true, DEEP, np.random.default_rng(5))
    assert np.isnan(flux[:, 7]).all()
    assert np.isnan(error[:, 7]).all()
    assert np.isfinite(np.delete(flux, 7, axis=1)).all()
    assert (np.delete(error, 7, axis=1) > 0).all()


def test_every_object_has_a_band_and_every_pattern_occurs():
    seen = noise.draw_observed(N, np.random.default_rng(6))
    system = np.array([band.system for band in MODEL_BANDS])
    jpas = system == System.JPAS
    pivot = np.array([band.pivot for band in MODEL_BANDS])
    assert seen.any(axis=1).all()
    assert 0.3 < (~seen[:, system == System.WISE].any(axis=1)).mean() < 0.6
    assert 0.02 < seen[:, jpas].all(axis=1).mean() < 0.5
    blue_lost = ~seen[:, jpas & (pivot < 3950.0)].any(axis=1) & seen[:, jpas & (pivot > 6000.0)].any(axis=1)
    red_lost = ~seen[:, jpas & (pivot > 9000.0)].any(axis=1) & seen[:, jpas & (pivot < 6000.0)].any(axis=1)
    assert min(blue_lost.mean(), red_lost.mean()) > 0.1
    assert (seen.sum(axis=1) < 20).any()


def test_depths_lie_about_those_of_the_surveys():
    depth = noise.draw_depths(N, np.random.default_rng(7))
    mean = depth.mean(axis=0)
    assert (mean < DEEP + 0.05).all()
    assert (mean > SHALLOW - 0.05).all()


def test_what_a_band_receives_has_the_zero_points_and_the_measurement_adds_the_noise():
    true = np.full((N, 63), 1e4)
    received = noise.apply_zero_points(true, np.random.default_rng(6))
    jpas = [band.system is System.JPAS for band in MODEL_BANDS]
    off = 2.5 * np.log10(received / true)[:, jpas]
    np.testing.assert_allclose(off.std(axis=0), noise.ZERO_POINT_JITTER, rtol=0.06)
    flux, error = noise.add_noise(received, DEEP, np.random.default_rng(7))
    np.testing.assert_allclose(np.std((flux - received) / error, axis=0), 1.0, rtol=0.06)
    observed, _ = noise.observe(true, DEEP, np.random.default_rng(6))
    np.testing.assert_allclose(np.std(observed, axis=0), np.std(flux, axis=0), rtol=0.08)
