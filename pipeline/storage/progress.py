"""Progress of a command: its messages, a line at least every 30 seconds of waiting, and the log of a run."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from upath import UPath

from ojala.catalogs_schema.urls import redact
from ojala.pipeline.storage.files import is_local, write_whole

RUN_LOG = "run.log"
"""Log of a run, in its folder: messages, warnings and heartbeats of every start."""

INTERVAL = 30.0
"""Longest time without a message while a command is at work [s]."""

OBJECT_LOG_BYTES = 1 << 20
"""Most that is kept of a log on an object store, where each change writes all of it [bytes]."""

Listener = Callable[[str], None]

_log = logging.getLogger(__name__)
_listeners: list[Listener] = []


class _Clock:
    """State of the work, and the times of its begin and of the last message [s]."""

    state = ""
    since = 0.0
    last = 0.0


def report(text: str) -> None:
    """Report a step of the work; it is also its state until the next one."""
    state(text)
    _say(text)
    _log.info(text)


def state(text: str) -> None:
    """Set the state of the work, which is shown when nothing else is reported for `INTERVAL`."""
    if text != _Clock.state:
        _Clock.state, _Clock.since = text, time.monotonic()


def _say(text: str) -> None:
    _Clock.last = time.monotonic()
    for listener in _listeners:
        listener(text)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Pass all messages inside the block to a function."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


@contextmanager
def heartbeat(first: str) -> Iterator[None]:
    """Repeat the state of the work inside the block whenever `INTERVAL` passes without a message.

    Parameters
    ----------
    first : str
        State until one is reported.
    """
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(max(0.01, _Clock.last + INTERVAL - time.monotonic())):
            now = time.monotonic()
            if now - _Clock.last >= INTERVAL:
                _say(f"{_Clock.state} (for {now - _Clock.since:.0f} s)")

    state(first)
    _Clock.last = time.monotonic()
    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def log_to(path: UPath) -> Iterator[None]:
    """Append messages and warnings inside the block to a file, each line with its UTC time.

    An object of a store can only be written as a whole: it is at the first line, then at most every
    `INTERVAL`, and at the end, with its last `OBJECT_LOG_BYTES`. A file that cannot be written is left as it
    is: the log is no reason to stop.
    """
    log = _FileLog(path) if is_local(path) else _ObjectLog(path)
    handler = _Warnings(log.append)
    logger = logging.getLogger("ojala")
    logger.addHandler(handler)
    try:
        with listening(log.append):
            yield
    finally:
        logger.removeHandler(handler)
        log.flush()


class _FileLog:
    """A log on a disk."""

    def __init__(self, path: UPath) -> None:
        self._path = Path(path.path)

    def append(self, text: str) -> None:
        with suppress(OSError), self._path.open("a") as file:
            file.write(_line(text))

    def flush(self) -> None:
        """Every line is in the file."""


class _ObjectLog:
    """A log on an object store; `append` may be called by several threads."""

    def __init__(self, path: UPath) -> None:
        self._path = path
        self._content = b""
        self._is_written = True
        self._due = 0.0
        self._writing = threading.Lock()
        with suppress(Exception):  # stores' libraries have exceptions of their own
            self._content = path.read_bytes()

    def append(self, text: str) -> None:
        with self._writing:
            content = self._content + _line(text).encode()
            self._content = content[-OBJECT_LOG_BYTES:]
            self._is_written = False
        if time.monotonic() >= self._due:
            self.flush()

    def flush(self) -> None:
        with self._writing:
            if not self._is_written:
                self._due = time.monotonic() + INTERVAL
                self._is_written = True
                with suppress(Exception):
                    write_whole(self._path, self._content)


def _line(text: str) -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {redact(text)}\n"


class _Warnings(logging.Handler):
    """Passes warnings and errors of the program to a function."""

    def __init__(self, append: Listener) -> None:
        super().__init__(logging.WARNING)
        self._append = append

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a record on; called by `logging`."""
        self._append(f"{record.levelname.lower()}: {record.getMessage()}")
