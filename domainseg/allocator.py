"""How the C library hands out memory for tensors."""

from __future__ import annotations

import ctypes
import sys

_MMAP_MAX, _TRIM_THRESHOLD, _TOP_PAD, _ARENA_MAX = -4, -1, -2, -8
"""Parameters of glibc's mallopt (malloc.h)."""
_NEVER = (1 << 31) - 1
_STEP = 1 << 26
_MAPPED = 0
"""Blocks that may be mapped at a time. With a few, tensors are mapped again and again where other
arrays come and go between them: 1.39 s a window of 2368 px, 1.21 with none."""
_ARENAS = 1
"""Heaps that threads share, so that what the network let go of is there for those that read,
decode and measure. Threads that have a heap of their own already keep it: a prediction of
8192 x 8192 px took 2.9 to 3.7 GB where this was set before anything was imported, 3.6 to 4.3 as
it is set here, 3.9 to 4.2 without."""


def keep_freed_memory() -> bool:
    """Have freed memory kept by the process, for the next tensor; tell whether that is so.

    Without it glibc maps every large tensor anew and gives it back when it is freed: the
    system clears each page again, which takes as long as a network on a processor computes.
    glibc only; done once or many times, it is the same.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = (
        (_MMAP_MAX, _MAPPED),
        (_TRIM_THRESHOLD, _NEVER),
        (_TOP_PAD, _STEP),
        (_ARENA_MAX, _ARENAS),
    )
    taken = [mallopt(name, value) == 1 for name, value in settings]
    return all(taken)
