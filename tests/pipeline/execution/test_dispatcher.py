"""Dispatcher with workers that run several partitions and die or hang, on a simulated scheduler.

`test_engines` does the same with real workers, which takes longer.
"""

import queue

import pytest

from ojala.catalogs_schema.receipt import Receipt
from ojala.pipeline.execution import RetryPolicy
from ojala.pipeline.execution import dispatcher as dispatcher_module
from ojala.pipeline.execution.clusters import WORKER_TIMEOUT, Cluster, ClusterError
from ojala.pipeline.execution.dispatcher import Dispatcher
from ojala.pipeline.execution.retries import TaskQueue
from ojala.pipeline.inference.adapters.dummy import DummyModel
from ojala.pipeline.inference.model_spec import ModelSpec
from ojala.pipeline.inference.process import Task, process
from tests.helpers.survey import orders

THREADS = 3


class FakeFuture:
    """A future that the test finishes."""

    def __init__(self, key, task):
        self.key, self.task = key, task
        self.status, self.problem = "pending", None
        self._listeners = []

    def add_done_callback(self, listener):
        self._listeners.append(listener)

    def end(self, status="finished", problem=None):
        self.status, self.problem = status, problem
        for listener in self._listeners:
            listener(self)

    def exception(self):
        return self.problem

    def result(self, timeout=None) -> Receipt:
        return process(self.task, DummyModel())

    def release(self):
        self.status = "released"


class FakeScheduler:
    """The scheduler's workers, and the futures submitted to each."""

    def __init__(self, *addresses):
        self.addresses = list(addresses)
        self.submitted = {}
        self.restarted = queue.SimpleQueue()
        self._count = 0
        self.models_load = True

    def scheduler_info(self):
        return {"workers": {a: {"host": "node", "nthreads": THREADS} for a in self.addresses}}

    def submit(self, act, *args, workers, **kwargs):
        self._count += 1
        future = FakeFuture(f"k{self._count}", args[0])
        if isinstance(args[0], Task):
            self.submitted.setdefault(workers[0], []).append(future)
        elif self.models_load:
            future.status = "finished"
        return future

    def restart_workers(self, addresses, **kwargs):
        self.restarted.put(addresses)

    def open(self, address):
        return [future for future in self.submitted.get(address, []) if future.status == "pending"]


@pytest.fixture
def clock(monkeypatch):
    """The dispatcher's clock, advanced by the test."""
    now = [1000.0]
    monkeypatch.setattr(dispatcher_module.time, "monotonic", lambda: now[0])
    return now


def step(dispatcher, clock, seconds=dispatcher_module.POLL_INTERVAL):
    """Advance the clock, handle events and submit tasks; returns the final receipts."""
    clock[0] += seconds
    settled = list(dispatcher.wait())
    dispatcher.submit_tasks()
    return settled


@pytest.fixture
def tasks(photometry, tmp_path):
    found = orders(photometry, tmp_path)
    assert len(found) > THREADS + 1
    return found


def submitted(scheduler, address):
    return [future.task for future in scheduler.open(address)]


def test_a_worker_gets_as_many_tasks_as_it_has_threads_and_one_more(tasks, clock):
    scheduler = FakeScheduler("a")
    dispatcher = Dispatcher(Cluster(scheduler), TaskQueue(tasks, 2), ModelSpec("empty", ""), RetryPolicy())
    step(dispatcher, clock)
    assert submitted(scheduler, "a") == tasks[: THREADS + 1]
    scheduler.open("a")[0].end()
    (receipt,) = step(dispatcher, clock)
    assert receipt.status == "done"
    assert submitted(scheduler, "a") == tasks[1 : THREADS + 2]


def test_tasks_of_a_worker_that_died_are_tried_alone_until_the_guilty_one_is_found(tasks, clock):
    scheduler = FakeScheduler("a")
    some = TaskQueue(tasks[:4], 1)
    dispatcher = Dispatcher(Cluster(scheduler), some, ModelSpec("empty", ""), RetryPolicy())
    step(dispatcher, clock)
    scheduler.addresses = ["b"]  # a died; its nanny has started another
    assert step(dispatcher, clock) == []
    assert submitted(scheduler, "b") == tasks[:1], "alone"
    scheduler.open("b")[0].end()
    assert [r.status for r in step(dispatcher, clock)] == ["done"]
    assert submitted(scheduler, "b") == tasks[1:2], "alone"
    scheduler.addresses = ["c"]  # it was this one
    (failed,) = step(dispatcher, clock)
    assert (failed.partition, failed.attempts[-1].cause) == (tasks[1].partition.name, "worker lost")
    assert submitted(scheduler, "c") == tasks[2:3]


def test_behind_a_hung_device_only_the_partition_that_hangs_alone_fails(tasks, clock):
    scheduler = FakeScheduler("a")
    policy, some = RetryPolicy(1, seconds=60.0), TaskQueue(tasks[: THREADS + 1], 1)
    dispatcher = Dispatcher(Cluster(scheduler), some, ModelSpec("empty", ""), policy)
    step(dispatcher, clock)
    assert step(dispatcher, clock, 61.0) == [], "each may hold up the others"
    assert scheduler.restarted.get(timeout=30) == ["a"]
    scheduler.addresses = ["b"]
    step(dispatcher, clock)
    assert submitted(scheduler, "b") == tasks[THREADS : THREADS + 1], "a waiting task is not quarantined"
    scheduler.open("b")[0].end()
    settled = step(dispatcher, clock)
    for at in range(THREADS):
        assert submitted(scheduler, "b") == [tasks[at]], "alone"
        if at == 1:
            settled += step(dispatcher, clock, 61.0)
            scheduler.addresses = ["c"]
            break
        scheduler.open("b")[0].end()
        settled += step(dispatcher, clock)
    assert [r.status for r in settled] == ["done", "done", "failed"]
    assert settled[-1].attempts[-1].error == "TimeoutError: took longer than 60 s; its worker was ended"
    step(dispatcher, clock)
    assert submitted(scheduler, "c") == tasks[2:3]


