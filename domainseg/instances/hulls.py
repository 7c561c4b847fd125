"""Convex hulls of objects in whole numbers: built from runs, merged from tiles, measured.

A hull is kept as two chains, its left and its right boundary from top to bottom
without collinear points. They are those of the pixel *centres*; what needs the
area of the pixels grows them by half a pixel. Merging is exact and has one
result whatever the order: the hull of hulls is the hull.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.instances.kernel import kernel

SQUARE = np.array([[-1, -1], [1, -1]], np.int64)
"""Left half of a pixel's corners, ``(y, x)`` in half pixels."""
DIAMOND = np.array([[-1, 0], [0, -1], [1, 0]], np.int64)
"""Left half of the middles of a pixel's edges, ``(y, x)`` in half pixels."""


@dataclass(frozen=True, slots=True)
class Hulls:
    """Convex hulls of N objects.

    Attributes:
        points: int64 ``(P, 2)``, ``(y, x)``; y ascends strictly inside a chain.
        offsets: int64 ``(2 N + 1,)``; chain ``2 i`` is the left boundary of object i,
            chain ``2 i + 1`` its right one.
    """

    points: NDArray[np.int64]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return (len(self.offsets) - 1) // 2


def hulls_of_runs(
    runs: NDArray[np.int64], offsets: NDArray[np.int64], *, shape: tuple[int, int]
) -> Hulls:
    """Return the hulls of the pixel centres inside ``[0, h) x [0, w)`` of ``shape``.

    Only the first and last pixel of a row can be a vertex, so the time is linear
    in the runs. An object without a pixel inside has two empty chains.
    """
    return Hulls(*_chains_of_runs(runs, offsets, shape[0], shape[1]))


