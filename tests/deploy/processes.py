"""Servers and workers as processes that end with the test."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import psutil

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]

T = TypeVar("T")


def free_port() -> int:
    """A port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running(command: list[object], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ended with all its children, by force if need be, when the block is left."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            [str(word) for word in command],
            env=os.environ | environment,
            stdout=file,
            stderr=file,
            cwd=ROOT,
        )
    try:
        yield process
    finally:
        if process.returncode is None:  # nobody has waited for it yet
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            process.terminate()
            _, alive = psutil.wait_procs(family, timeout=5)
            for one in alive:
                one.kill()
            process.wait(timeout=10)


def until(answer: Callable[[], T], what: str, *, seconds: float, log: Path, every: float = 0.2) -> T:
    """The first answer that is true; fails with the end of the log when the time is up."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := answer():
            return found
        time.sleep(every)
    raise AssertionError(f"{what}: not within {seconds} s\n{log.read_text()[-4000:]}")
