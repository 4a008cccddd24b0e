"""Servers and workers as processes that end with the test."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.helpers.pace import scaled

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]


def compose() -> dict[str, Any]:
    """The services of the compose file."""
    services: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    return services


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
            _, alive = psutil.wait_procs(family, timeout=scaled(5))
            for one in alive:
                one.kill()
            process.wait(timeout=scaled(10))
