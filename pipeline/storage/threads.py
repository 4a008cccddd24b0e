"""Start of threads where memory is short."""

from __future__ import annotations

import threading

PATIENCE = 60.0
"""Time that a new thread has to run [s]; any machine gives a thread its first turn sooner."""

_SLICE = 1.0
"""Time of one of the waits that make up `PATIENCE` [s]: a process that was stopped meanwhile loses one."""

_start = threading.Thread.start


class _Started(threading.Event):
    """Event of a thread that runs; waiting for it has an end."""

    def wait(self, timeout: float | None = None) -> bool:
        if timeout is not None:
            return super().wait(timeout)
        if any(super(_Started, self).wait(_SLICE) for _ in range(round(PATIENCE / _SLICE))):
            return True
        raise MemoryError("a new thread died before it ran")


def start(thread: threading.Thread) -> None:
    """Start a thread.

    `threading.Thread.start` waits without end where the new thread gets no memory for its first frame
    (https://github.com/python/cpython/issues/140746, Python 3.11 and later).

    Raises
    ------
    MemoryError
        If the system gives no thread, or the thread has no memory to run.
    """
    if not thread._started.is_set():  # type: ignore[attr-defined]  # private
        thread._started = _Started()  # type: ignore[attr-defined]  # private
    try:
        _start(thread)
    except MemoryError:
        threading._limbo.pop(thread, None)  # type: ignore[attr-defined]  # private
        raise
    except RuntimeError as problem:
        if thread._started.is_set():  # type: ignore[attr-defined]  # private
            raise
        raise MemoryError(f"{problem}: the limit of memory or of threads is reached") from problem


def bound_all_starts() -> None:
    """Let all threads of this process start by `start`, those of libraries included."""
    threading.Thread.start = start  # type: ignore[method-assign, assignment]  # a function in place of the method
