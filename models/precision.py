"""In which arithmetic a network runs where nobody said."""

from __future__ import annotations

from typing import Literal

import torch

Precision = Literal["fp32", "bf16"]
"""Of a network's matrix products; everything else is in single precision."""


def multiplies_bf16() -> bool:
    """Whether this machine's processor multiplies bfloat16 by instructions of its own.

    Others can do it too, by way of single precision, and are slower for it.
    """
    can = torch.cpu.get_capabilities()
    return bool(can.get("avx512_bf16") or can.get("amx_bf16"))
