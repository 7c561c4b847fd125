"""Saddles: the edges between neighbouring pixels of different basins, as one number each.

The key of an edge is ``level << 44 | index << 4 | way``: the height plus one and
the index in the image of ``lo``, the one of its two pixels that is later in the
order, and the way from there to ``hi``. Keys compare as ``(height(lo),
index(lo), index(hi))`` do, no two edges share one, and the edge can be read back
from it. A bond, an edge that joins its basins whatever their heights, has one
more bit and so precedes every saddle.

Edges are int64 ``(M, 3)``: the two nodes, the smaller first, and the key.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domainseg.instances.kernel import kernel
from domainseg.instances.plateaus import LOW_BITS, Kinds, Ranks

WAY_BITS = 4
LEVEL_SHIFT = 44
"""Where the height plus one begins in the key of an edge."""
PEAK_SHIFT = 40 + LOW_BITS
"""Where it begins in the key of a peak."""
BOND = 1 << 62
"""Set in the key of an edge that always joins."""
RECENT = 1024
"""Pairs of nodes remembered while edges are listed; a power of two."""

Edges = NDArray[np.int64]


@kernel
def edge_key(rank: int, other: int, index: int, way: int, width: int) -> int:
    """Return the key of the edge from a pixel along ``way`` to its neighbour.

    ``rank`` and ``index`` are the pixel's, ``other`` is the neighbour's rank;
    the image is ``width`` wide.
    """
    if rank < other or (rank == other and way > 4):
        return rank >> LOW_BITS << LEVEL_SHIFT | index << WAY_BITS | way
    there = index + (way // 3 - 1) * width + way % 3 - 1
    return other >> LOW_BITS << LEVEL_SHIFT | there << WAY_BITS | (8 - way)


@kernel
def list_edge(
    edges: Edges, count: int, recent: NDArray[np.int64], one: int, two: int, key: int
) -> tuple[Edges, int]:
    """Return the edges, and how many of the rows are used, with one more edge in them.

    ``recent`` (int64, ``RECENT`` zeros at the start) remembers where pairs of
    nodes were listed; a pair that is found there keeps the larger key. It may
    forget a pair, which is then listed twice, at no harm but room.
    """
    low, high = min(one, two), max(one, two)
    slot = (low * 73856093 ^ high * 19349663) & (RECENT - 1)
    row = recent[slot]
    if row < count and edges[row, 0] == low and edges[row, 1] == high:
        edges[row, 2] = max(edges[row, 2], key)
        return edges, count
    if count == len(edges):
        grown = np.empty((2 * count + RECENT, 3), np.int64)
        grown[:count] = edges
        edges = grown
    edges[count] = low, high, key
    recent[slot] = count
    return edges, count + 1


@kernel
def tile_edges(
    labels: NDArray[np.int32],
    ranks: Ranks,
    kinds: Kinds,
    plain: NDArray[np.uint8],
    peaks: NDArray[np.int64],
    limit: int,
    y0: int,
    x0: int,
    first: int,
    width: int,
) -> Edges:
    """Return the edges inside a tile, among them the largest of every pair of basins.

    Left out are saddles ``limit`` quanta or more below the lower of their two
    peaks: peaks of unions only rise, so that such a saddle never joins anything.

    Args:
        labels: basins of the tile, int32 ``(h, w)``, 1..n; node i is basin i + 1.
        ranks: framed; the tile's first pixel stands at ``(y0, x0)``.
        kinds: framed in the same way.
        plain: framed in the same way; 1 for a class that is not split.
        peaks: keys of the basins' peaks, ``(n,)``.
        limit: quanta of height.
        y0: see ``ranks``.
        x0: see ``ranks``.
        first: index in the image of the tile's first pixel.
        width: pixels in a row of the image.
    """
    rows, columns = labels.shape
    edges = np.empty((RECENT, 3), np.int64)
    recent = np.zeros(RECENT, np.int64)
    count = 0
    for y in range(rows):
        row, below = labels[y], labels[min(y + 1, rows - 1)]
        for x in range(columns):
            one = row[x]
            west, east = max(x - 1, 0), min(x + 1, columns - 1)
            same = row[east] == one and below[x] == one and below[west] == one
            if one == 0 or (same and below[east] == one):
                continue
            for way in range(5, 9):
                to_y, to_x = y + way // 3 - 1, x + way % 3 - 1
                if to_y == rows or not 0 <= to_x < columns:
                    continue
                two = labels[to_y, to_x]
                at, to = (y0 + y, x0 + x), (y0 + to_y, x0 + to_x)
                if two == 0 or two == one or kinds[at] != kinds[to]:
                    continue
                rank, other = np.int64(ranks[at]), np.int64(ranks[to])
                key = edge_key(rank, other, first + y * width + x, way, width)
                if plain[at] and plain[to]:
                    key |= BOND
                else:
                    peak = min(peaks[one - 1], peaks[two - 1]) >> PEAK_SHIFT
                    if peak - (key >> LEVEL_SHIFT) >= limit:
                        continue
                edges, count = list_edge(edges, count, recent, one - 1, two - 1, key)
    return edges[:count]


@kernel
def mark_open(
    labels: NDArray[np.int32], ranks: Ranks, kinds: Kinds, y0: int, x0: int, count: int
) -> NDArray[np.bool_]:
    """Return which of ``count`` basins touch foreground outside the tile, bool ``(count,)``.

    The arguments are those of ``tile_edges``.
    """
    rows, columns = labels.shape
    opened = np.zeros(count, np.bool_)
    for y in range(rows):
        inner = 0 < y < rows - 1
        for x in range(0, columns, columns - 1 if inner and columns > 1 else 1):
            if labels[y, x] == 0:
                continue
            for way in range(9):
                to_y, to_x = y + way // 3 - 1, x + way % 3 - 1
                if 0 <= to_y < rows and 0 <= to_x < columns:
                    continue
                to = y0 + to_y, x0 + to_x
                if ranks[to] and kinds[to] == kinds[y0 + y, x0 + x]:
                    opened[labels[y, x] - 1] = True
    return opened
