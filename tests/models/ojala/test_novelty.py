"""What is unlike the training's objects stands out, however bright it is."""

from dataclasses import replace

import pytest
import torch

from ojala.models.ojala.losses import Targets
from ojala.models.ojala.novelty import Novelty, fit_novelty, raw_vector
from ojala.models.ojala.outputs import RawOutputs
from ojala.models.quantities import SCALARS

pytestmark = pytest.mark.processor

WIDTH = 8


def objects(n: int, seed: int, embedding_off: float = 0.0, answers_off: float = 0.0) -> RawOutputs:
    """Two kinds of objects whose embeddings move with their depth, more than they differ."""
    draw = torch.Generator().manual_seed(seed)
    depth = 1.0 + 4.0 * torch.rand(n, generator=draw)
    kind = torch.randint(0, 2, (n, 1), generator=draw)
    direction = torch.linspace(-1.0, 1.0, WIDTH)
    embedding = 10.0 * depth[:, None] * direction + 3.0 * kind + torch.randn(n, WIDTH, generator=draw)
    embedding[:, 0] += embedding_off
    answer = torch.randn(n, 1, generator=draw) + depth[:, None]
    scalars = torch.stack([answer, 0.1 * torch.randn(n, 1, generator=draw)], dim=-1).repeat(
        1, len(SCALARS), 1
    )
    scalars = scalars + 0.1 * torch.randn(scalars.shape, generator=draw)
    scalars[:, 2, 0] += answers_off  # within what single answers do, but not together with the others
    logits = torch.randn(n, 3, generator=draw)
    unknown = torch.full((len(SCALARS), n), torch.nan)
    targets = Targets(kind[:, 0], unknown[:2], unknown)
    return RawOutputs(targets, depth, embedding, logits, (logits, logits), scalars.transpose(0, 1))


def score(novelty: Novelty, raw: RawOutputs) -> torch.Tensor:
    return novelty.score(raw.embedding, raw_vector(raw.class_logits, raw.scalars), raw.depth)


@pytest.fixture(scope="module")
def novelty() -> Novelty:
    return fit_novelty(objects(3000, 1), objects(2000, 2))


def test_one_in_a_hundred_known_objects_is_novel_at_every_depth(novelty):
    known = objects(6000, 3)
    novel = score(novelty, known) > 1
    for faint in (True, False):
        rows = (known.depth < 3.0) == faint
        assert novel[rows].float().mean() == pytest.approx(0.01, abs=0.007)
    assert (score(novelty, known) >= 0).all()


@pytest.mark.parametrize("strange", [{"embedding_off": 8.0}, {"answers_off": 2.5}])
def test_what_differs_in_embedding_or_answers_is_novel(novelty, strange):
    assert (score(novelty, objects(500, 4, **strange)) > 1).float().mean() > 0.9


def test_an_object_in_the_gap_between_two_kinds_is_further_away_than_either(novelty):
    known, between = objects(500, 5), objects(500, 5)
    kind = between.targets.class_code[:, None]
    between = replace(between, embedding=between.embedding - 3.0 * kind + 1.5)
    assert score(novelty, between).median() > score(novelty, known).median()


def test_a_record_survives_the_round_trip_and_a_damaged_one_is_refused(novelty):
    tensors = novelty.tensors()
    known = objects(50, 6)
    assert torch.equal(score(Novelty.from_tensors(tensors), known), score(novelty, known))
    without = {name: tensor for name, tensor in tensors.items() if name != "axes"}
    for damaged, complaint in (
        (without, "lacks a tensor"),
        (tensors | {"limit": torch.ones(2, 3)}, "limit of the record"),
        (tensors | {"mean": tensors["mean"] * torch.nan}, "not finite"),
    ):
        with pytest.raises(ValueError, match=complaint):
            Novelty.from_tensors(damaged)
