"""Ranks of pixels: height first, then how near a plateau's pixel is to higher ground.

The rank of a foreground pixel is ``(height + 1) << 5 | (16 - g)``, of background
0, so that ranks compare as ``(height, -g)`` do. ``g`` is the number of steps of
an 8-connected walk over pixels of the same height, and of the same kind, whose
last step reaches a strictly higher pixel of that kind; 16 where no such walk is
shorter. It shares a plateau between the slopes that rise from it by distance,
where the pixel index alone would hand all of it to one of them.

The kind of a pixel says what it connects to: only pixels of one kind are
neighbours. It is the class, or 0 everywhere where classes may connect.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domainseg.instances.kernel import kernel

STEPS = 16
"""Largest g: a pixel's rank depends on pixels at most this far away."""
MARGIN = STEPS + 1
"""Pixels around a tile that its ascent depends on: a neighbour, and that one's g."""
LOW_BITS = 5
"""Bits of ``16 - g`` in a rank; what is above them is the height plus one."""

Ranks = NDArray[np.uint32]
Kinds = NDArray[np.uint8]


def rank_pixels(
    foreground: NDArray[np.uint8],
    height: NDArray[np.uint16],
    classes: NDArray[np.uint8],
    *,
    quantum: int,
    bridged: bool,
    box: tuple[tuple[int, int], tuple[int, int]],
) -> tuple[Ranks, Kinds]:
    """Return rank and kind of the pixels of ``box``, uint32 and uint8 ``(h + 2, w + 2)``.

    Both have a frame of one pixel of background, so that every pixel has eight
    neighbours. What lies outside the box counts as background: a rank is that
    of the whole image where the box reaches 16 pixels further, or the border.

    Args:
        foreground: uint8 ``(H, W)``; pixels of at least ``quantum`` are foreground.
        height: uint16 ``(H, W)``.
        classes: uint8 ``(H, W)``.
        quantum: smallest foreground quantum, 0 to 256.
        bridged: whether pixels of different classes connect.
        box: ``((y0, x0), (y1, x1))`` half-open, inside the arrays.
    """
    (y0, x0), (y1, x1) = box
    ranks = np.zeros((y1 - y0 + 2, x1 - x0 + 2), np.uint32)
    kinds = np.zeros(ranks.shape, np.uint8)
    rank_heights(foreground, height, quantum, y0, x0, ranks)
    if not bridged:
        kinds[1:-1, 1:-1] = classes[y0:y1, x0:x1]
    grade_plateaus(ranks, mark_plateaus(ranks, kinds), kinds)
    return ranks, kinds


@kernel
def rank_heights(
    foreground: NDArray[np.uint8],
    height: NDArray[np.uint16],
    quantum: int,
    y0: int,
    x0: int,
    ranks: Ranks,
) -> None:
    """Write the ranks of all pixels with ``g = 16``; ``(y0, x0)`` is the first one's place."""
    rows, columns = ranks.shape
    least = np.uint16(quantum)
    for y in range(rows - 2):
        # Slices, because an index that might be negative keeps the loop from SIMD.
        inside = foreground[y0 + y, x0 : x0 + columns - 2]
        above = height[y0 + y, x0 : x0 + columns - 2]
        out = ranks[y + 1, 1 : columns - 1]
        for x in range(columns - 2):
            level = np.uint32((np.uint32(above[x]) + 1) << LOW_BITS)
            out[x] = level if inside[x] >= least else np.uint32(0)


@kernel
def mark_plateaus(ranks: Ranks, kinds: Kinds) -> NDArray[np.int64]:
    """Write ``g = 1`` where it is and return the pixels left whose g is open.

    Those have an equal neighbour and no higher one; int64 indices of the
    flattened ``ranks``, in raster order.
    """
    rows, columns = ranks.shape
    inner = np.empty(1024, np.int64)
    count = 0
    state = np.zeros((columns + 7) // 8 * 8, np.uint8)
    eights = state.view(np.uint64)  # plateaus are rare: eight pixels are passed over at once
    for y in range(1, rows - 1):
        _states_of_row(ranks[y - 1], ranks[y], ranks[y + 1], kinds[y - 1 : y + 2], state)
        if count + columns > inner.size:
            grown = np.empty(2 * inner.size + columns, np.int64)
            grown[:count] = inner[:count]
            inner = grown
        row = ranks[y]
        for x in range(columns):
            row[x] |= np.uint32(state[x] & 15)
        for eight in range(eights.size):
            if eights[eight] & np.uint64(0x1010101010101010):
                for x in range(8 * eight, min(8 * eight + 8, columns)):
                    inner[count] = y * columns + x
                    count += state[x] >> 4
    return inner[:count]


@kernel
def _states_of_row(
    above: NDArray[np.uint32],
    row: NDArray[np.uint32],
    below: NDArray[np.uint32],
    kinds: Kinds,
    state: NDArray[np.uint8],
) -> None:
    """Write 15 where a neighbour is higher, 16 where one is equal and none higher, else 0.

    Low bits already set in ``above`` cannot change a comparison of heights:
    ``row`` and ``below`` have none yet, and ``rank | 31`` is below the next height.
    """
    upper, middle, lower = kinds[0], kinds[1], kinds[2]
    zero = np.uint32(0)
    for x in range(row.size - 2):
        rank, kind = row[x + 1], middle[x + 1]
        top = above[x] if upper[x] == kind else zero
        top = max(top, above[x + 1] if upper[x + 1] == kind else zero)
        top = max(top, above[x + 2] if upper[x + 2] == kind else zero)
        top = max(top, row[x] if middle[x] == kind else zero)
        top = max(top, row[x + 2] if middle[x + 2] == kind else zero)
        top = max(top, below[x] if lower[x] == kind else zero)
        top = max(top, below[x + 1] if lower[x + 1] == kind else zero)
        top = max(top, below[x + 2] if lower[x + 2] == kind else zero)
        level = np.uint8(16) if top >= rank else np.uint8(0)
        state[x + 1] = (np.uint8(15) if top > (rank | np.uint32(31)) else level) * (rank > zero)


@kernel
def grade_plateaus(ranks: Ranks, inner: NDArray[np.int64], kinds: Kinds) -> None:
    """Write ``g = 2 .. 15`` into the ranks of the pixels ``inner``, nearest first."""
    columns = ranks.shape[1]
    rank, kind = ranks.ravel(), kinds.ravel()
    steps = np.array(
        [-columns - 1, -columns, -columns + 1, -1, 1, columns - 1, columns, columns + 1]
    )
    queue = np.empty(inner.size, np.int64)
    end = 0
    for pixel in inner:
        for step in steps:
            other = pixel + step
            if rank[other] == rank[pixel] | 15 and kind[other] == kind[pixel]:
                rank[pixel] |= np.uint32(14)
                queue[end] = pixel
                end += 1
                break
    start = 0
    for low in range(13, 0, -1):
        stop = end
        for place in range(start, stop):
            pixel = queue[place]
            level = rank[pixel] & ~np.uint32(31)
            for step in steps:
                other = pixel + step
                if rank[other] == level and kind[other] == kind[pixel]:
                    rank[other] = level | np.uint32(low)
                    queue[end] = other
                    end += 1
        start = stop
