"""Dask clusters: processes and GPUs of this machine, a running scheduler, and jobs of a queue.

Each is a context manager that takes the number of workers and yields a `Cluster`. A scheduler that is started
here asks for a certificate, which is made for the run alone: other users of the machine cannot give it work.
That of a running scheduler is Dask's own: the settings ``distributed.comm.tls.*`` in a file that
``DASK_CONFIG`` names, or the variables ``DASK_DISTRIBUTED__COMM__TLS__*``. See ``deploy/README.md``.
"""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, NamedTuple, TypeVar
from unittest.mock import patch

import dask
from distributed import Client, Future, LocalCluster, Security, Status, WorkerPlugin
from distributed.client import AllExit
from distributed.worker import Worker

from ojala.catalogs_schema.errors import ExitCode, OjalaError
from ojala.pipeline.execution.forkserver import start_forkserver
from ojala.pipeline.inference.model_spec import require_device
from ojala.pipeline.storage.code_version import code_version
from ojala.pipeline.storage.progress import report

DASK_SETTINGS = {
    # A worker that dies takes all its tasks with it; each is tried again alone to find the cause.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.worker-saturation": 1.0,
    # A nanny restarts its worker when it dies. Dask would give up the nanny of a worker that is not back
    # within 15 s, and on a busy machine a start takes longer.
    "distributed.deploy.lost-worker-timeout": "1 day",
    # Models hold their memory outside of what Dask can spill.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    # Samples of the stack, which nobody looks at, took 25 kB of a worker with each partition.
    "distributed.worker.profile.enabled": False,
    # So are the last messages to each worker, 1,000 with all that they hold: 13 kB of the driver each.
    "distributed.admin.low-level-log-length": 10,
}
"""Settings of the clusters that are started here."""

NO_PAGES: dict[str, Any] = {"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []}
"""Settings without the pages of Dask's HTTP servers, which know no password."""

_NO_DASHBOARD = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
"""Options of a scheduler; without an address Dask warns when two schedulers are on a machine."""

_LOOPBACK = ("--dashboard-address", "127.0.0.1:0")
"""Options of a worker in a job: Dask starts its HTTP server in any case, otherwise on all interfaces."""

WORKER_TIMEOUT = 300.0
"""Time without any worker after which a run gives up [s]."""

QUEUE_TIMEOUT = 7 * 86_400.0
"""The same before the first job of a queue has started [s]."""

REPLACE_AFTER = 5.0
"""Time without a process after which the nanny of a worker is replaced [s]."""

GPU_THREADS = 6
"""Threads of a GPU's worker: two partitions use the network while others are read or written."""

CLOSE_TIMEOUT = 10.0
"""Time that the workers of this machine have to end [s]."""

FETCH_TIMEOUT = 30.0
"""Time that the result of a finished task may take to arrive from its worker [s]."""

_WORKER_PROCESS = "Dask Worker process"
"""Prefix of the names that Dask's nannies give to the processes of their workers."""

R = TypeVar("R")


class ClusterError(OjalaError, ValueError):
    """A cluster that cannot be reached or used."""

    exit_code = ExitCode.ACCESS


class Cluster(NamedTuple):
    """A connected cluster.

    Attributes
    ----------
    client : Client
        Connection to its scheduler.
    threads : int or None
        Threads of each worker's network; None where the worker's own environment decides.
    elsewhere : bool
        Whether workers start outside of this process' installation, so that their code may differ.
    first_worker_timeout : float
        Time that the first worker has to come [s].
    replace_lost : callable
        Starts workers in place of those that Dask has given up, and returns their number.
    """

    client: Client
    threads: int | None = None
    elsewhere: bool = False
    first_worker_timeout: float = WORKER_TIMEOUT
    replace_lost: Callable[[], int] = int


@contextmanager
def local_processes(workers: int) -> Iterator[Cluster]:
    """Start worker processes that share the cores of this machine; only this process can use them.

    They are forked from one process with their imports, see `ojala.pipeline.execution.forkserver`.
    """
    report(f"starting {workers:,} worker processes")
    with (
        _quiet_settings(),
        dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}),
        patch("distributed.utils._forkserver_preload_set", True),  # its own list needs pandas here
    ):
        start_forkserver()
        cluster = LocalCluster(
            env=dict(os.environ),  # workers would have the environment of the first cluster otherwise
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            protocol="tls",
            security=Security.temporary(),
            scheduler_kwargs=_NO_DASHBOARD,
            memory_limit=0,
            silence_logs=logging.CRITICAL,
        )
        with _closing(cluster) as client:
            yield Cluster(client, _threads(workers), replace_lost=_Nannies(cluster).replace_lost)


