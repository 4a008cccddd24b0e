"""In which arithmetic a network runs where nobody said."""

from __future__ import annotations

import os
from typing import Literal

import torch

Precision = Literal["fp32", "bf16"]
"""Of a network's matrix products; everything else is in single precision."""


def multiplies_bf16() -> bool:
    """Whether this machine's processor multiplies bfloat16 by instructions of its own.

    Others can do it too, by way of single precision, and are slower for it. So are those whose instructions
    torch is told not to use, by ``ATEN_CPU_CAPABILITY`` or ``ONEDNN_MAX_CPU_ISA``.
    """
    can = torch.cpu.get_capabilities()
    allowed = os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper()
    return (
        bool(can.get("avx512_bf16") or can.get("amx_bf16"))
        and torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "AVX2")
        and (allowed in ("ALL", "DEFAULT") or allowed.startswith(_WITH_BF16))
    )


_WITH_BF16 = ("AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX512_CORE_AMX", "AVX10")
"""Beginnings of oneDNN's names of instruction sets that multiply bfloat16."""
