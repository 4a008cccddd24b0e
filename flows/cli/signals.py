"""What ends a run from outside: Ctrl-C, which takes all processes along, or the loss of Prefect's server."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import psutil
from upath import UPath

from ojala.flows.cli.output import INTERRUPTED, RUN_INTERRUPTED, warn
from ojala.pipeline.runs.record import run_folder
from ojala.pipeline.storage.files import remove_unfinished
from ojala.pipeline.storage.lock import held

_PATIENCE = 5.0
"""Seconds that processes get to end by themselves."""


@contextmanager
def interruptible(out: UPath) -> Iterator[None]:
    """End the process with exit code 130 on Ctrl-C or SIGTERM inside the block.

    When all processes are gone, what they had half-written in the run under work is removed and its lock is
    given back.

    The terminal's Ctrl-C also reaches Prefect's embedded server, and a flow whose server is gone waits for
    it; so the flow is not asked. With a server of its own (``PREFECT_API_URL``) it is: the run's end is
    recorded there.

    Raises
    ------
    ConnectionError
        If Prefect's server does not answer any more; says what to do.
    """
    import httpx  # what Prefect's client raises

    def end(number: int, frame: FrameType | None) -> None:
        if os.environ.get("PREFECT_API_URL"):
            raise KeyboardInterrupt
        warn(f"interrupted; {RUN_INTERRUPTED}")
        _end_children()
        for lock in held():
            if lock.run_id:
                remove_unfinished(run_folder(out, lock.run_id))
            lock.release()
        os._exit(INTERRUPTED)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except httpx.TransportError as problem:
        server = os.environ.get("PREFECT_API_URL", "an address of this machine")
        raise ConnectionError(
            f"Prefect's server at {server} does not answer any more ({problem}): {RUN_INTERRUPTED}, with or "
            "without that server"
        ) from problem
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_children() -> None:
    """End all processes that this one started, by force if they do not listen."""
    processes = psutil.Process().children(recursive=True)
    for process in processes:
        process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=_PATIENCE)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive)
