"""Measures of answers against truth, on numbers that can be checked by hand."""

import numpy as np
import pytest

from ojala.models.evaluation.metrics import (
    NMAD,
    area_under_curve,
    calibration_error,
    catalogue_metrics,
    class_metrics,
    confusion,
    ks_distance,
    pit_and_crps,
    redshift_measures,
    redshift_metrics,
    scatter_metrics,
)


def test_redshift_measures_of_a_shifted_sample():
    z_true = np.array([0.0, 0.5, 1.0, 1.5, 2.0])
    dz = np.array([0.009, 0.019, 0.029, 0.039, 0.5])
    found = redshift_metrics(z_true + dz * (1 + z_true), z_true)
    assert found["n"] == 5
    assert found["bias"] == pytest.approx(0.029)
    assert found["sigma_nmad"] == pytest.approx(NMAD * 0.01)
    assert found["sigma_nmad_uncentred"] == pytest.approx(NMAD * 0.029)
    assert found["outliers_15"] == pytest.approx(0.2)
    assert found["outliers_03"] == pytest.approx(0.4)


def test_interquartile_width_and_outliers_are_those_of_qp():
    pytest.importorskip("qp")
    from qp.metrics.point_estimate_metric_classes import PointBias, PointOutlierRate, PointSigmaIQR

    rng = np.random.default_rng(5)
    z_true = rng.uniform(0.0, 3.0, 5001)
    for width in (0.005, 0.05):  # outliers beyond 0.06, and beyond 3 sigma_IQR
        z = z_true + width * (1 + z_true) * rng.standard_t(2, len(z_true))
        found = redshift_metrics(z, z_true)
        assert found["sigma_iqr"] == pytest.approx(PointSigmaIQR().evaluate(z, z_true), abs=1e-6)
        assert found["outliers_iqr"] == pytest.approx(PointOutlierRate().evaluate(z, z_true), abs=1e-6)
        assert found["bias"] == pytest.approx(PointBias().evaluate(z, z_true), abs=1e-6)


def test_rows_without_redshift_or_truth_are_left_out():
    found = redshift_metrics(np.array([0.1, np.nan, 0.3]), np.array([0.1, 0.2, np.nan]))
    assert found["n"] == 1
    assert np.isnan(redshift_metrics(np.array([np.nan]), np.array([0.1]))["sigma_nmad"])


def test_class_measures():
    true = np.array([0, 0, 0, 0, 1, 1, 2, -1])
    given = np.array([0, 0, 0, 1, 1, 2, 2, 0])
    np.testing.assert_array_equal(confusion(given, true), [[3, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0]])
    found = class_metrics(given, true)
    f1 = {"f1_galaxy": 6 / 7, "f1_star": 0.5, "f1_qso": 2 / 3}
    for name, value in f1.items():
        assert found[name] == pytest.approx(value)
    assert found["f1_weighted"] == pytest.approx((4 * 6 / 7 + 2 * 0.5 + 2 / 3) / 7)
    assert found["accuracy"] == pytest.approx(5 / 7)


def test_a_collapsed_answer_shows_in_range_and_r2():
    truth = np.random.default_rng(1).normal(10.0, 0.1, 2000)
    found = scatter_metrics(np.full(2000, 10.0), truth)
    assert found["nmad"] == pytest.approx(0.1, rel=0.1), "a small scatter alone would look good"
    assert found["range_ratio"] == 0
    assert found["r2"] <= 0


def test_perfect_answers_have_no_scatter():
    truth = np.linspace(9.0, 12.0, 50)
    found = scatter_metrics(truth + 0.2, truth)
    assert found["bias"] == pytest.approx(0.2)
    assert found["nmad"] == pytest.approx(0.0, abs=1e-12)
    assert found["range_ratio"] == pytest.approx(1.0)


