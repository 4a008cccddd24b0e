"""Batches arrive in order, are computed ahead, and no thread outlives the iterator."""

import itertools
import threading

import pytest

from ojala.models.training.prefetch import prefetch

pytestmark = pytest.mark.processor


def test_batches_arrive_in_order_from_the_first_step_on():
    assert list(itertools.islice(prefetch(lambda step: step * step, 3), 5)) == [9, 16, 25, 36, 49]


def test_no_more_than_the_given_number_of_batches_is_computed_ahead():
    made = []
    batches = prefetch(lambda step: made.append(step) or step, 0, ahead=2)
    assert next(batches) == 0
    batches.close()  # waits for the batch in work
    assert max(made) <= 2


def test_an_error_is_raised_at_its_step_and_the_thread_ends():
    def make(step):
        if step == 2:
            raise OSError("the disk is gone")
        return step

    batches = prefetch(make, 0)
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)
    assert not any(thread.name.startswith("prefetch") for thread in threading.enumerate())
