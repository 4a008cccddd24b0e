"""Precision of a network's matrix products."""

from __future__ import annotations

import os
from typing import Literal

import torch

Precision = Literal["fp32", "bf16"]
"""Names of precisions; normalisation, softmax and sums are in single precision with both."""


def has_native_bf16() -> bool:
    """Whether the processor has instructions for bfloat16 products, and torch may use them.

    Other processors emulate bfloat16 in single precision, which is slower. ``ATEN_CPU_CAPABILITY`` and
    ``ONEDNN_MAX_CPU_ISA`` can keep torch from using the instructions.
    """
    can = torch.cpu.get_capabilities()
    allowed = os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper()
    return (
        bool(can.get("avx512_bf16") or can.get("amx_bf16"))
        and torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "AVX2")
        and (allowed in ("ALL", "DEFAULT") or allowed.startswith(_WITH_BF16))
    )


def fastest_precision(device: str = "cpu") -> Precision:
    """Precision in which the device computes fastest: bf16, but on processors that emulate it."""
    return "bf16" if device.startswith("cuda") or has_native_bf16() else "fp32"


def fastest_autocast(device: str = "cpu") -> torch.autocast:
    """Context in which a network on a device, such as one in training, computes in `fastest_precision`."""
    kind = torch.device(device).type
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=fastest_precision(kind) == "bf16")


_WITH_BF16 = ("AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX512_CORE_AMX", "AVX10")
"""Prefixes of oneDNN's names of instruction sets with bfloat16 products."""
