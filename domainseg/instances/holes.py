"""Holes: background that lies wholly inside one object.

Background is 4-connected, as objects are 8-connected. A component of it is a
hole of an object when it does not reach the border of the image, nor any pixel
that nobody looked at, and all foreground pixels beside its own (left, right,
above, below) belong to that one object. Components are labelled in a tile and
joined across seams like basins, as nodes of the same graph whose peak is 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domainseg.instances.forest import number_roots, root_of
from domainseg.instances.kernel import kernel
from domainseg.instances.saddles import Edges, add_edge, no_edges, with_room
from domainseg.instances.sums import TOP, Sums
from domainseg.records import UNSEEN


@kernel
def label_background(labels: NDArray[np.int32], basins: int) -> NDArray[np.int64]:
    """Label background pixels ``basins + 1, ...`` and return the component of each such label.

    ``labels`` is int32 ``(h, w)``, 0 at background, written in place. Returns
    int64 ``(K,)``: components 0, 1, ... of labels ``basins + 1 + arange(K)``.
    """
    rows, columns = labels.shape
    parents = np.arange(rows * ((columns + 1) // 2))
    count = 0
    for y in range(rows):
        for x in range(columns):
            if labels[y, x]:
                continue
            left = labels[y, x - 1] - basins - 1 if x else -1
            above = labels[y - 1, x] - basins - 1 if y else -1
            if left < 0 and above < 0:
                label = count
                count += 1
            else:
                label = left if left >= 0 else above
                if left >= 0 and above >= 0:
                    one, two = root_of(parents, left), root_of(parents, above)
                    parents[max(one, two)] = min(one, two)
            labels[y, x] = basins + 1 + label
    return number_roots(parents[:count])


@kernel
def mark_unseen(
    labels: NDArray[np.int32],
    nodes: NDArray[np.int64],
    classes: NDArray[np.uint8],
    corner: tuple[int, int],
    basins: int,
    sums: Sums,
) -> None:
    """Write into the sums of background that nobody looked at that it reaches the border.

    What it is there is not known, so it is no hole. ``classes`` has the tile's first pixel at
    ``corner``.
    """
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            if labels[y, x] > basins and classes[corner[0] + y, corner[1] + x] == UNSEEN:
                sums[nodes[labels[y, x]], TOP] = 0


@kernel
def list_contacts(labels: NDArray[np.int32], nodes: NDArray[np.int64], basins: int) -> Edges:
    """Return which background components of a tile are beside which basins.

    ``nodes`` maps a label to its node. Returns int64 ``(M, 3)``: pairs of nodes,
    one of them background, and 0.
    """
    rows, columns = labels.shape
    contacts, table = no_edges(2 * columns)
    for y in range(rows):
        contacts, table = with_room(contacts, table, 2 * columns)
        row, below = labels[y], labels[min(y + 1, rows - 1)]
        for x in range(columns):
            one, right, under = row[x], row[min(x + 1, columns - 1)], below[x]
            if (one > basins) != (right > basins):
                add_edge(contacts, table, nodes[one], nodes[right], 0)
            if (one > basins) != (under > basins):
                add_edge(contacts, table, nodes[one], nodes[under], 0)
    return contacts[: table[-1]]


@kernel
def owners_of_unions(
    unions: NDArray[np.int64],
    peaks: NDArray[np.int64],
    reaching: NDArray[np.bool_],
    contacts: Edges,
) -> NDArray[np.int64]:
    """Return for each node the union it belongs to, int64 ``(N,)``; -1 for plain background.

    A hole belongs to the union around it.

    Args:
        unions: int64 ``(N,)``, the union of each node.
        peaks: int64 ``(N,)``, 0 for background.
        reaching: bool ``(N,)``, whether a node reaches the border of the image.
        contacts: int64 ``(M, 3)``, pairs of nodes, one of them background.
    """
    nobody, several = -1, -2
    owners = np.full(unions.size, nobody)
    for node in range(unions.size):
        if peaks[node]:
            owners[unions[node]] = unions[node]
        elif reaching[node]:
            owners[unions[node]] = several
    for row in range(len(contacts)):
        one, two = contacts[row, 0], contacts[row, 1]
        hole, owner = (two, one) if peaks[one] else (one, two)
        hole, owner = unions[hole], unions[owner]
        if owners[hole] == nobody:
            owners[hole] = owner
        elif owners[hole] != owner:
            owners[hole] = several
    return np.asarray(np.maximum(owners[unions], nobody))
