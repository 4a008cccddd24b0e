"""Clusters: this machine's GPUs, a scheduler that runs already, and jobs of a Slurm queue.

TLS is Dask's own: the settings ``distributed.comm.tls.*`` in a file that ``DASK_CONFIG`` names, or the
variables ``DASK_DISTRIBUTED__COMM__TLS__*``. See ``deploy/README.md``.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dask
from distributed import Client, LocalCluster, Security, WorkerPlugin
from distributed.worker import Worker

from ojala.catalogs_schema.errors import OjalaError
from ojala.pipeline.inference.adapters.base import ModelAdapter
from ojala.pipeline.inference.model_spec import require_device
from ojala.pipeline.storage.code_version import code_version


class ClusterError(OjalaError, ValueError):
    """A cluster that cannot be reached or used, with what to do about it."""


@contextmanager
def running_scheduler() -> Iterator[Client]:
    """Connect to the scheduler that Dask's setting ``scheduler-address`` names.

    The setting is made by ``--scheduler`` or by the variable ``DASK_SCHEDULER_ADDRESS``; the address begins
    with ``tls://`` or ``tcp://``.

    Raises
    ------
    ClusterError
        If no scheduler is named, none answers there, or the certificates do not fit.
    """
    address = dask.config.get("scheduler-address", None)
    if not address:
        raise ClusterError(
            "engine address: name the scheduler with --scheduler tls://HOST:8786 or DASK_SCHEDULER_ADDRESS"
        )
    if address.startswith("tls://") and not dask.config.get("distributed.comm.tls.ca-file"):
        raise ClusterError(
            f"{address}: no certificates are named; set DASK_CONFIG to a file like deploy/dask.yaml"
        )
    try:
        client = Client(address, set_as_default=False)
    except OSError as problem:
        raise ClusterError(
            f"{address}: no connection ({problem}); is the scheduler running, and does DASK_CONFIG name the "
            "certificates of its authority?"
        ) from problem
    with client:
        yield client


@contextmanager
def slurm_jobs(jobs: int) -> Iterator[Client]:
    """Submit jobs to Slurm, each of which is one worker, with a scheduler in this process.

    What a job asks for (queue, account, memory, time) is in Dask's settings ``jobqueue.slurm``. Certificates
    are made for this run alone and lie under ``jobqueue.slurm.shared-temp-directory`` (default: the current
    folder) until it ends. The dashboard listens on the loopback interface, unless
    ``jobqueue.slurm.scheduler-options`` say otherwise.

    Parameters
    ----------
    jobs : int
        Number of jobs.

    Raises
    ------
    ClusterError
        If dask-jobqueue or its settings are missing.
    """
    try:
        from dask_jobqueue.slurm import SLURMCluster
    except ImportError:
        raise ClusterError("engine slurm: dask-jobqueue is missing; pip install 'ojala[slurm]'") from None
    options = {"dashboard_address": "127.0.0.1:0"} | dask.config.get("jobqueue.slurm.scheduler-options", {})
    shared = Path(dask.config.get("jobqueue.slurm.shared-temp-directory") or ".").expanduser()
    with TemporaryDirectory(prefix=".ojala-", dir=shared) as folder:
        try:
            cluster = SLURMCluster(security=_certificates(Path(folder)), scheduler_options=options)
        except ValueError as problem:
            raise ClusterError(
                f"engine slurm: {problem}; DASK_CONFIG names a file like deploy/slurm/jobqueue.yaml"
            ) from problem
        with cluster, Client(cluster, set_as_default=False) as client:
            cluster.scale(jobs=jobs)
            yield client


CLOSING = 10.0
"""Seconds that the workers of this machine may take to end."""

_WORKERS = "Dask Worker process"
"""So Dask's nannies call the processes of their workers."""


def close(cluster: LocalCluster) -> None:
    """Close a cluster of processes of this machine, when all work is done.

    Dask waits without end for a worker that has died and is just starting anew: what has not ended in time is
    killed.
    """
    try:
        cluster.close(timeout=CLOSING)
    except TimeoutError:
        for process in multiprocessing.active_children():
            if process.name.startswith(_WORKERS):
                process.kill()
                process.join()


GPU_THREADS = 6
"""Partitions that a GPU's worker has at once: two with the network, the others being read or written."""


@contextmanager
def local_gpus(workers: int) -> Iterator[Client]:
    """One worker process for each of this machine's GPUs; only this machine can reach them.

    Dask-CUDA binds each worker to a GPU of ``CUDA_VISIBLE_DEVICES`` and to the cores next to it. The memory
    of the GPUs is torch's alone: there is no pool of RMM, and Dask holds no data there that it could spill.

    Parameters
    ----------
    workers : int
        Number of GPUs, the first of those that may be used.

    Raises
    ------
    ClusterError
        If Dask-CUDA is missing, or there are fewer GPUs; says what to do.
    """
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError as problem:
        raise ClusterError(
            f"engine cuda: Dask-CUDA cannot be imported ({problem}); pip install 'ojala[gpu]'"
        ) from problem
    try:
        require_device("cuda")
        cluster = LocalCUDACluster(
            n_workers=workers,
            threads_per_worker=GPU_THREADS,
            host="127.0.0.1",
            protocol="tcp",
            dashboard_address=None,
            memory_limit=0,
            device_memory_limit=0,
            silence_logs=40,
        )
    except ValueError as problem:
        raise ClusterError(
            f"engine cuda: {problem}; asked for are {workers} workers, one per GPU, of those that "
            f"CUDA_VISIBLE_DEVICES names: {os.environ.get('CUDA_VISIBLE_DEVICES', 'all')}"
        ) from problem
    try:
        with Client(cluster, set_as_default=False) as client:
            yield client
    finally:
        close(cluster)


def _certificates(folder: Path) -> Security:
    """Certificates for one run; what the workers need of them is in the folder, which only we can read."""
    security: Security = Security.temporary()
    for part in ("tls_ca_file", "tls_worker_cert", "tls_worker_key"):
        file = folder / part
        file.write_text(getattr(security, part))
        setattr(security, part, str(file))
    return security


def require_same_code(client: Client, adapter: ModelAdapter[Any]) -> None:
    """Refuse workers, now and later, whose code for a model differs: a run's results carry one code version.

    Raises
    ------
    ClusterError
        If a worker that is there has other code.
    """
    try:
        client.register_plugin(SameCode(adapter.code_version, adapter.code_modules))
    except RuntimeError as problem:
        raise ClusterError(str(problem)) from problem


class SameCode(WorkerPlugin):
    """Keeps workers with another version of the code of some modules from working."""

    name = "ojala-same-code"

    def __init__(self, version: str, modules: tuple[str, ...]) -> None:
        self._version = version
        self._modules = modules

    def setup(self, worker: Worker) -> None:
        """Called by Dask when the worker starts."""
        found = code_version(*self._modules)
        if found != self._version:
            raise RuntimeError(
                f"the worker at {worker.address} has code {found}, this run {self._version}: install the "
                "same on both and start the worker again"
            )
