"""Batches on their way through a device, with a device that takes its time."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from ojala.models.serving.batching import BUFFERS_IN_FLIGHT, MAX_CONCURRENCY, BatchPipeline, CpuBuffer

pytestmark = pytest.mark.processor

DEADLINE = 30.0
SIZE = 4


def twice(column):
    return {"twice": 2.0 * column, "rows": torch.full((len(column),), float(len(column)))}


class Device:
    """Computes one batch at a time, on a thread of its own, as a GPU does beside the program."""

    def __init__(self, compute):
        self._compute, self._thread = compute, ThreadPoolExecutor(1)
        self._count = threading.Lock()
        self.in_flight = self.most = 0

    def buffer(self):
        return DeviceBuffer(self)

    def submit(self, columns):
        with self._count:
            self.in_flight += 1
            self.most = max(self.most, self.in_flight)
        return self._thread.submit(self._compute, columns)

    def left(self):
        with self._count:
            self.in_flight -= 1


class DeviceBuffer:
    def __init__(self, device):
        self._device, self._batch = device, None

    def send(self, columns):
        self._batch = self._device.submit(columns)

    def fetch(self):
        try:
            return self._batch.result(DEADLINE)
        finally:
            self._device.left()


def doubled(columns):
    return {"twice": 2.0 * columns[0]}


@pytest.mark.parametrize("rows", [0, 1, SIZE, 2 * SIZE + 1, 9 * SIZE])
def test_rows_come_back_in_their_order(rows):
    column = np.arange(rows, dtype=np.float32)
    for pipeline in (
        BatchPipeline(lambda: CpuBuffer(twice, SIZE), SIZE),
        BatchPipeline(Device(doubled).buffer, SIZE),
    ):
        assert pipeline.run(column)["twice"].tolist() == (2.0 * column).tolist()


def test_a_processor_gets_batches_of_one_size_whatever_comes():
    found = BatchPipeline(lambda: CpuBuffer(twice, SIZE), SIZE).run(np.ones(SIZE + 1, np.float32))
    assert found["rows"].tolist() == [SIZE] * (SIZE + 1)


def test_a_batch_is_sent_while_the_one_before_is_computed():
    sent = threading.Semaphore(0)

    def compute(columns):
        # The device is not done with a batch before the next is in line: without overlap it never is.
        if columns[0][-1] < 5 * SIZE - 1:
            assert sent.acquire(timeout=DEADLINE)
        return doubled(columns)

    class Noted(DeviceBuffer):
        def send(self, columns):
            super().send(columns)
            if columns[0][0] > 0:
                sent.release()

    device = Device(compute)
    pipeline = BatchPipeline(lambda: Noted(device), SIZE)
    column = np.arange(5 * SIZE, dtype=np.float32)
    assert pipeline.run(column)["twice"].tolist() == (2.0 * column).tolist()


def test_the_device_goes_on_with_another_thread_while_one_fetches_its_last_batch():
    both = threading.Barrier(2, timeout=DEADLINE)

    class Meeting(DeviceBuffer):
        def fetch(self):
            both.wait()  # each thread fetches its last batch while the other has sent its own
            return super().fetch()

    device = Device(doubled)
    pipeline = BatchPipeline(lambda: Meeting(device), SIZE)
    with ThreadPoolExecutor(MAX_CONCURRENCY) as threads:
        found = list(threads.map(pipeline.run, [np.ones(1, np.float32)] * MAX_CONCURRENCY))
    assert [answers["twice"].tolist() for answers in found] == [[2.0]] * MAX_CONCURRENCY


def test_no_more_batches_are_in_flight_than_there_are_buffers():
    device = Device(doubled)
    pipeline = BatchPipeline(device.buffer, SIZE)
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(pipeline.run, [np.ones(8 * SIZE, np.float32)] * 6))
    assert device.most <= MAX_CONCURRENCY * BUFFERS_IN_FLIGHT
    assert device.in_flight == 0


def test_a_batch_that_fails_takes_no_other_along():
    def compute(columns):
        if columns[0][0] == SIZE:
            raise RuntimeError("device-side assert")
        return doubled(columns)

    pipeline = BatchPipeline(Device(compute).buffer, SIZE, max_concurrency=1)
    with pytest.raises(RuntimeError, match="device-side"):
        pipeline.run(np.arange(3 * SIZE, dtype=np.float32))
    assert pipeline.run(np.ones(3, np.float32))["twice"].tolist() == [2.0] * 3
