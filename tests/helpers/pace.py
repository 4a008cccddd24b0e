"""Time limits in proportion to what the machine does: a busy machine is slow, not red."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_VARIABLE = "OJALA_TEST_SLOWNESS"
_WORK = (
    "import numpy as np, pyarrow; a = np.ones((400, 400)); [a @ a for _ in range(40)]; sum(range(3_000_000))"
)
_USUAL = 0.45
"""Seconds that two processes, each doing that work, take side by side on two free cores (AMD Zen 3)."""


@cache
def slowness() -> float:
    """How many times longer than usual a fixed piece of work takes; at least 1.

    Measured once, when the tests start; processes of the tests inherit it.
    """
    if _VARIABLE not in os.environ:
        begin = time.perf_counter()
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        both = [subprocess.Popen([sys.executable, "-c", _WORK], env=environment) for _ in range(2)]
        for process in both:
            process.wait()
        os.environ[_VARIABLE] = str(max(1.0, (time.perf_counter() - begin) / _USUAL))
    return float(os.environ[_VARIABLE])


def scaled(seconds: float) -> float:
    """A time limit for this machine, from one that is generous on a free one."""
    return seconds * slowness()


def until(
    condition: Callable[[], T],
    what: str = "it",
    *,
    seconds: float = 300.0,
    every: float = 0.02,
    log: Path | None = None,
) -> T:
    """The first result of the condition that is true; fails with the end of the log when time is up."""
    deadline = time.monotonic() + scaled(seconds)
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(
                f"{what}: not within {scaled(seconds):.0f} s\n{log.read_text()[-4000:] if log else ''}"
            )
        time.sleep(every)
    return found
