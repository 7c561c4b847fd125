"""Outlines of objects along the edges of their pixels: exact polygons with holes.

The boundary is cut into unit vertical edges, two per run, and each is linked to
the next along the boundary. A link needs the runs of two neighbouring rows and
nothing else, so that an image read row band by row band gives the same links.

Where two pixels of an object touch by a corner only, the outline keeps them
apart (rings are 4-connected): no ring visits a point twice, every polygon is
valid, and an object with a diagonal contact may be several polygons.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.instances.kernel import kernel
from domainseg.instances.runs import ObjectRuns, object_runs
from domainseg.records import Array, Instances

Ring = list[list[int]]


@dataclass(frozen=True, slots=True)
class Outlines:
    """The polygons of N objects, as nested offsets (objects, polygons, rings, vertices).

    Vertices are corners of pixels, ``(x, y)`` in pixels of the plane: the pixel in
    row 0, column 0 covers 0 to 1. Rings are closed (the last vertex is the first)
    and have no collinear vertices. The first ring of a polygon is its exterior, the
    others are holes. The shoelace sum over ``(x, y)`` is positive for exteriors and
    negative for holes, as RFC 7946 asks; as y points down on a screen, exteriors
    run clockwise there.

    Attributes:
        ids: int64 ``(N,)``.
        polygons: int64 ``(N + 1,)``; object i owns polygons ``polygons[i]:polygons[i + 1]``.
        rings: int64 ``(P + 1,)``; polygon p owns rings ``rings[p]:rings[p + 1]``.
        starts: int64 ``(Q + 1,)``; ring q owns vertices ``starts[q]:starts[q + 1]``.
        vertices: int64 ``(V, 2)``, ``(x, y)``.
    """

    ids: NDArray[np.int64]
    polygons: NDArray[np.int64]
    rings: NDArray[np.int64]
    starts: NDArray[np.int64]
    vertices: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    def multipolygon(self, index: int) -> list[list[Ring]]:
        """Return the polygons of object ``index`` as lists, the coordinates of a MultiPolygon."""
        return [
            [
                self.vertices[self.starts[q] : self.starts[q + 1]].tolist()
                for q in range(self.rings[p], self.rings[p + 1])
            ]
            for p in range(self.polygons[index], self.polygons[index + 1])
        ]


def find_outlines(objects: Array | Instances) -> Outlines:
    """Return the outlines of an integer ``(H, W)`` label map or of instances.

    Objects come as in `measure`: labels ascending, or in the order of the
    instances. Polygons of an object are in raster order of their first pixels,
    holes in that of their first edges. Time is linear in the runs.

    Raises:
        InputError: for a label map that is not one of non-negative integers.
    """
    return outlines_of_runs(object_runs(objects))


def outlines_of_runs(runs: ObjectRuns) -> Outlines:
    """Return the outlines of objects given as runs, in their order; see `find_outlines`."""
    following, pinches, pinch_count, parents = _linked(runs.runs, runs.offsets)
    vertices, starts, rings = _traced(runs.runs, following, pinches, pinch_count)
    first_edges, areas = rings.T
    owners = np.repeat(np.arange(len(runs)), np.diff(runs.offsets))
    parts = parents[first_edges // 2]
    # A part's first run comes first in its object, and its left edge is on the exterior.
    order = np.lexsort((first_edges, parts))
    exteriors = np.flatnonzero(areas[order] > 0)
    objects_of_polygons = owners[parts[order][exteriors]]
    vertices, starts = _reordered(vertices, starts, order)
    return Outlines(
        ids=runs.ids,
        polygons=np.searchsorted(objects_of_polygons, np.arange(len(runs) + 1)).astype(np.int64),
        rings=np.append(exteriors, len(order)).astype(np.int64),
        starts=starts,
        vertices=vertices,
    )


@kernel
def _root(parents: Any, run: int) -> Any:
    while parents[run] != run:
        parents[run] = parents[parents[run]]
        run = parents[run]
    return run


@kernel
def _unite(parents: Any, one: int, other: int) -> None:
    """Join two components; the earlier run stays the root."""
    one, other = _root(parents, one), _root(parents, other)
    parents[max(one, other)] = min(one, other)


@kernel
def _unite_rows(runs: Any, above: int, above_end: int, end: int, parents: Any) -> None:
    """Join runs ``above:above_end`` with those of the next row that share a column."""
    a, b = above, above_end
    while a < above_end and b < end:
        a1, b1 = runs[a, 1] + runs[a, 2], runs[b, 1] + runs[b, 2]
        if runs[a, 1] < b1 and runs[b, 1] < a1:
            _unite(parents, a, b)
        if a1 < b1:
            a += 1
        else:
            b += 1


@kernel
def _edge_x(runs: Any, edge: int) -> Any:
    """Return the column of an edge: ``2 r`` is the left one of run r, ``2 r + 1`` the right."""
    return runs[edge // 2, 1] + runs[edge // 2, 2] * (edge % 2)


@kernel
def _link(following: Any, one: int, other: int, below: int) -> None:
    """Link two edges that meet at a corner row; edges from ``below`` on lie beneath it.

    Left edges are walked upwards and right edges downwards, so one of the two
    arrives at the corner row and the other leaves it.
    """
    arrives = (one >= below) == (one % 2 == 0)
    if arrives:
        following[one] = other
    else:
        following[other] = one


@kernel
def _mark_pinch(pinches: Any, above: int, below: int, pinch: int) -> None:
    """Note at the ends of two edges that they meet at a corner passed twice."""
    pinches[above, above % 2] = pinch
    pinches[below, 1 - below % 2] = pinch


@kernel
def _link_rows(
    runs: Any, above: int, below: int, end: int, following: Any, pinches: Any, pinch: int
) -> Any:
    """Link all edges that meet between runs ``above:below`` and ``below:end`` of the next row.

    Along the corner row the boundary is where exactly one of the two rows is
    inside: between every second pair of edge positions. Return the next free pinch.
    """
    a, b, pending = 2 * above, 2 * below, -1
    while a < 2 * below or b < 2 * end:
        ahead = _edge_x(runs, a) - _edge_x(runs, b) if a < 2 * below and b < 2 * end else 0
        if a < 2 * below and b < 2 * end and ahead == 0:
            if pending < 0:
                _link(following, a, b, 2 * below)
            else:
                # A diagonal contact. The row that ends here takes what is pending, so
                # that its pixel keeps its own corner; the other row begins anew.
                closing, opening = (a, b) if a % 2 == 1 else (b, a)
                _link(following, pending, closing, 2 * below)
                _mark_pinch(pinches, a, b, pinch)
                pending, pinch = opening, pinch + 1
            a, b = a + 1, b + 1
            continue
        edge = a if b >= 2 * end or (a < 2 * below and ahead < 0) else b
        a, b = a + (edge == a), b + (edge == b)
        if pending < 0:
            pending = edge
        else:
            _link(following, pending, edge, 2 * below)
            pending = -1
    return pinch


@kernel
def _linked(runs: Any, offsets: Any) -> Any:
    """Return the edge after each edge, the pinches at its two ends, and 4-connected parts.

    ``following`` is ``(2 R,)``; ``pinches`` ``(2 R, 2)`` holds the number of the
    twice-passed corner where the walk enters and where it leaves the edge, or -1;
    the third is the first run of the part each run belongs to, ``(R,)``.
    """
    following = np.empty(2 * len(runs), np.int64)
    pinches = np.full((2 * len(runs), 2), -1, np.int64)
    parents = np.arange(len(runs))
    pinch = 0
    for i in range(len(offsets) - 1):
        above = begin = offsets[i]
        while begin < offsets[i + 1]:
            end = begin
            while end < offsets[i + 1] and runs[end, 0] == runs[begin, 0]:
                end += 1
            if runs[above, 0] + 1 < runs[begin, 0]:
                pinch = _link_rows(runs, above, begin, begin, following, pinches, pinch)
                above = begin
            pinch = _link_rows(runs, above, begin, end, following, pinches, pinch)
            _unite_rows(runs, above, begin, end, parents)
            above, begin = begin, end
        pinch = _link_rows(runs, above, begin, begin, following, pinches, pinch)
    for r in range(len(runs)):
        parents[r] = _root(parents, r)
    return following, pinches, pinch, parents


@kernel
def _close_ring(
    stack: Any, edges: Any, base: int, top: int, vertices: Any, starts: Any, rings: Any, count: int
) -> None:
    """Append ``stack[base:top]`` as a closed ring; note its first edge and twice its area."""
    at = starts[count]
    first, area = edges[base], 0
    for p in range(base, top):
        following = p + 1 if p + 1 < top else base
        vertices[at] = stack[p]
        area += stack[p, 0] * stack[following, 1] - stack[following, 0] * stack[p, 1]
        first = min(first, edges[p])
        at += 1
    vertices[at] = stack[base]
    starts[count + 1] = at + 1
    rings[count, 0], rings[count, 1] = first, area


@kernel
def _traced(runs: Any, following: Any, pinches: Any, pinch_count: int) -> Any:
    """Return vertices, starts and ``(Q, 2)`` first edge and twice the area of every ring.

    A boundary that comes back to a pinch is cut there: what was walked since is a
    ring of its own. Boundaries touch but never cross, so the cuts are nested.
    """
    count, most = 0, len(runs) + pinch_count
    vertices = np.empty((2 * len(following) + most, 2), np.int64)
    starts, rings = np.zeros(most + 1, np.int64), np.empty((most, 2), np.int64)
    stack, edges = (
        np.empty((2 * len(following), 2), np.int64),
        np.empty(2 * len(following), np.int64),
    )
    passed = np.full((pinch_count, 2), -1, np.int64)
    walked = np.zeros(len(following), np.bool_)
    for start in range(len(following)):
        top, edge = 0, start
        while not walked[edge]:
            walked[edge] = True
            after = following[edge]
            x0, x1 = _edge_x(runs, edge), _edge_x(runs, after)
            # Left edges are left at their upper end, right edges at their lower one.
            y = runs[edge // 2, 0] + edge % 2
            for end in range(2 * (x0 != x1)):
                pinch = pinches[edge, 1] if end == 0 else pinches[after, 0]
                if pinch >= 0 and passed[pinch, 0] == start:
                    base = passed[pinch, 1]
                    _close_ring(stack, edges, base, top, vertices, starts, rings, count)
                    count, top = count + 1, base + 1
                    continue
                if pinch >= 0:
                    passed[pinch, 0], passed[pinch, 1] = start, top
                stack[top, 0], stack[top, 1] = (x0 if end == 0 else x1), y
                edges[top] = edge if end == 0 else after
                top += 1
            edge = after
        if top:
            _close_ring(stack, edges, 0, top, vertices, starts, rings, count)
            count += 1
    return vertices[: starts[count]].copy(), starts[: count + 1].copy(), rings[:count].copy()


@kernel
def _reordered(vertices: Any, starts: Any, order: Any) -> Any:
    """Return the vertices and starts of the rings in the given order."""
    moved, moved_starts = np.empty_like(vertices), np.zeros_like(starts)
    for q in range(len(order)):
        low, high = starts[order[q]], starts[order[q] + 1]
        moved_starts[q + 1] = moved_starts[q] + high - low
        moved[moved_starts[q] : moved_starts[q + 1]] = vertices[low:high]
    return moved, moved_starts
