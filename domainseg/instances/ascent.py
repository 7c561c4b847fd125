"""Steepest ascent: every foreground pixel points at the first of its neighbourhood.

A way is a step as one number, ``3 * (dy + 1) + dx + 1``, so that 4 stays and
larger ways lead to larger pixel indices. Ways from pixel to pixel end at a
peak or leave the tile; the pixels of a tile that share an end are a basin of it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domainseg.instances.kernel import kernel
from domainseg.instances.plateaus import Kinds, Ranks

STAY = 4
"""The way of a peak."""
NOWHERE = 9
"""The way of a background pixel."""
LEAVES = 16
"""Added to a way that leads out of the tile."""
INDEX_BITS = 40
"""Bits of a pixel's index in the whole image: 2**40 pixels can be told apart."""

Ways = NDArray[np.uint8]


@kernel
def climb(ranks: Ranks, kinds: Kinds, y0: int, x0: int, ways: Ways) -> None:
    """Write the way of every pixel of a tile into ``ways``, uint8 ``(h, w)``.

    ``(y0, x0)`` is the place of the tile's first pixel in the framed ``ranks``.
    Of neighbours of one rank the one of the largest index is first.
    """
    rows, columns = ways.shape
    left, right = x0 - 1, x0 + columns + 1
    for y in range(rows):
        above, below = y0 + y - 1, y0 + y + 1
        _climb_row(
            ranks[above, left:right],
            ranks[above + 1, left:right],
            ranks[below, left:right],
            kinds[above, left:right],
            kinds[above + 1, left:right],
            kinds[below, left:right],
            ways[y],
        )
    for y in range(rows):
        inner = 0 < y < rows - 1
        for x in range(0, columns, columns - 1 if inner and columns > 1 else 1):
            step = ways[y, x]
            out_y = y + step // 3 - 1
            out_x = x + step % 3 - 1
            if step != NOWHERE and not (0 <= out_y < rows and 0 <= out_x < columns):
                ways[y, x] = step + LEAVES


@kernel
def _climb_row(
    above: NDArray[np.uint32],
    row: NDArray[np.uint32],
    below: NDArray[np.uint32],
    upper: NDArray[np.uint8],
    middle: NDArray[np.uint8],
    lower: NDArray[np.uint8],
    ways: Ways,
) -> None:
    """Write the ways of one row; the inputs have one more pixel at either end.

    The way is packed below the rank: one maximum finds both, without a branch.
    """
    none = np.uint32(0)
    for x in range(ways.size):
        rank, kind = row[x + 1], middle[x + 1]
        best = np.uint32((rank << 4) | 4)
        best = max(best, np.uint32(above[x] << 4) if upper[x] == kind else none)
        best = max(best, np.uint32(above[x + 1] << 4 | 1) if upper[x + 1] == kind else none)
        best = max(best, np.uint32(above[x + 2] << 4 | 2) if upper[x + 2] == kind else none)
        best = max(best, np.uint32(row[x] << 4 | 3) if middle[x] == kind else none)
        best = max(best, np.uint32(row[x + 2] << 4 | 5) if middle[x + 2] == kind else none)
        best = max(best, np.uint32(below[x] << 4 | 6) if lower[x] == kind else none)
        best = max(best, np.uint32(below[x + 1] << 4 | 7) if lower[x + 1] == kind else none)
        best = max(best, np.uint32(below[x + 2] << 4 | 8) if lower[x + 2] == kind else none)
        ways[x] = np.uint8(best & 15) if rank > none else np.uint8(NOWHERE)


@kernel
def label_basins(ways: Ways, labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """Write basins 1..n into ``labels`` and return the end of each, int64 ``(n,)``.

    An end is the flattened index in the tile of a peak, or of the pixel whose
    way leaves. ``labels`` is int32 ``(h, w)``, 0 where it is not yet written.
    """
    way, label = ways.ravel(), labels.ravel()
    columns = ways.shape[1]
    steps = np.array(
        [-columns - 1, -columns, -columns + 1, -1, 0, 1, columns - 1, columns, columns + 1]
    )
    ends = np.empty(np.count_nonzero((way == STAY) | ((way & LEAVES) > 0)), np.int64)
    count = 0
    for pixel in range(way.size):
        if way[pixel] == NOWHERE or label[pixel]:
            continue
        place = pixel
        while not (label[place] or way[place] == STAY or way[place] >= LEAVES):
            place += steps[way[place]]
        if not label[place]:
            ends[count] = place
            count += 1
            label[place] = count
        basin = label[place]
        place = pixel
        while not label[place]:
            label[place] = basin
            place += steps[way[place]]
    return ends


@kernel
def peak_keys(
    ends: NDArray[np.int64], ranks: Ranks, y0: int, x0: int, columns: int, first: int, width: int
) -> NDArray[np.int64]:
    """Return the place in the order of the image of each end: int64 ``rank << 40 | index``.

    The tile is ``columns`` wide, its first pixel stands at ``(y0, x0)`` of
    ``ranks`` and has index ``first`` in the image, which is ``width`` wide.
    """
    keys = np.empty(ends.size, np.int64)
    for i in range(ends.size):
        y, x = ends[i] // columns, ends[i] % columns
        rank = np.int64(ranks[y0 + y, x0 + x])
        keys[i] = rank << INDEX_BITS | (first + y * width + x)
    return keys
