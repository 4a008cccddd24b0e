"""Engines do the same work; a worker that dies takes one partition with it, not the run."""

import gc
import os
import signal
import socket
import ssl
from multiprocessing import forkserver
from urllib.error import HTTPError
from urllib.request import urlopen

import dask
import psutil
import pytest
from dask.utils import parse_timedelta
from distributed import Security

from ojala.pipeline.execution import RetryPolicy, clusters, run_tasks
from ojala.pipeline.execution.clusters import ClusterError
from ojala.pipeline.inference.adapters.dummy import DummyModel
from ojala.pipeline.inference.model_spec import ModelSpec
from tests.fault_injection.processes import workers_of
from tests.helpers.pace import scaled, until
from tests.helpers.survey import orders
from tests.pipeline.execution.deadly import NeverLoaded, one_that_kills

pytestmark = pytest.mark.integration


def outcome(receipts):
    return {receipt.partition: [leaf.sha256 for leaf in receipt.leaves] for receipt in receipts}


@pytest.fixture(scope="module")
def expected(photometry, tmp_path_factory):
    tasks = orders(photometry, tmp_path_factory.mktemp("serial"))
    return outcome(run_tasks(tasks, ModelSpec("empty", ""), engine="serial", workers=1))


def test_dask_processes_write_the_same_bytes_as_one_process(photometry, tmp_path, expected):
    receipts = list(
        run_tasks(orders(photometry, tmp_path), ModelSpec("empty", ""), engine="local", workers=2)
    )
    assert outcome(receipts) == expected
    assert os.getpid() not in {receipt.attempts[-1].pid for receipt in receipts}


def test_workers_are_forked_with_their_imports_made_and_collect_their_garbage():
    forkserver._forkserver._stop()  # one that another test has started has other imports
    with clusters.local_processes(1) as cluster:
        ((shared, collects),) = cluster.client.run(lambda: (gc.get_freeze_count(), gc.isenabled())).values()
    assert shared > 100_000, "objects of the modules"
    assert collects


def test_a_worker_that_is_just_starting_anew_does_not_hold_up_the_end(monkeypatch):
    monkeypatch.setattr(clusters, "CLOSE_TIMEOUT", 1.0)
    with clusters.local_processes(1) as cluster:
        (worker,) = set(cluster.client.run(os.getpid).values())
        others = set(workers_of(psutil.Process()))
        os.kill(worker, signal.SIGKILL)
        (anew,) = until(lambda: set(workers_of(psutil.Process())) - others, every=0.001)
        anew.suspend()
    assert not anew.is_running()


def test_a_partition_that_kills_its_worker_fails_alone(photometry, tmp_path, expected):
    tasks = orders(photometry, tmp_path)
    guilty, spec = one_that_kills(tasks)
    receipts = list(run_tasks(tasks, spec, engine="local", workers=2, retries=RetryPolicy(attempts=2)))
    assert len(receipts) == len(tasks), "every partition has a receipt"
    failed = [receipt for receipt in receipts if receipt.status == "failed"]
    assert [receipt.partition for receipt in failed] == [guilty.partition.name]
    assert [attempt.cause for attempt in failed[0].attempts] == ["worker lost"] * 2
    others = [receipt for receipt in receipts if receipt.status == "done"]
    assert all(len(receipt.attempts) == 1 for receipt in others), "the innocent lose nothing"
    done = outcome(receipt for receipt in receipts if receipt.status == "done")
    assert done == {name: leaves for name, leaves in expected.items() if name != guilty.partition.name}


class Hanging(DummyModel):
    """Stops its own process when it meets one partition, until somebody wakes it."""

    def __init__(self, rows):
        self._rows = rows

    def predict(self, flux, error, ebv):
        if len(flux) == self._rows:
            os.kill(os.getpid(), signal.SIGSTOP)
        return super().predict(flux, error, ebv)


class HangingSpec(ModelSpec):
    """Loads the hanging model; its rows travel in the place of the batch size."""

    def load(self):
        return Hanging(self.batch_size)


