"""Zones of a die, a wafer or an image: which of them a defect lies in, and how large they are.

Each defect is a box around a centroid, because that is all that a result file of another tool
tells; the first zone that it lies in holds, in the order of the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray

from domainseg.images.geojson import Rings, read_polygons
from domainseg.quality.rules import Zone

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Boxes:
    """Defects in one frame.

    Attributes:
        x: float64 ``(N,)``, centroid.
        y: float64 ``(N,)``, centroid.
        width: float64 ``(N,)``, of the box, not negative.
        height: float64 ``(N,)``, of the box, not negative.
        x0: float64 ``(N,)``, left of the box; None for boxes around the centroid.
        y0: float64 ``(N,)``, least y of the box; None likewise.
    """

    x: Floats
    y: Floats
    width: Floats
    height: Floats
    x0: Floats | None = None
    y0: Floats | None = None

    def __len__(self) -> int:
        return len(self.x)

    def corners(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Return left, least y, right and greatest y of each box."""
        left = self.x - self.width / 2 if self.x0 is None else self.x0
        low = self.y - self.height / 2 if self.y0 is None else self.y0
        return left, low, left + self.width, low + self.height


@dataclass(frozen=True, slots=True)
class Area:
    """A zone with its polygons.

    Attributes:
        zone: of the rules.
        shape: the united polygons in the zone's frame; None for everywhere.
        sha256: of the file; empty for everywhere.
    """

    zone: Zone
    shape: shapely.Geometry | None
    sha256: str

    def holds(self, boxes: Boxes) -> Mask:
        """Return which defects lie in the zone, bool ``(N,)``."""
        if self.shape is None:
            return np.ones(len(boxes), bool)
        share = self.zone.share
        if share is None:
            # On the border counts: two zones that share one leave nothing between them.
            return np.asarray(shapely.intersects_xy(self.shape, boxes.x, boxes.y))
        left, low, right, high = boxes.corners()
        shapes = shapely.box(left, low, right, high)
        touched = shapely.intersects(self.shape, shapes)
        if share == 0:
            return np.asarray(touched)
        shapely.prepare(self.shape)
        held = np.zeros(len(boxes), bool)
        size = shapely.area(shapes)
        flat = size == 0  # a box without an area lies in it where it touches
        inner = touched & ~flat
        common = shapely.area(shapely.intersection(self.shape, shapes[inner]))
        held[inner] = common >= share * size[inner]
        held[flat] = touched[flat]
        return held


def read_zones(zones: Sequence[Zone], folder: Path) -> tuple[Area, ...]:
    """Return the zones with their polygons; files lie in ``folder``, that of the rules.

    Raises:
        MissingInputError: a file is not there.
        InputError: it holds no polygon, or one that is not closed or crosses itself.
    """
    return tuple(_read(zone, folder) for zone in zones)


def _read(zone: Zone, folder: Path) -> Area:
    if zone.file is None:
        return Area(zone, None, "")
    polygons, digest = read_polygons(folder / zone.file)
    shape = shapely.union_all([_polygon(rings) for rings in polygons])
    shapely.prepare(shape)
    return Area(zone, shape, digest)


def _polygon(rings: Rings) -> shapely.Geometry:
    """Return a polygon by the even-odd rule, which a crossing ring is split by."""
    outer, *holes = rings
    return shapely.make_valid(shapely.Polygon(outer, holes))


def first_zone(
    areas: Sequence[Area], frames: Callable[[str], Boxes | None], count: int
) -> NDArray[np.int64]:
    """Return the number of the first zone each of ``count`` defects lies in, int64, -1 for none.

    ``frames`` gives the defects in ``die``, ``unit`` or ``image``; None where there is no such
    frame, in which no defect lies in a zone of it.
    """
    found = np.full(count, -1, np.int64)
    for number, area in enumerate(areas):
        if area.shape is None:  # everywhere, whatever its frame
            found[found < 0] = number
            continue
        boxes = frames(area.zone.frame)
        if boxes is not None:
            found[(found < 0) & area.holds(boxes)] = number
    return found
