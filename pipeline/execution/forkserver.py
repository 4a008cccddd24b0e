"""Process from which the workers of this machine are forked.

It makes the imports of a worker once for all of them, on another core while this process plans, and a worker
that takes the place of a lost one is there at once.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import threading
from contextlib import suppress
from multiprocessing import forkserver

PRELOADED = "ojala.pipeline.execution.preloaded"
"""Module with the imports of every worker."""

NETWORK = "torch"
"""Module that workers of a model with a network import, too."""


def start_forkserver(*, network: bool = False) -> None:
    """Start the process without waiting for its imports; one that runs already is kept as it is.

    Its workers ignore Ctrl-C, which a terminal sends to all: this process ends them, and each would print a
    traceback of its own otherwise. Outside of the main thread nothing is done; the first worker starts it.

    Parameters
    ----------
    network : bool
        Whether the workers will have a model with a network.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOADED, *([NETWORK] if network else [])])
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with suppress(OSError, MemoryError):  # raised again where the first worker starts it
            forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, before)
    atexit.unregister(_stop)
    atexit.register(_stop)


def _stop() -> None:
    """End the process; by itself it would notice the end of this one only after its imports."""
    server = forkserver._forkserver
    if (pid := server._forkserver_pid) is not None:  # type: ignore[attr-defined]  # private
        with suppress(ProcessLookupError, ChildProcessError):  # it has ended
            os.kill(pid, signal.SIGTERM)
            server._stop()  # type: ignore[attr-defined]  # private
