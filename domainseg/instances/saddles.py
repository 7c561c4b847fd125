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

Edges = NDArray[np.int64]


@kernel
def edge_key(rank: np.int64, other: np.int64, index: int, way: int, width: int) -> np.int64:
    """Return the key of the edge from a pixel along ``way`` to its neighbour.

    ``rank`` and ``index`` are the pixel's, ``other`` is the neighbour's rank;
    the image is ``width`` wide.
    """
    if rank < other or (rank == other and way > 4):
        return rank >> LOW_BITS << LEVEL_SHIFT | index << WAY_BITS | way
    there = index + (way // 3 - 1) * width + way % 3 - 1
    return other >> LOW_BITS << LEVEL_SHIFT | there << WAY_BITS | (8 - way)


@kernel
def no_edges(room: int) -> tuple[Edges, NDArray[np.int64]]:
    """Return an empty list with room for this many edges, and the table of their pairs.

    The table finds the row of a pair by open addressing; its last entry counts
    the rows in use.
    """
    slots = 64
    while slots < 2 * room:
        slots *= 2
    table = np.full(slots + 1, np.int64(-1))
    table[-1] = 0
    return np.empty((slots // 2, 3), np.int64), table


@kernel
def add_edge(
    edges: Edges, table: NDArray[np.int64], one: int, two: int, key: int | np.int64
) -> None:
    """Add an edge to a list that has room for it, keeping the largest key of each pair."""
    low, high = min(one, two), max(one, two)
    slots = table.size - 1
    mixed = (low * 0x9E3779B1 + high) * 0x85EBCA6B
    slot = (mixed ^ (mixed >> 29)) & (slots - 1)
    while table[slot] >= 0:
        row = table[slot]
        if edges[row, 0] == low and edges[row, 1] == high:
            edges[row, 2] = max(edges[row, 2], key)
            return
        slot = (slot + 1) & (slots - 1)
    row = table[slots]
    edges[row] = low, high, key
    table[slot] = row
    table[slots] = row + 1


@kernel
def with_room(edges: Edges, table: NDArray[np.int64], room: int) -> tuple[Edges, NDArray[np.int64]]:
    """Return the list, or a larger one with the same edges, with room for this many more.

    Called once for many edges: exchanging the arrays in an inner loop costs more
    than all that the loop does, for their reference counts.
    """
    count = table[-1]
    if len(edges) - count >= room:
        return edges, table
    grown, grown_table = no_edges(2 * count + room)
    for row in range(count):
        add_edge(grown, grown_table, edges[row, 0], edges[row, 1], edges[row, 2])
    return grown, grown_table


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
    pixels = meeting_pixels(labels)
    edges, table = no_edges(256)
    for start in range(0, pixels.size, 64):
        edges, table = with_room(edges, table, 256)
        for pixel in pixels[start : start + 64]:
            y, x = pixel // columns, pixel % columns
            one, at = labels[y, x], (y0 + y, x0 + x)
            for way in range(5, 9):
                to_y, to_x = (y + 1, x + way - 7) if way > 5 else (y, x + 1)
                if to_y == rows or not 0 <= to_x < columns:
                    continue
                two, to = labels[to_y, to_x], (y0 + to_y, x0 + to_x)
                if two == 0 or two == one or kinds[at] != kinds[to]:
                    continue
                rank, other = np.int64(ranks[at]), np.int64(ranks[to])
                key = edge_key(rank, other, first + y * width + x, way, width)
                peak = min(peaks[one - 1], peaks[two - 1]) >> PEAK_SHIFT
                if plain[at] and plain[to]:
                    key |= BOND
                elif peak - (key >> LEVEL_SHIFT) >= limit:
                    continue
                add_edge(edges, table, one - 1, two - 1, key)
    return edges[: table[-1]]


@kernel
def meeting_pixels(labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the pixels where a basin may touch another to the right or below.

    int64 indices of the flattened ``labels``, in raster order. All that do are
    among them, and some at the tile's sides that do not.
    """
    rows, columns = labels.shape
    meets = np.zeros((columns + 7) // 8 * 8, np.uint8)
    eights = meets.view(np.uint64)  # pixels that meet are rare: eight are passed over at once
    found = np.empty(1024, np.int64)
    count = 0
    for y in range(rows):
        find_meetings(labels[y], labels[min(y + 1, rows - 1)], meets)
        if count + columns > found.size:
            grown = np.empty(2 * found.size + columns, np.int64)
            grown[:count] = found[:count]
            found = grown
        for eight in range(eights.size):
            if eights[eight]:
                for x in range(8 * eight, min(8 * eight + 8, columns)):
                    found[count] = y * columns + x
                    count += meets[x]
    return found[:count]


@kernel
def find_meetings(
    row: NDArray[np.int32], below: NDArray[np.int32], meets: NDArray[np.uint8]
) -> None:
    """Write 1 where a basin may touch another to the right or below, 0 where none does."""
    last = row.size - 1
    for x in range(row.size - 2):
        one = row[x + 1]
        most = max(max(row[x + 2], below[x]), max(below[x + 1], below[x + 2]))
        # Background, 0, becomes the largest number, and never is the least.
        least = min(np.uint32(row[x + 2] - 1), np.uint32(below[x] - 1))
        least = min(least, np.uint32(below[x + 1] - 1))
        least = min(least, np.uint32(below[x + 2] - 1))
        other = (most > one) | (least < np.uint32(one - 1))
        meets[x + 1] = np.uint8(other) & np.uint8(one > 0)
    meets[0], meets[last] = row[0] > 0, row[last] > 0


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
