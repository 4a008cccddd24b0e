"""What the campaign of faults has found, each as a test of its own."""

import asyncio
import errno
import gc
import os
import resource
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from distributed.client import AllExit
from upath import UPath

from ojala.catalogs_schema.errors import AccessError, access_errors
from ojala.catalogs_schema.photometry import PHOTOMETRY
from ojala.models.checkpoint import WeightsError, read_tensors, write_tensors
from ojala.pipeline.execution.clusters import fetch
from ojala.pipeline.execution.dispatcher import _restart
from ojala.pipeline.run import assess, publish
from ojala.pipeline.runs.config import RunConfig
from ojala.pipeline.storage.hats import finalise_catalogue
from tests.helpers.survey import run_and_publish

pytestmark = pytest.mark.fault


@contextmanager
def no_more_files():
    """This process may open no further file."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_weights_that_a_limit_of_open_files_keeps_from_being_read_are_named(tmp_path):
    """Found as a fault of the program with a traceback: safetensors raises a bare RuntimeError."""
    path = tmp_path / "weights.safetensors"
    write_tensors(path, {"a": torch.zeros(3)}, {})
    with (
        no_more_files(),
        pytest.raises(WeightsError, match=r"weights\.safetensors: cannot be opened .*ulimit"),
    ):
        read_tensors(path)
    assert list(read_tensors(path)[0]) == ["a"]


def test_memory_that_is_not_given_is_an_error_that_names_the_remedy():
    """Found as a fault of the program with a traceback."""
    with (
        pytest.raises(AccessError, match=r"gets no more memory .*: raise its limit, take fewer workers"),
        access_errors(),
    ):
        bytearray(1 << 62)


@pytest.mark.parametrize("code", ["503", "SlowDown", "500"])
def test_an_object_store_that_is_busy_is_no_fault_of_the_program(code):
    """Found as a traceback: s3fs makes an OSError without a known number of what botocore raises."""
    exceptions = pytest.importorskip("botocore.exceptions")
    translate = pytest.importorskip("s3fs.errors").translate_boto_error
    answer = exceptions.ClientError({"Error": {"Code": code, "Message": "Busy"}}, "HeadObject")
    with (
        pytest.raises(AccessError, match=r"\(.*\) .* HeadObject .*: Busy; give the same command"),
        access_errors(),
    ):
        raise translate(answer) from answer


def test_a_full_temporary_folder_is_named_where_the_map_is_written(tmp_path, monkeypatch):
    """Found as a traceback: the error of the library that writes maps for hats has no number."""

    def fail(*of_it):
        raise OSError("I/O error.")

    monkeypatch.setattr("hats.io.skymap.write_skymap", fail)
    with pytest.raises(AccessError, match=r"temporary folder .*make room there or set TMPDIR"):
        finalise_catalogue(UPath(tmp_path), PHOTOMETRY, {}, name="sky", skymap=np.zeros(12))
    assert not (tmp_path / "hats.properties").exists()


def test_a_worker_that_is_gone_is_given_up_without_a_traceback():
    """Found as the traceback of a thread: Dask's answer does not name a worker that is gone already."""

    class Gone:
        def restart_workers(self, addresses, raise_for_error):
            raise KeyError(addresses[0])

    _restart(Gone(), "tls://127.0.0.1:40000")


@pytest.mark.parametrize(
    ("raised", "logged"), [(AllExit, []), (KeyError, ["Task exception was never retrieved"])]
)
def test_a_receipt_that_is_given_up_with_its_worker_leaves_no_traceback_of_dask(raised, logged, caplog):
    """Found as a traceback at the end of a run: Dask goes on to wait, and ends so with the release."""
    loop = asyncio.new_event_loop()

    def too_late(timeout):
        raise TimeoutError

    with pytest.raises(TimeoutError):
        fetch(
            SimpleNamespace(result=too_late, client=SimpleNamespace(loop=SimpleNamespace(asyncio_loop=loop)))
        )

    async def wait():
        raise raised

    async def leave():
        asyncio.ensure_future(wait())  # noqa: RUF006 - what Dask does
        await asyncio.sleep(0)

    loop.run_until_complete(leave())
    gc.collect()
    loop.close()
    assert [record.message.splitlines()[0] for record in caplog.records] == logged


@pytest.fixture(scope="module")
def first(photometry, tmp_path_factory):
    """A run that has ended; tests assess it again."""
    out = str(tmp_path_factory.mktemp("first") / "out")
    return run_and_publish(RunConfig(photometry=str(photometry), out=out, model="empty", engine="serial"))


def test_temporary_files_of_a_disk_that_was_read_only_do_not_stay(first):
    """Found below a run that was assessed again; beside the runs nobody looked for any either."""
    strays = [first.run / "supplemental" / "._common_metadata.0.tmp", first.out / ".published.json.0.tmp"]
    for stray in strays:
        stray.parent.mkdir(exist_ok=True)
        stray.touch()
    abandoned = UPath(first.out / ".published-0")
    (abandoned / "ojala").mkdir(parents=True)
    assess(first.plan.resolved, first.plan.run_id)
    publish(first.plan)
    assert not any(path.exists() for path in (*strays, abandoned))
    assert (first.out / "published" / "ojala" / "hats.properties").exists()


def test_an_assessment_that_the_surroundings_disturb_is_named_without_a_traceback(first, monkeypatch, caplog):
    """Found as a traceback: an object store that answers "500 internal error" while margins are made."""

    def refuse(*of_it):
        raise OSError(errno.EIO, "Input/output error", "dataset")

    monkeypatch.setattr("ojala.pipeline.run._write_supplemental", refuse)
    record = assess(first.plan.resolved, first.plan.run_id)
    assert record.problems == {"margins": "AccessError: dataset: Input/output error"}
    (said,) = caplog.records
    assert said.getMessage().endswith("margins failed: dataset: Input/output error")
    assert not said.exc_info
