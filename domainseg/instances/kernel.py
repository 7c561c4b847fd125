"""The one way a function of this folder is compiled: cached on disk, without the GIL.

Kernels are serial; threads come from running them on several tiles at a time. So
there is one compiled version of each whatever the number of cores, no threading
layer that a forked loader could break, and nothing to agree on with the caller.

The cache on disk notices a change of the file that holds a kernel, not of the
files it takes constants or other kernels from. After such a change during
development delete ``domainseg/instances/__pycache__``; an installation writes
every file anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(function: Function) -> Function:
    """Return ``function`` compiled by numba on its first call, cached, releasing the GIL."""
    return cast(Function, numba.njit(cache=True, nogil=True)(function))