@contextmanager
def local_gpus(workers: int) -> Iterator[Cluster]:
    """Start one worker process for each of this machine's GPUs; only this process can use them.

    A worker reads, computes and writes several partitions at once, so that its GPU does not wait for files.
    Dask-CUDA binds each worker to a GPU of ``CUDA_VISIBLE_DEVICES`` and to the cores next to it. The memory
    of the GPUs is torch's alone: there is no pool of RMM, and Dask holds no data there that it could spill.

    Parameters
    ----------
    workers : int
        Number of GPUs, the first of those that may be used.

    Raises
    ------
    ClusterError
        If Dask-CUDA is missing, or there are fewer GPUs.
    """
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError as problem:
        raise ClusterError(
            f"engine cuda: Dask-CUDA cannot be imported ({problem}); pip install '.[gpu]' in a "
            "checkout of ojala"
        ) from problem
    report(f"starting {workers:,} worker processes, one per GPU")
    with _quiet_settings():
        try:
            require_device("cuda")
            cluster = LocalCUDACluster(
                n_workers=workers,
                threads_per_worker=GPU_THREADS,
                host="127.0.0.1",
                protocol="tls",
                security=Security.temporary(),
                scheduler_kwargs=_NO_DASHBOARD,
                memory_limit=0,
                device_memory_limit=0,
                silence_logs=logging.CRITICAL,
            )
        except ValueError as problem:
            raise ClusterError(
                f"engine cuda: {problem}; asked for are {workers} workers, one per GPU, of those that "
                f"CUDA_VISIBLE_DEVICES names: {os.environ.get('CUDA_VISIBLE_DEVICES', 'all')}"
            ) from problem
        with _closing(cluster) as client:
            threads = _threads(workers * GPU_THREADS)
            yield Cluster(client, threads, replace_lost=_Nannies(cluster).replace_lost)


