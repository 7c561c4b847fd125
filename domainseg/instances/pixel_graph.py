"""The pixels of one object as a graph, without a box: what it costs follows the pixels alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from domainseg.instances.kernel import kernel

STRAIGHT = 5
"""Length of a step to a pixel beside, above or below; a diagonal one is DIAGONAL (Borgefors 1986).

Whole numbers, so that no length depends on the order of steps or on how an object lies."""
DIAGONAL = 7
FAR = np.iinfo(np.int32).max
"""Distance of pixels that a sweep did not reach."""

_BUCKETS = 8  # more than the longest step


@kernel
def pixel_graph(runs: Any) -> Any:
    """Return rows, columns, and where the neighbours above and below begin, int32 ``(n,)`` each.

    ``runs`` are those of one object, ``(R, 3)`` in raster order, and so are the pixels. Of
    pixel p in column x the neighbours above are among the pixels ``above[p]``,
    ``above[p] + 1`` and ``above[p] + 2``: those in the row above with a column up to x + 1.
    """
    n = 0
    for r in range(len(runs)):
        n += runs[r, 2]
    ys, xs = np.empty(n, np.int32), np.empty(n, np.int32)
    p = 0
    for r in range(len(runs)):
        for x in range(runs[r, 1], runs[r, 1] + runs[r, 2]):
            ys[p], xs[p] = runs[r, 0], x
            p += 1
    above, below = np.empty(n, np.int32), np.empty(n, np.int32)
    q = 0
    for p in range(n):
        while ys[q] < ys[p] - 1 or (ys[q] == ys[p] - 1 and xs[q] < xs[p] - 1):
            q += 1
        above[p] = q
    q = n - 1
    for p in range(n - 1, -1, -1):
        while ys[q] > ys[p] + 1 or (ys[q] == ys[p] + 1 and xs[q] > xs[p] + 1):
            q -= 1
        below[p] = q
    return ys, xs, above, below


@kernel
def neighbours_of(graph: Any, p: int, found: Any, steps: Any) -> int:
    """Fill in the neighbours of a pixel and the lengths of the steps; return how many, up to 8."""
    ys, xs, above, below = graph
    y, x = ys[p], xs[p]
    count = 0
    for q in (p - 1, p + 1):
        if 0 <= q < len(ys) and ys[q] == y and abs(xs[q] - x) == 1:
            found[count], steps[count] = q, STRAIGHT
            count += 1
    for k in range(3):
        q = above[p] + k
        if q < p and ys[q] == y - 1 and abs(xs[q] - x) <= 1:
            found[count], steps[count] = q, STRAIGHT if xs[q] == x else DIAGONAL
            count += 1
        q = below[p] - k
        if q > p and ys[q] == y + 1 and abs(xs[q] - x) <= 1:
            found[count], steps[count] = q, STRAIGHT if xs[q] == x else DIAGONAL
            count += 1
    return count


@kernel
def sweep(graph: Any, source: int, distances: Any, chain: Any, reached: Any) -> int:
    """Fill in the distances from a pixel and the pixels reached, nearest first; return how many.

    Distances inside the object, in units of a fifth of a pixel (Dijkstra with the buckets of
    Dial 1969: linear time). ``distances``, int32 ``(n,)``, are FAR for all pixels that it may
    reach; ``chain``, int32 ``(2, n)``, is room to work in, ``reached`` int32 ``(n,)``.
    """
    found, steps = np.empty(8, np.int64), np.empty(8, np.int64)
    heads = np.full(_BUCKETS, -1, np.int64)
    before, after = chain[0], chain[1]
    count, waiting, now = 0, 1, 0
    distances[source] = 0
    heads[0], before[source], after[source] = source, -1, -1
    while waiting:
        bucket = now % _BUCKETS
        p = heads[bucket]
        if p < 0:
            now += 1
            continue
        heads[bucket] = after[p]
        if after[p] >= 0:
            before[after[p]] = -1
        reached[count] = p
        count += 1
        waiting -= 1
        for i in range(neighbours_of(graph, p, found, steps)):
            q, length = found[i], now + steps[i]
            if length >= distances[q]:
                continue
            if distances[q] == FAR:
                waiting += 1
            else:  # it waits in another bucket
                if before[q] >= 0:
                    after[before[q]] = after[q]
                else:
                    heads[distances[q] % _BUCKETS] = after[q]
                if after[q] >= 0:
                    before[after[q]] = before[q]
            distances[q] = length
            head = heads[length % _BUCKETS]
            before[q], after[q] = -1, head
            if head >= 0:
                before[head] = q
            heads[length % _BUCKETS] = q
    return count
