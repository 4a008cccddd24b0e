"""What a worker is at, what waits, and since when; no clock and no worker is needed."""

import pytest

from ojala.pipeline.execution.dispatcher import WorkerState
from ojala.pipeline.execution.retries import QueuedTask
from tests.helpers.survey import orders


@pytest.fixture
def some(photometry, tmp_path):
    return [QueuedTask(task) for task in orders(photometry, tmp_path)]


def test_a_worker_is_at_as_many_orders_as_it_has_threads_and_one_waits(some):
    hand = WorkerState("node", threads=2)
    for at, order in enumerate(some[:3]):
        assert hand.has_room
        hand.give(f"k{at}", order, float(at))
    assert not hand.has_room
    assert hand.at_work == some[:2]
    assert hand.waiting == [some[2]]


def test_the_time_of_an_order_begins_when_a_thread_is_free_for_it(some):
    hand = WorkerState("node", threads=2)
    for at, order in enumerate(some[:3]):
        hand.give(f"k{at}", order, float(at))
    assert hand.due(60.0) == 60.0
    assert hand.end("k0", 10.0) == (some[0], 10.0)
    assert hand.due(60.0) == 61.0, "the next oldest is what it is at since 1 s"
    assert hand.end("k1", 11.0) == (some[1], 10.0)
    assert hand.due(60.0) == 70.0, "what waited has begun when the first came to its end"
    assert hand.end("k2", 12.0) == (some[2], 2.0)
    assert hand.due(60.0) is None


def test_a_suspect_is_alone_with_its_worker(some):
    hand = WorkerState("node", threads=4)
    some[0].quarantined = True
    hand.give("k0", some[0], 0.0)
    assert not hand.has_room
