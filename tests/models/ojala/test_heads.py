"""A head learns a property from embeddings, states its error, and keeps to its own weights."""

import numpy as np
import pytest
import torch

from ojala.models.checkpoint import WeightsError
from ojala.models.ojala.headers import heads_beside
from ojala.models.ojala.heads import (
    FineTuning,
    correct_errors,
    fit_head,
    head_measures,
    load_head,
    predict,
    save_head,
)
from ojala.models.settings import from_mapping

pytestmark = [pytest.mark.integration, pytest.mark.processor]

BASE = "a" * 64
N, WIDTH = 2000, 8


def tuning(**changed) -> FineTuning:
    settings = {"name": "log_mbh", "description": "black-hole mass", "object_class": "QSO", "epochs": 20}
    return from_mapping(FineTuning, settings | {"batch_size": 128, "learning_rate": 3e-3} | changed)


def labelled(n: int = N, seed: int = 1, noise: float = 0.3):
    """Embeddings whose first entry is the property, scattered by ``noise``."""
    rng = np.random.default_rng(seed)
    embedding = rng.normal(0.0, 1.0, (n, WIDTH)).astype(np.float32)
    value = (8.5 + embedding[:, 0] + noise * rng.standard_normal(n)).astype(np.float32)
    return torch.as_tensor(embedding), value, np.full(n, np.nan, np.float32)


@pytest.fixture(scope="module")
def head():
    head = fit_head(*labelled(), tuning(), BASE)
    correct_errors(head, *labelled(seed=3)[:2])
    return head


def test_a_head_finds_the_property_and_its_scatter(head):
    embedding, value, _ = labelled(seed=2)
    found = head_measures(head, embedding, value, baseline=np.full(N, 8.5))
    assert found["head"]["std"] < 0.36, "0.3 is the scatter of the labels themselves"
    assert found["baseline"]["std"] > 0.9
    assert found["head"]["within_err"] == pytest.approx(0.683, abs=0.06)


def test_errors_are_made_as_large_as_fresh_objects_need_them():
    head = fit_head(*labelled(seed=5), tuning(epochs=10), BASE)
    noisy = labelled(noise=0.6, seed=6)
    correct_errors(head, noisy[0], noisy[1])
    fresh = labelled(noise=0.6, seed=7)
    found = head_measures(head, fresh[0], fresh[1], baseline=fresh[1])
    assert found["head"]["within_err"] == pytest.approx(0.683, abs=0.04)


def test_errors_of_the_labels_are_not_taken_for_scatter_of_the_property():
    embedding, value, _ = labelled(noise=0.6)
    stated = np.full(N, 0.55, np.float32)
    with_error = fit_head(embedding, value, stated, tuning(), BASE)
    without = fit_head(embedding, value, stated * np.nan, tuning(), BASE)
    fresh = labelled(seed=3)[0]
    assert np.median(predict(with_error, fresh)[1]) < 0.8 * np.median(predict(without, fresh)[1])


def test_a_property_over_decades_is_learnt_in_its_logarithm():
    embedding, value, error = labelled()
    found = fit_head(embedding, 10.0**value, error, tuning(transform="log10"), BASE)
    mass, mass_error = predict(found, embedding)
    assert (mass > 0).all()
    assert np.std(np.log10(mass) - value) < 0.36
    assert (mass_error > 0).all()


def test_unknown_labels_are_passed_over_and_too_few_are_refused():
    embedding, value, error = labelled()
    value[::2] = np.nan
    assert np.isfinite(predict(fit_head(embedding, value, error, tuning(epochs=1), BASE), embedding)[0]).all()
    value[:-50] = np.nan
    with pytest.raises(ValueError, match="values of log_mbh are not enough to learn from"):
        fit_head(embedding, value, error, tuning(), BASE)


def test_a_head_survives_the_round_trip(head, tmp_path):
    save_head(tmp_path / "head.safetensors", head)
    again = load_head(tmp_path / "head.safetensors", BASE)
    embedding = labelled(seed=4)[0]
    for one, other in zip(predict(head, embedding), predict(again, embedding), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (again.quantity, again.tuning) == (head.quantity, head.tuning)
    assert len(again.sha256) == 64


def test_a_head_of_other_weights_is_refused_and_not_picked_up(head, tmp_path):
    path = tmp_path / "base-log_mbh.safetensors"
    save_head(path, head)
    with pytest.raises(WeightsError, match=r"belongs to the weights aaaaaaaaaaaa\.\.\., not to bbbbbbbbbbbb"):
        load_head(path, "b" * 64)
    assert heads_beside(tmp_path / "base.safetensors", lambda: BASE) == {"log_mbh": path}
    assert heads_beside(tmp_path / "base.safetensors", lambda: "b" * 64) == {}
    assert heads_beside(tmp_path / "other.safetensors", lambda: BASE) == {}


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"name": "Log MBH"}, "name must be a word in lower case"),
        ({"object_class": "BLAZAR"}, "object_class must be one of GALAXY, STAR, QSO"),
        ({"transform": "sqrt"}, "transform must be one of linear, log10, asinh"),
        ({"epoch": 3}, "unknown settings: epoch"),
    ],
)
def test_settings_that_cannot_be_understood_are_named(changed, complaint):
    with pytest.raises(ValueError, match=complaint):
        tuning(**changed)
