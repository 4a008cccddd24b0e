"""Order of tasks and of further attempts in the queue, without clocks or workers."""

import pytest

from ojala.catalogs_schema.receipt import Attempt
from ojala.pipeline.execution.retries import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    TaskQueue,
    is_fatal,
    raise_output_error,
)
from ojala.pipeline.inference.adapters.dummy import DummyModel
from ojala.pipeline.inference.failures import Cause, WorkerLost
from ojala.pipeline.inference.model_spec import ModelSpec
from ojala.pipeline.inference.process import failed_receipt, process
from ojala.pipeline.storage.files import OutputError
from tests.helpers.survey import orders

FREE = {"idle": True, "others": True}


@pytest.fixture
def tasks(photometry, tmp_path):
    return orders(photometry, tmp_path)


def failed(task, cause):
    """A receipt of a task that failed of a cause."""
    receipt = failed_receipt(task, ModelSpec("empty", ""), WorkerLost("gone"), host="h", seconds=1.0)
    last = receipt.attempts[-1].model_copy(update={"cause": cause})
    return receipt.model_copy(update={"attempts": [*receipt.attempts[:-1], last]})


def test_new_tasks_come_in_their_order_and_a_done_receipt_is_final(tasks):
    task_queue = TaskQueue(tasks, attempts=3)
    for task in tasks:
        queued = task_queue.take("a", 0.0, **FREE)
        assert queued.task == task
        assert task_queue.is_final(queued, process(task, DummyModel()), "a", 0.0)
    assert not task_queue
    assert task_queue.take("a", 0.0, **FREE) is None


def test_a_transient_failure_waits_and_goes_to_another_worker(tasks):
    task_queue = TaskQueue(tasks[:1], attempts=3)
    queued = task_queue.take("a", 0.0, **FREE)
    assert not task_queue.is_final(queued, failed(queued.task, Cause.STORAGE), "a", 10.0)
    assert task_queue.pause(10.0) == pytest.approx(FIRST_PAUSE)
    assert task_queue.take("b", 10.0, **FREE) is None, "the pause is not over"
    later = 10.0 + FIRST_PAUSE
    assert task_queue.pause(later) is None
    assert task_queue.take("a", later, **FREE) is None, "another worker is there"
    assert task_queue.take("a", later, idle=True, others=False) is queued, "no other worker is there"
    assert len(queued.task.attempts) == 1


def test_others_go_on_during_a_pause(tasks):
    task_queue = TaskQueue(tasks, attempts=3)
    first = task_queue.take("a", 0.0, **FREE)
    task_queue.is_final(first, failed(first.task, Cause.STORAGE), "a", 0.0)
    assert task_queue.take("a", 0.1, **FREE).task == tasks[1]
    assert task_queue.take("b", FIRST_PAUSE, **FREE) is first, "what failed goes first when its time has come"


def test_after_the_last_attempt_a_partition_is_set_aside_with_all_of_them_recorded(tasks):
    task_queue = TaskQueue(tasks[:1], attempts=3)
    pauses, now = [], 0.0
    for number in (1, 2):
        queued = task_queue.take("a", now, idle=True, others=False)
        assert not task_queue.is_final(queued, failed(queued.task, Cause.MEMORY), "a", now)
        assert len(queued.task.attempts) == number
        pauses.append(task_queue.pause(now))
        now += pauses[-1]
    assert pauses == pytest.approx([FIRST_PAUSE, 2 * FIRST_PAUSE])
    queued = task_queue.take("a", now, idle=True, others=False)
    last = failed(queued.task, Cause.MEMORY)
    assert task_queue.is_final(queued, last, "a", now)
    assert len(last.attempts) == 3
    assert not task_queue


def test_pauses_do_not_grow_for_ever(tasks):
    task_queue = TaskQueue(tasks[:1], attempts=100)
    now = 0.0
    for _ in range(20):
        queued = task_queue.take("a", now, idle=True, others=False)
        task_queue.is_final(queued, failed(queued.task, Cause.STORAGE), "a", now)
        assert task_queue.pause(now) <= LONGEST_PAUSE
        now += task_queue.pause(now)


@pytest.mark.parametrize("cause", [Cause.DATA, Cause.PROGRAM, Cause.OUTPUT])
def test_a_permanent_failure_is_not_tried_again(tasks, cause):
    task_queue = TaskQueue(tasks[:1], attempts=3)
    queued = task_queue.take("a", 0.0, **FREE)
    assert task_queue.is_final(queued, failed(queued.task, cause), "a", 0.0)
    assert not task_queue


def test_quarantined_tasks_are_tried_alone_and_lose_no_attempt(tasks):
    task_queue = TaskQueue(tasks[:3], attempts=3)
    one, two = task_queue.take("a", 0.0, **FREE), task_queue.take("a", 0.0, **FREE)
    task_queue.requeue(one, quarantined=True)
    task_queue.requeue(two, quarantined=True)
    third = task_queue.take("b", 0.0, idle=False, others=True)
    assert third.task == tasks[2], "a busy worker gets no quarantined task"
    assert task_queue.take("b", 0.0, idle=False, others=True) is None
    assert task_queue.take("b", 0.0, **FREE) is one
    assert (one.failures, one.task.attempts) == (0, ())


def test_a_task_that_kills_its_worker_alone_stays_quarantined(tasks):
    task_queue = TaskQueue(tasks[:1], attempts=3)
    queued = task_queue.take("a", 0.0, **FREE)
    task_queue.is_final(queued, failed(queued.task, Cause.WORKER), "a", 0.0)
    assert task_queue.take("b", 99.0, idle=False, others=True) is None
    assert task_queue.take("b", 99.0, **FREE) is queued


def test_a_full_disk_ends_the_run_with_what_to_do(tasks):
    receipt = failed(tasks[0], Cause.OUTPUT)
    attempt = receipt.attempts[-1].model_copy(update={"error": "OutputError: [Errno 28] No space left"})
    receipt = receipt.model_copy(update={"attempts": [attempt]})
    assert is_fatal(receipt)
    with pytest.raises(OutputError, match=r"partition \d/\d+: .*No space left; what is done is kept"):
        raise_output_error(receipt)
    assert not is_fatal(failed(tasks[0], Cause.STORAGE))
    assert not is_fatal(process(tasks[0], DummyModel()))


def test_an_attempt_of_an_unknown_kind_counts_as_a_fault_of_the_program(tasks):
    task_queue = TaskQueue(tasks[:1], attempts=3)
    queued = task_queue.take("a", 0.0, **FREE)
    receipt = failed(queued.task, None)
    assert isinstance(receipt.attempts[-1], Attempt)
    assert task_queue.is_final(queued, receipt, "a", 0.0)
