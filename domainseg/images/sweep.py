"""A whole plane in pieces: boxes of whole strips, tiles or chunks, each decoded once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import TypeVar

from domainseg.images.channels import ChannelView
from domainseg.images.image import Image, Level
from domainseg.records import Plane

Piece = TypeVar("Piece")
Total = TypeVar("Total")


def segment_of(plane: Plane) -> tuple[int, int]:
    """Return ``(h, w)`` of what is decoded at once behind a plane, one row where that is open."""
    while isinstance(plane, ChannelView):
        plane = plane.plane
    if isinstance(plane, Image):
        plane = plane.levels[0]
    return plane.segment if isinstance(plane, Level) else (1, int(plane.shape[2]))


def sweep(
    shape: tuple[int, int], segment: tuple[int, int], *, most_px: int
) -> Iterator[tuple[slice, slice]]:
    """Yield rows and columns of boxes that partition ``(H, W)``, each of whole segments.

    A box has ``most_px`` pixels at most, or is one segment. Boxes come in raster order and
    are as wide as they can be.
    """
    height, width = shape
    h, w = (max(1, min(part, side)) for part, side in zip(segment, shape, strict=True))
    affordable = max(1, most_px // (h * w))
    across = min(affordable, -(-width // w))
    down = max(1, affordable // across) * h
    across *= w
    for top, left in product(range(0, height, down), range(0, width, across)):
        yield (
            slice(top, min(top + down, height)),
            slice(left, min(left + across, width)),
        )


def gathered(
    pieces: Iterable[Piece],
    begin: Callable[[], Total],
    add: Callable[[Total, Piece], None],
    *,
    threads: int,
) -> list[Total]:
    """Return one total for each thread, into which it added the pieces that it took.

    A piece is taken by whichever thread is free, so a sum of the totals must not depend on
    who took what. The first error of a thread ends all of them.
    """
    rest, lock = iter(pieces), threading.Lock()
    failed = threading.Event()

    def work() -> Total:
        total = begin()
        while not failed.is_set():
            with lock:
                piece = next(rest, None)
            if piece is None:
                break
            try:
                add(total, piece)
            except BaseException:
                failed.set()
                raise
        return total

    if threads == 1:
        return [work()]
    with ThreadPoolExecutor(threads) as pool:
        return [future.result() for future in [pool.submit(work) for _ in range(threads)]]