def test_a_catalogue_is_measured_by_magnitude_and_quantity():
    rng = np.random.default_rng(2)
    n = 4000
    truth = {"z_gal": rng.uniform(0, 1, n), "log_mass": rng.normal(10, 1, n)}
    mass_pull = rng.normal(0, 1, n)
    answers = {
        "class_code": np.zeros(n, dtype=np.int8),
        "z_gal": truth["z_gal"] * 1.01,
        "log_mass": truth["log_mass"] + 0.1 * mass_pull,
        "log_mass_err": np.full(n, 0.1),
    }
    magnitude = np.where(np.arange(n) < 1000, 18.0, 20.5)
    found = catalogue_metrics(answers, np.zeros(n, dtype=int), truth, magnitude)
    assert found["z_gal"]["n"] == n
    assert found["z_gal 0-19"]["n"] == 1000
    assert found["z_gal 20-21"]["n"] == 3000
    assert "z_gal 22-99" not in found
    assert found["log_mass"]["within_err"] == pytest.approx(0.683, abs=0.03)
    assert found["class"]["f1_galaxy"] == 1.0


def test_no_answer_counts_against_completeness_and_not_against_purity():
    found = confusion(np.array([1, -1, 0, 1]), np.array([1, 1, 0, 0]))
    np.testing.assert_array_equal(found, [[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]])
    assert class_metrics(np.array([1, -1]), np.array([1, 1]))["f1_star"] == pytest.approx(2 / 3)


def test_resamples_are_measured_at_once():
    rng = np.random.default_rng(3)
    z_true = rng.uniform(0, 2, (4, 101))
    z = z_true + rng.normal(0, 0.1, (4, 101))
    together = redshift_measures(z, z_true)
    for k in range(4):
        alone = redshift_metrics(z[k], z_true[k])
        for name, values in together.items():
            assert values[k] == pytest.approx(alone[name]), name
    assert together["sigma68"] == pytest.approx(together["sigma_nmad"], rel=0.5)


def test_pit_and_crps_of_a_uniform_pdf_are_those_of_the_formula():
    n = 10
    position = np.array([0.0, 2.5, 5.0, 10.0])
    pit, crps = pit_and_crps(np.ones((4, n)), position)
    np.testing.assert_allclose(pit, position / n)
    u = position / n
    np.testing.assert_allclose(crps, n * (u**3 + (1 - u) ** 3) / 3)


def test_the_crps_of_a_truth_beyond_the_grid_grows_with_the_distance():
    _, crps = pit_and_crps(np.eye(1, 5, 4), np.array([8.0]))
    assert crps[0] == pytest.approx(3.0 + 1 / 3)


def test_truths_drawn_from_their_pdfs_have_a_level_pit():
    rng = np.random.default_rng(4)
    mean, sigma = rng.uniform(20, 80, 4000), rng.uniform(2, 8, 4000)
    grid = np.arange(100) + 0.5
    pdf = np.exp(-0.5 * ((grid - mean[:, None]) / sigma[:, None]) ** 2)
    edges = np.linspace(0, 1, 21)
    distance = {}
    for width in (1.0, 2.0):
        pit, _ = pit_and_crps(pdf, mean + width * sigma * rng.normal(size=4000))
        distance[width] = ks_distance(np.histogram(pit, edges)[0], edges)
    assert distance[1.0] < 0.03
    assert distance[2.0] > 0.1


def test_the_calibration_error_is_the_gap_between_probability_and_frequency():
    confidence = np.full(1000, 0.95)
    right = np.arange(1000) < 700
    assert calibration_error(confidence, right) == pytest.approx(0.25)
    assert calibration_error(np.full(10, 1.0), np.ones(10, bool)) == 0.0


def test_the_area_under_the_curve_counts_pairs_and_half_the_ties():
    score = np.array([1.0, 2.0, 3.0, 2.0])
    positive = np.array([False, False, True, True])
    assert area_under_curve(score, positive) == pytest.approx((1 + 1 + 1 + 0.5) / 4)
    assert np.isnan(area_under_curve(score, np.zeros(4, bool)))
