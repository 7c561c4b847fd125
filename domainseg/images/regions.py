"""Polygons that say where to look, and the inspected area of an image.

Coordinates are pixels of the full resolution, ``(x, y)`` as GeoJSON has them; pixel
(row 0, column 0) covers 0 to 1 in both. A pixel is inside a polygon when its centre is, by
the even-odd rule over all rings of that polygon, so inner rings are holes; several polygons
are united. A centre on a left or upper edge is inside, on a right or lower edge outside, so
polygons that share an edge share no pixel and leave none out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numba
import numpy as np
from numpy.typing import NDArray

from domainseg.errors import InputError, sentence
from domainseg.images.geojson import Rings, read_polygons
from domainseg.images.resample import Grid, inverse_of
from domainseg.images.tissue import Tissue

Box = tuple[tuple[int, int], tuple[int, int]]
"""``((y0, x0), (y1, x1))`` half-open, px of the full resolution."""
Edge = Literal["top", "bottom", "left", "right"]
Floats = NDArray[np.float64]
Points = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

BAND_PX = 1 << 24
"""Pixels of a mask that are held at a time where a whole image is gone through."""
EDGE_BAND_PX = 256
EDGE_BANDS = 1024
"""Edges are found by bands of rows this high, or higher where there would be more bands."""


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """The polygons of a file, ready to be asked for any part of an image.

    Attributes:
        path: the file.
        sha256: of its bytes, in hexadecimal digits.
        extents: float64 ``(P, 4)``; ``x0, y0, x1, y1`` of each polygon.
        edges: float64 ``(E, 4)``; ``x, y`` of the upper and of the lower end, y strictly
            larger; polygon after polygon. Horizontal edges separate no centres and are left out.
        owners: int64 ``(E,)``; the polygon of each edge.
        bands: where the edges are, by rows.
    """

    path: Path
    sha256: str
    extents: Floats
    edges: Floats
    owners: Ints
    bands: EdgeBands

    def __len__(self) -> int:
        return len(self.extents)

    def inside(self, box: Box) -> Mask:
        """Return which pixels of a box are inside, bool ``(h, w)``.

        A pixel's value depends on its place in the image alone, whatever box it is asked
        in. Costs memory for the box, and time for the box, for the edges that meet its rows
        and for the rows that each of them crosses.
        """
        (y0, x0), (y1, x1) = box
        return self.inside_at(np.arange(y0, y1) + 0.5, np.arange(x0, x1) + 0.5)

    def inside_at(self, ys: Points, xs: Points) -> Mask:
        """Return which points of a raster are inside, bool ``(len(ys), len(xs))``.

        ``ys`` and ``xs`` are float64, px, and do not fall.
        """
        out = np.zeros((len(ys), len(xs)), np.bool_)
        cuts = np.searchsorted(ys, self.bands.bounds)
        for band in np.flatnonzero(np.diff(cuts)):
            rows = slice(cuts[band], cuts[band + 1])
            near = self.bands.edges_of(int(band))
            keys = _crossings(self.edges, self.owners, near, ys[rows], xs, len(self))
            _fill(keys, len(self), out[rows])
        return out

    def meets(self, shape: tuple[int, int]) -> bool:
        """Tell whether the bounding box of any polygon meets an image of ``(H, W)`` px."""
        x0, y0, x1, y1 = self.extents.T
        return bool(((x0 < shape[1]) & (x1 > 0) & (y0 < shape[0]) & (y1 > 0)).any())


@dataclass(frozen=True, slots=True, eq=False)
class EdgeBands:
    """Edges by the bands of rows that they meet, so that a tile visits only those near it.

    Attributes:
        bounds: float64 ``(n + 1,)``; band i holds the rows y with bounds[i] <= y < bounds[i + 1].
        starts: int64 ``(n + 1,)``; band i owns ``entries[starts[i]:starts[i + 1]]``.
        entries: int64, numbers of edges; an edge stands in every band that it meets.
    """

    bounds: Floats
    starts: Ints
    entries: Ints

    def edges_of(self, band: int) -> Ints:
        """Return the numbers of the edges that meet a band."""
        return self.entries[self.starts[band] : self.starts[band + 1]]


@dataclass(frozen=True, slots=True, eq=False)
class Inspected:
    """The part of an image that is looked at, the denominator of every density.

    Attributes:
        shape: ``(H, W)`` of the image, px.
        regions: polygons it is limited to, None = no limit.
        tissue: tissue it is limited to, None = no limit.
        damaged: boxes that could not be read and are left out; they may overlap.
        left_out: boxes that are left out because they show something else, such as a data bar.

    Raises:
        InputError: when no polygon meets the image.
    """

    shape: tuple[int, int]
    regions: Regions | None = None
    tissue: Tissue | None = None
    damaged: tuple[Box, ...] = ()
    left_out: tuple[Box, ...] = ()

    def __post_init__(self) -> None:
        if self.tissue is not None and self.tissue.shape != self.shape:
            raise ValueError(f"tissue of {self.tissue.shape} px for an image of {self.shape} px")
        if self.regions is not None and not self.regions.meets(self.shape):
            x0, y0 = self.regions.extents[:, :2].min(axis=0)
            x1, y1 = self.regions.extents[:, 2:].max(axis=0)
            raise InputError(
                sentence(
                    self.regions.path,
                    found=f"polygons from x {x0:.6g} to {x1:.6g} and y {y0:.6g} to {y1:.6g}",
                    wanted=f"one inside the image of {self.shape[1]} x {self.shape[0]} px",
                    fix="give pixels of the full resolution, x to the right and y down",
                )
            )

    @property
    def is_everything(self) -> bool:
        """Whether every pixel of the image is inspected."""
        limited = self.regions is not None or self.tissue is not None
        return not (limited or self.damaged or self.left_out)

    @property
    def extent(self) -> Box:
        """Box around the polygons, as far as it is in the image; all of it without any."""
        if self.regions is None:
            return (0, 0), self.shape
        low, high = self.regions.extents[:, :2].min(axis=0), self.regions.extents[:, 2:].max(axis=0)
        return self._inside_image(*low, *high)

    def extents(self, most: int) -> tuple[Box, ...]:
        """Return the boxes of at most so many polygons, evenly chosen; of all of it without any."""
        if self.regions is None:
            return (self.extent,)
        count = min(len(self.regions), most)
        chosen = (i * len(self.regions) // count for i in range(count))
        return tuple(self._inside_image(*self.regions.extents[i]) for i in chosen)

    def _inside_image(self, x0: float, y0: float, x1: float, y1: float) -> Box:
        """Return a box of whole pixels in the image around one that may lie beyond it."""
        low = [
            min(max(0, math.floor(at)), size - 1)
            for at, size in zip((y0, x0), self.shape, strict=True)
        ]
        high = [
            min(size, max(math.ceil(at), least + 1))
            for at, size, least in zip((y1, x1), self.shape, low, strict=True)
        ]
        return (low[0], low[1]), (high[0], high[1])

    def at(self, rows: Ints, columns: Ints) -> Mask:
        """Return which pixels of these rows and columns are inspected, bool ``(h, w)``.

        ``rows`` and ``columns`` are int64 and do not fall; pixels outside the image are not
        inspected.
        """
        out = np.zeros((len(rows), len(columns)), np.bool_)
        _set(out, rows, columns, ((0, 0), self.shape), value=True)
        if self.regions is not None:
            out &= self.regions.inside_at(rows + 0.5, columns + 0.5)
        if self.tissue is not None:
            out &= self.tissue.at(rows, columns)
        for box in (*self.damaged, *self.left_out):
            _set(out, rows, columns, box, value=False)
        return out

    def inside(self, box: Box) -> Mask:
        """Return which pixels of a box are inspected, bool ``(h, w)``."""
        (y0, x0), (y1, x1) = box
        return self.at(np.arange(y0, y1), np.arange(x0, x1))

    def on_grid(self, grid: Grid, region: Box) -> Mask:
        """Return which pixels of a region of the model grid are inspected, bool ``(h, w)``.

        Each model pixel's centre picks the pixel of the image that it lies in.

        Raises:
            ValueError: when the grid is not one of this image at full resolution.
        """
        if grid.source_shape != self.shape:
            raise ValueError(f"a grid of {grid.source_shape} px for an image of {self.shape} px")
        picked = []
        for axis, step in enumerate(inverse_of(grid.scale_yx)):
            centres = np.arange(region[0][axis], region[1][axis]) + 0.5
            index = np.floor(centres * step).astype(np.int64)
            picked.append(np.minimum(index, self.shape[axis] - 1))
        return self.at(picked[0], picked[1])

    def any_in(self, box: Box) -> bool:
        """Tell whether any pixel of a box is inspected; at most ``BAND_PX`` are held."""
        return any(self.inside(band).any() for band in _bands_of(box))

    def count_px(self) -> int:
        """Return the number of inspected pixels; at most ``BAND_PX`` are held at a time."""
        if self.is_everything:
            return self.shape[0] * self.shape[1]
        whole: Box = ((0, 0), self.shape)
        return sum(int(np.count_nonzero(self.inside(band))) for band in _bands_of(whole))

    def to_record(self) -> dict[str, Any]:
        """Return what limits the area, as plain values for a run's record."""
        regions, tissue = self.regions, self.tissue
        return {
            "roi": regions and {"sha256": regions.sha256, "polygons": len(regions)},
            "tissue": tissue and tissue.to_record(),
            "damaged": [[list(corner) for corner in box] for box in self.damaged],
            "left_out": [[list(corner) for corner in box] for box in self.left_out],
        }


