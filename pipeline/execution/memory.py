"""Memory of the processes that run a network."""

from __future__ import annotations

import ctypes
import platform


def keep_freed_memory() -> None:
    """Ask glibc to keep freed memory for the next batch instead of returning it to the kernel.

    Each batch needs the same arrays again, and the kernel clears every page that it hands out: that took
    up to half of the network's time. Other C libraries are left as they are.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, _KEEP)
    libc.mallopt(_M_TRIM_THRESHOLD, _KEEP)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt, from <malloc.h>."""

_KEEP = 1 << 30
"""Largest kept block, and largest kept free memory in all [bytes]."""
