"""Measures of answers against truth, on numbers that can be checked by hand."""

import numpy as np
import pytest

from models.metrics import (
    NMAD,
    catalogue_metrics,
    class_metrics,
    confusion,
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


def test_rows_without_redshift_or_truth_are_left_out():
    found = redshift_metrics(np.array([0.1, np.nan, 0.3]), np.array([0.1, 0.2, np.nan]))
    assert found["n"] == 1
    assert np.isnan(redshift_metrics(np.array([np.nan]), np.array([0.1]))["sigma_nmad"])


def test_class_measures():
    true = np.array([0, 0, 0, 0, 1, 1, 2, -1])
    given = np.array([0, 0, 0, 1, 1, 2, 2, 0])
    np.testing.assert_array_equal(confusion(given, true), [[3, 1, 0], [0, 1, 1], [0, 0, 1]])
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
