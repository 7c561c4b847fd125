"""Where on a wafer defects lie: rings, quadrants and sectors that hold too many, and clusters.

A part of the wafer is tested against the rest: were density the same everywhere, the number of
defects in it would be binomial, with its share of the inspected area. All parts are tested
together, so the p-values are adjusted by the method of Holm (Scandinavian Journal of
Statistics 6, 1979).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import Delaunay, QhullError, cKDTree
from scipy.stats import binomtest

from domainseg.quality.statistics import Interval, poisson_interval

PartKind = Literal["ring", "quadrant", "sector"]
RINGS, QUADRANTS, SECTORS = 5, 4, 8
"""Parts of a wafer: rings of equal area, quarters between the axes, eighths."""
_QUADRANT_NAMES = ("upper right", "upper left", "lower left", "lower right")

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the wafer and what lies in it.

    Attributes:
        kind: of part.
        name: which of its kind.
        count: of the defects in it.
        expected: of them, were density the same everywhere.
        area_cm2: inspected.
        density_per_cm2: of the defects in it.
        interval: of the density, exact, 95 %.
        p_value: two-sided, exact binomial.
        adjusted: the p-value by Holm's method over all parts.
    """

    kind: PartKind
    name: str
    count: int
    expected: float
    area_cm2: float
    density_per_cm2: float
    interval: Interval
    p_value: float
    adjusted: float


def holm(p_values: Sequence[float]) -> Floats:
    """Return p-values, those at most a level of which are rejected at that family-wise level."""
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values, kind="stable")
    steps = (len(values) - np.arange(len(values))) * values[order]
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted


def rings_of(x_um: Floats, y_um: Floats, radius_um: float) -> NDArray[np.int64]:
    """Return the ring of each place, int64, 0 the innermost; beyond the radius the outermost."""
    share = (x_um**2 + y_um**2) / radius_um**2
    return np.minimum((share * RINGS).astype(np.int64), RINGS - 1)


def sectors_of(x_um: Floats, y_um: Floats, count: int) -> NDArray[np.int64]:
    """Return the sector of each place, int64, from the right counter-clockwise."""
    turns = np.arctan2(y_um, x_um) / (2 * np.pi) % 1.0
    return np.minimum((turns * count).astype(np.int64), count - 1)


def parts(
    x_um: Floats,
    y_um: Floats,
    *,
    cells_um: Floats,
    cell_cm2: Floats,
    radius_um: float,
) -> tuple[Part, ...]:
    """Return the tests of all parts that hold some of the inspected area and not all of it.

    Args:
        x_um: of the defects, right of the wafer's centre.
        y_um: of the defects, up from it.
        cells_um: float64 ``(N, 2)``, middles ``(x, y)`` of the pieces of the inspected area,
            dies or finer: a piece counts where its middle lies.
        cell_cm2: float64 ``(N,)``, their areas.
        radius_um: of the wafer.
    """
    kinds: tuple[tuple[PartKind, int], ...] = (
        ("ring", RINGS),
        ("quadrant", QUADRANTS),
        ("sector", SECTORS),
    )
    total, found = float(cell_cm2.sum()), len(x_um)
    rows: list[tuple[PartKind, str, int, float, float]] = []
    for kind, number in kinds:
        counts = np.bincount(_part_of(kind, x_um, y_um, radius_um), minlength=number)
        cells = _part_of(kind, cells_um[:, 0], cells_um[:, 1], radius_um)
        areas = np.bincount(cells, cell_cm2, minlength=number)
        for place, (count, area) in enumerate(zip(counts.tolist(), areas.tolist(), strict=True)):
            if 0 < area < total:
                share = area / total
                p_value = float(binomtest(count, found, share).pvalue) if found else 1.0
                rows.append((kind, _name(kind, place), count, area, p_value))
    adjusted = holm([row[-1] for row in rows])
    return tuple(
        Part(
            kind=kind,
            name=name,
            count=count,
            expected=found * area / total,
            area_cm2=area,
            density_per_cm2=count / area,
            interval=poisson_interval(count, exposure=area),
            p_value=p_value,
            adjusted=float(one),
        )
        for (kind, name, count, area, p_value), one in zip(rows, adjusted, strict=True)
    )


