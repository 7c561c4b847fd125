"""Memory that tensors give back is used again."""

from __future__ import annotations

import subprocess
import sys

import pytest

CHILD = """
import resource, sys
import numpy as np
from domainseg.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
    assert keep_freed_memory()
held = [np.empty(1 << 26, np.uint8) for _ in range(10)]
for _ in range(3):
    np.ones(1 << 26, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(1 << 26, np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    told = subprocess.run(
        [sys.executable, "-c", CHILD, how], check=True, capture_output=True, text=True
    )
    return int(told.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_large_arrays_take_the_memory_of_those_before_them() -> None:
    assert faults("kept") < 200
    assert faults("as it is") > 200