def merge_hulls(hulls: Hulls, groups: NDArray[np.int64], *, count: int) -> Hulls:
    """Return ``count`` hulls; hull g is that of all ``hulls`` whose entry in ``groups`` is g."""
    owners = np.repeat(np.arange(2 * len(hulls)), np.diff(hulls.offsets))
    chains = 2 * groups[owners // 2] + owners % 2
    order = np.lexsort((hulls.points[:, 0], chains))
    sizes = np.bincount(chains, minlength=2 * count)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return Hulls(*_chains_of_points(hulls.points[order], offsets))


def joined_hulls(parts: Sequence[Hulls]) -> Hulls:
    """Return the hulls of all parts, one after the other."""
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Hulls(np.concatenate([part.points for part in parts]), offsets)


def select_hulls(hulls: Hulls, keep: NDArray[np.bool_]) -> Hulls:
    """Return the hulls for which ``keep (N,)`` is true."""
    chains = np.repeat(keep, 2)
    lengths = np.diff(hulls.offsets)
    offsets = np.concatenate([[0], np.cumsum(lengths[chains])]).astype(np.int64)
    return Hulls(hulls.points[np.repeat(chains, lengths)], offsets)


def grow_hulls(hulls: Hulls, stencil: NDArray[np.int64]) -> Hulls:
    """Return the hulls grown by `SQUARE` or `DIAMOND`, in half pixels.

    With the square the hull is that of the pixels' whole areas, with the diamond
    that of the middles of their edges.
    """
    return Hulls(*_grown_chains(hulls.points, hulls.offsets, stencil))


def lattice_counts(diamonds: Hulls) -> NDArray[np.int64]:
    """Return how many pixel centres lie in or on each hull, int64 ``(N,)``.

    ``diamonds`` are hulls in half pixels. With those of the edge middles the count
    is the convex area of scikit-image (``area_convex``).
    """
    return np.asarray(_lattice_counts(diamonds.points, diamonds.offsets), np.int64)


def caliper_diameters(
    squares: Hulls, *, scale: tuple[float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the largest and smallest distance of two parallel lines around each hull.

    ``squares`` are hulls in half pixels that have an area; ``scale`` is the pixel
    size ``(y, x)``, and the distances are in its unit. Rotating calipers (Shamos
    1978): which vertices face each other is decided in integers and does not
    depend on the scale, since a stretched hull keeps its parallels.
    """
    length, width = _diameters(squares.points, squares.offsets, scale[0] / 2, scale[1] / 2)
    return np.asarray(length, np.float64), np.asarray(width, np.float64)


@kernel
def _push(points: Any, base: int, top: int, y: int, x: int, side: int) -> int:
    """Add ``(y, x)`` to the chain ``points[base:top]``; return its new end.

    ``side`` is 1 for a left chain, -1 for a right one. Points come by ascending y.
    """
    if top > base and points[top - 1, 0] == y:
        if side * (x - points[top - 1, 1]) >= 0:
            return top
        top -= 1
    while top - base >= 2:
        y1, x1 = points[top - 2, 0], points[top - 2, 1]
        y2, x2 = points[top - 1, 0], points[top - 1, 1]
        if side * ((x2 - x1) * (y - y1) - (x - x1) * (y2 - y1)) < 0:
            break
        top -= 1
    points[top, 0], points[top, 1] = y, x
    return top + 1


@kernel
def _chains_of_runs(runs: Any, offsets: Any, height: int, width: int) -> Any:
    points = np.empty((2 * len(runs), 2), np.int64)
    ends = np.zeros(2 * len(offsets) - 1, np.int64)
    top = 0
    for i in range(len(offsets) - 1):
        for chain in range(2):
            base = top
            for r in range(offsets[i], offsets[i + 1]):
                y, start = runs[r, 0], runs[r, 1]
                if y >= height or start >= width:
                    continue
                if chain == 0:
                    top = _push(points, base, top, y, start, 1)
                else:
                    last = min(start + runs[r, 2], width) - 1
                    top = _push(points, base, top, y, last, -1)
            ends[2 * i + chain + 1] = top
    return points[:top].copy(), ends


@kernel
def _chains_of_points(sorted_points: Any, offsets: Any) -> Any:
    points = np.empty_like(sorted_points)
    ends = np.zeros_like(offsets)
    top = 0
    for chain in range(len(offsets) - 1):
        base = top
        side = 1 - 2 * (chain % 2)
        for p in range(offsets[chain], offsets[chain + 1]):
            top = _push(points, base, top, sorted_points[p, 0], sorted_points[p, 1], side)
        ends[chain + 1] = top
    return points[:top].copy(), ends


@kernel
def _grown_chains(points: Any, offsets: Any, stencil: Any) -> Any:
    grown = np.empty((len(points) * len(stencil), 2), np.int64)
    ends = np.zeros_like(offsets)
    top = 0
    for chain in range(len(offsets) - 1):
        base = top
        side = 1 - 2 * (chain % 2)
        for p in range(offsets[chain], offsets[chain + 1]):
            for s in range(len(stencil)):
                y = 2 * points[p, 0] + stencil[s, 0]
                x = 2 * points[p, 1] + side * stencil[s, 1]
                top = _push(grown, base, top, y, x, side)
        ends[chain + 1] = top
    return grown[:top].copy(), ends


@kernel
def _reach(points: Any, p: int, y: int, side: int) -> Any:
    """Return the outermost whole pixel at row ``y`` of the chain's step from p to p + 1."""
    y0, x0 = points[p, 0], points[p, 1]
    dy, dx = points[p + 1, 0] - y0, points[p + 1, 1] - x0
    above = side * (x0 * dy + dx * (2 * y - y0))
    return side * -(-above // (2 * dy))


@kernel
def _lattice_counts(points: Any, offsets: Any) -> Any:
    counts = np.zeros((len(offsets) - 1) // 2, np.int64)
    for i in range(len(counts)):
        left, right = offsets[2 * i], offsets[2 * i + 1]
        last = points[right - 1, 0]
        for y in range((points[left, 0] + 1) // 2, last // 2 + 1):
            while points[left + 1, 0] < 2 * y:
                left += 1
            while points[right + 1, 0] < 2 * y:
                right += 1
            counts[i] += _reach(points, right, y, -1) - _reach(points, left, y, 1) + 1
    return counts


@kernel
def _fill_ring(points: Any, left: int, right: int, end: int, ring: Any) -> int:
    """Write the hull's vertices, down its left and up its right side; return their number."""
    size = 0
    for p in range(left, right):
        ring[size, 0], ring[size, 1] = points[p, 0], points[p, 1]
        size += 1
    for p in range(end - 1, right - 1, -1):
        ring[size, 0], ring[size, 1] = points[p, 0], points[p, 1]
        size += 1
    return size


@kernel
def _gain(ring: Any, size: int, i: int, j: int) -> Any:
    """Return how much further vertex j + 1 is than j from the edge that leaves vertex i."""
    a, b, c, d = i, (i + 1) % size, j % size, (j + 1) % size
    edge_y, edge_x = ring[b, 0] - ring[a, 0], ring[b, 1] - ring[a, 1]
    return edge_y * (ring[d, 1] - ring[c, 1]) - edge_x * (ring[d, 0] - ring[c, 0])


@kernel
def _square(ring: Any, size: int, i: int, j: int, sy: float, sx: float) -> Any:
    """Return the squared distance of two vertices."""
    dy = (ring[i % size, 0] - ring[j % size, 0]) * sy
    dx = (ring[i % size, 1] - ring[j % size, 1]) * sx
    return dy * dy + dx * dx


@kernel
def _ring_diameters(ring: Any, size: int, sy: float, sx: float) -> Any:
    longest, narrowest = 0.0, np.inf
    j = 1
    for i in range(size):
        j = max(j, i + 1)
        while _gain(ring, size, i, j) > 0:
            j += 1
        # Of two vertices that face each other, one is where the next edge to lie flat
        # begins: so every such pair is (i, j) once.
        longest = max(longest, _square(ring, size, i, j, sy, sx))
        (y0, x0), (y1, x1) = ring[i], ring[(i + 1) % size]
        y2, x2 = ring[j % size]
        across = ((y1 - y0) * (x2 - x0) - (x1 - x0) * (y2 - y0)) * (sy * sx)
        narrowest = min(narrowest, across * across / _square(ring, size, i, i + 1, sy, sx))
    return np.sqrt(longest), np.sqrt(narrowest)


@kernel
def _diameters(points: Any, offsets: Any, sy: float, sx: float) -> Any:
    count = (len(offsets) - 1) // 2
    longest = 0
    for i in range(count):
        longest = max(longest, offsets[2 * i + 2] - offsets[2 * i])
    ring = np.empty((longest, 2), np.int64)
    length, width = np.empty(count), np.empty(count)
    for i in range(count):
        size = _fill_ring(points, offsets[2 * i], offsets[2 * i + 1], offsets[2 * i + 2], ring)
        length[i], width[i] = _ring_diameters(ring, size, sy, sx)
    return length, width
