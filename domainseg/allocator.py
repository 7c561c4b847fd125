"""How the C library hands out memory for tensors."""

from __future__ import annotations

import ctypes
import sys

_MMAP_MAX, _TRIM_THRESHOLD, _TOP_PAD = -4, -1, -2
"""Parameters of glibc's mallopt (malloc.h)."""
_NEVER = (1 << 31) - 1
_STEP = 1 << 26
_MAPPED = 8
"""Blocks that may be mapped at a time. A prediction of 8192 x 8192 px, windows of 2432 px: 3.1 GB
at most as glibc is, 3.9 with 8, 4.9 with none, and half the time in the network with either."""


def keep_freed_memory() -> bool:
    """Have freed memory kept by the process, for the next tensor; tell whether that is so.

    Without it glibc maps every large tensor anew and gives it back when it is freed: the
    system clears each page again, which takes as long as a network on a processor computes.
    A few blocks may still be mapped: with none, what lives long stands between what comes and
    goes, and the process grows. glibc only; done once or many times, it is the same.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_MMAP_MAX, _MAPPED), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _STEP))
    taken = [mallopt(name, value) == 1 for name, value in settings]
    return all(taken)
