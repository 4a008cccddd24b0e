"""Precision of a network's matrix products."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "bf16"]
"""Names of precisions; normalisation, softmax and sums are in single precision with both."""


def has_native_bf16() -> bool:
    """Whether the processor has instructions for bfloat16 products, and torch may use them.

    Other processors emulate bfloat16 in single precision, which is slower. ``ATEN_CPU_CAPABILITY`` and
    ``ONEDNN_MAX_CPU_ISA`` can keep torch from using the instructions. On Linux the kernel's list of the
    processor's instructions is read, so that a process that plans a run need not import torch.
    """
    allowed = os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper()
    return (
        _has_instructions()
        and os.environ.get("ATEN_CPU_CAPABILITY", "").lower() not in ("default", "avx2")
        and (allowed in ("ALL", "DEFAULT") or allowed.startswith(_WITH_BF16))
    )


def _has_instructions() -> bool:
    try:
        flags = _CPUINFO.read_text()
    except OSError:
        import torch  # seconds, where the kernel has no such list

        flags = " ".join(name for name, there in torch.cpu.get_capabilities().items() if there is True)
    return "avx512_bf16" in flags or "amx_bf16" in flags


def fastest_precision(device: str = "cpu") -> Precision:
    """Precision in which the device computes fastest: bf16, but on processors that emulate it."""
    return "bf16" if device.startswith("cuda") or has_native_bf16() else "fp32"


def fastest_autocast(device: str = "cpu") -> torch.autocast:
    """Context in which a network on a device, such as one in training, computes in `fastest_precision`."""
    import torch

    kind = torch.device(device).type
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=fastest_precision(kind) == "bf16")


_CPUINFO = Path("/proc/cpuinfo")

_WITH_BF16 = ("AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX512_CORE_AMX", "AVX10")
"""Prefixes of oneDNN's names of instruction sets with bfloat16 products."""
