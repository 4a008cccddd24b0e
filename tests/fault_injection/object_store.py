"""A real S3 server on the loopback interface, with the bucket ``survey``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import s3fs

from tests.deploy.processes import BIN, free_port, running
from tests.helpers.pace import until

SECRET = "a-secret-that-must-not-be-told"


@contextmanager
def object_store(log: Path) -> Iterator[int]:
    """Serve; gives the port. Credentials and address are in the environment."""
    port = free_port()
    with (
        running([BIN / "moto_server", "-H", "127.0.0.1", "-p", port], log),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_MAX_ATTEMPTS", "1")  # s3fs tries five times above that
        until(lambda: b"Running on" in log.read_bytes(), "the S3 server", seconds=60, log=log)
        connect().mkdir("survey")
        yield port


def connect() -> s3fs.S3FileSystem:
    """The object store, with nothing remembered."""
    s3fs.S3FileSystem.clear_instance_cache()
    return s3fs.S3FileSystem()
