"""What the decoder keeps of one tile: a small graph, integer sums and the four sides.

A tile is decoded from its own pixels and ``MARGIN`` pixels of context. Its
graph holds one node for every basin that the tile alone cannot merge further;
of the pixels only the four sides are needed to join it to its neighbours, and
the labels to write the objects in the end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from domainseg.instances.ascent import Ways, climb, label_basins, peak_keys
from domainseg.instances.forest import merge_nodes
from domainseg.instances.holes import label_background, list_contacts, mark_unseen
from domainseg.instances.plateaus import MARGIN, Kinds, Ranks, rank_pixels
from domainseg.instances.saddles import Edges, mark_open, tile_edges
from domainseg.instances.seams import Side
from domainseg.instances.sums import Sums, add_votes, list_votes, sum_nodes
from domainseg.records import Maps

Box = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class DecodeRules:
    """Options of the decoder in the integers that the maps hold.

    Attributes:
        quantum: smallest foreground quantum of an object.
        quanta: uint16 ``(256,)``, the same of each class; None where it is one for all.
        limit: height in quanta by which a peak must rise above a saddle to stay apart.
        plain: uint8 ``(256,)``, 1 for a class whose objects are not split.
        bridged: whether pixels of different classes connect.
        fill_holes: whether background is labelled too.
        evidence: int64 ``(256,)``, what a pixel of each foreground quantum adds to the score.
    """

    quantum: int
    limit: int
    plain: NDArray[np.uint8]
    bridged: bool
    fill_holes: bool
    evidence: NDArray[np.int64]
    quanta: NDArray[np.uint16] | None = None

    def gated(self, window: Window) -> Window:
        """Return the window with background where a pixel falls short of its own class.

        It looks at one pixel at a time, so that the tiling cannot matter.
        """
        if self.quanta is None:
            return window
        enough = window.foreground >= self.quanta[window.classes]
        return replace(window, foreground=np.where(enough, window.foreground, np.uint8(0)))


@dataclass(frozen=True, slots=True)
class Window:
    """The context of a tile in a layer of maps, and what of it is ranked.

    Attributes:
        foreground: uint8 ``(h, w)`` pixels of the layer that cover the tile and
            its context; all of the layer, or a region of it. Likewise ``height``
            and ``classes``.
        height: uint16 ``(h, w)``.
        classes: uint8 ``(h, w)``.
        origin: ``(y, x)`` in the image of the first of these pixels.
        shape: ``(H, W)`` of the image.
    """

    foreground: NDArray[np.uint8]
    height: NDArray[np.uint16]
    classes: NDArray[np.uint8]
    origin: tuple[int, int]
    shape: tuple[int, int]

    @classmethod
    def of_layer(cls, maps: Maps, layer: int) -> Window:
        """Return the whole layer as a window, copied unless contiguous and writable.

        Every other layout in memory would have each kernel compiled once more.
        """
        return cls(
            np.require(maps.foreground[layer], requirements=("C", "W")),
            np.require(maps.height[layer], requirements=("C", "W")),
            np.require(maps.classes[layer], requirements=("C", "W")),
            (0, 0),
            (maps.height.shape[1], maps.height.shape[2]),
        )


@dataclass(frozen=True, slots=True)
class Slopes:
    """A tile in the order of its pixels, before anything is merged.

    Attributes:
        core: ``((y0, x0), (y1, x1))`` half-open in the image, ``(h, w)`` large.
        ranks: uint32, the tile with context and a frame.
        kinds: uint8, as ``ranks``.
        plain: uint8, as ``ranks``; 1 for a class that is not split.
        place: ``(y, x)`` of the tile's first pixel in these three.
        ways: uint8 ``(h, w)``.
        labels: int32 ``(h, w)``, basins 1..n, 0 background.
        peaks: int64 ``(n,)``.
    """

    core: Box
    ranks: Ranks
    kinds: Kinds
    plain: NDArray[np.uint8]
    place: tuple[int, int]
    ways: Ways
    labels: NDArray[np.int32]
    peaks: NDArray[np.int64]

    def first(self, width: int) -> int:
        """Return the index of the tile's first pixel in an image of this width."""
        return self.core[0][0] * width + self.core[0][1]


@dataclass(frozen=True, slots=True)
class TileGraph:
    """A decoded tile, ready to be joined to others.

    Attributes:
        core: ``((y0, x0), (y1, x1))`` half-open in the image, ``(h, w)`` large.
        shape: ``(H, W)`` of the image.
        labels: int32 ``(h, w)``, 0 where there is no node.
        nodes: int64, the node of each label; -1 for none.
        peaks: int64 ``(N,)``, key of the highest pixel of each node; 0 for background.
        edges: int64 ``(M, 3)``, undecided saddles between nodes.
        contacts: int64 ``(C, 3)``, background beside basins; empty unless holes are filled.
        sums: int64 ``(N, COLUMNS)``.
        votes: int64 ``(V, 3)``, node, class, pixels; empty unless classes connect.
        top: the four sides, each with nodes of this tile. Likewise ``bottom``,
            ``left`` and ``right``.
    """

    core: Box
    shape: tuple[int, int]
    labels: NDArray[np.int32]
    nodes: NDArray[np.int64]
    peaks: NDArray[np.int64]
    edges: Edges
    contacts: Edges
    sums: Sums
    votes: NDArray[np.int64]
    top: Side
    bottom: Side
    left: Side
    right: Side


