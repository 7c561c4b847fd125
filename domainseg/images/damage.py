"""All damage of an image, found before anything is computed from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from domainseg.images.damage_log import PixelBox
from domainseg.images.image import Box, Image, Level
from domainseg.images.sweep import sweep

PIECE_BYTES = 1 << 24
"""Most pixels read at a time, a thread; one segment where that is larger."""


def find_damaged(
    image: Image, *, levels: Sequence[int] | None = None, threads: int = 1
) -> tuple[PixelBox, ...]:
    """Return every part of ``image`` that cannot be read, whether it skips damage or not.

    Half-open ``((y0, x0), (y1, x1))`` in pixels of the full resolution, sorted, each once. A
    damaged tile of a coarser level gives the pixels under it. Every segment (tile, strip,
    chunk) is read once, in memory of PIECE_BYTES a thread, so it costs what decoding the image
    costs. An image that skips damage has all boxes in ``image.damaged`` afterwards.

    Args:
        image: an opened image.
        levels: the resolution levels to read, all by default.
        threads: how many decode at the same time.

    Raises:
        InputError: when it cannot be read at all: PNG, JPEG, BMP and npy have no parts
            to leave out, and a file or server may be gone.
    """
    with image.reopened(skip_damaged=True) as copy:
        chosen = copy.levels if levels is None else [copy.level(i) for i in levels]
        with ThreadPoolExecutor(threads) as pool:
            for level in chosen:
                # Not through Level: pixels that are not finite are no damage of a tile.
                for _ in pool.map(partial(_touch, level), _pieces(level)):
                    pass
        found = copy.damaged
    image.remember_damaged(found)
    return found


def _touch(level: Level, box: Box) -> None:
    level.reader.read(level.index, box)


def _pieces(level: Level) -> Iterator[Box]:
    """Yield boxes of whole segments that cover the level, each segment in one of them."""
    channels, height, width = level.shape
    most_px = PIECE_BYTES // (channels * level.dtype.itemsize)
    for rows, columns in sweep((height, width), level.segment, most_px=most_px):
        yield slice(0, channels), rows, columns
