"""Measures of embeddings, on such of which one knows what lies in them."""

from __future__ import annotations

import numpy as np
import pytest

from ojala.models.avis.evaluation import (
    cluster_quality,
    neighbour_redshifts,
    probe_class,
    probe_value,
    redshift_quality,
)

pytestmark = pytest.mark.processor

RNG = np.random.default_rng(1)


def test_redshift_is_read_from_the_neighbours():
    z = np.linspace(0.0, 1.0, 2001)
    on_a_curve = np.stack([np.cos(z), np.sin(z)], axis=1)
    asked = np.array([0.2, 0.5])
    found = neighbour_redshifts(on_a_curve, z, np.stack([np.cos(asked), np.sin(asked)], axis=1))
    np.testing.assert_allclose(found, asked, atol=1e-3)


def test_an_object_is_not_its_own_neighbour():
    sample = RNG.standard_normal((40, 3))
    z = np.arange(40.0)
    z[7] = 1000.0
    sample[7] = sample[8]
    assert neighbour_redshifts(sample, z, sample)[7] < 40.0


def test_what_has_no_embedding_has_no_redshift():
    sample = RNG.standard_normal((40, 3))
    asked = np.array([[0.0, 0.0, 1.0], [np.nan, 0.0, 0.0]])
    assert np.isfinite(neighbour_redshifts(sample, np.arange(40.0), asked)).tolist() == [True, False]


def test_galaxies_and_quasars_are_judged_apart():
    code = np.repeat([0, 1, 2], 50)
    truth = np.full(150, 1.0)
    answer = truth + np.where(code == 2, 0.5, 0.0)
    found = redshift_quality(answer, truth, code)
    assert (found["galaxy_outliers_15"], found["qso_outliers_15"]) == (0.0, 1.0)
    assert not any(name.startswith("star") for name in found)


def test_clusters_that_are_the_classes():
    code = np.repeat([0, 1, 2], 10)
    whole = cluster_quality(code.astype(np.int32), code)
    assert (whole["adjusted_rand"], whole["purity"], whole["unclustered"]) == (1.0, 1.0, 0.0)
    some = code.astype(np.int32)
    some[::2] = -1
    found = cluster_quality(some, code)
    assert (found["adjusted_rand"], found["unclustered"], found["clusters"]) == (1.0, 0.5, 3.0)
    assert found["adjusted_rand_all"] < 0.8


def test_clusters_that_have_nothing_to_do_with_the_classes():
    code = np.tile([0, 1, 2], 100)
    found = cluster_quality(np.repeat([0, 1, 2], 100).astype(np.int32), code)
    assert abs(found["adjusted_rand"]) < 0.02
    assert found["purity"] == pytest.approx(1 / 3, abs=0.02)


def test_probes_find_what_is_linear_and_nothing_in_noise():
    sample, asked = RNG.standard_normal((600, 8)), RNG.standard_normal((300, 8))
    slope = np.arange(8.0)
    value, truth = sample @ slope, asked @ slope
    value[::3] = np.nan
    assert probe_value(sample, value, asked, truth)["r2"] > 0.999
    assert probe_value(sample, RNG.standard_normal(600), asked, truth)["r2"] < 0.1
    codes = np.digitize(sample[:, 0], [-0.5, 0.5]), np.digitize(asked[:, 0], [-0.5, 0.5])
    assert probe_class(sample, codes[0], asked, codes[1]) > 0.9
    assert probe_class(sample, RNG.integers(0, 3, 600), asked, codes[1]) < 0.5
