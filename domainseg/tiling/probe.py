"""What a network takes on this machine: memory and time of its pass over one batch."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from domainseg.tiling.detecting import Detector
from domainseg.tiling.forward import MapMaker


@dataclass(frozen=True, slots=True)
class Probe:
    """What was measured.

    Attributes:
        peak_bytes: peak resident memory of this process so far, the pass included; None
            where the system does not tell.
        device_bytes: peak of what the network held on a GPU, 0 without one.
        window_s: seconds per window, 0 when none was timed.
    """

    peak_bytes: int | None
    device_bytes: int
    window_s: float


def probe_network(
    engine: MapMaker | Detector,
    window_px: tuple[int, int],
    *,
    channels: int,
    batch: int = 1,
    timed: int = 0,
) -> Probe:
    """Run one batch of windows ``(h, w)`` of noise, then ``timed`` more that are timed.

    The first pass is never timed: libraries choose and compile their kernels in it.
    """
    rng = np.random.default_rng(0)
    windows = rng.random((batch, channels, *window_px), np.float32)
    _pass(engine, windows)
    begun = time.perf_counter()
    for _ in range(timed):
        _pass(engine, windows)
    spent = time.perf_counter() - begun
    on_gpu = engine.device.type == "cuda"
    return Probe(
        peak_bytes=peak_resident_bytes(),
        device_bytes=int(torch.cuda.max_memory_allocated(engine.device)) if on_gpu else 0,
        window_s=spent / (timed * batch) if timed else 0.0,
    )


def peak_resident_bytes() -> int | None:
    """Return the most memory this process has had resident, None where nobody tells."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not getrusage: a child there starts with the peak of the process that began it.
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def _pass(
    engine: MapMaker | Detector, windows: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
) -> None:
    """Run one batch to the end: maps on a GPU are there once they have been fetched."""
    if isinstance(engine, Detector):
        engine(windows)
    else:
        engine(windows).foreground.cpu()
