"""Integer sums over the pixels of a node: what objects are measured and filtered by.

Every entry is an exact int64, added, or taken the least or largest of, so that
neither the tiles nor their order can change a number. int64 suffices in
coordinates of the image itself: 2**40 pixels times 2**20 rows is 2**60.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domainseg.instances.kernel import kernel
from domainseg.records import probability

AREA, SUM_Y, SUM_X, CLAIMED, EVIDENCE, TOP, LEFT, FIRST, BOTTOM, RIGHT, CLASS = range(11)
"""Columns of sums: pixels; their y and x added; of them those that are foreground;
the evidence of these added; least y, x and index; end of y and x; largest class."""
COLUMNS = 11
EVIDENCE_ONE = 65535
"""The evidence of a pixel of foreground probability 1."""

Sums = NDArray[np.int64]


def evidence_table() -> NDArray[np.int64]:
    """Return the evidence of each foreground quantum: probability times 65535, int64 ``(256,)``."""
    chance = probability(np.arange(256)).astype(np.float64)
    return np.rint(chance * EVIDENCE_ONE).astype(np.int64)


def mean_scores(sums: Sums) -> NDArray[np.float64]:
    """Return the mean probability of the foreground pixels of each row, float64 ``(N,)``.

    One division of two exact integers; 0 where a row has no foreground.
    """
    return np.asarray(sums[:, EVIDENCE] / (np.maximum(sums[:, CLAIMED], 1) * EVIDENCE_ONE))


@kernel
def empty_sums(count: int) -> Sums:
    """Return the sums of ``count`` nodes without a pixel, int64 ``(count, COLUMNS)``."""
    sums = np.zeros((count, COLUMNS), np.int64)
    sums[:, TOP:BOTTOM] = np.iinfo(np.int64).max
    sums[:, CLASS] = -1
    return sums


@kernel
def sum_nodes(
    labels: NDArray[np.int32],
    nodes: NDArray[np.int64],
    foreground: NDArray[np.uint8],
    classes: NDArray[np.uint8],
    evidence: NDArray[np.int64],
    quantum: int,
    corner: tuple[int, int],
    origin: tuple[int, int],
    width: int,
    count: int,
) -> Sums:
    """Return the sums of the ``count`` nodes of a tile, int64 ``(count, COLUMNS)``.

    Args:
        labels: int32 ``(h, w)``.
        nodes: the node of each label, negative for none.
        foreground: array whose pixel ``corner`` is the tile's first.
        classes: likewise.
        evidence: of each foreground quantum.
        quantum: the least that is foreground.
        corner: ``(y, x)``.
        origin: ``(y, x)`` in the image of the tile's first pixel.
        width: pixels in a row of the image.
        count: number of nodes.
    """
    sums = empty_sums(count)
    rows, columns = labels.shape
    for y in range(rows):
        row = labels[y]
        inside = foreground[corner[0] + y, corner[1] : corner[1] + columns]
        kind = classes[corner[0] + y, corner[1] : corner[1] + columns]
        at_y = origin[0] + y
        start = 0
        while start < columns:
            label = row[start]
            node = nodes[label]
            stop = start
            total = np.int64(0)
            while stop < columns and row[stop] == label:
                total += evidence[inside[stop]]
                stop += 1
            if node >= 0:
                length = stop - start
                at_x, end_x = origin[1] + start, origin[1] + stop
                entry = sums[node]
                entry[AREA] += length
                entry[SUM_Y] += length * at_y
                entry[SUM_X] += (at_x + end_x - 1) * length // 2
                if inside[start] >= quantum:
                    entry[CLAIMED] += length
                    entry[EVIDENCE] += total
                    entry[CLASS] = max(entry[CLASS], np.int64(kind[start]))
                entry[TOP] = min(entry[TOP], at_y)
                entry[LEFT] = min(entry[LEFT], at_x)
                entry[FIRST] = min(entry[FIRST], at_y * width + at_x)
                entry[BOTTOM] = max(entry[BOTTOM], at_y + 1)
                entry[RIGHT] = max(entry[RIGHT], end_x)
            start = stop
    return sums


@kernel
def gather_sums(sums: Sums, targets: NDArray[np.int64], count: int) -> Sums:
    """Return the sums of ``count`` unions of rows; row i goes to ``targets[i]``, if >= 0."""
    out = empty_sums(count)
    for i in range(len(sums)):
        if targets[i] < 0:
            continue
        row, entry = sums[i], out[targets[i]]
        for column in range(TOP):
            entry[column] += row[column]
        for column in range(TOP, BOTTOM):
            entry[column] = min(entry[column], row[column])
        for column in range(BOTTOM, COLUMNS):
            entry[column] = max(entry[column], row[column])
    return out


@kernel
def list_votes(
    labels: NDArray[np.int32],
    nodes: NDArray[np.int64],
    classes: NDArray[np.uint8],
    corner: tuple[int, int],
    basins: int,
) -> NDArray[np.int64]:
    """Return the class votes of a tile by runs, int64 ``(M, 3)``: node, class, pixels.

    Labels above ``basins`` are background and do not vote.
    """
    rows, columns = labels.shape
    votes = np.empty((1024, 3), np.int64)
    count = 0
    for y in range(rows):
        if count + columns > len(votes):
            grown = np.empty((2 * len(votes) + columns, 3), np.int64)
            grown[:count] = votes[:count]
            votes = grown
        last_node, last_class = np.int64(-1), np.int64(-1)
        for x in range(columns):
            label = labels[y, x]
            node = nodes[label] if 0 < label <= basins else np.int64(-1)
            kind = np.int64(classes[corner[0] + y, corner[1] + x])
            if node >= 0:
                if node == last_node and kind == last_class:
                    votes[count - 1, 2] += 1
                else:
                    votes[count] = node, kind, 1
                    count += 1
            last_node, last_class = node, kind
    return votes[:count]


def add_votes(votes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return votes ``(M, 3)`` with one row for each node and class, sorted by both."""
    if len(votes) == 0:
        return votes
    pairs = votes[:, 0] << 8 | votes[:, 1]
    order = np.argsort(pairs, kind="stable")
    pairs = pairs[order]
    starts = np.flatnonzero(np.diff(pairs, prepend=-1))
    pixels = np.add.reduceat(votes[order, 2], starts)
    return np.stack([pairs[starts] >> 8, pairs[starts] & 255, pixels], 1)


def elected(votes: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return the class with most votes of nodes 0 .. ``count``, ties to the lowest; -1 if none."""
    votes = add_votes(votes)
    winners = np.full(count, -1, np.int64)
    # The last write of a node wins: fewest votes first, of equals the highest class first.
    order = np.lexsort((-votes[:, 1], votes[:, 2], votes[:, 0]))
    winners[votes[order, 0]] = votes[order, 1]
    return winners
