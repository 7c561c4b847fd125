"""Lengths of centre lines: of scratches and other long objects, however they bend.

1. *Ends.* From the pixel farthest from the centroid to the pixel farthest from it inside the
   object, and from there once more: the two ends of its longest path (the double sweep of
   trees). Distances are those of `pixel_graph`.
2. *Bands.* Pixels nearer to one end are grouped by their distance from the other, in steps of
   a pixel: cuts across the object, straight because their source is far. Of each band only
   the part counts that the path goes through, so branches fall away.
3. *Line.* The centroids of the bands, each replaced by the parabola fitted to it and SMOOTH
   bands on either side (Savitzky and Golay 1964): steps of the raster vanish, bends do not.
4. *Ends again.* The last bands turn into a corner. They are left out, and the line goes
   straight on from there: by the pixels that lie ahead near the line, over the number of
   such pixels per length of the line before.

What is added up are whole numbers and, in the order of the bands, floats; so the length of an
object depends on its pixels alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.instances.kernel import kernel
from domainseg.instances.pieces import AREA, Pieces
from domainseg.instances.pixel_graph import FAR, STRAIGHT, neighbours_of, pixel_graph, sweep
from domainseg.instances.runs import ObjectRuns
from domainseg.instances.shapes import crofton_perimeter
from domainseg.records import Spacing

SMOOTH = 6
"""Bands on either side that a point of the line is fitted to; of wider objects, their width."""
ELONGATION = 3.0
"""A centre line is told of objects so many times as long as they are wide."""
ROUND = 0.75
"""Objects of a larger circularity are no candidates: a bar of 3 to 1 has 0.6 to 0.7."""
MOST_PX = 1 << 22
"""Larger objects are no candidates: the graph takes some 50 bytes a pixel."""
_THIN, _WIDE = 2.5, 3.0
"""Px of width up to which the last pixel ends an object, and from which on the middle half of
its width does, so that round ends count whole."""


def may_be_long(pieces: Pieces) -> NDArray[np.bool_]:
    """Return which objects could be elongated by their area and perimeter, bool ``(N,)``."""
    area = pieces.counts[:, AREA]
    perimeter = crofton_perimeter(pieces.counts, scale=(1.0, 1.0))
    return np.asarray((4 * np.pi * area <= ROUND * perimeter**2) & (area <= MOST_PX), np.bool_)


def long_lines(
    pieces: Pieces, runs: ObjectRuns, *, spacing_um: Spacing | None = None
) -> NDArray[np.float64]:
    """Return the length of the centre line of each elongated object, float64 ``(N, 2)``.

    In px and in µm; NaN for objects that are no candidates (`may_be_long`) or whose line, in
    px, is shorter than ELONGATION times their mean width, its area over its length. ``runs``
    are at least those of the candidates.
    """
    wanted = np.flatnonzero(may_be_long(pieces))
    order = np.argsort(runs.ids, kind="stable")
    places = order[np.searchsorted(runs.ids, pieces.ids[wanted], sorter=order)]
    lengths = np.full((len(pieces), 2), np.nan)
    lengths[wanted] = line_lengths(runs, places, spacing_um=spacing_um)
    short = lengths[:, 0] ** 2 < ELONGATION * pieces.counts[:, AREA]
    lengths[short] = np.nan
    return lengths


def line_lengths(
    objects: ObjectRuns, places: NDArray[np.int64], *, spacing_um: Spacing | None = None
) -> NDArray[np.float64]:
    """Return the length of the centre line of the objects at ``places``, float64 ``(N, 2)``.

    In px and in µm, with the pixel size ``spacing_um`` (y, x), which is 1 by default. From
    end to end of the pixels' areas: a row of n pixels has n. Of an object in several parts
    the sum of theirs; gaps do not count. Time and memory are linear in the pixels.
    """
    sy, sx = (1.0, 1.0) if spacing_um is None else spacing_um
    lengths = _lengths(objects.runs, objects.offsets, places, sy, sx)
    return np.asarray(lengths, np.float64)


@kernel
def _lengths(runs: Any, offsets: Any, places: Any, sy: float, sx: float) -> Any:
    lengths = np.zeros((len(places), 2))
    for row in range(len(places)):
        own = runs[offsets[places[row]] : offsets[places[row] + 1]].copy()
        if len(own):
            # From its corner on, so that the sums do not depend on where the object is.
            own[:, 0] -= own[0, 0]
            own[:, 1] -= own[:, 1].min()
            lengths[row] = _length(own, sy, sx)
    return lengths


@kernel
def _length(runs: Any, sy: float, sx: float) -> Any:
    graph = pixel_graph(runs)
    n = len(graph[0])
    part = np.full(n, FAR, np.int32)
    one, two = np.full(n, FAR, np.int32), np.full(n, FAR, np.int32)
    bands, seen = np.full(n, -1, np.int32), np.full(n, -1, np.int32)
    chain, reached = np.empty((2, n), np.int32), np.empty(n, np.int32)
    total = np.zeros(2)
    for p in range(n):
        if part[p] == FAR:
            count = sweep(graph, p, part, chain, reached)
            members = reached[:count].copy()
            ends = _sweep_from_ends(graph, members, one, two, chain, reached)
            points, counts = _bands(graph, members, ends[1], one, two, chain, bands, seen)
            if len(points) < 5:
                total += _distance(graph, ends[0], ends[1], sy, sx)
            else:
                total += _length_of_part(graph, members, one, two, bands, points, counts, sy, sx)
    return total


@kernel
def _sweep_from_ends(
    graph: Any, members: Any, one: Any, two: Any, chain: Any, reached: Any
) -> tuple[int, int]:
    """Return the ends of a part; fill in the distances from each, which are FAR before."""
    start = _outermost(graph, members, two)
    sweep(graph, start, two, chain, reached)
    first = _outermost(graph, members, two)
    two[members] = FAR
    sweep(graph, first, one, chain, reached)
    last = _outermost(graph, members, one)
    sweep(graph, last, two, chain, reached)
    return first, last


@kernel
def _distance(graph: Any, first: int, last: int, sy: float, sx: float) -> Any:
    """Return the length of a part of a few pixels, as if it were straight, px and µm."""
    ys, xs = graph[0], graph[1]
    dy, dx = ys[last] - ys[first], xs[last] - xs[first]
    far = np.hypot(dy, dx)
    if far == 0:
        return np.array([1.0, np.sqrt(sy * sx)])
    return np.array([far + 1.0, np.hypot(dy * sy, dx * sx) * (far + 1) / far])


@kernel
def _length_of_part(
    graph: Any,
    members: Any,
    one: Any,
    two: Any,
    bands: Any,
    points: Any,
    counts: Any,
    sy: float,
    sx: float,
) -> Any:
    """Return the length of one connected part, px and µm."""
    width = counts.sum() / len(counts)
    cut = min(int(np.ceil(width / 2)) + 1, (len(points) - 3) // 2)
    line = _smoothed(points[cut : len(points) - cut], counts[cut : len(points) - cut], width)
    length = np.zeros(2)
    for k in range(len(line) - 1):
        dy, dx = line[k + 1, 0] - line[k, 0], line[k + 1, 1] - line[k, 1]
        length[0] += np.hypot(dy, dx)
        length[1] += np.hypot(dy * sy, dx * sx)
    limit = STRAIGHT * (2 * cut + width + 4)
    length += _end(graph, members, one, bands, cut, line, width, limit, sy, sx)
    cut, line = cut - len(points) + 1, line[::-1].copy()
    return length + _end(graph, members, two, bands, cut, line, width, limit, sy, sx)


@kernel
def _outermost(graph: Any, members: Any, distances: Any) -> int:
    """Return the member of the largest distance; of equals, the one farthest from the centroid."""
    ys, xs = graph[0], graph[1]
    count, y, x = len(members), 0, 0
    for p in members:
        y += ys[p]
        x += xs[p]
    best, most, off = -1, -1, -1.0
    for p in members:
        # Whole numbers until they are squared: turned by 90 degrees it is the same pixel.
        away = float(count * ys[p] - y) ** 2 + float(count * xs[p] - x) ** 2
        if distances[p] > most or (distances[p] == most and away > off):
            best, most, off = p, distances[p], away
    return best


@kernel
def _bands(
    graph: Any, members: Any, last: int, one: Any, two: Any, chain: Any, bands: Any, seen: Any
) -> Any:
    """Return the centroids and pixel counts of the bands along the path, ``(K, 2)`` and ``(K,)``.

    Fills in the band of each pixel; it stays -1 where the path does not lead by. ``seen``, -1
    before, is room to work in.
    """
    ys, xs = graph[0], graph[1]
    whole = one[last]
    sums, counts = np.zeros((whole // STRAIGHT + 1, 2)), np.zeros(whole // STRAIGHT + 1, np.int64)
    found, steps = np.empty(8, np.int64), np.empty(8, np.int64)
    stack, after = chain[0], chain[1]
    heads = np.full(len(counts), -1, np.int64)
    p = last
    while p >= 0:
        k = _band_of(p, whole, one, two)
        after[p], heads[k] = heads[k], p
        p = _nearer(graph, p, one, found, steps)
    for k in range(len(counts)):
        height, p = 0, heads[k]
        while p >= 0:
            stack[height], seen[p] = p, k
            height += 1
            p = after[p]
        while height:
            height -= 1
            q = stack[height]
            if bands[q] < 0:
                at = _band_of(q, whole, one, two)
                bands[q] = at
                sums[at, 0] += ys[q]
                sums[at, 1] += xs[q]
                counts[at] += 1
            for i in range(neighbours_of(graph, q, found, steps)):
                r = found[i]
                # The bands beside it too: a band alone may be two rows that do not touch.
                if seen[r] != k and abs(_band_of(r, whole, one, two) - k) <= 1:
                    stack[height], seen[r] = r, k
                    height += 1
    places = np.full(len(counts) + 1, -1, np.int32)
    places[:-1][counts > 0] = np.arange(np.count_nonzero(counts))
    there = np.flatnonzero(counts)
    points = np.empty((len(there), 2))
    for i in range(len(there)):
        points[i] = sums[there[i]] / counts[there[i]]
    for p in members:
        bands[p] = places[bands[p]]
    return points, counts[there]


@kernel
def _nearer(graph: Any, p: int, one: Any, found: Any, steps: Any) -> int:
    """Return the next pixel on a shortest path to the first end, -1 there."""
    for i in range(neighbours_of(graph, p, found, steps)):
        q: int = found[i]
        if one[q] + steps[i] == one[p]:
            return q
    return -1


@kernel
def _band_of(p: int, whole: int, one: Any, two: Any) -> int:
    """Return the band of a pixel: by its distance from the farther end."""
    along: int = one[p] if one[p] >= two[p] else whole - two[p]
    return max(along, 0) // STRAIGHT


@kernel
def _smoothed(points: Any, counts: Any, width: float) -> Any:
    """Return the points on local parabolas, on lines where they are few."""
    out = np.empty_like(points)
    count, half = len(points), max(SMOOTH, int(width))
    for k in range(count):
        low, high = max(0, k - half), min(count, k + half + 1)
        for axis in range(2):
            out[k, axis] = _fitted(points[:, axis], counts, low, high, k, high - low >= 7)
    return out


@kernel
def _fitted(values: Any, counts: Any, low: int, high: int, k: int, bent: bool) -> float:
    """Return the value at k of the least-squares parabola or line through points low to high."""
    n, a, b, c, d = 0.0, 0.0, 0.0, 0.0, 0.0
    u, v, w = 0.0, 0.0, 0.0
    for i in range(low, high):
        weight, x = float(counts[i]), float(i - k)
        n += weight
        a += weight * x
        b += weight * x * x
        c += weight * x * x * x
        d += weight * x * x * x * x
        u += weight * values[i]
        v += weight * x * values[i]
        w += weight * x * x * values[i]
    # Cramer's rule for the constant term.
    if not bent:
        return (u * b - v * a) / (n * b - a * a)
    whole = n * (b * d - c * c) - a * (a * d - b * c) + b * (a * c - b * b)
    return (u * (b * d - c * c) - v * (a * d - b * c) + w * (a * c - b * b)) / whole


@kernel
def _along(line: Any) -> Any:
    """Return how far along the line each of its points lies."""
    along = np.zeros(len(line))
    for k in range(len(line) - 1):
        along[k + 1] = along[k] + np.hypot(line[k + 1, 0] - line[k, 0], line[k + 1, 1] - line[k, 1])
    return along


@kernel
def _weight(aside: float, width: float) -> float:
    """Return how much a pixel counts that lies so far from the line."""
    if width < _WIDE:
        return 1.0 if abs(aside) <= width / 2 + 2 else 0.0
    return min(max(width / 4 + 0.5 - abs(aside), 0.0), 1.0)


@kernel
def _end(
    graph: Any,
    members: Any,
    near: Any,
    bands: Any,
    first: int,
    line: Any,
    width: float,
    limit: float,
    sy: float,
    sx: float,
) -> Any:
    """Return how far the object goes on before the first point of the line, px and µm.

    ``near`` are distances from that end. The line's first point is that of band ``first``,
    and of band ``-first`` of a line that is turned round.
    """
    ys, xs = graph[0], graph[1]
    last = min(len(line) - 1, max(10, int(2 * width)))
    along = _along(line[: last + 1])
    back = min(len(line) - 1, max(5, int(width)))
    dy, dx = line[0, 0] - line[back, 0], line[0, 1] - line[back, 1]
    size = np.hypot(dy, dx)
    dy, dx = dy / size, dx / size
    ahead, behind, tip = 0.0, 0.0, 0.0
    for p in members:
        if near[p] <= limit:
            y, x = ys[p] - line[0, 0], xs[p] - line[0, 1]
            beyond = min(max(y * dy + x * dx + 0.5, 0.0), 1.0)
            ahead += beyond * _weight(y * dx - x * dy, width)
            if abs(y * dx - x * dy) <= width / 2 + 2:
                tip = max(tip, y * dy + x * dx)
        k = bands[p] - first if first >= 0 else -first - bands[p]
        if -width - 2 <= k <= last + width + 2:
            _, at, aside = _projected(ys[p], xs[p], line, along, min(max(k, 0), last))
            inside = min(max(at + 0.5, 0.0), 1.0) * min(max(along[last] - at + 0.5, 0.0), 1.0)
            behind += inside * _weight(aside, width)
    far = ahead * along[last] / behind
    if width < _THIN:
        far = tip + 0.5 / max(abs(dy), abs(dx))
    return np.array([far, far * np.hypot(dy * sy, dx * sx)])


@kernel
def _projected(y: float, x: float, line: Any, along: Any, k: int) -> Any:
    """Return the point of the line next to a pixel, how far along it lies, and how far aside.

    The point is searched from point k on, among the first ``len(along)``.
    """
    best = (y - line[k, 0]) ** 2 + (x - line[k, 1]) ** 2
    for step in (-1, 1):
        while 0 <= k + step < len(along):
            away = (y - line[k + step, 0]) ** 2 + (x - line[k + step, 1]) ** 2
            if away >= best:
                break
            k, best = k + step, away
    low, high = max(k - 1, 0), min(k + 1, len(line) - 1)
    dy, dx = line[high, 0] - line[low, 0], line[high, 1] - line[low, 1]
    size = np.hypot(dy, dx)
    y, x = y - line[k, 0], x - line[k, 1]
    return k, along[k] + (y * dy + x * dx) / size, (y * dx - x * dy) / size