def test_a_worker_that_hangs_is_ended_and_holds_nobody_up(photometry, tmp_path, expected):
    tasks = orders(photometry, tmp_path)
    rows = [task.rows for task in tasks]
    guilty = next(task for task in tasks if rows.count(task.rows) == 1)
    spec = HangingSpec("hanging", "", batch_size=guilty.rows)
    receipts = list(
        run_tasks(
            tasks, spec, engine="local", workers=2, retries=RetryPolicy(attempts=1, seconds=scaled(6.0))
        )
    )
    (failed,) = [receipt for receipt in receipts if receipt.status == "failed"]
    assert failed.partition == guilty.partition.name
    (attempt,) = failed.attempts
    assert (attempt.cause, attempt.host) == ("timeout", "127.0.0.1")
    assert attempt.error == f"TimeoutError: took longer than {scaled(6.0):g} s; its worker was ended"
    done = outcome(receipt for receipt in receipts if receipt.status == "done")
    assert done == {name: leaves for name, leaves in expected.items() if name != guilty.partition.name}


def test_workers_that_die_while_they_load_the_model_end_the_run(photometry, tmp_path):
    with pytest.raises(ClusterError, match="workers in a row died before they had loaded the model"):
        list(run_tasks(orders(photometry, tmp_path), NeverLoaded("never", ""), engine="local", workers=1))


def test_nobody_without_the_certificate_of_the_run_gets_in_and_no_page_is_shown():
    with clusters.local_processes(1) as cluster:
        address = cluster.client.scheduler.address
        assert address.startswith("tls://127.0.0.1:")
        port = int(address.rpartition(":")[2])
        assert answer(port, cluster.client.security.get_connection_args("client")["ssl_context"])
        assert not answer(port, Security.temporary().get_connection_args("client")["ssl_context"])
        assert not answer(port, ssl._create_unverified_context())
        assert not answer(port, None)
        words = [" ".join(process.cmdline()) for process in psutil.Process().children(recursive=True)]
        assert not [line for line in words if "PRIVATE KEY" in line or ".pem" in line]
        ports = cluster.client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.http_server.port)
        with pytest.raises(HTTPError, match="404"):
            urlopen(f"http://127.0.0.1:{ports}/json/counts.json", timeout=scaled(5.0))


def answer(port, context):
    """What a scheduler says first to somebody who connects with this TLS context; None: without TLS."""
    with socket.create_connection(("127.0.0.1", port), timeout=scaled(10.0)) as plain:
        try:
            connection = context.wrap_socket(plain) if context else plain
            connection.sendall(b"no TLS at all, and longer than the head of a message" * 9)
            return connection.recv(1)
        except OSError:
            return b""


def test_a_nanny_that_has_given_up_is_replaced(monkeypatch):
    monkeypatch.setattr(clusters, "REPLACE_AFTER", 0.0)
    with clusters.local_processes(1) as cluster:
        assert cluster.replace_lost() == 0
        (nanny,) = cluster.client.cluster.workers.values()
        cluster.client.cluster.sync(nanny.close)
        assert cluster.replace_lost() == 1
        until(lambda: cluster.client.scheduler_info()["workers"], "a worker in its place")


def test_the_nanny_of_a_worker_that_starts_slowly_is_kept():
    with dask.config.set(clusters.DASK_SETTINGS):
        patience = dask.config.get("distributed.deploy.lost-worker-timeout")
    assert parse_timedelta(patience) > 3600


class Flaky(DummyModel):
    """Loses the connection when it meets a partition for the first time."""

    def __init__(self):
        self._met = set()

    def predict(self, flux, error, ebv):
        if (partition := flux.tobytes()) not in self._met:
            self._met.add(partition)
            raise ConnectionResetError(104, "Connection reset by peer")
        return super().predict(flux, error, ebv)


class FlakySpec(ModelSpec):
    def load(self):
        return Flaky()


def test_what_passes_is_tried_again_in_one_process_too(photometry, tmp_path, expected):
    receipts = list(
        run_tasks(
            orders(photometry, tmp_path),
            FlakySpec("flaky", ""),
            engine="serial",
            workers=1,
            retries=RetryPolicy(3),
        )
    )
    assert outcome(receipts) == expected
    tried = [attempt.cause for receipt in receipts for attempt in receipt.attempts if attempt.error]
    assert tried == ["storage"] * len(receipts)
