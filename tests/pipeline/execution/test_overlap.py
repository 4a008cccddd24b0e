"""Threads of a worker share its model: files are read and written while the network answers."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from fsspec import register_implementation
from fsspec.implementations.memory import MemoryFileSystem
from upath import UPath
from upath.registry import register_implementation as register_path

from ojala.pipeline.inference.adapters.dummy import DummyModel
from ojala.pipeline.inference.process import process
from tests.helpers.survey import orders

THREADS = 4
TAKES = 0.06
"""Seconds that each stage takes at least; nothing is computed meanwhile, so a busy machine matters little."""

DEADLINE = 60.0


class SlowStorage(MemoryFileSystem):
    """An object store that takes its time, and counts the partitions that were read and not yet written."""

    protocol = "slow"
    store, pseudo_dirs = {}, [""]
    count = threading.Lock()
    in_hand = most = 0

    @classmethod
    def clear(cls):
        cls.store.clear()
        cls.in_hand = cls.most = 0

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("slow://"))

    def _open(self, path, mode="rb", **kwargs):
        if "Npix" in path and "/receipts/" not in path and mode == "rb":
            time.sleep(TAKES)
            with self.count:
                type(self).in_hand += 1
                type(self).most = max(self.most, self.in_hand)
        return super()._open(path, mode=mode, **kwargs)

    def pipe_file(self, path, value, **kwargs):
        if "/receipts/" in path:
            with self.count:
                type(self).in_hand -= 1
        elif "full" in path:
            raise OSError(5, "Input/output error", path)
        else:
            time.sleep(TAKES)
        super().pipe_file(path, value, **kwargs)


register_implementation("slow", SlowStorage)


class SlowPath(UPath):
    """Its paths; two threads that meet an unknown file system at once would each make a class of them."""


register_path("slow", SlowPath)


class Device(DummyModel):
    """Answers when its time has passed, and holds no lock meanwhile, as a GPU does."""

    def predict(self, flux, error, ebv):
        time.sleep(TAKES)
        return super().predict(flux, error, ebv)


@pytest.fixture
def tasks(photometry, tmp_path):
    """All partitions, to be read from and written to slow storage."""
    SlowStorage.clear()
    for file in photometry.rglob("*.parquet"):
        path = f"/survey/{file.relative_to(photometry)}"
        MemoryFileSystem.pipe_file(SlowStorage(), path, file.read_bytes())
    made = orders(photometry, tmp_path)
    return [replace(task, source="slow:///survey", run="slow:///run") for task in made]


def work(tasks, model, turns=None, threads=THREADS):
    turns = turns or threading.Semaphore(1)
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda task: process(task, model, turns), tasks))


def test_reading_computing_and_writing_go_on_at_the_same_time(tasks):
    begin = time.perf_counter()
    receipts = work(tasks, Device())
    wall = time.perf_counter() - begin
    assert {receipt.attempts[-1].error for receipt in receipts} == {None}
    stages = {name: sum(r.seconds[name] for r in receipts) for name in receipts[0].seconds}
    assert set(stages) == {"read", "wait", "predict", "derive", "write"}
    cost = sum(seconds for name, seconds in stages.items() if name != "wait")
    assert stages["predict"] <= wall, "the network answers for one partition after another"
    assert wall < 0.75 * cost, "far less than one stage after another"


def test_stages_of_one_partition_do_not_overlap(tasks):
    for receipt in work(tasks, Device()):
        assert receipt.seconds["predict"] >= TAKES, "what it waited for its turn is told apart"
        assert sum(receipt.seconds.values()) <= receipt.attempts[-1].seconds


def test_no_more_partitions_are_in_memory_than_there_are_threads(tasks):
    class Slowest(Device):
        def predict(self, flux, error, ebv):
            time.sleep(TAKES)
            return super().predict(flux, error, ebv)

    work(tasks, Slowest(), threads=3)
    assert SlowStorage.most == 3, "read ahead of the network, and no further"
    assert SlowStorage.in_hand == 0


def test_a_partition_that_fails_at_any_stage_holds_up_no_other(tasks):
    unread = replace(tasks[0], source="slow:///nowhere")
    unwritten = replace(tasks[2], run="slow:///full")

    class Picky(Device):
        def predict(self, flux, error, ebv):
            answers = super().predict(flux, error, ebv)
            if len(flux) == tasks[1].rows and flux.tobytes() in picked:
                raise RuntimeError("device-side assert")
            if flux.tobytes() in lost:
                return {name: values[1:] for name, values in answers.items()}
            return answers

    picked, lost = ({_flux(task)} for task in (tasks[1], tasks[3]))
    receipts = work([unread, tasks[1], unwritten, tasks[3], *tasks[4:]], Picky())
    assert [receipt.status for receipt in receipts[:4]] == ["failed"] * 4
    reached = [list(receipt.seconds)[-1] for receipt in receipts[:4]]
    assert reached == ["read", "predict", "write", "derive"]
    assert {receipt.status for receipt in receipts[4:]} == {"done"}


def _flux(task):
    """The fluxes of a partition as the model gets them."""
    seen = []

    class Seeing(DummyModel):
        def predict(self, flux, error, ebv):
            seen.append(flux.tobytes())
            return super().predict(flux, error, ebv)

    process(replace(task, run="slow:///seen"), Seeing())
    return seen[0]


def test_partitions_that_run_out_of_memory_together_halve_the_batch_once(tasks):
    both = threading.Barrier(2, timeout=DEADLINE)

    class Narrow(DummyModel):
        batch_size = 64

        def halve_batch(self):
            self.batch_size //= 2

        def predict(self, flux, error, ebv):
            if self.batch_size == 64:
                both.wait()
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().predict(flux, error, ebv)

    model = Narrow()
    receipts = work(tasks[:2], model, threading.Semaphore(2), threads=2)
    assert [(r.status, r.batch_size) for r in receipts] == [("done", 32)] * 2
    assert model.batch_size == 32
