"""What the campaign of faults has found, each as a test of its own."""

import os
import resource
from contextlib import contextmanager

import pytest
import torch

from ojala.catalogs_schema.errors import AccessError, access_errors
from ojala.models.checkpoint import WeightsError, read_tensors, write_tensors

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
