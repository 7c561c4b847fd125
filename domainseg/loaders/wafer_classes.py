"""How a defect of each class is shaped, and where on the pattern it can stand.

A maker draws size and outline once and then yields the same shape at one place after
another, so that its caller can take the first that is free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domainseg.loaders.wafer_look import DefectClass, Range, WaferLook
from domainseg.loaders.wafer_pattern import (
    COLUMNS,
    KIND,
    PITCH,
    ROWS,
    VIAS,
    WIDTH,
    X0,
    X1,
    Y0,
    Y1,
    Circuit,
    blocks_at,
)
from domainseg.loaders.wafer_places import Area, Points
from domainseg.loaders.wafer_shapes import ANGLES, Box, Shape, bar, blob, polyline
from domainseg.quality.die_grid import DieGrid

Floats = NDArray[np.float64]

HARMONICS = 5
_TEXTURED = 0.5
_STEPS = 400
"""Most segments of a scratch."""
_SCRATCH_PLACES = 6
"""Places tried for a scratch; a long one crosses something wherever it is."""


@dataclass(frozen=True, slots=True)
class Scenery:
    """What a defect is drawn into: the options, the dies and the part of the image it may take."""

    look: WaferLook
    grid: DieGrid
    circuit: Circuit | None
    area: Area

    def px(self, rng: np.random.Generator, range_um: Range, *, least: float) -> float:
        """Return a size in px, drawn evenly in its logarithm, at least ``least``."""
        low, high = np.log(range_um)
        return max(float(np.exp(rng.uniform(low, high))) / self.look.spacing_um, least)


Maker = Callable[[np.random.Generator, Scenery, Points], Iterator[Shape]]


def outline(
    rng: np.random.Generator, radius: float, *, elongation: float, irregularity: float
) -> Floats:
    """Return radii ``(ANGLES + 1,)`` px by diamond angle: a turned ellipse times low harmonics.

    No radius is below three quarters of a pixel's, so that a pixel's centre is inside.
    """
    p = 4.0 * np.arange(ANGLES) / ANGLES
    dx = np.where(p < 2.0, 1.0 - p, p - 3.0)
    dy = np.where(p < 1.0, p, np.where(p < 3.0, 2.0 - p, p - 4.0))
    angle = np.arctan2(dy, dx)
    ratio, turn = np.sqrt(1.0 + elongation * rng.random()), np.pi * rng.random()
    ellipse = np.hypot(np.cos(angle - turn) / ratio, np.sin(angle - turn) * ratio)
    orders = np.arange(2, 2 + HARMONICS)
    sizes = irregularity * rng.random(HARMONICS) / orders * 1.4
    phases = 2.0 * np.pi * rng.random(HARMONICS)
    wave = 1.0 + np.cos(orders * angle[:, None] + phases) @ sizes
    radii = np.maximum(radius * wave / ellipse, max(0.75, 0.3 * radius))
    return np.append(radii, radii[0])


def _particle(rng: np.random.Generator, scenery: Scenery, places: Points) -> Iterator[Shape]:
    look = scenery.look
    radius = 0.5 * scenery.px(rng, look.particle_um, least=2.0)
    edge = outline(rng, radius, elongation=0.8, irregularity=look.irregularity)
    for y, x in places.tolist():
        yield blob((y, x), edge, dome=0.55)


def _pit(rng: np.random.Generator, scenery: Scenery, places: Points) -> Iterator[Shape]:
    radius = 0.5 * scenery.px(rng, scenery.look.pit_um, least=2.0)
    edge = outline(rng, radius, elongation=0.2, irregularity=0.3 * scenery.look.irregularity)
    for y, x in places.tolist():
        yield blob((y, x), edge, dome=0.7)


def _residue(rng: np.random.Generator, scenery: Scenery, places: Points) -> Iterator[Shape]:
    look = scenery.look
    radius = 0.5 * scenery.px(rng, look.residue_um, least=2.0)
    edge = outline(rng, radius, elongation=1.2, irregularity=1.3 * look.irregularity)
    seed = int(rng.integers(1 << 40))
    for y, x in places.tolist():
        yield blob((y, x), edge, dome=0.4, grain=_TEXTURED, grain_seed=seed)


def _scratch(rng: np.random.Generator, scenery: Scenery, places: Points) -> Iterator[Shape]:
    """Yield a curve whose direction drifts, cut by gaps, as far as the wafer reaches."""
    look = scenery.look
    length = scenery.px(rng, look.scratch_um, least=6.0)
    half = 0.5 * scenery.px(rng, look.scratch_width_um, least=1.0)
    count = int(np.clip(length / 3.0, 4, _STEPS))
    s = np.linspace(0.0, 1.0, count + 1)
    heading = 2 * np.pi * rng.random() + rng.normal(0, 0.6) * s
    for order in (1, 2, 3):
        heading += rng.normal(0, 0.22 / order) * np.sin(np.pi * order * s + 6.3 * rng.random())
    along = 0.5 * (heading[1:] + heading[:-1])
    steps = np.stack([np.sin(along), np.cos(along)], 1) * (length / count)
    path = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, 0)])
    path -= path[count // 2]
    gaps = _gaps(rng, int(rng.integers(look.scratch_gaps + 1)), length, 2 * half)
    seed = int(rng.integers(1 << 40))
    for yx in places[:_SCRATCH_PLACES]:
        kept, arcs = _on_wafer(path + yx, scenery.area)
        segments = _segments(kept, arcs * (length / count), gaps, half)
        if len(segments):
            yield polyline(
                segments,
                length_px=_length_inside(kept, scenery.area.size),
                grain=0.4,
                grain_seed=seed,
            )


def _gaps(rng: np.random.Generator, count: int, length: float, width: float) -> Floats:
    """Return gaps ``(G, 2)`` along the arc, px, apart and in order; fewer where they do not fit.

    The round ends of the pieces reach into a gap, so it is a width longer than what is seen.
    """
    found: list[tuple[float, float]] = []
    for start in np.sort(rng.uniform(0.1, 0.85, count)) * length:
        stop = start + width + rng.uniform(2.5, 6.0)
        clear = not found or start > found[-1][1] + 4.0 + width
        if clear and stop < 0.92 * length:
            found.append((float(start), float(stop)))
    return np.array(found).reshape(-1, 2)


def _on_wafer(path: Floats, area: Area) -> tuple[Floats, Floats]:
    """Return the vertices about the middle one that lie on the wafer, and their numbers."""
    away = path - np.array(area.wafer_center)
    outside = np.flatnonzero(np.hypot(away[:, 0], away[:, 1]) > area.radius)
    middle = (len(path) - 1) // 2
    first = outside[outside < middle].max(initial=-1) + 1
    last = outside[outside > middle].min(initial=len(path))
    if middle in outside:
        first = last = middle
    return path[first:last], np.arange(first, last, dtype=float)


def _segments(path: Floats, arcs: Floats, gaps: Floats, half: float) -> Floats:
    """Return the segments ``(S, 5)`` of a path whose vertices have arc lengths, less the gaps."""
    if len(path) < 2:
        return np.zeros((0, 5))
    ends = np.concatenate([[arcs[0]], gaps.ravel(), [arcs[-1]]]).reshape(-1, 2)
    pieces = []
    for start, stop in np.clip(ends, arcs[0], arcs[-1]):
        if stop <= start:
            continue
        s = np.concatenate([[start], arcs[(arcs > start) & (arcs < stop)], [stop]])
        points = np.stack([np.interp(s, arcs, path[:, axis]) for axis in (0, 1)], 1)
        pieces.append(np.concatenate([points[:-1], points[1:], np.full((len(s) - 1, 1), half)], 1))
    return np.concatenate(pieces) if pieces else np.zeros((0, 5))


def _length_inside(path: Floats, size: tuple[int, int]) -> float:
    """Return the length of a path's part inside the image, after Liang and Barsky, px."""
    start, step = path[:-1], np.diff(path, axis=0)
    enter, leave = np.zeros(len(step)), np.ones(len(step))
    for axis, side in enumerate(size):
        moves = step[:, axis] != 0
        ratio = np.where(moves, step[:, axis], 1.0)
        low, high = (-0.5 - start[:, axis]) / ratio, (side - 0.5 - start[:, axis]) / ratio
        within = (start[:, axis] >= -0.5) & (start[:, axis] <= side - 0.5)
        enter = np.maximum(enter, np.where(moves, np.minimum(low, high), 0.0))
        leave = np.minimum(
            leave, np.where(moves, np.maximum(low, high), np.where(within, 1.0, 0.0))
        )
    return float((np.clip(leave - enter, 0, None) * np.hypot(step[:, 0], step[:, 1])).sum())


