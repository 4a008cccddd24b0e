"""Progress of a command: messages, counts of its work, a line at least every 30 seconds, the log of a run."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from upath import UPath

from ojala.catalogs_schema.urls import redact
from ojala.pipeline.storage.files import is_local, write_whole
from ojala.pipeline.storage.threads import start

RUN_LOG = "run.log"
"""Log of a run, in its folder: messages, warnings and heartbeats of every start."""

INTERVAL = 30.0
"""Longest time without a message while a command is at work [s]."""

OBJECT_LOG_BYTES = 1 << 20
"""Most that is kept of a log on an object store, where each change writes all of it [bytes]."""

T = TypeVar("T")
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


@dataclass(slots=True)
class Meter:
    """Count of the work that is done, of all that there is.

    Attributes
    ----------
    noun : str
        What is counted, in the plural.
    total : float
        How much there is.
    done : float
        How much is done.
    note : str
        Further words, such as the rows so far.
    ended : bool
        Whether the work has ended.
    """

    noun: str
    total: float
    done: float = 0
    note: str = ""
    ended: bool = False
    _begun: float = field(default_factory=lambda: time.monotonic())
    _first: float = 0

    def advance(self, count: float = 1, note: str | None = None) -> None:
        """Count work as done."""
        self.set(self.done + count, note)

    def set(self, done: float, note: str | None = None) -> None:
        """Set how much is done."""
        self.done, self.note = done, self.note if note is None else note
        state(str(self))
        self._show()

    def resume(self, done: float) -> None:
        """Set how much was done at an earlier time, which says nothing about the rate."""
        self._first = done
        self.set(done)

    def _show(self) -> None:
        for display in _displays:
            display(self)

    def _end(self) -> None:
        self.ended = True
        self._show()

    def __str__(self) -> str:
        text = f"{self.done:,.0f} of {self.total:,.0f} {self.noun}" + (f", {self.note}" if self.note else "")
        fresh = self.done - self._first
        if not 0 < fresh < self.total - self._first:
            return text
        left = (time.monotonic() - self._begun) * (self.total - self.done) / fresh
        return (
            f"{text}, about {left / 60:,.0f} min left" if left > 100 else f"{text}, about {left:.0f} s left"
        )


Display = Callable[[Meter], None]
"""Shows a meter; called at each change, the last time when it has ended."""

_displays: list[Display] = []
_meters: list[Meter] = []


@contextmanager
def counting(noun: str, total: float) -> Iterator[Meter]:
    """Count work inside the block: a bar on a terminal, elsewhere the state of the command."""
    meter = Meter(noun, total)
    _meters.append(meter)
    meter.set(0)
    try:
        yield meter
    finally:
        _meters.remove(meter)
        meter._end()


def note(text: str) -> None:
    """Add words to what is counted at present, such as the rows of a large file that were read so far."""
    if _meters:
        _meters[-1].set(_meters[-1].done, text)


def counted(items: Iterable[T], noun: str, total: float | None = None) -> Iterator[T]:
    """Yield the items, and count each as done when the next one is asked for.

    Parameters
    ----------
    items : iterable
        The items; a collection unless their number is given.
    noun : str
        What they are, in the plural.
    total : float, optional
        Their number.
    """
    if total is None:
        items = list(items)
        total = len(items)
    with counting(noun, total) as meter:
        for item in items:
            yield item
            meter.advance()


@contextmanager
def displaying(display: Display) -> Iterator[None]:
    """Show all meters inside the block with a function."""
    _displays.append(display)
    try:
        yield
    finally:
        _displays.remove(display)


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
    start(thread)
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
