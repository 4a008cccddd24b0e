from __future__ import annotations

import numpy as np
import pytest

from ojala.models.simulation.populations.galaxy_index import GalaxyIndex

N = 6000


@pytest.fixture(scope="module")
def members() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "z": rng.uniform(0.01, 1.28, N),
        "log_luminosity": rng.uniform(37.0, 40.5, N),
        "age": rng.uniform(0.5, 13.0, N),
        "weight": np.ones(N),
    }


def test_members_drawn_are_like_what_is_asked(members):
    index = GalaxyIndex(rows=np.arange(N) + 100, **members)
    rng = np.random.default_rng(2)
    z, luminosity = rng.uniform(0.05, 1.2, 3000), rng.uniform(37.5, 40.0, 3000)
    row = index.draw_similar(z, luminosity, rng) - 100
    assert np.abs(members["log_luminosity"][row] - luminosity).max() < 0.45
    assert np.abs(members["z"][row] - z).max() < 0.31
    assert len(np.unique(row)) > 1500


def test_an_empty_corner_takes_the_nearest_members(members):
    index = GalaxyIndex(rows=np.arange(N), **members)
    row = index.draw_similar(np.array([0.5]), np.array([45.0]), np.random.default_rng(1))
    assert members["log_luminosity"][row[0]] > 40.0


def test_members_without_weight_are_not_drawn(members):
    weight = (np.arange(N) % 2).astype(float)
    index = GalaxyIndex(rows=np.arange(N), **(members | {"weight": weight}))
    rng = np.random.default_rng(3)
    row = index.draw_similar(rng.uniform(0.05, 1.2, 3000), rng.uniform(37.5, 40.0, 3000), rng)
    assert (row % 2 == 1).all()
    assert (index.draw_any(np.full(500, 13.5), rng) % 2 == 1).mean() > 0.99


def test_any_member_is_young_enough(members):
    index = GalaxyIndex(rows=np.arange(N), **members)
    oldest = np.linspace(1.0, 13.0, 2000)
    assert (members["age"][index.draw_any(oldest, np.random.default_rng(4))] <= oldest).all()
