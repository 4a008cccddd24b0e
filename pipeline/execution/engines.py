"""Registry of execution engines, and `run_tasks`, which runs partitions on one of them.

An engine is a context manager in `ojala.pipeline.execution.clusters` that takes a number of workers and
yields their cluster; one entry here makes it known to the configuration and the command line. Dask and torch
are imported when an engine starts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ojala.catalogs_schema.receipt import Receipt
    from ojala.pipeline.inference.model_spec import ModelSpec
    from ojala.pipeline.inference.process import Task


@dataclass(frozen=True, slots=True)
class Engine:
    """Where partitions are processed.

    Attributes
    ----------
    description : str
        One phrase for help texts.
    cluster : str or None
        Context manager in `ojala.pipeline.execution.clusters`; None for an engine without workers.
    devices : tuple of str
        Devices that its networks can run on, the default first.
    forks : bool
        Whether its workers are forked from a process of this machine.
    """

    description: str
    cluster: str | None
    devices: tuple[str, ...] = ("cpu", "cuda")
    forks: bool = False


ENGINES = {
    "serial": Engine("this process, one partition after another", None),
    "local": Engine("Dask worker processes on this machine", "local_processes", ("cpu",), forks=True),
    "cuda": Engine("one Dask worker for each GPU of this machine", "local_gpus", ("cuda",)),
    "address": Engine("the workers of a running Dask scheduler", "running_scheduler"),
    "slurm": Engine("jobs of a Slurm queue, one Dask worker each", "slurm_jobs"),
    "jobqueue": Engine("jobs of any queue that Dask's settings jobqueue.NAME describe", "queue_jobs"),
}
"""Engines by the name under which a run asks for them."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Limits of the attempts at one partition.

    Attributes
    ----------
    attempts : int
        Attempts in one start of the run before the partition has failed.
    seconds : float
        Time limit of one attempt; only engines with worker processes can enforce it.
    """

    attempts: int = 3
    seconds: float = 3600.0


def prepare_engine(engine: str, spec: ModelSpec) -> None:
    """Start what an engine will need for a model, so that it imports while this process does other work."""
    if ENGINES[engine].forks:
        from ojala.pipeline.execution.forkserver import start_forkserver

        start_forkserver(network=bool(spec.weights))


def run_tasks(
    tasks: Sequence[Task],
    spec: ModelSpec,
    *,
    engine: str = "local",
    workers: int = 1,
    retries: RetryPolicy = RetryPolicy(),
    scheduler: str | None = None,
) -> Iterator[Receipt]:
    """Process partitions on an engine.

    Parameters
    ----------
    tasks : sequence of Task
        Partitions to process.
    spec : ModelSpec
        Recipe by which each worker loads the model.
    engine : str
        One of `ENGINES`.
    workers : int
        Number of worker processes, GPUs or jobs; engines without workers of their own ignore it.
    retries : RetryPolicy
        Limits of the attempts at one partition.
    scheduler : str, optional
        Address of the scheduler of the engine ``address``; default: Dask's setting ``scheduler-address``.

    Yields
    ------
    Receipt
        The final receipt of each task, in any order.

    Raises
    ------
    OutputError
        If the results cannot be written; running partitions are finished first.
    ClusterError
        If the engine cannot start, its workers cannot load the model, or all are lost and none comes back.
    """
    name = ENGINES[engine].cluster
    if name is None:
        from ojala.pipeline.execution.serial import run_serially

        yield from run_serially(tasks, spec, retries)
        return
    import dask

    from ojala.pipeline.execution import clusters, dispatcher

    with (
        dask.config.set({"scheduler-address": scheduler} if scheduler else {}),
        getattr(clusters, name)(workers) as cluster,
    ):
        if cluster.elsewhere:
            clusters.require_same_code(cluster.client, *spec.adapter.code_modules)
        yield from dispatcher.run_on_workers(cluster, tasks, spec, retries)
