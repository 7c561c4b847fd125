"""The exact decoder: quantised maps to numbered objects, the same for every tiling.

Each layer is decoded alone.

1. *Foreground* are the pixels whose probability reaches ``threshold``. Two of
   them are neighbours when they touch, diagonally too, and are of one class;
   of any class with ``merge_classes``. Everything below sees neighbours only.
2. *Order.* Pixel p precedes q when ``(height, -g, index)`` is larger, where g is
   the number of steps inside the plateau of equal height to a strictly higher
   pixel, at most 16 (``plateaus``).
3. *Ascent.* Each pixel points at the first of itself and its neighbours; pixels
   that end at one peak are a basin (``ascent``).
4. *Saddles* are edges between neighbours of two basins. The higher precedes; of
   one height, the one whose lower pixel, and then whose other pixel, has the
   larger index (``saddles``).
5. *Merging.* First all edges join whose two pixels are both of a class that is
   not split. Then saddles are visited in their order, and join when the lower
   of the two unions' peaks rises above the saddle by less than
   ``max(1, ceil(prominence * 65535))`` quanta (``forest``). The peak of a union
   is its highest.
6. *Holes*, if asked for: 4-connected background that does not reach the border
   of the image, nor a pixel that nobody looked at (class ``UNSEEN``), and whose
   left, right, upper and lower foreground neighbours are all of one object
   becomes part of it (``holes``). Background that surrounds another object,
   however small, is not a hole.
7. *Numbers.* Area, centroid and box are of all pixels, filled ones included;
   score and class are of the foreground pixels, because a filled hole is no
   evidence. Objects that fail a filter become background after that, and leave
   no hole behind to be filled. The rest are numbered 1..N, layer after layer,
   by first pixel in raster order.
8. *Links*, if asked for: objects of one class across a gap of so many pixels become one
   object, and the numbers close up (``link``).

Classes. Without ``merge_classes`` an object has one class, and a nucleus whose
class map is mottled falls into pieces of one class each: right where classes
are kinds of area (layers, stains). With ``merge_classes`` the shape comes from
foreground and height alone and the pixels vote for the class, the lowest of
equals: right where every object is one thing of one class.

Every step is a function of bounded neighbourhoods, of the graph of basins, or of
sums of integers. So an image is decoded in tiles, each of its own graph
(``tile_graph``), which are then joined (``mosaic``); one tile or many give the
same objects to the last bit.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from domainseg.errors import InputError, UsageError, sentence
from domainseg.instances.link import Links, find_links
from domainseg.instances.mosaic import ObjectFilter, join_tiles, numbers_of_nodes, write_labels
from domainseg.instances.sums import (
    AREA,
    BOTTOM,
    CLASS,
    LEFT,
    RIGHT,
    SUM_X,
    SUM_Y,
    TOP,
    Sums,
    empty_sums,
    evidence_table,
    mean_scores,
)
from domainseg.instances.tile_graph import Box, DecodeRules, Window, graph_of_tile
from domainseg.records import HEIGHT_MAX, MAX_CLASSES, UNSEEN, Maps, foreground_quantum

Result = TypeVar("Result")

MOST_GAP_PX = 1024
"""The widest gap that is linked: blocks are read with such a margin."""
_TILE_PX = 512  # the ranks of a tile and its context stay in a core's own cache


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """How maps become objects.

    Attributes:
        threshold: foreground probability of an object's pixels, between 0 and 1, of all classes
            or of each.
        split: whether touching objects are split by prominence, for all classes
            or for each; an object of a class that is not is a connected component.
        prominence: rise of a peak above the saddle to its neighbour, in heights
            0 to 1, that makes it an object of its own; 0 still joins plateaus.
        merge_classes: whether touching pixels of different classes connect.
        min_area_px: area of the smallest object, of all classes or of each.
        max_area_px: area of the largest object, None for no limit.
        min_score: least mean foreground probability of an object, likewise.
        fill_holes: whether background wholly inside one object becomes part of it.
        link_px: of each class the widest gap, in px, across which its objects are one, None
            for none; None = no class.

    Raises:
        UsageError: when a number is outside its range.
    """

    threshold: float | tuple[float, ...] = 0.5
    split: tuple[bool, ...] | bool = True
    prominence: float = 0.05
    merge_classes: bool = False
    min_area_px: int | tuple[int, ...] = 0
    max_area_px: int | None = None
    min_score: float | tuple[float, ...] = 0.0
    fill_holes: bool = False
    link_px: tuple[int | None, ...] | None = None

    def __post_init__(self) -> None:
        for threshold in _each(self.threshold):
            _require("threshold", threshold, 0 < threshold < 1, "between 0 and 1")
        _require("prominence", self.prominence, 0 <= self.prominence <= 1, "from 0 to 1")
        scores, areas = _each(self.min_score), _each(self.min_area_px)
        for score in scores:
            _require("min_score", score, 0 <= score <= 1, "from 0 to 1")
        for area in areas:
            _require("min_area_px", area, area >= 0, "of 0 or more")
        if self.max_area_px is not None:
            least = int(max(*areas, 1))
            wanted = f"of {least} or more"
            _require("max_area_px", self.max_area_px, self.max_area_px >= least, wanted)
        for gap in self.link_px or ():
            if gap is not None:
                _require("link_px", gap, 0 <= gap <= MOST_GAP_PX, f"from 0 to {MOST_GAP_PX}")

    def rules(self) -> DecodeRules:
        """Return the same in the integers that maps hold."""
        split = self.split if isinstance(self.split, tuple) else (self.split,) * MAX_CLASSES
        plain = np.zeros(256, np.uint8)
        plain[: len(split)] = ~np.array(split, bool)
        return DecodeRules(
            quantum=self.quantum,
            limit=max(1, math.ceil(self.prominence * HEIGHT_MAX)),
            plain=plain,
            bridged=self.merge_classes,
            fill_holes=self.fill_holes,
            evidence=evidence_table(),
            quanta=self.quanta(),
        )

    @property
    def quantum(self) -> int:
        """The least quantum that is foreground of any class."""
        return min(foreground_quantum(threshold) for threshold in _each(self.threshold))

    def quanta(self) -> NDArray[np.uint16] | None:
        """Return the least quantum of each class, uint16 ``(256,)``; None where all have one."""
        if not isinstance(self.threshold, tuple):
            return None
        quanta = np.full(256, self.quantum, np.uint16)
        quanta[UNSEEN] = 256  # no pixel has as many
        quanta[: len(self.threshold)] = [foreground_quantum(one) for one in self.threshold]
        return quanta

    def filter(self) -> ObjectFilter:
        """Return which objects are kept."""
        return ObjectFilter(self.min_area_px, self.max_area_px, self.min_score)


@dataclass(frozen=True, slots=True)
class Decoded:
    """The objects of an image; row i of the table is label i + 1.

    Attributes:
        labels: int32 ``(L, H, W)``, 0 background; numbered layer after layer,
            in a layer by first pixel in raster order.
        layers: int16 ``(N,)``.
        classes: int16 ``(N,)``.
        areas_px: int64 ``(N,)``.
        scores: float32 ``(N,)``, mean foreground probability.
        boxes: int64 ``(N, 2, 2)``, ``[[y0, x0], [y1, x1]]`` half-open, px.
        centroids: float64 ``(N, 2)``, mean y and x of the pixel centres, px; the
            first pixel's centre is (0, 0).
        links: objects that there are fewer because some were linked.
    """

    labels: NDArray[np.int32]
    layers: NDArray[np.int16]
    classes: NDArray[np.int16]
    areas_px: NDArray[np.int64]
    scores: NDArray[np.float32]
    boxes: NDArray[np.int64]
    centroids: NDArray[np.float64]
    links: int = 0


def decode(maps: Maps, options: DecodeOptions, *, tile_px: int | None = None) -> Decoded:
    """Return the objects of the maps; the size of the tiles cannot change them.

    Raises:
        InputError: when the maps' arrays do not fit each other, or have a class
            that ``options.split`` does not name.
        UsageError: when ``tile_px`` is not positive.
    """
    side = _TILE_PX if tile_px is None else tile_px
    if side < 1:
        raise UsageError(sentence("tile_px", found=str(side), wanted="1 or more", fix="change it"))
    _check_maps(maps)
    _, height, width = maps.height.shape
    rows, columns = ([*range(0, length, side), length] for length in (height, width))
    cores = [((y0, x0), (y1, x1)) for y0, y1 in pairwise(rows) for x0, x1 in pairwise(columns)]
    return decode_tiles(maps, options, cores)


def decode_tiles(maps: Maps, options: DecodeOptions, cores: Sequence[Box]) -> Decoded:
    """Return the objects of the maps, decoded in these tiles, in this order.

    Args:
        maps: of the whole image.
        options: how maps become objects.
        cores: ``((y0, x0), (y1, x1))`` half-open: rows of tiles, each cut into columns.

    Raises:
        InputError: when the maps' arrays do not fit each other, or have a class
            that ``options.split`` does not name.
        UsageError: when the tiles do not cover the image once.
    """
    _check_maps(maps)
    check_classes(maps.foreground, maps.classes, options)
    rules, keep = options.rules(), options.filter()
    labels = np.zeros(maps.height.shape, np.int32)
    layers = range(len(labels) if labels.size else 0)
    parts: list[Sums] = []
    count = 0
    threads = _cores_available() if labels[:1].size > _TILE_PX**2 else 1
    with ThreadPoolExecutor(threads) as pool:
        spread = partial(_spread, pool if threads > 1 else None)
        for layer in layers:
            window = rules.gated(Window.of_layer(maps, layer))
            tiles = spread(partial(graph_of_tile, window, rules=rules), cores)
            mosaic = join_tiles(tiles, limit=rules.limit, keep=keep)
            numbers = [numbers_of_nodes(nodes, first=count + 1) for nodes in mosaic.objects]
            spread(partial(write_labels, out=labels[layer]), tiles, numbers)
            parts.append(mosaic.sums)
            count += len(mosaic.sums)
    decoded = _decoded(labels, parts)
    return decoded if options.link_px is None else _linked(decoded, options.link_px)


def _linked(decoded: Decoded, gaps: Sequence[int | None]) -> Decoded:
    """Return the objects with those of one class linked across gaps, numbered anew."""
    groups = [np.zeros(0, np.int64)]
    before = behind = 0
    for layer, plane in enumerate(decoded.labels):
        count = int(np.count_nonzero(decoded.layers == layer))
        classes = decoded.classes[before : before + count]
        found = find_links(plane, classes, gaps=gaps, first=before + 1)
        groups.append(found.groups + behind)
        before, behind = before + count, behind + found.count
    links = Links(np.concatenate(groups), decoded.areas_px)
    first, areas = links.first(), links.summed(decoded.areas_px)
    table = np.concatenate([[0], links.groups + 1]).astype(np.int32)
    return Decoded(
        labels=table[decoded.labels],
        layers=decoded.layers[first],
        classes=decoded.classes[first],
        areas_px=areas,
        scores=links.scores(decoded.scores),
        boxes=links.boxes(decoded.boxes),
        centroids=links.summed(decoded.centroids * decoded.areas_px[:, None]) / areas[:, None],
        links=links.links,
    )


def _decoded(labels: NDArray[np.int32], layers: Sequence[Sums]) -> Decoded:
    """Return the table of the objects of these sums, one array for each layer."""
    sums = np.concatenate([empty_sums(0), *layers])
    areas = sums[:, AREA]
    counts = [len(layer) for layer in layers]
    return Decoded(
        labels=labels,
        layers=np.repeat(np.arange(len(counts)), counts).astype(np.int16),
        classes=sums[:, CLASS].astype(np.int16),
        areas_px=areas.copy(),
        scores=mean_scores(sums).astype(np.float32),
        boxes=sums[:, [TOP, LEFT, BOTTOM, RIGHT]].reshape(-1, 2, 2),
        centroids=sums[:, [SUM_Y, SUM_X]] / areas[:, None],
    )


def _check_maps(maps: Maps) -> None:
    """Raise InputError unless the three maps are of one shape and of their types."""
    shape = maps.height.shape
    for name, dtype in (("foreground", "uint8"), ("height", "uint16"), ("classes", "uint8")):
        plane = getattr(maps, name)
        if plane.dtype != dtype or plane.ndim != 3 or plane.shape != shape:
            size = shape if len(shape) == 3 else "(layers, rows, columns)"
            raise InputError(
                sentence(
                    f"maps.{name}",
                    found=f"{plane.dtype} {plane.shape}",
                    wanted=f"{dtype} {size}",
                    fix="quantise all three maps of one prediction together",
                )
            )


def check_classes(
    foreground: NDArray[np.uint8], classes: NDArray[np.uint8], options: DecodeOptions
) -> None:
    """Raise InputError when a foreground pixel has a class that ``options.split`` does not name.

    Maps of any shape, or parts of them.
    """
    if isinstance(options.split, bool):
        return
    quanta = options.quanta()
    claimed = classes[foreground >= (options.quantum if quanta is None else quanta[classes])]
    largest = int(claimed.max(initial=0))
    if len(claimed) and largest >= len(options.split):
        raise InputError(
            sentence(
                "maps.classes",
                found=f"class {largest}",
                wanted=f"classes below {len(options.split)}, the length of DecodeOptions.split",
                fix="give split one entry for each class, or a single True or False",
            )
        )


def _each(limit: float | tuple[float, ...]) -> tuple[float, ...]:
    return limit if isinstance(limit, tuple) else (limit,)


def _require(name: str, value: float, fits: bool, wanted: str) -> None:
    if not fits:
        fix = f"change {name}"
        where = f"DecodeOptions.{name}"
        raise UsageError(sentence(where, found=str(value), wanted=f"a number {wanted}", fix=fix))


def _spread(
    pool: ThreadPoolExecutor | None, work: Callable[..., Result], *columns: Iterable[Any]
) -> list[Result]:
    """Return ``work`` of each row of the columns, in their order, on the pool if there is one."""
    return list(map(work, *columns) if pool is None else pool.map(work, *columns))


def _cores_available() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
