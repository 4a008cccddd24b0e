"""What a crew does when workers that are at several partitions die or hang, played through without workers.

`test_engine` does the same with real ones, which takes longer.
"""

import queue

import pytest

from ojala.catalogs_schema.receipt import Receipt
from ojala.pipeline.execution import dispatcher as dispatcher_module
from ojala.pipeline.execution.clusters import ClusterError
from ojala.pipeline.execution.dispatcher import Dispatcher
from ojala.pipeline.execution.retries import RetryPolicy, TaskQueue
from ojala.pipeline.inference.adapters.dummy import DummyModel
from ojala.pipeline.inference.model_spec import ModelSpec
from ojala.pipeline.inference.process import Task, process
from tests.helpers.survey import orders

THREADS = 3


class Promise:
    """A future that ends when the test says so."""

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


class Site:
    """The scheduler's side: which workers are there, and what each was told to do."""

    def __init__(self, *addresses):
        self.addresses = list(addresses)
        self.told = {}
        self.restarted = queue.SimpleQueue()
        self._count = 0
        self.models_load = True

    def scheduler_info(self):
        return {"workers": {a: {"host": "node", "nthreads": THREADS} for a in self.addresses}}

    def submit(self, act, *args, workers, **kwargs):
        self._count += 1
        promise = Promise(f"k{self._count}", args[0])
        if isinstance(args[0], Task):
            self.told.setdefault(workers[0], []).append(promise)
        elif self.models_load:
            promise.status = "finished"
        return promise

    def restart_workers(self, addresses, **kwargs):
        self.restarted.put(addresses)

    def open(self, address):
        return [promise for promise in self.told.get(address, []) if promise.status == "pending"]


@pytest.fixture
def clock(monkeypatch):
    """The crew's clock, which goes on when the test says so."""
    now = [1000.0]
    monkeypatch.setattr(dispatcher_module.time, "monotonic", lambda: now[0])
    return now


def step(crew, clock, seconds=dispatcher_module.POLL_INTERVAL):
    """Let time go by, see what has happened, and hand out what can be; the receipts that were settled."""
    clock[0] += seconds
    settled = list(crew.wait())
    crew.submit_tasks()
    return settled


@pytest.fixture
def tasks(photometry, tmp_path):
    found = orders(photometry, tmp_path)
    assert len(found) > THREADS + 1
    return found


def at_once(site, address):
    return [promise.task for promise in site.open(address)]


def test_a_worker_gets_as_many_orders_as_it_has_threads_and_one_more(tasks, clock):
    site = Site("a")
    crew = Dispatcher(site, TaskQueue(tasks, 2), ModelSpec("empty", ""), RetryPolicy())
    step(crew, clock)
    assert at_once(site, "a") == tasks[: THREADS + 1]
    site.open("a")[0].end()
    (receipt,) = step(crew, clock)
    assert receipt.status == "done"
    assert at_once(site, "a") == tasks[1 : THREADS + 2]


def test_orders_of_a_worker_that_died_are_tried_alone_until_it_is_known_which_did_it(tasks, clock):
    site = Site("a")
    crew = Dispatcher(site, TaskQueue(tasks[:4], 1), ModelSpec("empty", ""), RetryPolicy())
    step(crew, clock)
    site.addresses = ["b"]  # a died; its nanny has started another
    assert step(crew, clock) == []
    assert at_once(site, "b") == tasks[:1], "alone"
    site.open("b")[0].end()
    assert [r.status for r in step(crew, clock)] == ["done"]
    assert at_once(site, "b") == tasks[1:2], "alone"
    site.addresses = ["c"]  # it was this one
    (failed,) = step(crew, clock)
    assert (failed.partition, failed.attempts[-1].cause) == (tasks[1].partition.name, "worker lost")
    assert at_once(site, "c") == tasks[2:3]


def test_behind_a_hung_device_only_the_partition_that_hangs_alone_fails(tasks, clock):
    site = Site("a")
    crew = Dispatcher(
        site, TaskQueue(tasks[: THREADS + 1], 1), ModelSpec("empty", ""), RetryPolicy(1, seconds=60.0)
    )
    step(crew, clock)
    assert step(crew, clock, 61.0) == [], "each may be the one that holds up the others"
    assert site.restarted.get(timeout=30) == ["a"]
    site.addresses = ["b"]
    step(crew, clock)
    assert at_once(site, "b") == tasks[THREADS : THREADS + 1], "what had not begun is no suspect"
    site.open("b")[0].end()
    settled = step(crew, clock)
    for at in range(THREADS):
        assert at_once(site, "b") == [tasks[at]], "alone"
        if at == 1:
            settled += step(crew, clock, 61.0)
            site.addresses = ["c"]
            break
        site.open("b")[0].end()
        settled += step(crew, clock)
    assert [r.status for r in settled] == ["done", "done", "failed"]
    assert settled[-1].attempts[-1].error == "TimeoutError: took longer than 60 s; its worker was ended"
    step(crew, clock)
    assert at_once(site, "c") == tasks[2:3]


def test_a_worker_that_cannot_make_its_model_ready_gets_nothing(tasks, clock, caplog):
    site = Site("a", "b")
    crew = Dispatcher(site, TaskQueue(tasks, 1), ModelSpec("empty", ""), RetryPolicy())
    list(crew.wait())
    crew._model_loads["a"].end("error", RuntimeError("no C compiler"))
    step(crew, clock)
    assert at_once(site, "a") == []
    assert len(at_once(site, "b")) == THREADS + 1
    assert "no work for the worker at a: no C compiler" in caplog.text


def test_where_no_worker_can_the_run_ends_and_says_why(tasks, clock):
    site = Site("a")
    crew = Dispatcher(site, TaskQueue(tasks, 1), ModelSpec("empty", ""), RetryPolicy())
    list(crew.wait())
    crew._model_loads["a"].end("error", RuntimeError("no C compiler"))
    with pytest.raises(ClusterError, match="no worker can make the model ready: no C compiler"):
        step(crew, clock)


def test_workers_that_die_one_after_another_before_their_model_is_loaded_end_the_run(tasks, clock):
    site = Site("a")
    site.models_load = False
    crew = Dispatcher(site, TaskQueue(tasks, 2), ModelSpec("empty", ""), RetryPolicy())
    step(crew, clock)
    for name in "bcd"[: dispatcher_module.FAILED_STARTS - 1]:
        site.addresses = [name]  # the one before died; its nanny has started another
        assert step(crew, clock) == []
    site.addresses = []
    with pytest.raises(ClusterError, match="3 workers in a row died before they had loaded the model"):
        step(crew, clock)


def test_a_worker_that_loads_its_model_makes_up_for_those_that_did_not(tasks, clock):
    site = Site("a")
    crew = Dispatcher(site, TaskQueue(tasks, 2), ModelSpec("empty", ""), RetryPolicy())
    for turn in range(3 * dispatcher_module.FAILED_STARTS):
        site.models_load = turn % dispatcher_module.FAILED_STARTS == 1
        site.addresses = [f"w{turn}"]
        step(crew, clock)
