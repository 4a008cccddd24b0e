"""Ends of a run from outside: Ctrl-C, which also ends all child processes, or loss of the Prefect server."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import psutil
from upath import UPath

from ojala.catalogs_schema.errors import AccessError
from ojala.catalogs_schema.urls import without_credentials
from ojala.flows.cli.errors import INTERRUPTED, RESUMABLE, warn
from ojala.pipeline.runs.record import run_folder
from ojala.pipeline.storage.files import remove_unfinished
from ojala.pipeline.storage.lock import held

_GRACE = 5.0
"""Seconds that processes have to end by themselves."""


@contextmanager
def interruptible(out: UPath) -> Iterator[None]:
    """End the process with exit code 130 on Ctrl-C or SIGTERM inside the block.

    When all child processes have ended, their unfinished files in the running run are removed and its lock is
    released.

    Workers are not asked to finish their partitions, so the process ends at once. With a Prefect server
    (``PREFECT_API_URL``) the flow is interrupted, and its end is recorded there.

    Raises
    ------
    AccessError
        If Prefect's server no longer answers.
    """
    from ojala.flows.release import prefect_server

    server = prefect_server()
    unreachable: tuple[type[Exception], ...] = ()
    if server:
        from httpx import TransportError  # raised by Prefect's client

        unreachable = (TransportError,)

    def end(number: int, frame: FrameType | None) -> None:
        if server:
            raise KeyboardInterrupt
        warn(f"interrupted; {RESUMABLE}")
        _end_children()
        for lock in held():
            if lock.run_id:
                remove_unfinished(run_folder(out, lock.run_id))
            lock.release()
        os._exit(INTERRUPTED)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except unreachable as problem:
        raise AccessError(
            f"Prefect's server at {without_credentials(server)} no longer answers ({problem}): {RESUMABLE}, "
            "with or without that server"
        ) from problem
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_children() -> None:
    """End all child processes, by force after `_GRACE`."""
    processes = psutil.Process().children(recursive=True)
    for process in processes:
        process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=_GRACE)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive)
