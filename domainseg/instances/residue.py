"""Tiles joined in constant memory: what is certain leaves a tile at once, the rest waits.

A node that no seam and no undecided edge touches is an object of its own, whatever lies
outside the tile. It is filtered and recorded in a few bytes. Only what touches a seam is
kept as a graph, with the sides of one row of tiles, until its neighbours are there
(`Quilt`). The result is that of `mosaic.join_tiles` for all tiles at once.

Background is settled too, where holes are filled. A component of it is a hole of an object
only when it lies wholly inside it, so it is none when it reaches the border of the image,
or is beside two objects of which one is settled. Nor is it one when it goes on outside the
tile and is beside a settled object: that lies inside the tile and cannot surround it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from domainseg.instances.forest import merge_nodes
from domainseg.instances.holes import owners_of_unions
from domainseg.instances.kernel import kernel
from domainseg.instances.mosaic import ObjectFilter, reaches_border
from domainseg.instances.saddles import Edges
from domainseg.instances.seams import Side, in_line, seam_edges
from domainseg.instances.sums import (
    BOTTOM,
    CLASS,
    FIRST,
    LEFT,
    RIGHT,
    TOP,
    Sums,
    elected,
    empty_sums,
    gather_sums,
    mean_scores,
)
from domainseg.instances.tile_graph import Box, TileGraph


@dataclass(frozen=True, slots=True)
class Settled:
    """Objects that nothing can change any more, N of them.

    Attributes:
        firsts: int64 ``(N,)``, index in the image of the first pixel.
        classes: int16 ``(N,)``.
        scores: float32 ``(N,)``.
        boxes: int32 ``(N, 2, 2)``, half-open, px.
    """

    firsts: NDArray[np.int64]
    classes: NDArray[np.int16]
    scores: NDArray[np.float32]
    boxes: NDArray[np.int32]

    @classmethod
    def of_sums(cls, sums: Sums) -> Settled:
        """Return the objects of these sums, one a row."""
        return cls(
            firsts=sums[:, FIRST].copy(),
            classes=sums[:, CLASS].astype(np.int16),
            scores=mean_scores(sums).astype(np.float32),
            boxes=sums[:, [TOP, LEFT, BOTTOM, RIGHT]].reshape(-1, 2, 2).astype(np.int32),
        )


@dataclass(frozen=True, slots=True)
class Residue:
    """What is kept of a decoded tile.

    Attributes:
        core: ``((y0, x0), (y1, x1))`` half-open in the image.
        settled: its finished objects; those that a filter dropped are not among them.
        peaks: int64 ``(U,)`` of its open nodes; 0 for background.
        sums: int64 ``(U, COLUMNS)``.
        reaching: bool ``(U,)``, background that is certainly no hole.
        votes, edges, contacts: as in `TileGraph`, of open nodes.
        top, bottom, left, right: the sides, with open nodes.
    """

    core: Box
    settled: Settled
    peaks: NDArray[np.int64]
    sums: Sums
    reaching: NDArray[np.bool_]
    votes: NDArray[np.int64]
    edges: Edges
    contacts: Edges
    top: Side
    bottom: Side
    left: Side
    right: Side


@dataclass(frozen=True, slots=True)
class Numbering:
    """The objects of an image and the label of each, from ``first`` on by first pixel.

    Attributes:
        first: the label of object 0.
        objects: all objects, in the order of their labels.
        opened: int32 ``(U,)``, label of each open node of all tiles; 0 for none.
        settled: int32 ``(S,)``, label of each settled object of all tiles.
        starts: int64 ``(tiles + 1, 2)``, where each tile's open nodes and settled objects begin.
    """

    first: int
    objects: Settled
    opened: NDArray[np.int32]
    settled: NDArray[np.int32]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.objects.firsts)

    def paint(self, tile: int, codes: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the labels of a tile, the ``tile``-th that was added, from its codes.

        Both are int32 ``(h, w)``; see `settle`.
        """
        (o0, s0), (o1, s1) = self.starts[tile], self.starts[tile + 1]
        labels = np.empty_like(codes)
        _paint_codes(codes, self.opened[o0:o1], self.settled[s0:s1], labels)
        return labels