def _across_line(
    rng: np.random.Generator, scenery: Scenery, places: Points, *, space: bool
) -> Iterator[Shape]:
    """Yield bars across the space between two lines, or across a line."""
    look = scenery.look
    along = 0.5 * scenery.px(rng, look.bridge_um, least=2.0)
    for where, b in _snapped(scenery, places, kinds=(ROWS, COLUMNS)):
        block = _blocks(scenery)[b]
        axis = 0 if block[KIND] == ROWS else 1
        low, high = (block[Y0], block[Y1]) if axis == 0 else (block[X0], block[X1])
        lines = round((high - low - block[WIDTH]) / block[PITCH]) + 1
        offset = 0.5 * (block[WIDTH] + block[PITCH]) if space else 0.5 * block[WIDTH]
        number = np.floor((where[axis] - low) / block[PITCH])
        number = min(max(number, 0), lines - 1 - space)
        if lines < 1 + space:
            continue
        across = 0.5 * (block[PITCH] - block[WIDTH] if space else block[WIDTH])
        across /= look.spacing_um
        half = (across, along) if axis == 0 else (along, across)
        room = along * look.spacing_um
        other = (block[X0], block[X1]) if axis == 0 else (block[Y0], block[Y1])
        if other[1] - other[0] < 2.5 * room:
            continue
        place = [0.0, 0.0]
        place[axis] = low + number * block[PITCH] + offset
        place[1 - axis] = float(np.clip(where[1 - axis], other[0] + room, other[1] - room))
        yield from _at(scenery, where, place, half, waist=2 if axis == 0 else 1)