def edge_boxes(
    shape: tuple[int, int], widths_px: Mapping[Edge, int], *, where: object
) -> tuple[Box, ...]:
    """Return the rows and columns along the edges of an image ``(H, W)``; no two boxes overlap.

    Raises:
        InputError: when they are the whole image.
    """
    height, width = shape
    top, left = widths_px.get("top", 0), widths_px.get("left", 0)
    bottom, right = height - widths_px.get("bottom", 0), width - widths_px.get("right", 0)
    if top >= bottom or left >= right:
        raise InputError(
            sentence(
                where,
                found=f"{height} x {width} px, all of them within ignore_edges_px",
                wanted="pixels to look at",
                fix="lower image.ignore_edges_px or leave the image out",
            )
        )
    boxes: tuple[Box, ...] = (
        ((0, 0), (top, width)),
        ((bottom, 0), (height, width)),
        ((top, 0), (bottom, left)),
        ((top, right), (bottom, width)),
    )
    return tuple(box for box in boxes if box[0][0] < box[1][0] and box[0][1] < box[1][1])


def read_regions(path: Path | str) -> Regions:
    """Return the polygons of a GeoJSON file, as `geojson.read_polygons` reads them.

    Whether they meet an image is asked by `Inspected`.

    Raises:
        MissingInputError: no such file, or an empty one.
        InputError: not JSON, no polygon, a geometry of another type, a ring of fewer than 4
            positions or not closed, or a coordinate that is not a finite number.
    """
    file = Path(path)
    polygons, sha256 = read_polygons(file)
    return regions_of(polygons, path=file, sha256=sha256)