def settle(tile: TileGraph, *, keep: ObjectFilter) -> tuple[Residue, NDArray[np.int32]]:
    """Return what is kept of a tile, and a code for each of its pixels, int32 ``(h, w)``.

    Code 0 is background, ``n`` open node n - 1, ``-n`` settled object n - 1.
    """
    count = len(tile.peaks)
    background = tile.peaks == 0
    on_seam = _on_seams(tile)
    bound = on_seam.copy()
    bound[tile.edges[:, :2].ravel()] = True
    closed = ~bound & ~background
    fates = _fates(tile, closed, on_seam)
    places = np.full(count + 1, -1)
    places[:-1][closed] = np.arange(np.count_nonzero(closed))
    places[:-1][fates.filled] = places[fates.owners[fates.filled]]
    sums = gather_sums(tile.sums, places[:-1], int(np.count_nonzero(closed)))
    mine = places[tile.votes[:, 0]] >= 0
    if mine.any():
        votes = tile.votes[mine]
        votes[:, 0] = places[votes[:, 0]]
        sums[:, CLASS] = elected(votes, len(sums))
    kept = np.flatnonzero(keep.keeps(sums))
    ranks = np.zeros(len(sums) + 1, np.int64)
    ranks[kept] = np.arange(1, len(kept) + 1)

    opened = np.flatnonzero(bound & ~background | fates.waiting)
    codes = -ranks[places]
    codes[opened] = np.arange(1, len(opened) + 1)
    residue = Residue(
        core=tile.core,
        settled=Settled.of_sums(sums[kept]),
        peaks=tile.peaks[opened],
        sums=tile.sums[opened],
        reaching=fates.never[opened],
        votes=_renamed(tile.votes[~mine], codes, columns=1),
        edges=_renamed(tile.edges, codes, columns=2),
        contacts=_renamed(tile.contacts[fates.contacts], codes, columns=2),
        **{
            name: _with_nodes(getattr(tile, name), codes)
            for name in ("top", "bottom", "left", "right")
        },
    )
    painted = np.empty(tile.labels.shape, np.int32)
    _paint_table(tile.labels, codes[tile.nodes].astype(np.int32), painted)
    return residue, painted


