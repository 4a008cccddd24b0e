"""What the two sides of a pair are asked."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ojala.models.avis import losses
from ojala.models.avis.augmentation import AugmentationSettings, make_training_batch
from ojala.models.avis.losses import compute_losses, contrastive, variance
from ojala.models.avis.network import Avis
from tests.models.avis.pairs_of_kinds import SMALL, alike

pytestmark = pytest.mark.processor


def vectors(n, size, seed):
    return torch.randn(n, size, generator=torch.Generator().manual_seed(seed))


def test_pairs_that_agree_and_differ_from_all_others_cost_nothing():
    axes = torch.eye(8)
    assert contrastive(axes, 5.0 * axes, torch.tensor(math.log(50.0))) < 1e-6
    assert contrastive(axes, axes.roll(1, dims=0), torch.tensor(math.log(50.0))) > 10.0


def test_sides_that_say_nothing_cost_the_logarithm_of_the_batch():
    same = torch.ones(16, 4)
    assert contrastive(same, same, torch.tensor(1.0)).item() == pytest.approx(math.log(16.0))


def test_the_contrastive_objective_is_symmetric():
    one, other = vectors(10, 6, 1), vectors(10, 6, 2)
    scale = torch.tensor(2.0)
    assert contrastive(one, other, scale).item() == pytest.approx(contrastive(other, one, scale).item())


def test_variance_forbids_collapse():
    """Sides that agree by always saying the same cost more than such that agree and tell objects apart."""
    wide = F.normalize(vectors(400, 6, 1), dim=0) * 20.0
    assert variance(torch.ones(50, 6), torch.ones(50, 6)) > 20.0
    assert variance(wide, wide) < 1.0
    assert variance(wide, wide.roll(1, dims=0)) > 10.0


def test_variance_forbids_numbers_that_repeat_each_other():
    wide = vectors(400, 6, 1)
    repeated = wide[:, :1].expand(-1, 6)
    assert variance(repeated, repeated) > variance(wide, wide) + 1.0


def test_parts_of_a_lesson_give_what_the_whole_gives(monkeypatch):
    torch.manual_seed(1)
    model = Avis(SMALL)
    config, rng = AugmentationSettings(), np.random.default_rng(1)
    batch = make_training_batch(alike(8), SMALL.spectrum, config, rng, second_view=True)
    _, whole = compute_losses(model, batch, 0.5)
    monkeypatch.setattr(losses, "CHUNK", 2)
    _, parts = compute_losses(model, batch, 0.5)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("p_bottleneck", [0.0, 0.5, 1.0])
def test_every_loss_is_finite_and_reaches_both_towers(p_bottleneck):
    torch.manual_seed(1)
    model = Avis(SMALL)
    batch = make_training_batch(alike(8), SMALL.spectrum, AugmentationSettings(), np.random.default_rng(1))
    found, seen = compute_losses(model, batch, p_bottleneck)
    total = found["spectrum"] + found["image"] + contrastive(seen.spectrum, seen.image, torch.tensor(2.0))
    torch.autograd.backward(total)
    felt = {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    left = {name for name, _ in model.named_parameters()} - felt
    assert torch.isfinite(total)
    unused = ("pool_spectrum.back", "pool_image.back") if p_bottleneck == 0.0 else ()
    assert {name for name in left if not name.startswith(unused)} <= set()