def test_a_worker_that_cannot_make_its_model_ready_gets_nothing(tasks, clock, caplog):
    scheduler = FakeScheduler("a", "b")
    dispatcher = Dispatcher(Cluster(scheduler), TaskQueue(tasks, 1), ModelSpec("empty", ""), RetryPolicy())
    list(dispatcher.wait())
    dispatcher._model_loads["a"].end("error", RuntimeError("no C compiler"))
    step(dispatcher, clock)
    assert submitted(scheduler, "a") == []
    assert len(submitted(scheduler, "b")) == THREADS + 1
    assert "no work for the worker at a: no C compiler" in caplog.text


def test_where_no_worker_can_the_run_ends_and_says_why(tasks, clock):
    scheduler = FakeScheduler("a")
    dispatcher = Dispatcher(Cluster(scheduler), TaskQueue(tasks, 1), ModelSpec("empty", ""), RetryPolicy())
    list(dispatcher.wait())
    dispatcher._model_loads["a"].end("error", RuntimeError("no C compiler"))
    with pytest.raises(ClusterError, match="no worker can make the model ready: no C compiler"):
        step(dispatcher, clock)


def test_workers_that_die_one_after_another_before_their_model_is_loaded_end_the_run(tasks, clock):
    scheduler = FakeScheduler("a")
    scheduler.models_load = False
    dispatcher = Dispatcher(Cluster(scheduler), TaskQueue(tasks, 2), ModelSpec("empty", ""), RetryPolicy())
    step(dispatcher, clock)
    for name in "bcd"[: dispatcher_module.MAX_FAILED_STARTS - 1]:
        scheduler.addresses = [name]  # the one before died; its nanny has started another
        assert step(dispatcher, clock) == []
    scheduler.addresses = []
    with pytest.raises(ClusterError, match="3 workers in a row died before they had loaded the model"):
        step(dispatcher, clock)


def test_a_worker_that_loads_its_model_makes_up_for_those_that_did_not(tasks, clock):
    scheduler = FakeScheduler("a")
    dispatcher = Dispatcher(Cluster(scheduler), TaskQueue(tasks, 2), ModelSpec("empty", ""), RetryPolicy())
    for turn in range(3 * dispatcher_module.MAX_FAILED_STARTS):
        scheduler.models_load = turn % dispatcher_module.MAX_FAILED_STARTS == 1
        scheduler.addresses = [f"w{turn}"]
        step(dispatcher, clock)


def test_where_all_workers_have_gone_and_none_comes_the_run_ends_with_advice(tasks, clock):
    scheduler = FakeScheduler("a")
    dispatcher = Dispatcher(Cluster(scheduler), TaskQueue(tasks, 2), ModelSpec("empty", ""), RetryPolicy())
    step(dispatcher, clock)
    scheduler.addresses = []
    step(dispatcher, clock)
    with pytest.raises(
        ClusterError, match="none has come for 300 s: start workers, then give the same command"
    ):
        step(dispatcher, clock, WORKER_TIMEOUT + 1.0)


def test_where_no_worker_ever_comes_the_run_ends_with_advice(tasks, clock):
    cluster = Cluster(FakeScheduler(), first_worker_timeout=50.0)
    dispatcher = Dispatcher(cluster, TaskQueue(tasks, 2), ModelSpec("empty", ""), RetryPolicy())
    step(dispatcher, clock)
    with pytest.raises(ClusterError, match="no worker has come for 50 s: start workers"):
        step(dispatcher, clock, 51.0)


def test_workers_that_dask_gives_up_while_they_start_end_the_run(tasks, clock):
    cluster = Cluster(FakeScheduler("a"), replace_lost=lambda: 1)
    cluster.client.models_load = False
    dispatcher = Dispatcher(cluster, TaskQueue(tasks, 2), ModelSpec("empty", ""), RetryPolicy())
    step(dispatcher, clock)
    step(dispatcher, clock)
    with pytest.raises(ClusterError, match="3 workers in a row died before they had loaded the model"):
        step(dispatcher, clock)


def test_a_receipt_that_never_arrives_is_a_failed_attempt(tasks, clock, monkeypatch):
    scheduler = FakeScheduler("a")
    dispatcher = Dispatcher(
        Cluster(scheduler), TaskQueue(tasks[:1], 2), ModelSpec("empty", ""), RetryPolicy(2)
    )
    step(dispatcher, clock)

    def never(future):
        raise TimeoutError("timed out")

    monkeypatch.setattr(dispatcher_module, "fetch", never)
    settled = []
    for _ in range(2):
        scheduler.open("a")[0].end()
        settled += step(dispatcher, clock, 40.0) + step(dispatcher, clock, 40.0)
    (receipt,) = settled
    assert receipt.status == "failed"
    assert [attempt.cause for attempt in receipt.attempts] == ["timeout"] * 2
    assert "its receipt could not be fetched from a: timed out" in receipt.attempts[-1].error
