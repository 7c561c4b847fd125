"""How a run is spread over queues, threads and blocks so that it stays within its memory.

Bytes that are counted, beside what the process and the network need:

====================  ==========================================================================
window read ahead     2 x 4 B per pixel and channel: float32, once as it is read and normalised,
                      once in the batch
window waiting        13 B per pixel and layer: what the network said (8) and the maps made of
                      it (5), before they are quantised
core being written    16 B more per pixel and layer: floats on their way to quanta (8), quanta
                      (4), and the two uint16 planes of the store (4)
block being decoded   60 B per pixel; measured: 14 to 18 on smooth heights with 30 to 76 % of
                      foreground, 56 on white noise, where every third pixel is a basin
strips between rows   64 B per column and layer: two rows of pixels with node, rank and class
of blocks             (15 B each), twice while they are joined
====================  ==========================================================================

All are added up although the decode follows the forward pass, because an allocator need not
give back what a pass has used. Objects are not counted: they take at most 200 B each.
No result depends on a plan; the lattice, on which it does, is never changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from domainseg.errors import UsageError, sentence
from domainseg.tiling.grid import Lattice

MB = 1_000_000
"""Bytes of a megabyte, here and in what users give."""
WINDOW_BYTES = 8
WAITING_BYTES = 13
WRITTEN_BYTES = 16
BLOCK_BYTES = 60
STRIP_BYTES = 64
UNASKED_MB = 2000
"""What a run takes beside the network where no limit was given, however many threads there are."""
QUEUES = (2, 1)
"""Batches read ahead and windows waiting to be written, most wanted first."""
GPU_QUEUES = (8, 4, 2, 1)
"""As QUEUES, for a network that takes a window faster than one thread reads the next."""
BLOCKS_PX = (2048, 1024, 512)
"""Sides of the blocks that are decoded, most wanted first."""


@dataclass(frozen=True, slots=True)
class WorkPlan:
    """How a run is spread.

    Attributes:
        queue: batches of windows read ahead, and cores that wait to be written.
        workers: threads that decode.
        block_px: side of the blocks they decode.
        memory_mb: what this takes, the network's need included, MB of 10**6 bytes.
    """

    queue: int
    workers: int
    block_px: int
    memory_mb: float


def plan_work(
    lattice: Lattice,
    *,
    layers: int,
    channels: int,
    shape: tuple[int, int],
    max_memory_mb: float | None,
    threads: int,
    network_mb: float = 0.0,
    queues: Sequence[int] = QUEUES,
) -> WorkPlan:
    """Return the widest plan within ``max_memory_mb``, or within UNASKED_MB beside the network.

    What is given up first costs least time: blocks become smaller, then fewer threads
    decode, then less is read ahead.

    Args:
        lattice: how the image is cut; it belongs to the model.
        layers: layers of the maps.
        channels: of the network's input.
        shape: ``(H, W)`` of the model grid.
        max_memory_mb: what the process may use, MB.
        threads: most threads that decode, 1 or more.
        network_mb: peak of the process with the network during its pass over one batch, MB,
            as `probe.probe_network` measures it.
        queues: most wanted first.

    Raises:
        UsageError: even the narrowest plan needs more; names the least that works.
        ValueError: a limit without ``network_mb``, which is most of the memory.
    """
    if max_memory_mb is not None and network_mb <= 0:
        raise ValueError("a limit of memory needs network_mb, measured by probe_network")
    workers = [threads >> halving for halving in range(threads.bit_length())]
    plans = [
        WorkPlan(queue, count, side, network_mb + need / MB)
        for queue in queues
        for count in workers
        for side in _sides(shape, count)
        for need in [_need(lattice, layers, channels, shape[1], queue, count * side**2)]
    ]
    limit = network_mb + UNASKED_MB if max_memory_mb is None else max_memory_mb
    for plan in plans:
        if plan.memory_mb <= limit:
            return plan
    if max_memory_mb is None:
        return plans[-1]
    least = min(plan.memory_mb for plan in plans)
    side = lattice.core_px + 2 * lattice.halo_px
    raise UsageError(
        sentence(
            "--max-memory",
            found=f"{max_memory_mb / 1000:.2f} GB",
            wanted=f"at least {math.ceil(least / 10) / 100:.2f} GB, of which the network needs "
            f"{network_mb / 1000:.2f} GB for {lattice.batch} x {side} x {side} px",
            fix="raise it, or set a smaller tiling.core_px",
        )
    )


def _sides(shape: tuple[int, int], workers: int) -> tuple[int, ...]:
    """Return the sides to choose from: of a small image only those with work for every thread."""
    enough = [
        side
        for side in BLOCKS_PX
        if math.ceil(shape[0] / side) * math.ceil(shape[1] / side) >= workers
    ]
    return BLOCKS_PX[BLOCKS_PX.index(enough[0]) :] if enough else BLOCKS_PX[-1:]


def _need(
    lattice: Lattice, layers: int, channels: int, width_px: int, queue: int, decoded_px: int
) -> int:
    """Return the bytes of a plan beside the network, after the table at the top."""
    window_px = (lattice.core_px + 2 * lattice.halo_px) ** 2
    core_px = lattice.core_px**2 * layers
    return (
        # One more of each than waits: the batch that is read, the window that is written.
        WINDOW_BYTES * channels * window_px * lattice.batch * (queue + 1)
        + WAITING_BYTES * window_px * layers * lattice.batch * (queue + 1)
        + WRITTEN_BYTES * core_px
        + BLOCK_BYTES * decoded_px
        + STRIP_BYTES * width_px * layers
    )
