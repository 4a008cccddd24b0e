"""Attention over the valid slots alone is attention over all slots with the others hidden."""

import math

import pytest
import torch

from ojala.models.layers.attention import Block, ValidSlots

N, S, WIDTH = 5, 12, 32


@pytest.fixture(scope="module")
def valid():
    valid = torch.rand(N, S, generator=torch.Generator().manual_seed(1)) < 0.6
    valid[:, -1] = True
    valid[0, :-1] = False  # one slot alone
    valid[1] = True
    return valid


def test_slots_are_picked_row_by_row_and_put_back(valid):
    x = torch.arange(N * S * 2.0).reshape(N, S, 2)
    slots = ValidSlots(valid)
    tokens = slots.pick(x)
    assert torch.equal(tokens, x[valid])
    assert torch.equal(slots.spread(tokens), torch.where(valid[..., None], x, 0.0))
    nothing = ValidSlots(valid[:0])
    assert nothing.spread(nothing.pick(x[:0])).shape == (0, S, 2)


@pytest.mark.parametrize("pre_norm", [True, False])
@torch.no_grad()
def test_tokens_of_valid_slots_are_answered_as_among_empty_ones(valid, pre_norm):
    torch.manual_seed(2)
    block = Block(WIDTH, 4, 48, cross=False, pre_norm=pre_norm)
    x, bias = torch.randn(N, S, WIDTH), torch.randn(4, S, S)
    bias = bias + torch.where(valid, 0.0, -math.inf)[:, None, None]
    slots = ValidSlots(valid)
    found = block.cross_attend(slots.pick(x), None, bias, slots)
    torch.testing.assert_close(found, block(x, None, bias)[valid], rtol=1e-5, atol=1e-6)


def test_slots_are_left_out_in_inference_alone(valid):
    assert ValidSlots.where_faster(valid, torch.float32) is None
    with torch.no_grad():
        assert ValidSlots.where_faster(valid, torch.float32) is not None
        assert ValidSlots.where_faster(valid, torch.bfloat16) is None
        assert ValidSlots.where_faster(valid.to("meta"), torch.float32) is None