def _bridge(rng: np.random.Generator, scenery: Scenery, places: Points) -> Iterator[Shape]:
    yield from _across_line(rng, scenery, places, space=True)


def _open(rng: np.random.Generator, scenery: Scenery, places: Points) -> Iterator[Shape]:
    yield from _across_line(rng, scenery, places, space=False)


def _missing_via(_: np.random.Generator, scenery: Scenery, places: Points) -> Iterator[Shape]:
    spacing = scenery.grid.spacing_um
    for where, b in _snapped(scenery, places, kinds=(VIAS,)):
        block = _blocks(scenery)[b]
        place = []
        for at, low, high in ((where[0], block[Y0], block[Y1]), (where[1], block[X0], block[X1])):
            last = round((high - low - block[WIDTH]) / block[PITCH])
            number = min(max(np.floor((at - low) / block[PITCH]), 0), last)
            place.append(low + number * block[PITCH] + 0.5 * block[WIDTH])
        half = (0.5 * block[WIDTH] / spacing[0], 0.5 * block[WIDTH] / spacing[1])
        yield from _at(scenery, where, place, half, waist=0)


def _blocks(scenery: Scenery) -> Floats:
    assert scenery.circuit is not None
    return scenery.circuit.blocks


def _snapped(
    scenery: Scenery, places: Points, *, kinds: tuple[int, ...]
) -> Iterator[tuple[Floats, int]]:
    """Yield ``(yrel, xrel, y_um, x_um)`` and the block of those places that lie in such blocks."""
    if scenery.circuit is None:
        return
    film = 500.0 * scenery.look.wafer_diameter_mm - 1000.0 * scenery.look.edge_exclusion_mm
    on = scenery.grid.positions(places[:, 0], places[:, 1])
    found = blocks_at(scenery.circuit, on.yrel, on.xrel)
    printed = np.hypot(on.y_um, on.x_um) < film
    good = np.isin(scenery.circuit.blocks[found, KIND], kinds) & (found > 0) & printed
    for n in np.flatnonzero(good):
        yield np.array([on.yrel[n], on.xrel[n], on.y_um[n], on.x_um[n]]), int(found[n])


