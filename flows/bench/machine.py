"""Limits of the machine: matrix products, copies in memory, reading and writing of files."""

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
    """List the precisions with native instructions on this processor."""
    return ("fp32", "bf16") if has_native_bf16() else ("fp32",)


Shape = tuple[int, int, int]
"""Rows, inner dimension and columns of a matrix product."""

SQUARES: tuple[int, ...] = (512, 1024, 2048)
"""Sizes of the square matrices of the timed products; the best rate counts."""

COPY_BYTES = 256 << 20
"""Size of the copied array [bytes], larger than the caches."""


@dataclass(frozen=True, slots=True)
class Device:
    """Machine of a benchmark.

    Attributes
    ----------
    processor : str
        Model of the processor.
    cores : int
        Cores that this process may use.
    memory : int
        Main memory [bytes].
    instructions : str
        Widest vector instructions that torch uses, such as AVX2.
    bf16 : bool
        Whether the processor has instructions for bfloat16 products.
    system, python, torch : str
        Operating system and versions.
    load : float
        Load average of the minute before; above 0, other processes take part of the machine.
    date : str
        Date and time, UTC.
    """

    processor: str
    cores: int
    memory: int
    instructions: str
    bf16: bool
    system: str
    python: str
    torch: str
    load: float
    date: str

    @property
    def kind(self) -> str:
        """Name of machines of this kind."""
        bf16 = "with bf16" if self.bf16 else "without bf16"
        return f"{self.processor} ({self.instructions}, {bf16}), {self.cores} cores"


def this_device() -> Device:
    """Describe this machine."""
    return Device(
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory=psutil.virtual_memory().total,
        instructions=torch.backends.cpu.get_cpu_capability(),
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
    """Call a function for ``seconds`` after a warm-up call; returns the number of calls and the time."""
    act()
    calls, begin = 0, time.perf_counter()
    while True:
        act()
        calls += 1
        taken = time.perf_counter() - begin
        if taken >= seconds:
            return calls, taken


def multiply(shapes: dict[Shape, int], precision: Precision, seconds: float) -> tuple[float, float]:
    """Time matrix products by shape and number: floating-point operations, and seconds."""
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
    """Count the floating-point operations of matrix products by shape and number."""
    return float(sum(2 * m * k * n * times for (m, k, n), times in shapes.items()))


def copy(size: int, seconds: float) -> tuple[float, float]:
    """Time copies of an array of ``size`` bytes: bytes read and written, and seconds."""
    source = np.ones(size, np.uint8)
    target = np.empty_like(source)
    calls, taken = repeat(lambda: np.copyto(target, source), seconds)
    return 2.0 * size * calls, taken


def write_and_read(folder: Path, size: int) -> tuple[float, float]:
    """Measure the rates of writing a file to the disk and of reading it [bytes/s].

    The page cache of the file is dropped before reading, where the system supports it.
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