def regions_of(polygons: Sequence[Rings], *, path: Path, sha256: str) -> Regions:
    """Return the regions of at least one polygon, each a list of closed rings."""
    points = [np.concatenate(rings) for rings in polygons]
    upward = [np.concatenate([_edges(ring) for ring in rings]) for rings in polygons]
    edges = np.concatenate(upward)
    return Regions(
        path=path,
        sha256=sha256,
        extents=np.array([[*p.min(axis=0), *p.max(axis=0)] for p in points]),
        edges=edges,
        owners=np.repeat(np.arange(len(polygons)), [len(some) for some in upward]),
        bands=_banded(edges),
    )


def _edges(ring: Floats) -> Floats:
    """Return the edges of a closed ring that are not horizontal, the upper end first.

    An edge has one direction whichever ring it belongs to, so that rings which share it
    cross a row at the same bit.
    """
    edges = np.concatenate([ring[:-1], ring[1:]], axis=1)
    falls = edges[:, 1] > edges[:, 3]
    edges[falls] = edges[falls][:, [2, 3, 0, 1]]
    return edges[edges[:, 1] < edges[:, 3]]


def _banded(edges: Floats) -> EdgeBands:
    if not len(edges):
        return EdgeBands(np.zeros(1), np.zeros(1, np.int64), np.zeros(0, np.int64))
    low, high = edges[:, 1].min(), edges[:, 3].max()
    count = min(EDGE_BANDS, math.ceil((high - low) / EDGE_BAND_PX))
    while True:
        bounds = np.linspace(low, high, count + 1)
        first = np.searchsorted(bounds, edges[:, 1], "right") - 1
        spans = np.searchsorted(bounds, edges[:, 3], "left") - first
        # Long edges stand in many bands; fewer bands bound the memory of the list.
        if count == 1 or spans.sum() <= 8 * len(edges) + EDGE_BANDS:
            break
        count //= 2
    number = np.repeat(np.arange(len(edges)), spans)
    before = np.repeat(np.cumsum(spans) - spans, spans)
    band = np.arange(len(number)) - before + np.repeat(first, spans)
    order = np.argsort(band, kind="stable")
    starts = np.searchsorted(band[order], np.arange(count + 1))
    return EdgeBands(bounds, starts.astype(np.int64), number[order])