def _at(
    scenery: Scenery, where: Floats, place: list[float], half: tuple[float, float], *, waist: int
) -> Iterator[Shape]:
    """Yield a bar at ``place`` in the die of ``where``, unless that is outside the image."""
    y_px, x_px = scenery.grid.pixels(where[2] + place[0] - where[0], where[3] + place[1] - where[1])
    if scenery.area.inside(np.array([[y_px, x_px]]))[0]:
        yield bar((float(y_px), float(x_px)), half, waist=waist)


def _edge_chip(rng: np.random.Generator, scenery: Scenery, _: Points) -> Iterator[Shape]:
    """Yield bites at the wafer's edge and at the edges of dies, whichever the image shows."""
    look = scenery.look
    radius = 0.5 * scenery.px(rng, look.chip_um, least=4.0)
    edge = outline(rng, radius, elongation=0.6, irregularity=1.5 * look.irregularity)
    points = scenery.area.anywhere(rng, 12)
    found: list[tuple[tuple[float, float], Box | None]] = []
    found += [(yx, None) for yx in _wafer_edge(scenery, points)]
    if scenery.circuit is not None:
        found += _die_edges(scenery, points)
    for number in rng.permutation(len(found)).tolist():
        yx, clip = found[number]
        yield blob(yx, edge) if clip is None else blob(yx, edge, clip=clip)


def _wafer_edge(scenery: Scenery, points: Points) -> list[tuple[float, float]]:
    """Return the places of the wafer's edge nearest to the points, where the image shows them."""
    radius = 500.0 * scenery.look.wafer_diameter_mm / scenery.look.spacing_um
    away = points - np.array(scenery.area.wafer_center)
    away *= radius / np.maximum(np.hypot(away[:, 0], away[:, 1]), 1e-9)[:, None]
    return _shown(scenery, away + np.array(scenery.area.wafer_center))


def _die_edges(scenery: Scenery, points: Points) -> list[tuple[tuple[float, float], Box | None]]:
    """Return the places of die edges nearest to the points, and the box of each's die, px."""
    look, grid = scenery.look, scenery.grid
    street = 0.5 * look.street_um
    on = grid.positions(points[:, 0], points[:, 1])
    film = 500.0 * look.wafer_diameter_mm - 1000.0 * look.edge_exclusion_mm
    found: list[tuple[tuple[float, float], Box | None]] = []
    for n in range(len(points)):
        rel, high = np.array([on.yrel[n], on.xrel[n]]), np.array(grid.pitch_um) - street
        inside = np.clip(rel, street, high)
        low_side, high_side = inside - street, high - inside
        axis = int(np.argmin(np.minimum(low_side, high_side)))
        inside[axis] = street if low_side[axis] < high_side[axis] else high[axis]
        corner = np.array([on.y_um[n], on.x_um[n]]) - rel
        y, x = corner + inside
        if np.hypot(y, x) > film:
            continue
        bottom, left = (float(v) for v in grid.pixels(*(corner + street)))
        top, right = (float(v) for v in grid.pixels(*(corner + high)))
        y_px, x_px = grid.pixels(y, x)
        shown = _shown(scenery, np.array([[y_px, x_px]]))
        found += [(yx, (top, left, bottom, right)) for yx in shown]
    return found


def _shown(scenery: Scenery, points: Points) -> list[tuple[float, float]]:
    """Return the points that lie in the image and two pixels from its border or more."""
    size = np.array(scenery.area.size)
    inside = ((points >= 2) & (points <= size - 3)).all(1)
    return [(y, x) for y, x in points[inside].tolist()]


MAKERS: dict[DefectClass, Maker] = {
    "particle": _particle,
    "scratch": _scratch,
    "bridge": _bridge,
    "open": _open,
    "missing_via": _missing_via,
    "pit": _pit,
    "residue": _residue,
    "edge_chip": _edge_chip,
}
"""How each class is made."""
