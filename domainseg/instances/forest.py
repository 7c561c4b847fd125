"""Merging of basins along saddles: the graph of a tile, or the graph of all tiles.

One function serves both. In a tile some nodes are open: they touch foreground
outside, so that more may belong to them than is seen. What can be decided all
the same is decided there, and the edges that cannot be are handed on. With no
open node everything is decided.

Why the early decisions are those of the whole image. Edges are visited by
descending key, so that a closed union is, when an edge is reached, what it is
in the whole image at that key; the peak of an open one is at least as high as
the peak that is seen. Take an edge whose lower peak, of those seen, is L.

* L rises above the edge by ``limit`` or more: the lower of the true peaks does
  too, and the edge is dropped.
* Otherwise, L's union closed: its peak is the lower one in the whole image
  also, and the two are joined. The other's peak is unchanged by it, so that no
  other edge is decided differently.
* Otherwise, L's union open: its true peak is unknown; the edge is kept, and
  from here on the other union is open too, since it may have been joined.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domainseg.instances.kernel import kernel
from domainseg.instances.saddles import (
    BOND,
    LEVEL_SHIFT,
    PEAK_SHIFT,
    Edges,
    add_edge,
    no_edges,
)


def merge_nodes(
    peaks: NDArray[np.int64], opened: NDArray[np.bool_], edges: Edges, *, limit: int
) -> tuple[NDArray[np.int64], Edges]:
    """Return the union of each node and the edges left undecided.

    Args:
        peaks: key of the highest pixel of each node, int64 ``(N,)``.
        opened: bool ``(N,)``, whether a node may be larger than it is known here.
        edges: int64 ``(M, 3)`` nodes and key; a pair may be listed more than once.
        limit: two unions are joined when the lower of their peaks rises above
            the saddle by less than this many quanta of height.

    Returns:
        int64 ``(N,)``, the unions numbered 0, 1, ... in the order of their first
        nodes; and the undecided edges between unions, the largest of every pair.
    """
    order = np.argsort(edges[:, 2])[::-1]
    parents = np.arange(len(peaks))
    kept = join(parents, peaks, opened.copy(), edges, order, limit)
    unions = number_roots(parents)
    return unions, between_unions(edges[kept], unions)


@kernel
def root_of(parents: NDArray[np.int64], node: int) -> int:
    """Return the root of a node, halving the path to it in place."""
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node


@kernel
def join(
    parents: NDArray[np.int64],
    peaks: NDArray[np.int64],
    opened: NDArray[np.bool_],
    edges: Edges,
    order: NDArray[np.int64],
    limit: int,
) -> NDArray[np.bool_]:
    """Write unions into ``parents`` and return which edges stay undecided, bool ``(M,)``.

    The root of a union is its highest node. ``opened`` is written to.
    """
    kept = np.zeros(len(edges), np.bool_)
    for row in order:
        low, high = root_of(parents, edges[row, 0]), root_of(parents, edges[row, 1])
        if low == high:
            continue
        if peaks[low] > peaks[high]:
            low, high = high, low
        key = edges[row, 2]
        if key >= BOND:
            parents[low] = high
            opened[high] |= opened[low]
        elif (peaks[low] >> PEAK_SHIFT) - (key >> LEVEL_SHIFT) >= limit:
            continue
        elif opened[low]:
            kept[row] = True
            opened[high] = True
        else:
            parents[low] = high
    return kept


@kernel
def between_unions(edges: Edges, unions: NDArray[np.int64]) -> Edges:
    """Return the edges as edges of the nodes' unions, the largest of every pair."""
    listed, table = no_edges(len(edges))
    for row in range(len(edges)):
        add_edge(listed, table, unions[edges[row, 0]], unions[edges[row, 1]], edges[row, 2])
    return listed[: table[-1]]


@kernel
def number_roots(parents: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each node the number of its root, counted by first appearance."""
    numbers = np.full(parents.size, -1, np.int64)
    unions = np.empty(parents.size, np.int64)
    count = 0
    for node in range(parents.size):
        root = root_of(parents, node)
        if numbers[root] < 0:
            numbers[root] = count
            count += 1
        unions[node] = numbers[root]
    return unions
