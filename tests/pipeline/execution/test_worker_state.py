"""Running and waiting tasks of a worker and their deadlines, without clocks or workers."""

import pytest

from ojala.pipeline.execution.dispatcher import WorkerState
from ojala.pipeline.execution.retries import QueuedTask
from tests.helpers.survey import orders


@pytest.fixture
def queued(photometry, tmp_path):
    return [QueuedTask(task) for task in orders(photometry, tmp_path)]


def test_a_worker_runs_as_many_tasks_as_it_has_threads_and_one_waits(queued):
    worker = WorkerState("node", threads=2)
    for at, task in enumerate(queued[:3]):
        assert worker.has_room
        worker.add(f"k{at}", task, float(at))
    assert not worker.has_room
    assert worker.running == queued[:2]
    assert worker.waiting == [queued[2]]


def test_the_time_of_a_task_starts_when_a_thread_is_free_for_it(queued):
    worker = WorkerState("node", threads=2)
    for at, task in enumerate(queued[:3]):
        worker.add(f"k{at}", task, float(at))
    assert worker.deadline(60.0) == 60.0
    assert worker.remove("k0", 10.0) == (queued[0], 10.0)
    assert worker.deadline(60.0) == 61.0, "the next oldest task has run since 1 s"
    assert worker.remove("k1", 11.0) == (queued[1], 10.0)
    assert worker.deadline(60.0) == 70.0, "the waiting task started when the first ended"
    assert worker.remove("k2", 12.0) == (queued[2], 2.0)
    assert worker.deadline(60.0) is None


def test_a_quarantined_task_is_alone_with_its_worker(queued):
    worker = WorkerState("node", threads=4)
    queued[0].quarantined = True
    worker.add("k0", queued[0], 0.0)
    assert not worker.has_room
