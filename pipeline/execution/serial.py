"""Engine without workers: partitions one after another in this process, without Dask."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from ojala.catalogs_schema.receipt import Receipt
from ojala.pipeline.execution.engines import RetryPolicy
from ojala.pipeline.execution.memory import keep_freed_memory
from ojala.pipeline.execution.retries import TaskQueue, is_fatal, raise_output_error
from ojala.pipeline.inference.model_spec import ModelSpec
from ojala.pipeline.inference.process import Task, process, warm_up
from ojala.pipeline.storage.progress import report, state


def run_serially(tasks: Sequence[Task], spec: ModelSpec, policy: RetryPolicy) -> Iterator[Receipt]:
    """Process the tasks one after another in this process; its cores share the network's work.

    The time limit of an attempt is not enforced. Yields and raises as
    `ojala.pipeline.execution.dispatcher.run_on_workers`.
    """
    keep_freed_memory()
    report("loading the model")
    model = spec.load()
    warm_up(model)
    task_queue = TaskQueue(tasks, policy.attempts)
    while task_queue:
        state(f"{len(task_queue):,} partitions are left")
        queued = task_queue.take("", time.monotonic(), idle=True, others=False)
        if queued is None:
            time.sleep(task_queue.pause(time.monotonic()) or 0.0)
            continue
        receipt = process(queued.task, model)
        if task_queue.is_final(queued, receipt, "", time.monotonic()):
            yield receipt
        if is_fatal(receipt):
            raise_output_error(receipt)