def _set(out: Mask, rows: Ints, columns: Ints, box: Box, *, value: bool) -> None:
    """Set a box of the image in a mask of these rows and columns, which do not fall."""
    top, bottom = np.searchsorted(rows, (box[0][0], box[1][0]))
    left, right = np.searchsorted(columns, (box[0][1], box[1][1]))
    out[top:bottom, left:right] = value


def _bands_of(box: Box) -> Iterator[Box]:
    """Yield the box in bands of rows, of ``BAND_PX`` pixels where a row has no more."""
    (y0, x0), (y1, x1) = box
    rows = max(1, BAND_PX // max(1, x1 - x0))
    for top in range(y0, y1, rows):
        yield ((top, x0), (min(top + rows, y1), x1))


# The sum of an edge and a row runs in one order in float64, without fastmath: the compiler
# may not reorder it, so that a pixel's side cannot depend on the box it was asked in.
@numba.njit(nogil=True, cache=True)
def _crossings(edges: Any, owners: Any, near: Any, ys: Any, xs: Any, polygons: int) -> Any:
    """Return where edges cross rows, as ascending int64 keys of (row, polygon, column).

    The column is the first whose point is not left of the crossing, ``len(xs)`` for none. A
    row and polygon have an even number of crossings, because rings are closed and each
    edge holds its upper end but not its lower.
    """
    count = 0
    for e in near:
        count += np.searchsorted(ys, edges[e, 3]) - np.searchsorted(ys, edges[e, 1])
    keys = np.empty(count, np.int64)
    last = 0
    for e in near:
        x, y = edges[e, 0], edges[e, 1]
        across, down = edges[e, 2] - x, edges[e, 3] - y
        for row in range(np.searchsorted(ys, y), np.searchsorted(ys, edges[e, 3])):
            column = np.searchsorted(xs, x + (ys[row] - y) * across / down)
            keys[last] = (row * polygons + owners[e]) * (len(xs) + 1) + column
            last += 1
    keys.sort()
    return keys


@numba.njit(nogil=True, cache=True)
def _fill(keys: Any, polygons: int, out: Any) -> None:
    """Set what lies between the odd and the even crossings of any polygon in a row."""
    width = out.shape[1] + 1
    spans = np.empty(len(keys) // 2, np.int64)
    for s in range(len(spans)):
        row = keys[2 * s] // width // polygons
        spans[s] = (row * width + keys[2 * s] % width) * width + keys[2 * s + 1] % width
    # In the order of their starts, so that polygons that overlap are filled once.
    spans.sort()
    before, reach = -1, 0
    for span in spans:
        row, start, end = span // width // width, span // width % width, span % width
        if row != before:
            before, reach = row, 0
        for column in range(max(start, reach), end):
            out[row, column] = True
        reach = max(reach, end)