def _part_of(kind: PartKind, x_um: Floats, y_um: Floats, radius_um: float) -> NDArray[np.int64]:
    if kind == "ring":
        return rings_of(x_um, y_um, radius_um)
    return sectors_of(x_um, y_um, QUADRANTS if kind == "quadrant" else SECTORS)


def _name(kind: PartKind, place: int) -> str:
    if kind == "ring":
        ends = {0: ", centre", RINGS - 1: ", edge"}
        return f"{place + 1} of {RINGS}{ends.get(place, '')}"
    if kind == "quadrant":
        return _QUADRANT_NAMES[place]
    step = 360 // SECTORS
    return f"{place * step}° to {(place + 1) * step}°"


def clusters(x_um: Floats, y_um: Floats, *, eps_um: float, min_samples: int) -> NDArray[np.int64]:
    """Return the cluster of each defect, int64, 1 to N in the order of their first defect, else 0.

    DBSCAN (Ester et al., KDD 1996): a defect with at least ``min_samples`` defects, itself
    among them, within ``eps_um`` is a core; cores within ``eps_um`` of each other are of one
    cluster, and any other defect within ``eps_um`` of a core belongs to the nearest core's.

    The graph of all cores within ``eps_um`` of each other has as many edges as pairs; its parts
    are those of the edges of the Delaunay triangulation that are as short, because those hold
    the shortest spanning tree. So a million defects in one heap take seconds.
    """
    found = np.zeros(len(x_um), np.int64)
    if not len(x_um):
        return found
    points = np.stack([x_um, y_um], 1)
    # What is exactly as far counts; a bound would leave it out.
    bound = np.nextafter(eps_um, np.inf)
    tree = cKDTree(points)
    if min_samples > len(points):
        return found
    farthest, _ = tree.query(points, k=[min_samples], distance_upper_bound=bound)
    cores = points[farthest[:, 0] <= eps_um]
    if not len(cores):
        return found
    places = np.unique(cores, axis=0)
    part = _parts_within(places, eps_um)
    distance, nearest = cKDTree(places).query(points, distance_upper_bound=bound)
    member = distance <= eps_um
    labels = part[nearest[member]]
    _, first, numbers = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(1, len(first) + 1)
    found[member] = rank[numbers]
    return found


def _parts_within(places: Floats, eps_um: float) -> NDArray[np.int64]:
    """Return the connected part of each of different ``places (N, 2)`` within ``eps_um``."""
    edges = _neighbours(places)
    short = np.hypot(*(places[edges[:, 0]] - places[edges[:, 1]]).T) <= eps_um
    i, j = edges[short].T
    graph = coo_array((np.ones(len(i), bool), (i, j)), shape=(len(places), len(places)))
    _, labels = connected_components(graph, directed=False)
    return np.asarray(labels, np.int64)


def _neighbours(places: Floats) -> NDArray[np.int64]:
    """Return pairs of places, int64 ``(E, 2)``, among which is the shortest spanning tree."""
    centred = places - places.mean(0)
    line = np.linalg.matrix_rank(centred, tol=1e-9 * np.abs(centred).max(initial=0)) < 2
    if not line:
        try:
            return _delaunay(centred)
        except QhullError:
            pass  # as good as on one line
    order = np.argsort(centred @ np.linalg.svd(centred, full_matrices=False)[2][0])
    return np.stack([order[:-1], order[1:]], 1).astype(np.int64)


def _delaunay(places: Floats) -> NDArray[np.int64]:
    """Return the edges of the Delaunay triangulation, those of places it leaves out included."""
    made = Delaunay(places)
    corners = made.simplices
    edges = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
    # Places so near to another that they are no corner: with the corner next to them.
    left_out = made.coplanar[:, [0, 2]]
    return np.concatenate([edges, left_out]).astype(np.int64)
