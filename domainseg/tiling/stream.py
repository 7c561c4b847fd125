"""The forward pass into a map store: reading, network and writing at the same time.

One thread reads windows ahead (several for a GPU), the caller's thread runs the network, one
quantises and writes. Queues are bounded, so memory is that of a few windows whatever the
image. Tiles that are done are not run again; a batch is always made of the same tiles, so
that a pass that was interrupted leaves the same bits.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from domainseg.instances.tile_graph import Box
from domainseg.records import Plane, Tile
from domainseg.tiling.forward import MapMaker, MapTensors, maps_of_core, stack_windows
from domainseg.tiling.grid import Lattice, tiles
from domainseg.tiling.store import MapStore, blank

Item = TypeVar("Item")
Result = TypeVar("Result")


class Mask(Protocol):
    """Where an image is inspected, on the model grid."""

    def __call__(self, box: Box, /) -> NDArray[np.bool_]:
        """Return bool ``(h, w)`` of a half-open box."""
        ...


@dataclass(frozen=True, slots=True)
class Spent:
    """Where the time of a forward pass went.

    Attributes:
        seconds: from the first window to the last map on disk.
        network_s: of that inside the network.
        windows: windows that the network was given.
        skipped: tiles that hold nothing to inspect.
        kept: tiles that were done before.
    """

    seconds: float
    network_s: float
    windows: int
    skipped: int
    kept: int


Tell = Callable[[int, int], None]
"""Called with tiles done and tiles in all."""


def stream_maps(
    make_maps: MapMaker,
    plane: Plane,
    store: MapStore,
    lattice: Lattice,
    *,
    mask: Mask | None = None,
    queue: int = 2,
    readers: int = 1,
    tell: Tell = lambda _done, _total: None,
) -> Spent:
    """Fill the store with the maps of a plane ``(C, H, W)``; tiles that are there stay.

    The plane is float32 in [0, 1], or what ``make_maps.intensity`` speaks of.

    Outside ``mask`` the maps are background of class UNSEEN; a tile whose core holds no pixel
    of it is not run. ``queue`` is how many batches are read ahead, by so many ``readers``,
    and how many tiles wait to be written; no result depends on either.

    Raises:
        InputError: a region of the plane cannot be read.
        OutputError: the store cannot be written.
    """
    begun = time.monotonic()
    grid = tiles((plane.shape[1], plane.shape[2]), lattice)
    kept = sum(store.has(tile) for tile in grid)
    groups = [grid[i : i + lattice.batch] for i in range(0, len(grid), lattice.batch)]
    todo = [group for group in groups if not all(store.has(tile) for tile in group)]
    done, skipped, windows = kept, 0, 0
    clock = _Clock(make_maps.device)
    tell(done, len(grid))

    def read(group: Sequence[Tile]) -> tuple[Sequence[Tile], NDArray[Any] | None]:
        if mask is not None and not any(mask(tile.core).any() for tile in group):
            return group, None
        return group, stack_windows(plane, group, lattice)

    def write(tile: Tile, made: MapTensors | None, at: int) -> None:
        maps = blank(tile, store.layers) if made is None else maps_of_core(made, tile, at)
        store.write(tile, maps if mask is None else maps.within(mask(tile.core)))

    with ThreadPoolExecutor(readers) as reading, ThreadPoolExecutor(1) as writer:
        writing: deque[Future[None]] = deque()
        for group, stack in in_order(reading, read, todo, ahead=queue):
            made: MapTensors | None = None
            if stack is None:
                skipped += len(group)
            else:
                with clock.running():
                    made = make_maps(stack)
                windows += len(stack)
            for at, tile in enumerate(group):
                if store.has(tile):
                    continue
                while len(writing) > queue:
                    writing.popleft().result()
                writing.append(writer.submit(write, tile, made, at))
                done += 1
            tell(done, len(grid))
        for future in writing:
            future.result()
    return Spent(time.monotonic() - begun, clock.seconds(), windows, skipped, kept)


@dataclass(frozen=True, slots=True)
class _Clock:
    """The time a device spends in blocks of work that a GPU may finish after they end."""

    device: torch.device
    _spans: list[float] = field(default_factory=list)
    _events: list[tuple[Any, Any]] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what the block starts on the device."""
        if self.device.type == "cuda":
            event: Any = torch.cuda.Event
            first, last = event(enable_timing=True), event(enable_timing=True)
            first.record()
            yield
            last.record()
            self._events.append((first, last))
            return
        begun = time.monotonic()
        yield
        self._spans.append(time.monotonic() - begun)

    def seconds(self) -> float:
        """Return the time so far; it waits for the device."""
        if self._events:
            self._events[-1][1].synchronize()
        on_gpu_ms = sum(float(first.elapsed_time(last)) for first, last in self._events)
        return sum(self._spans) + on_gpu_ms / 1000


def in_order(
    pool: Executor, work: Callable[[Item], Result], items: Iterable[Item], *, ahead: int
) -> Iterator[Result]:
    """Yield ``work(item)`` of each item in their order, computed up to ``ahead`` items early."""
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