class Quilt:
    """Tiles joined one after another; remembers open nodes and one row of sides.

    Tiles are added in raster order: rows of tiles, each cut into columns.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self._width = shape[1]
        self._residues: list[Residue] = []
        self._starts = [(0, 0)]
        self._edges: list[Edges] = []
        self._contacts: list[Edges] = []
        self._above: Side | None = None
        self._row: list[tuple[Residue, int]] = []

    def add(self, residue: Residue) -> None:
        """Take the next tile."""
        if self._row and self._row[0][0].core[0][0] != residue.core[0][0]:
            self._end_row()
        opened, settled = self._starts[-1]
        self._keep(residue.edges, residue.contacts, base=opened)
        if self._row:
            left, base = self._row[-1]
            self._seam(left.right.shifted(base), residue.left.shifted(opened), upright=True)
        self._row.append((residue, opened))
        self._residues.append(_without_sides(residue))
        self._starts.append((opened + len(residue.peaks), settled + len(residue.settled.firsts)))

    def finish(self, *, limit: int, keep: ObjectFilter, first: int = 1) -> Numbering:
        """Return the objects of all tiles, labelled ``first``, ``first + 1``, ....

        Args:
            limit: height in quanta by which a peak must rise above a saddle to stay apart.
            keep: objects that it drops become background.
            first: label of the first object.
        """
        if self._row:
            self._end_row()
        tiles = self._residues
        unions, sums = self._joined(limit)
        kept = np.flatnonzero(keep.keeps(sums))
        settled = _joined_settled([tile.settled for tile in tiles])
        late = Settled.of_sums(sums[kept])
        objects = _joined_settled([settled, late])
        order = np.argsort(objects.firsts, kind="stable")
        numbers = np.empty(len(order), np.int32)
        numbers[order] = np.arange(first, first + len(order), dtype=np.int32)
        count = len(settled.firsts)
        of_unions = np.zeros(len(sums) + 1, np.int32)  # the last is where union -1 looks
        of_unions[kept] = numbers[count:]
        return Numbering(
            first=first,
            objects=Settled(
                objects.firsts[order],
                objects.classes[order],
                objects.scores[order],
                objects.boxes[order],
            ),
            opened=of_unions[unions],
            settled=numbers[:count].copy(),
            starts=np.array(self._starts, np.int64),
        )

    def _joined(self, limit: int) -> tuple[NDArray[np.int64], Sums]:
        """Return the union of each open node, -1 for background, and the sums of unions."""
        tiles = self._residues
        peaks = np.concatenate([np.zeros(0, np.int64), *(tile.peaks for tile in tiles)])
        if not len(peaks):
            return peaks, empty_sums(0)
        sums = np.concatenate([tile.sums for tile in tiles])
        reaching = np.concatenate([tile.reaching for tile in tiles])
        edges, contacts = np.concatenate(self._edges), np.concatenate(self._contacts)
        unions, _ = merge_nodes(peaks, np.zeros(len(peaks), np.bool_), edges, limit=limit)
        owners = owners_of_unions(unions, peaks, reaching, contacts)
        sums = gather_sums(sums, owners, int(owners.max(initial=-1)) + 1)
        votes = np.concatenate(
            [_based(tile.votes, base) for tile, (base, _) in zip(tiles, self._starts, strict=False)]
        )
        if len(votes):
            votes[:, 0] = owners[votes[:, 0]]
            sums[:, CLASS] = elected(votes, len(sums))
        return owners, sums

    def _end_row(self) -> None:
        row, self._row = self._row, []
        if self._above is not None:
            below = in_line([tile.top.shifted(base) for tile, base in row])
            self._seam(self._above, below, upright=False)
        self._above = in_line([tile.bottom.shifted(base) for tile, base in row])

    def _seam(self, one: Side, two: Side, *, upright: bool) -> None:
        edges, contacts = seam_edges(one, two, upright=upright, width=self._width)
        self._keep(edges, contacts, base=0)

    def _keep(self, edges: Edges, contacts: Edges, *, base: int) -> None:
        for rows, into in ((edges, self._edges), (contacts, self._contacts)):
            rows = rows.copy()  # a seam's are a short part of a long buffer
            rows[:, :2] += base
            into.append(rows)


@dataclass(frozen=True, slots=True)
class _Fates:
    """What becomes of the background nodes of a tile.

    Attributes:
        filled: bool ``(N,)``, holes of a settled object.
        owners: int64 ``(N,)``, that object's node.
        waiting: bool ``(N,)``, kept as open nodes.
        never: bool ``(N,)``, certainly no hole.
        contacts: bool ``(C,)``, contacts that still matter.
    """

    filled: NDArray[np.bool_]
    owners: NDArray[np.int64]
    waiting: NDArray[np.bool_]
    never: NDArray[np.bool_]
    contacts: NDArray[np.bool_]


def _fates(tile: TileGraph, closed: NDArray[np.bool_], on_seam: NDArray[np.bool_]) -> _Fates:
    count = len(tile.peaks)
    background = tile.peaks == 0
    one, two = tile.contacts[:, 0], tile.contacts[:, 1]
    holes = np.where(background[one], one, two)
    beside = np.where(background[one], two, one)
    certain = closed[beside]
    lowest, highest = np.full(count, count), np.full(count, -1)
    np.minimum.at(lowest, holes[certain], beside[certain])
    np.maximum.at(highest, holes[certain], beside[certain])
    undecided = np.zeros(count, bool)
    undecided[holes[~certain]] = True
    settled = highest >= 0
    several = settled & (on_seam | undecided | (lowest != highest))
    never = background & (several | reaches_border(tile.sums, tile.shape))
    filled = background & settled & ~never
    waiting = background & ~filled & (on_seam | ~never)
    return _Fates(filled, highest, waiting, never, ~never[holes] & ~filled[holes])


def _on_seams(tile: TileGraph) -> NDArray[np.bool_]:
    """Return which nodes have a pixel beside another tile, bool ``(N,)``."""
    (y0, x0), (y1, x1) = tile.core
    sides = (
        (tile.top, y0 > 0),
        (tile.bottom, y1 < tile.shape[0]),
        (tile.left, x0 > 0),
        (tile.right, x1 < tile.shape[1]),
    )
    found = np.zeros(len(tile.peaks) + 1, bool)
    for side, inner in sides:
        if inner:
            found[side.nodes] = True
    return found[:-1]


def _renamed(
    rows: NDArray[np.int64], codes: NDArray[np.int64], *, columns: int
) -> NDArray[np.int64]:
    """Return rows whose nodes, in the first ``columns``, are numbered as the codes say."""
    out = rows.copy()
    out[:, :columns] = codes[rows[:, :columns]] - 1
    return out


def _with_nodes(side: Side, codes: NDArray[np.int64]) -> Side:
    """Return a side with its open nodes; what is settled or background is -1."""
    return replace(side, nodes=np.maximum(codes[side.nodes], 0) - 1)


def _without_sides(residue: Residue) -> Residue:
    """Return the residue with nothing that only the seams needed."""
    flags = np.zeros(0, np.uint8)
    none = Side(np.zeros(0, np.int64), np.zeros(0, np.uint32), flags, flags, flags, first=0)
    rows = np.zeros((0, 3), np.int64)
    return replace(residue, edges=rows, contacts=rows, top=none, bottom=none, left=none, right=none)


def _joined_settled(parts: Sequence[Settled]) -> Settled:
    """Return the objects of all parts, one after the other."""
    return Settled(
        firsts=np.concatenate([np.zeros(0, np.int64), *(p.firsts for p in parts)]),
        classes=np.concatenate([np.zeros(0, np.int16), *(p.classes for p in parts)]),
        scores=np.concatenate([np.zeros(0, np.float32), *(p.scores for p in parts)]),
        boxes=np.concatenate([np.zeros((0, 2, 2), np.int32), *(p.boxes for p in parts)]),
    )


def _based(votes: NDArray[np.int64], base: int) -> NDArray[np.int64]:
    out = votes.copy()
    out[:, 0] += base
    return out


@kernel
def _paint_table(
    labels: NDArray[np.int32], table: NDArray[np.int32], out: NDArray[np.int32]
) -> None:
    """Write ``table[labels]`` into ``out``."""
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            out[y, x] = table[labels[y, x]]


@kernel
def _paint_codes(
    codes: NDArray[np.int32],
    opened: NDArray[np.int32],
    settled: NDArray[np.int32],
    out: NDArray[np.int32],
) -> None:
    """Write the labels of codes into ``out``."""
    for y in range(codes.shape[0]):
        for x in range(codes.shape[1]):
            code = codes[y, x]
            if code > 0:
                out[y, x] = opened[code - 1]
            elif code < 0:
                out[y, x] = settled[-code - 1]
            else:
                out[y, x] = 0
