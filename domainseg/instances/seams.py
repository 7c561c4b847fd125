"""Seams: the edges between tiles, found from the two lines of pixels that face each other.

A horizontal seam runs the whole width of a row of tiles, so that the diagonals
where four tiles meet are among its edges; a vertical one runs the height of one
row of tiles and leaves those out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from domainseg.instances.ascent import LEAVES
from domainseg.instances.kernel import kernel
from domainseg.instances.saddles import BOND, Edges, add_edge, edge_key, no_edges


@dataclass(frozen=True, slots=True)
class Side:
    """The outermost row or column of pixels of a tile, or of several in a line.

    Attributes:
        nodes: int64 ``(n,)``, negative where no node is.
        ranks: uint32 ``(n,)``, 0 at background.
        ways: uint8 ``(n,)``.
        kinds: uint8 ``(n,)``.
        plain: uint8 ``(n,)``, 1 for a class that is not split.
        first: index in the image of the first pixel.
    """

    nodes: NDArray[np.int64]
    ranks: NDArray[np.uint32]
    ways: NDArray[np.uint8]
    kinds: NDArray[np.uint8]
    plain: NDArray[np.uint8]
    first: int

    def shifted(self, base: int) -> Side:
        """Return the side with ``base`` added to its nodes; those of no node stay negative."""
        return replace(self, nodes=np.where(self.nodes < 0, self.nodes, self.nodes + base))


def in_line(sides: Sequence[Side]) -> Side:
    """Return the sides one after the other as one side."""
    return Side(
        nodes=np.concatenate([side.nodes for side in sides]),
        ranks=np.concatenate([side.ranks for side in sides]),
        ways=np.concatenate([side.ways for side in sides]),
        kinds=np.concatenate([side.kinds for side in sides]),
        plain=np.concatenate([side.plain for side in sides]),
        first=sides[0].first,
    )


def seam_edges(one: Side, two: Side, *, upright: bool, width: int) -> tuple[Edges, Edges]:
    """Return the edges across a seam, and the contacts of background with basins.

    Both are int64 ``(M, 3)``. A pixel whose way leads across is joined to where
    it leads by a bond, as are background nodes beside each other.

    Args:
        one: the side above the seam, or left of it.
        two: the side below, or right.
        upright: whether the seam is vertical.
        width: pixels in a row of the image.
    """
    # Ways from `one` to `two`: 6 7 8 down, or 2 5 8 right.
    straight, turn, step = (5, 3, width) if upright else (7, 1, 1)
    return cross_seam(
        (one.nodes, two.nodes),
        (one.ranks, two.ranks),
        (one.ways, two.ways),
        (one.kinds, two.kinds),
        (one.plain, two.plain),
        one.first,
        step,
        straight,
        turn,
        width,
    )


@kernel
def cross_seam(
    nodes: tuple[NDArray[np.int64], NDArray[np.int64]],
    ranks: tuple[NDArray[np.uint32], NDArray[np.uint32]],
    ways: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    kinds: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    plain: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    first: int,
    step: int,
    straight: int,
    turn: int,
    width: int,
) -> tuple[Edges, Edges]:
    """Return edges and contacts of a seam whose pixels are ``step`` apart in the image.

    ``straight`` is the way across, and ``straight +- turn`` are the diagonal ones.
    """
    length = nodes[0].size
    edges, table = no_edges(3 * length)
    contacts, places = no_edges(length)
    for i in range(length):
        for aside in range(-1, 2):
            j = i + aside
            if not 0 <= j < length:
                continue
            one, two = nodes[0][i], nodes[1][j]
            rank, other = np.int64(ranks[0][i]), np.int64(ranks[1][j])
            if one < 0 or two < 0:
                continue
            if rank and other:
                if kinds[0][i] != kinds[1][j]:
                    continue
                way = straight + turn * aside
                key = edge_key(rank, other, first + i * step, way, width)
                followed = ways[0][i] == way + LEAVES or ways[1][j] == 8 - way + LEAVES
                if followed or (plain[0][i] and plain[1][j]):
                    key |= BOND
                add_edge(edges, table, one, two, key)
            elif aside == 0 and rank == other:
                add_edge(edges, table, one, two, BOND)
            elif aside == 0:
                add_edge(contacts, places, one, two, 0)
    return edges[: table[-1]], contacts[: places[-1]]