def find_slopes(window: Window, core: Box, rules: DecodeRules) -> Slopes:
    """Return the basins of the tile ``core``: steps 1 and 2, order and ascent.

    The window must reach ``MARGIN`` pixels beyond the core or to the border of the image.
    """
    (y0, x0), (y1, x1) = core
    height, width = window.shape
    box = (
        (max(y0 - MARGIN, 0), max(x0 - MARGIN, 0)),
        (min(y1 + MARGIN, height), min(x1 + MARGIN, width)),
    )
    inside = _moved(box, window.origin)
    ranks, kinds = rank_pixels(
        window.foreground,
        window.height,
        window.classes,
        quantum=rules.quantum,
        bridged=rules.bridged,
        box=inside,
    )
    plain = np.zeros(kinds.shape, np.uint8)
    if rules.plain.any():
        rows, columns = (slice(inside[0][axis], inside[1][axis]) for axis in (0, 1))
        plain[1:-1, 1:-1] = rules.plain[window.classes[rows, columns]]
    place = y0 - box[0][0] + 1, x0 - box[0][1] + 1
    ways = np.empty((y1 - y0, x1 - x0), np.uint8)
    climb(ranks, kinds, *place, ways)
    labels = np.zeros(ways.shape, np.int32)
    ends = label_basins(ways, labels)
    peaks = peak_keys(ends, ranks, *place, x1 - x0, y0 * width + x0, width)
    return Slopes(core, ranks, kinds, plain, place, ways, labels, peaks)


def merge_slopes(
    slopes: Slopes, opened: NDArray[np.bool_], *, width: int, limit: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], Edges]:
    """Return the node of each basin, the peak of each node and the undecided edges.

    ``opened`` says which basins may go on outside the tile; marking more than
    do so leaves more to be decided later, and changes nothing else.
    """
    edges = tile_edges(
        slopes.labels,
        slopes.ranks,
        slopes.kinds,
        slopes.plain,
        slopes.peaks,
        limit,
        *slopes.place,
        slopes.first(width),
        width,
    )
    unions, edges = merge_nodes(slopes.peaks, opened, edges, limit=limit)
    peaks = np.zeros(int(unions.max(initial=-1)) + 1, np.int64)
    np.maximum.at(peaks, unions, slopes.peaks)
    return unions, peaks, edges


def open_basins(slopes: Slopes) -> NDArray[np.bool_]:
    """Return which basins touch foreground outside the tile, bool ``(n,)``."""
    return mark_open(slopes.labels, slopes.ranks, slopes.kinds, *slopes.place, len(slopes.peaks))


def graph_of_tile(window: Window, core: Box, rules: DecodeRules) -> TileGraph:
    """Return the graph of the tile ``core``, a function of the window's pixels alone.

    The window must reach ``MARGIN`` pixels beyond the core or to the border of the image.
    """
    slopes = find_slopes(window, core, rules)
    merged = merge_slopes(slopes, open_basins(slopes), width=window.shape[1], limit=rules.limit)
    return graph_of_slopes(window, slopes, rules, merged)


def graph_of_slopes(
    window: Window,
    slopes: Slopes,
    rules: DecodeRules,
    merged: tuple[NDArray[np.int64], NDArray[np.int64], Edges],
) -> TileGraph:
    """Return the graph of a tile whose basins were ``merged``, as by ``merge_slopes``.

    Where holes are filled, the background in ``slopes.labels`` is labelled in place.
    """
    unions, peaks, edges = merged
    labels, basins = slopes.labels, len(slopes.peaks)
    nodes = np.append(np.int64(-1), unions)
    contacts = votes = np.zeros((0, 3), np.int64)
    if rules.fill_holes:
        components = label_background(labels, basins)
        nodes = np.append(nodes, components + len(peaks))
        peaks = np.append(peaks, np.zeros(int(components.max(initial=-1)) + 1, np.int64))
        contacts = list_contacts(labels, nodes, basins)
    corner = _moved(slopes.core, window.origin)[0]
    if rules.bridged:
        votes = add_votes(list_votes(labels, nodes, window.classes, corner, basins))
    width = window.shape[1]
    sums = sum_nodes(
        labels,
        nodes,
        window.foreground,
        window.classes,
        rules.evidence,
        rules.quantum,
        corner,
        slopes.core[0],
        width,
        len(peaks),
    )
    if rules.fill_holes:
        mark_unseen(labels, nodes, window.classes, corner, basins, sums)
    rows, columns = labels.shape
    return TileGraph(
        core=slopes.core,
        shape=window.shape,
        labels=labels,
        nodes=nodes,
        peaks=peaks,
        edges=edges,
        contacts=contacts,
        sums=sums,
        votes=votes,
        top=_side(slopes, nodes, slice(0, 1), slice(0, columns), width),
        bottom=_side(slopes, nodes, slice(rows - 1, rows), slice(0, columns), width),
        left=_side(slopes, nodes, slice(0, rows), slice(0, 1), width),
        right=_side(slopes, nodes, slice(0, rows), slice(columns - 1, columns), width),
    )


def _side(
    slopes: Slopes, nodes: NDArray[np.int64], rows: slice, columns: slice, width: int
) -> Side:
    """Return the pixels of these rows and columns of the tile as a side, copied."""
    y, x = slopes.place
    framed = (
        slice(y + rows.start, y + rows.stop),
        slice(x + columns.start, x + columns.stop),
    )
    return Side(
        nodes=nodes[slopes.labels[rows, columns].flatten()],
        ranks=slopes.ranks[framed].flatten(),
        ways=slopes.ways[rows, columns].flatten(),
        kinds=slopes.kinds[framed].flatten(),
        plain=slopes.plain[framed].flatten(),
        first=slopes.first(width) + rows.start * width + columns.start,
    )


def _moved(box: Box, origin: tuple[int, int]) -> Box:
    """Return ``box`` in coordinates that begin at ``origin``."""
    (y0, x0), (y1, x1) = box
    return (y0 - origin[0], x0 - origin[1]), (y1 - origin[0], x1 - origin[1])
