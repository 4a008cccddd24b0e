"""What the machine can do at most: matrix products, copies in memory, reading and writing of files."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from torch.nn import functional as F

from ojala.models.serving.precision import Precision, has_native_bf16

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""Torch's types by the names of precisions."""


def precisions() -> tuple[Precision, ...]:
    """The precisions that this processor has instructions for: what it would emulate is not measured."""
    return ("fp32", "bf16") if has_native_bf16() else ("fp32",)


Shape = tuple[int, int, int]
"""Rows, inner dimension and columns of a matrix product."""

SQUARES: tuple[int, ...] = (512, 1024, 2048)
"""Sizes of the square matrices whose product is tried; the best of them is the machine's rate."""

COPY_BYTES = 256 << 20
"""Size of the array that is copied: more than any cache holds."""


@dataclass(frozen=True, slots=True)
class Device:
    """What was measured on.

    Attributes
    ----------
    processor : str
        Name of its model.
    cores : int
        Cores that this process may use.
    memory : int
        Main memory [bytes].
    bf16 : bool
        Whether the processor multiplies bfloat16 by instructions of its own.
    system, python, torch : str
        Operating system and versions.
    load : float
        How many processes wanted to run on average in the minute before: beyond 0, others were at work, and
        the figures are those of what they left.
    date : str
        When, UTC.
    """

    processor: str
    cores: int
    memory: int
    bf16: bool
    system: str
    python: str
    torch: str
    load: float
    date: str


def this_device() -> Device:
    """The machine as it is now."""
    return Device(
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory=psutil.virtual_memory().total,
        bf16=has_native_bf16(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        torch=torch.__version__,
        load=os.getloadavg()[0],
        date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def repeat(act: Callable[[], object], seconds: float) -> tuple[int, float]:
    """Call it for so long, at least once after a first time; how often that was, and the time it took."""
    act()
    calls, begin = 0, time.perf_counter()
    while True:
        act()
        calls += 1
        taken = time.perf_counter() - begin
        if taken >= seconds:
            return calls, taken


def multiply(shapes: dict[Shape, int], precision: Precision, seconds: float) -> tuple[float, float]:
    """Matrix products, each shape as often as said: floating-point operations, and the seconds they took."""
    dtype = DTYPES[precision]
    factors = {(m, k, n): (torch.randn(m, k).to(dtype), torch.randn(n, k).to(dtype)) for m, k, n in shapes}
    with torch.inference_mode():

        def once() -> None:
            for shape, times in shapes.items():
                for _ in range(times):
                    F.linear(*factors[shape])

        calls, taken = repeat(once, seconds)
    return calls * flops_of(shapes), taken


def flops_of(shapes: dict[Shape, int]) -> float:
    """Floating-point operations of matrix products, each as often as said."""
    return float(sum(2 * m * k * n * times for (m, k, n), times in shapes.items()))


def copy(size: int, seconds: float) -> tuple[float, float]:
    """Copies of an array of so many bytes: bytes that were read or written, and the seconds they took."""
    source = np.ones(size, np.uint8)
    target = np.empty_like(source)
    calls, taken = repeat(lambda: np.copyto(target, source), seconds)
    return 2.0 * size * calls, taken


def write_and_read(folder: Path, size: int) -> tuple[float, float]:
    """Rates of writing a file down to the disk and of reading it from there [bytes/s].

    What the operating system keeps of it in memory is given up before it is read, where the system can.
    """
    content = np.random.default_rng(1).bytes(size)
    path = folder / "disk"
    begin = time.perf_counter()
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    written = time.perf_counter()
    with path.open("rb") as file:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        reading = time.perf_counter()
        while file.read(1 << 20):
            pass
    read = time.perf_counter()
    path.unlink()
    return size / (written - begin), size / (read - reading)
