"""The forward pass into a map store: reading, network and writing at the same time.

One thread reads windows ahead, the caller's thread runs the network, one writes. Queues are
bounded, so memory is that of a few windows whatever the image. Tiles that are done are not
run again; a batch is always made of the same tiles, so that a pass that was interrupted
leaves the same bits.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from domainseg.instances.tile_graph import Box
from domainseg.records import UNSEEN, Maps, Plane, Tile
from domainseg.tiling.forward import MapMaker, maps_of_cores, stack_windows
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
    tell: Tell = lambda _done, _total: None,
) -> Spent:
    """Fill the store with the maps of a float32 ``(C, H, W)`` plane; tiles that are there stay.

    Outside ``mask`` the maps are background of class UNSEEN; a tile whose core holds no pixel
    of it is not run. ``queue`` is how many batches are read ahead, and how many tiles wait
    to be written; no result depends on it.

    Raises:
        InputError: a region of the plane cannot be read.
        OutputError: the store cannot be written.
    """
    begun = time.monotonic()
    grid = tiles((plane.shape[1], plane.shape[2]), lattice)
    kept = sum(store.has(tile) for tile in grid)
    groups = [grid[i : i + lattice.batch] for i in range(0, len(grid), lattice.batch)]
    todo = [group for group in groups if not all(store.has(tile) for tile in group)]
    done, skipped, windows, network_s = kept, 0, 0, 0.0
    tell(done, len(grid))

    def read(group: Sequence[Tile]) -> tuple[Sequence[Tile], NDArray[np.float32] | None]:
        if mask is not None and not any(mask(tile.core).any() for tile in group):
            return group, None
        return group, stack_windows(plane, group, lattice)

    def write(tile: Tile, maps: Maps) -> None:
        store.write(tile, maps if mask is None else _masked(maps, mask(tile.core)))

    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        writing: deque[Future[None]] = deque()
        for group, stack in in_order(reader, read, todo, ahead=queue):
            if stack is None:
                made: Iterable[Maps] = (blank(tile, store.layers) for tile in group)
                skipped += len(group)
            else:
                since = time.monotonic()
                made = maps_of_cores(make_maps(stack), group)
                network_s += time.monotonic() - since
                windows += len(stack)
            for tile, maps in zip(group, made, strict=True):
                if store.has(tile):
                    continue
                while len(writing) > queue:
                    writing.popleft().result()
                writing.append(writer.submit(write, tile, maps))
                done += 1
            tell(done, len(grid))
        for future in writing:
            future.result()
    return Spent(time.monotonic() - begun, network_s, windows, skipped, kept)


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


def _masked(maps: Maps, inside: NDArray[np.bool_]) -> Maps:
    """Return the maps with background that nobody looked at outside."""
    classes = np.where(inside, maps.classes, np.uint8(UNSEEN))
    return Maps(maps.foreground * inside, maps.height * inside, classes)
