"""Tiles joined: the graphs of the tiles of an image become its objects.

The union of the tiles' graphs and of the edges across their seams is a graph of
the whole image. Merging it, filling holes and adding up the sums needs no pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from domainseg.errors import UsageError, sentence
from domainseg.instances.forest import merge_nodes
from domainseg.instances.holes import owners_of_unions
from domainseg.instances.kernel import kernel
from domainseg.instances.saddles import Edges
from domainseg.instances.seams import in_line, seam_edges
from domainseg.instances.sums import (
    AREA,
    BOTTOM,
    CLASS,
    FIRST,
    LEFT,
    RIGHT,
    TOP,
    Sums,
    elected,
    gather_sums,
    mean_scores,
)
from domainseg.instances.tile_graph import Box, TileGraph


@dataclass(frozen=True, slots=True)
class ObjectFilter:
    """Which objects are kept: of at least, of at most this area, of at least this score.

    A tuple holds one limit per class.
    """

    min_area_px: int | tuple[int, ...] = 0
    max_area_px: int | None = None
    min_score: float | tuple[float, ...] = 0.0

    def keeps(self, sums: Sums) -> NDArray[np.bool_]:
        """Return which rows of sums are objects that are kept, bool ``(N,)``."""
        areas, classes = sums[:, AREA], sums[:, CLASS]
        least = np.maximum(_of_class(self.min_area_px, classes), 1)
        kept = (areas >= least) & (mean_scores(sums) >= _of_class(self.min_score, classes))
        if self.max_area_px is not None:
            kept &= areas <= self.max_area_px
        return np.asarray(kept, np.bool_)


def _of_class(
    limit: float | tuple[float, ...], classes: NDArray[np.int64]
) -> float | NDArray[np.float64]:
    """Return the limit of each row; a row without a class has no pixel and is dropped anyway."""
    return np.asarray(limit, np.float64)[classes] if isinstance(limit, tuple) else limit


@dataclass(frozen=True, slots=True)
class Mosaic:
    """The objects of an image, and where each node of each tile went.

    Attributes:
        sums: int64 ``(N, COLUMNS)``, one row for each object, by first pixel in raster order.
        objects: for each tile, in the order given, int64 ``(nodes,)``: the row
            of ``sums`` that each node belongs to, -1 for background.
    """

    sums: Sums
    objects: tuple[NDArray[np.int64], ...]


def join_tiles(tiles: Sequence[TileGraph], *, limit: int, keep: ObjectFilter) -> Mosaic:
    """Return the objects of the image that the tiles partition, in any order.

    Args:
        tiles: the graphs of all tiles of a grid, which need not be regular.
        limit: height in quanta by which a peak must rise above a saddle to stay apart.
        keep: objects that it drops become background.

    Raises:
        UsageError: when the tiles are not those of a grid that covers the image once.
    """
    edges, contacts = edges_of_tiles(tiles)
    return join_graph(tiles, edges, contacts, limit=limit, keep=keep)


def join_graph(
    tiles: Sequence[TileGraph], edges: Edges, contacts: Edges, *, limit: int, keep: ObjectFilter
) -> Mosaic:
    """Return the objects of tiles joined by ``edges`` and ``contacts``, as by ``edges_of_tiles``.

    Class by votes of the pixels where classes connect (ties: the lowest). Holes
    are filled before objects are filtered.
    """
    bases = _bases(tiles)
    peaks = np.concatenate([tile.peaks for tile in tiles])
    sums = np.concatenate([tile.sums for tile in tiles])
    unions, _ = merge_nodes(peaks, np.zeros(len(peaks), np.bool_), edges, limit=limit)
    owners = owners_of_unions(unions, peaks, reaches_border(sums, tiles[0].shape), contacts)
    sums = gather_sums(sums, owners, int(owners.max(initial=-1)) + 1)
    votes = _moved([tile.votes for tile in tiles], bases, columns=1)
    if len(votes):
        votes[:, 0] = owners[votes[:, 0]]
        sums[:, CLASS] = elected(votes, len(sums))
    kept = np.flatnonzero(keep.keeps(sums))
    kept = kept[np.argsort(sums[kept, FIRST])]
    rows = np.full(len(sums) + 1, -1, np.int64)  # the last is where owner -1 looks
    rows[kept] = np.arange(len(kept))
    return Mosaic(sums[kept], tuple(np.split(rows[owners], bases[1:])))


def edges_of_tiles(tiles: Sequence[TileGraph]) -> tuple[Edges, Edges]:
    """Return edges and contacts in and between the tiles, int64 ``(M, 3)`` each.

    Their nodes are counted through the tiles, in the order given.

    Raises:
        UsageError: when the tiles are not those of a grid that covers the image once.
    """
    bases = _bases(tiles)
    edges = [_moved([tile.edges for tile in tiles], bases, columns=2)]
    contacts = [_moved([tile.contacts for tile in tiles], bases, columns=2)]
    width = tiles[0].shape[1]
    grid = grid_of([tile.core for tile in tiles], tiles[0].shape)
    for row in grid:
        for one, two in pairwise(row):
            left, right = tiles[one].right.shifted(bases[one]), tiles[two].left.shifted(bases[two])
            across, touching = seam_edges(left, right, upright=True, width=width)
            edges.append(across)
            contacts.append(touching)
    for upper, lower in pairwise(grid):
        above = in_line([tiles[i].bottom.shifted(bases[i]) for i in upper])
        below = in_line([tiles[i].top.shifted(bases[i]) for i in lower])
        across, touching = seam_edges(above, below, upright=False, width=width)
        edges.append(across)
        contacts.append(touching)
    return np.concatenate(edges), np.concatenate(contacts)


def grid_of(cores: Sequence[Box], shape: tuple[int, int]) -> list[list[int]]:
    """Return the rows of the grid that the cores form, as indices of ``cores``, left to right.

    Raises:
        UsageError: when they do not form a grid that covers ``shape`` once.
    """
    columns: dict[tuple[int, int], list[int]] = {}
    for i in sorted(range(len(cores)), key=lambda i: cores[i]):
        (y0, _), (y1, _) = cores[i]
        columns.setdefault((y0, y1), []).append(i)
    covered = _covers(list(columns), shape[0])
    for row in columns.values():
        covered &= _covers([(cores[i][0][1], cores[i][1][1]) for i in row], shape[1])
    if not covered:
        raise UsageError(
            sentence(
                "tiles",
                found=f"{len(cores)} that leave gaps, overlap or do not stand in rows",
                wanted=f"a grid that covers the {shape[0]} x {shape[1]} pixels once",
                fix="cut the image along whole rows, and each row into columns",
            )
        )
    return list(columns.values())


def numbers_of_nodes(objects: NDArray[np.int64], *, first: int) -> NDArray[np.int32]:
    """Return the label of each node, int32, and one 0 at the end, for pixels of no node.

    ``objects`` is an entry of ``Mosaic.objects``; its object 0 is labelled ``first``.
    """
    return np.append(np.where(objects < 0, 0, objects + first), 0).astype(np.int32)


def write_labels(tile: TileGraph, numbers: NDArray[np.int32], out: NDArray[np.int32]) -> None:
    """Write the object number of every pixel of the tile into ``out``, int32 ``(H, W)``.

    ``numbers`` is that of ``numbers_of_nodes``.
    """
    paint(tile.labels, numbers[tile.nodes], *tile.core[0], out)


@kernel
def paint(
    labels: NDArray[np.int32],
    numbers: NDArray[np.int32],
    y0: int,
    x0: int,
    out: NDArray[np.int32],
) -> None:
    """Write ``numbers[labels]`` into ``out`` at ``(y0, x0)``."""
    rows, columns = labels.shape
    for y in range(rows):
        row, target = labels[y], out[y0 + y, x0 : x0 + columns]
        for x in range(columns):
            target[x] = numbers[row[x]]


def _covers(spans: list[tuple[int, int]], length: int) -> bool:
    """Return whether the sorted half-open spans follow each other from 0 to ``length``."""
    ends = [0, *(stop for _, stop in spans)]
    starts = [*(start for start, _ in spans), length]
    return ends == starts and all(start < stop for start, stop in spans)


def _bases(tiles: Sequence[TileGraph]) -> NDArray[np.int64]:
    """Return the number of nodes in the tiles before each, int64 ``(tiles,)``."""
    return np.cumsum([0, *(len(tile.peaks) for tile in tiles[:-1])], dtype=np.int64)


def _moved(
    rows: Sequence[NDArray[np.int64]], bases: NDArray[np.int64], *, columns: int
) -> NDArray[np.int64]:
    """Return the rows of all tiles with the bases added in the first ``columns``."""
    out = np.concatenate(rows)
    out[:, :columns] += np.repeat(bases, [len(part) for part in rows])[:, None]
    return out


def reaches_border(sums: Sums, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return which rows of sums reach the border of the image, bool ``(N,)``."""
    low = (sums[:, TOP] == 0) | (sums[:, LEFT] == 0)
    high = (sums[:, BOTTOM] == shape[0]) | (sums[:, RIGHT] == shape[1])
    return np.asarray(low | high, np.bool_)
