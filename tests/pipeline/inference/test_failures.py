"""What failed tells whether another attempt can help."""

import errno

import pyarrow as pa
import pytest
import torch

from ojala.pipeline.inference.failures import Cause, WorkerLost, cause_of
from ojala.pipeline.storage.files import OutputError
from ojala.pipeline.storage.parquet import ContractError, DamagedInput

botocore = pytest.importorskip("botocore.exceptions")


@pytest.mark.parametrize(
    ("problem", "cause"),
    [
        (WorkerLost("gone"), Cause.WORKER),
        (MemoryError(), Cause.MEMORY),
        (pa.ArrowMemoryError("malloc of size 5 failed"), Cause.MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), Cause.MEMORY),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] can't allocate memory"), Cause.MEMORY),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), Cause.MEMORY),
        (TimeoutError("took longer than 5 s"), Cause.TIMEOUT),
        (OSError(errno.ETIMEDOUT, "Connection timed out"), Cause.TIMEOUT),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), Cause.STORAGE),
        (OSError(errno.EIO, "Input/output error"), Cause.STORAGE),
        (OSError(errno.ESTALE, "Stale file handle"), Cause.STORAGE),
        (botocore.EndpointConnectionError(endpoint_url="http://127.0.0.1:1"), Cause.STORAGE),
        (botocore.ConnectionClosedError(endpoint_url="http://127.0.0.1:1"), Cause.STORAGE),
        (OutputError(errno.ENOSPC, "No space left on device", "leaf"), Cause.OUTPUT),
        (DamagedInput("SHA-256 is"), Cause.DATA),
        (ContractError("column x"), Cause.DATA),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), Cause.DATA),
        (PermissionError(errno.EACCES, "Permission denied"), Cause.DATA),
        (OSError("Could not open Parquet input source: Invalid: not a Parquet file"), Cause.DATA),
        (pa.ArrowInvalid("Parquet magic bytes not found in footer"), Cause.DATA),
        (KeyError("z"), Cause.PROGRAM),
        (ValueError("shapes"), Cause.PROGRAM),
        (RuntimeError("expected scalar type Float"), Cause.PROGRAM),
    ],
)
def test_the_cause_is_told_by_the_exception(problem, cause):
    assert cause_of(problem) is cause


def test_only_what_may_pass_is_tried_again():
    transient = {cause for cause in Cause if cause.transient}
    assert transient == {Cause.WORKER, Cause.MEMORY, Cause.TIMEOUT, Cause.STORAGE}