@contextmanager
def running_scheduler(workers: int = 0) -> Iterator[Cluster]:
    """Connect to the scheduler that Dask's setting ``scheduler-address`` names, and use all its workers.

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
    report(f"connecting to the scheduler at {address}")
    try:
        client = Client(address, set_as_default=False)
    except (OSError, ValueError) as problem:
        raise ClusterError(
            f"{address}: no connection ({problem}); is the scheduler running, and does DASK_CONFIG name the "
            "certificates of its authority?"
        ) from problem
    with client:
        yield Cluster(client, elsewhere=True)


def slurm_jobs(workers: int) -> AbstractContextManager[Cluster]:
    """Submit jobs to Slurm; see `queue_jobs`."""
    return queue_jobs(workers, "slurm")


@contextmanager
def queue_jobs(workers: int, system: str | None = None) -> Iterator[Cluster]:
    """Submit jobs to a queue, each of which is one worker, with a scheduler in this process.

    Dask's settings ``jobqueue.<system>`` describe a job (queue, account, memory, time). Certificates are made
    for this run alone and lie under ``jobqueue.<system>.shared-temp-directory`` (default: the current folder)
    until it ends. There is no dashboard, unless ``jobqueue.<system>.scheduler-options`` give its address.

    Parameters
    ----------
    workers : int
        Number of jobs.
    system : str, optional
        Queueing system by dask-jobqueue's name for it, such as ``slurm`` or ``pbs``; default: the one whose
        settings have ``cores``.

    Raises
    ------
    ClusterError
        If dask-jobqueue or its settings are missing, or the settings describe several systems.
    """
    engine = system or "jobqueue"
    try:
        dask_jobqueue = import_jobqueue()
    except ImportError:
        raise ClusterError(
            f"engine {engine}: dask-jobqueue is missing; pip install '.[jobqueue]' in a checkout of ojala"
        ) from None
    clusters = {
        kind.job_cls.config_name: kind
        for name, kind in vars(dask_jobqueue).items()
        if name.endswith("Cluster") and hasattr(kind, "job_cls")
    }
    if system is None:
        configured = [name for name in clusters if dask.config.get(f"jobqueue.{name}.cores", None)]
        if len(configured) != 1:
            raise ClusterError(
                f"engine jobqueue: Dask's settings describe jobs of {' and '.join(configured) or 'no queue'}"
                ": DASK_CONFIG names a file like deploy/slurm/jobqueue.yaml, with cores and memory under "
                f"jobqueue.NAME for one NAME of {', '.join(sorted(clusters))}"
            )
        (system,) = configured
    settings = f"jobqueue.{system}"
    wanted = dask.config.get(f"{settings}.scheduler-options", {})
    dashboard = "dashboard_address" in wanted
    options = wanted if dashboard else wanted | _NO_DASHBOARD
    shared = Path(dask.config.get(f"{settings}.shared-temp-directory") or ".").expanduser()
    pages = {} if dashboard else NO_PAGES
    report(f"submitting {workers:,} jobs to {system}")
    with dask.config.set(DASK_SETTINGS | pages), TemporaryDirectory(prefix=".ojala-", dir=shared) as folder:
        try:
            cluster = clusters[system](
                security=_certificates(Path(folder)),
                scheduler_options=options,
                worker_extra_args=[
                    *(dask.config.get(f"{settings}.worker-extra-args", None) or ()),
                    *_LOOPBACK,
                ],
                job_script_prologue=[
                    *(dask.config.get(f"{settings}.job-script-prologue", None) or ()),
                    "export DASK_DISTRIBUTED__WORKER__HTTP__ROUTES='[]'",
                ],
            )
        except ValueError as problem:
            raise ClusterError(
                f"engine {engine}: {problem}; DASK_CONFIG names a file like deploy/slurm/jobqueue.yaml"
            ) from problem
        with cluster, Client(cluster, set_as_default=False) as client:
            cluster.scale(jobs=workers)
            yield Cluster(client, elsewhere=True, first_worker_timeout=QUEUE_TIMEOUT)


def fetch(future: Future[R]) -> R:
    """Result of a finished task.

    Raises
    ------
    TimeoutError
        If it has not arrived after `FETCH_TIMEOUT`.
    Exception
        That of the task.
    """
    try:
        return future.result(timeout=FETCH_TIMEOUT)
    except TimeoutError:
        # What Dask leaves waiting for the result ends as soon as the task is released, with this exception.
        future.client.loop.asyncio_loop.set_exception_handler(_ignore_all_exit)
        raise


def _ignore_all_exit(loop: AbstractEventLoop, context: dict[str, Any]) -> None:
    if not isinstance(context.get("exception"), AllExit):
        loop.default_exception_handler(context)


def import_jobqueue() -> ModuleType:
    """Import dask-jobqueue without the handler of Ctrl-C that its import installs.

    With it Ctrl-C would end the program with exit code 0; outside of the main thread, where no handler can be
    installed, the import would fail.
    """
    with patch("signal.signal"):
        return importlib.import_module("dask_jobqueue")


@contextmanager
def _quiet_settings() -> Iterator[None]:
    """Apply `DASK_SETTINGS`, and silence Dask: receipts and progress record the fate of workers."""
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with dask.config.set(DASK_SETTINGS | NO_PAGES):
        yield


class _Nannies:
    """Watch over the nannies of a cluster of this machine.

    A nanny starts its worker again when that dies, but gives up when it dies while it starts.
    """

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._down_since: dict[Any, float] = {}

    def replace_lost(self) -> int:
        """Replace the nannies without a process for `REPLACE_AFTER`, and return their number."""
        now = time.monotonic()
        down = {name for name, nanny in self._cluster.workers.items() if _is_down(nanny)}
        self._down_since = {name: self._down_since.get(name, now) for name in down}
        lost = [name for name, since in self._down_since.items() if now - since >= REPLACE_AFTER]
        for name in lost:
            nanny = self._cluster.workers.pop(name)
            if self._cluster.loop is not None:
                self._cluster.loop.add_callback(nanny.close, timeout=1)
        if lost:
            self._cluster.scale(len(self._cluster.worker_spec))
        return len(lost)


def _is_down(nanny: Any) -> bool:  # noqa: ANN401 - Dask's classes are untyped
    alive = (Status.starting, Status.running)
    return nanny.status in (Status.closed, Status.failed) or (
        nanny.process is not None and nanny.process.status not in alive
    )


@contextmanager
def _closing(cluster: LocalCluster) -> Iterator[Client]:
    """Connect to a cluster of processes of this machine, and close it at the end.

    Dask would wait without end for a worker that has died and is just restarting: processes that outlive
    `CLOSE_TIMEOUT` are killed.
    """
    try:
        with Client(cluster, set_as_default=False) as client:
            yield client
    finally:
        try:
            cluster.close(timeout=CLOSE_TIMEOUT)
        except TimeoutError:
            for process in multiprocessing.active_children():
                if process.name.startswith(_WORKER_PROCESS):
                    process.kill()
                    process.join()


def _threads(processes: int) -> int:
    """Cores of this machine for each of some processes."""
    return max(1, (os.cpu_count() or 1) // processes)


def _certificates(folder: Path) -> Security:
    """Make certificates for one run; the workers read them from the folder, which only its owner can."""
    security: Security = Security.temporary()
    for part in ("tls_ca_file", "tls_worker_cert", "tls_worker_key"):
        file = folder / part
        file.touch(mode=0o600)
        file.write_text(getattr(security, part))
        setattr(security, part, str(file))
    return security


def require_same_code(client: Client, *modules: str) -> None:
    """Refuse workers, now and later, whose code of some modules differs: results carry one code version.

    Raises
    ------
    ClusterError
        If a present worker has other code.
    """
    try:
        client.register_plugin(SameCode(code_version(*modules), modules))
    except RuntimeError as problem:
        raise ClusterError(str(problem)) from problem


class SameCode(WorkerPlugin):
    """Worker plugin that refuses to start where the code of some modules, and of their imports, differs."""

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
