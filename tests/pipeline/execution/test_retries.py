"""Which order a worker gets next, and when what failed is tried again; no clock and no worker is needed."""

import pytest

from ojala.catalogs_schema.receipt import Attempt
from ojala.pipeline.execution.retries import FIRST_PAUSE, LONGEST_PAUSE, TaskQueue, is_fatal, stop
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


def test_new_orders_come_in_their_order_and_what_is_done_is_settled(tasks):
    agenda = TaskQueue(tasks, attempts=3)
    for task in tasks:
        order = agenda.take("a", 0.0, **FREE)
        assert order.task == task
        assert agenda.is_final(order, process(task, DummyModel()), "a", 0.0)
    assert not agenda
    assert agenda.take("a", 0.0, **FREE) is None


def test_a_transient_failure_waits_and_goes_to_another_worker(tasks):
    agenda = TaskQueue(tasks[:1], attempts=3)
    order = agenda.take("a", 0.0, **FREE)
    assert not agenda.is_final(order, failed(order.task, Cause.STORAGE), "a", 10.0)
    assert agenda.wait(10.0) == pytest.approx(FIRST_PAUSE)
    assert agenda.take("b", 10.0, **FREE) is None, "the pause is not over"
    later = 10.0 + FIRST_PAUSE
    assert agenda.wait(later) is None
    assert agenda.take("a", later, **FREE) is None, "another worker is there"
    assert agenda.take("a", later, idle=True, others=False) is order, "no other worker is there"
    assert len(order.task.attempts) == 1


def test_while_one_waits_the_others_go_on(tasks):
    agenda = TaskQueue(tasks, attempts=3)
    first = agenda.take("a", 0.0, **FREE)
    agenda.is_final(first, failed(first.task, Cause.STORAGE), "a", 0.0)
    assert agenda.take("a", 0.1, **FREE).task == tasks[1]
    assert agenda.take("b", FIRST_PAUSE, **FREE) is first, "what failed goes first when its time has come"


def test_after_the_last_attempt_a_partition_is_set_aside_with_all_of_them_recorded(tasks):
    agenda = TaskQueue(tasks[:1], attempts=3)
    pauses, now = [], 0.0
    for number in (1, 2):
        order = agenda.take("a", now, idle=True, others=False)
        assert not agenda.is_final(order, failed(order.task, Cause.MEMORY), "a", now)
        assert len(order.task.attempts) == number
        pauses.append(agenda.wait(now))
        now += pauses[-1]
    assert pauses == pytest.approx([FIRST_PAUSE, 2 * FIRST_PAUSE])
    order = agenda.take("a", now, idle=True, others=False)
    last = failed(order.task, Cause.MEMORY)
    assert agenda.is_final(order, last, "a", now)
    assert len(last.attempts) == 3
    assert not agenda


def test_pauses_do_not_grow_for_ever(tasks):
    agenda = TaskQueue(tasks[:1], attempts=100)
    now = 0.0
    for _ in range(20):
        order = agenda.take("a", now, idle=True, others=False)
        agenda.is_final(order, failed(order.task, Cause.STORAGE), "a", now)
        assert agenda.wait(now) <= LONGEST_PAUSE
        now += agenda.wait(now)


@pytest.mark.parametrize("cause", [Cause.DATA, Cause.PROGRAM, Cause.OUTPUT])
def test_what_cannot_pass_is_not_tried_again(tasks, cause):
    agenda = TaskQueue(tasks[:1], attempts=3)
    order = agenda.take("a", 0.0, **FREE)
    assert agenda.is_final(order, failed(order.task, cause), "a", 0.0)
    assert not agenda


def test_suspects_are_tried_alone_and_lose_nothing(tasks):
    agenda = TaskQueue(tasks[:3], attempts=3)
    one, two = agenda.take("a", 0.0, **FREE), agenda.take("a", 0.0, **FREE)
    agenda.requeue(one, quarantined=True)
    agenda.requeue(two, quarantined=True)
    third = agenda.take("b", 0.0, idle=False, others=True)
    assert third.task == tasks[2], "a worker that has something to do gets no suspect"
    assert agenda.take("b", 0.0, idle=False, others=True) is None
    assert agenda.take("b", 0.0, **FREE) is one
    assert (one.failures, one.task.attempts) == (0, ())


def test_who_kills_its_worker_when_alone_stays_alone(tasks):
    agenda = TaskQueue(tasks[:1], attempts=3)
    order = agenda.take("a", 0.0, **FREE)
    agenda.is_final(order, failed(order.task, Cause.WORKER), "a", 0.0)
    assert agenda.take("b", 99.0, idle=False, others=True) is None
    assert agenda.take("b", 99.0, **FREE) is order


def test_a_full_disk_ends_the_run_with_what_to_do(tasks):
    receipt = failed(tasks[0], Cause.OUTPUT)
    attempt = receipt.attempts[-1].model_copy(update={"error": "OutputError: [Errno 28] No space left"})
    receipt = receipt.model_copy(update={"attempts": [attempt]})
    assert is_fatal(receipt)
    with pytest.raises(OutputError, match=r"partition \d/\d+: .*No space left; what is done is kept"):
        stop(receipt)
    assert not is_fatal(failed(tasks[0], Cause.STORAGE))
    assert not is_fatal(process(tasks[0], DummyModel()))


def test_an_attempt_of_an_unknown_kind_counts_as_a_fault_of_the_program(tasks):
    agenda = TaskQueue(tasks[:1], attempts=3)
    order = agenda.take("a", 0.0, **FREE)
    receipt = failed(order.task, None)
    assert isinstance(receipt.attempts[-1], Attempt)
    assert agenda.is_final(order, receipt, "a", 0.0)
