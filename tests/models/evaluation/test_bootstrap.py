"""Errors by drawing objects again, against what statistics says of simple measures."""

import numpy as np
import pytest

from ojala.models.evaluation.bootstrap import bootstrap_counts, bootstrap_objects
from ojala.models.evaluation.metrics import class_measures


def test_the_error_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(1).normal(3.0, 2.0, 900)
    found = bootstrap_objects(lambda v: {"mean": v.mean(axis=-1)}, values)["mean"]
    assert found.value == values.mean()
    assert found.error == pytest.approx(2.0 / 30.0, rel=0.15)


def test_objects_are_drawn_with_all_that_is_known_of_them():
    x = np.arange(50.0)
    found = bootstrap_objects(lambda a, b: {"difference": np.abs(a - b).max(axis=-1)}, x, x)["difference"]
    assert found.value == found.error == 0.0


def test_the_error_of_a_fraction_of_counts_is_binomial():
    counts = np.array([[80, 20, 0], [0, 0, 0]])
    found = bootstrap_counts(class_measures, counts)
    assert found["completeness"].value[0] == pytest.approx(0.8)
    assert found["completeness"].error[0] == pytest.approx(np.sqrt(0.8 * 0.2 / 100), rel=0.15)
    assert np.isnan(found["completeness"].value[1])
    assert np.isnan(found["completeness"].error[1])


def test_the_same_objects_have_the_same_errors():
    values = np.random.default_rng(2).normal(0.0, 1.0, 30)
    first, second = (bootstrap_objects(lambda v: {"median": np.median(v, axis=-1)}, values) for _ in range(2))
    assert first["median"].error == second["median"].error > 0


def test_no_counts_have_no_measure():
    assert np.isnan(bootstrap_counts(class_measures, np.zeros((3, 4), int))["f1_weighted"].value)
