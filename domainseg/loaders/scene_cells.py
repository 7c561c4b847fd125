"""Where the cells of a made-up scene lie and what they cover, as a pure function of position.

The plane is cut into square grid cells of a fixed pitch. Each draws its candidates
from a stream of its own, keyed by (seed, grid row, grid column), so that any
region can be computed alone and agrees with every other region bit for bit. The
stream is the SplitMix64 finaliser (Steele, Lea and Flood, OOPSLA 2014) over the
key, used as a counter-based generator.

Crowding is resolved by Matern's second thinning (Matern, Spatial Variation, 1960):
a candidate stays unless a candidate of higher priority is closer than
``MIN_SEPARATION``. The rule looks at candidates only, never at what became of
them, so it needs a neighbourhood of two grid cells and no order of visit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

from domainseg.records import Array

SLOTS = 16
"""Candidates a grid cell can hold; more than the densest setting asks for."""
PITCH = 3.0
"""Side of a grid cell in mean cell diameters."""
MAX_SCALE = 1.6
"""Largest radius in mean radii; the smallest is its inverse."""
MIN_SEPARATION = 0.74
"""Smallest distance of two centres in sums of their radii; below .5 cells would swallow others."""
GLOW = 1.9
"""How far the light around a cell reaches, in radii."""
HARMONICS = 4
ANGLES = 128
"""Samples of an outline; interpolation between them is off by under 0.1 % of a radius."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_SECOND = np.uint64(0xD1B54A32D192ED03)
_BYTES = np.uint64(0x00FF00FF00FF00FF)
_FOLD = np.uint64(0x0001000100010001)
_BELL_SCALE = 1.0 / float(np.sqrt(8 * (256**2 - 1) / 12))


class Cells(NamedTuple):
    """Cells that can reach a region, one row each, by grid row, grid column and slot.

    Attributes:
        ids: int64 ``(N,)``, positive, unique in the scene.
        centres: float64 ``(N, 2)``, ``(y, x)`` in px of the whole scene.
        outlines: float64 ``(N, ANGLES + 1)``, radius in px by diamond angle; the last repeats
            the first.
        reach: float64 ``(N,)``, the largest radius of each.
        tones: float64 ``(N,)``, how strongly each is stained, in (0, 1].
    """

    ids: NDArray[np.int64]
    centres: NDArray[np.float64]
    outlines: NDArray[np.float64]
    reach: NDArray[np.float64]
    tones: NDArray[np.float64]


class Cover(NamedTuple):
    """What the cells cover of a region ``(h, w)``.

    Attributes:
        labels: int64, id of the cell that owns the pixel, 0 where none does.
        rho: float32, distance from the nearest cell's centre in its radii towards the
            pixel; at most 1 inside, ``GLOW`` where no cell is near.
        tones: float32, tone of that cell, 0 where none is near.
        glow: float32, sum over the cells near of their tone, falling off to 0 at ``GLOW``.
    """

    labels: NDArray[np.int64]
    rho: NDArray[np.float32]
    tones: NDArray[np.float32]
    glow: NDArray[np.float32]


Compiled = TypeVar("Compiled", bound=Callable[..., Any])


def kernel(function: Compiled) -> Compiled:
    """Return ``function`` compiled and cached.

    No fastmath: contraction or reordering could differ between the body and the
    remainder of a vectorised loop, and a crop would no longer equal the whole.
    """
    return cast(Compiled, numba.njit(cache=True, nogil=True, error_model="numpy")(function))


def inlined(function: Compiled) -> Compiled:
    """Return ``function`` compiled into each of its callers."""
    return cast(Compiled, numba.njit(inline="always", error_model="numpy")(function))


@inlined
def mix(state: Any) -> Any:
    """Return the SplitMix64 finaliser of a uint64."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


@inlined
def key_of_row(seed: Any, row: Any) -> Any:
    """Return the uint64 key of one row of a seeded plane."""
    return mix(seed + _GOLDEN * np.uint64(row))


@inlined
def key_of_column(row_key: Any, column: Any) -> Any:
    """Return the uint64 key of one place of a row."""
    return mix(row_key + _SECOND * np.uint64(column))


@inlined
def unit(key: Any) -> Any:
    """Return the uniform number in [0, 1) of a key."""
    return np.float64(key >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@inlined
def bell(key: Any) -> Any:
    """Return the standard normal number of a key: the centred sum of its eight bytes.

    Integers only, so equal on every machine; excess kurtosis -0.15, no value beyond 4.9.
    """
    pairs = (key & _BYTES) + ((key >> np.uint64(8)) & _BYTES)
    return (np.float64((pairs * _FOLD) >> np.uint64(48)) - 1020.0) * _BELL_SCALE


@kernel
def lattice(seed: Any, y: float, x: float) -> float:
    """Return smooth noise in [0, 1) at a point: hashed lattice values, smoothstep between them."""
    row, column = int(np.floor(y)), int(np.floor(x))
    v, u = y - row, x - column
    v, u = v * v * (3.0 - 2.0 * v), u * u * (3.0 - 2.0 * u)
    above, below = key_of_row(seed, row), key_of_row(seed, row + 1)
    a, b = unit(key_of_column(above, column)), unit(key_of_column(above, column + 1))
    c, d = unit(key_of_column(below, column)), unit(key_of_column(below, column + 1))
    top = a + (b - a) * u
    value: float = top + (c + (d - c) * u - top) * v
    return value


@kernel
def _beside(own: Any, mate: Any, radius: float) -> tuple[float, float]:
    """Return the centre of a cell of ``radius`` in contact with ``mate = (y, x, radius)``."""
    apart = (0.78 + 0.2 * unit(mix(own + np.uint64(6)))) * (radius + mate[2])
    turn = 2.0 * np.pi * unit(mix(own + np.uint64(7)))
    return mate[0] + apart * np.sin(turn), mate[1] + apart * np.cos(turn)


@kernel
def _fill(cell_key: Any, cell: Any, share: float, style: Any, places: Any, keys: Any) -> None:
    """Fill the slots of grid cell ``(row, column)``: ``(y, x, radius)``, radius 0 where empty."""
    row, column = cell
    diameter, spread, _, clumping = style
    pitch = PITCH * diameter
    placed = 0
    members = np.empty(SLOTS, np.int64)
    for k in range(SLOTS):
        own = mix(cell_key + _GOLDEN * np.uint64(k + 1))
        keys[k] = own
        if unit(own) >= share:
            continue
        scale = np.exp(spread * bell(mix(own + np.uint64(1))))
        radius = 0.5 * diameter * min(max(scale, 1.0 / MAX_SCALE), MAX_SCALE)
        y = (row + unit(mix(own + np.uint64(2)))) * pitch
        x = (column + unit(mix(own + np.uint64(3)))) * pitch
        if placed > 0 and unit(mix(own + np.uint64(4))) < clumping:
            mate = places[members[int(unit(mix(own + np.uint64(5))) * placed)]]
            near_y, near_x = _beside(own, mate, radius)
            # A clump stays within half a pitch of its grid cell: that bound is what
            # makes the neighbourhood of a region finite.
            if max(abs(near_y / pitch - row - 0.5), abs(near_x / pitch - column - 0.5)) <= 1.0:
                y, x = near_y, near_x
        places[k, 0], places[k, 1], places[k, 2] = y, x, radius
        members[placed] = k
        placed += 1


@kernel
def _candidates(
    seed: Any, origin: Any, counts: Any, style: Any
) -> tuple[NDArray[np.float64], NDArray[np.uint64]]:
    """Return ``(y, x, radius)`` per grid cell and slot, and the slots' keys.

    ``style`` holds diameter, spread, density and clumping.
    """
    places = np.zeros((counts[0], counts[1], SLOTS, 3))
    keys = np.zeros((counts[0], counts[1], SLOTS), np.uint64)
    share = style[2] * PITCH * PITCH / (0.25 * np.pi) / SLOTS
    for i in range(counts[0]):
        row = origin[0] + i
        row_key = key_of_row(seed, row)
        for j in range(counts[1]):
            column = origin[1] + j
            crowd = 0.35 + 1.3 * lattice(seed + np.uint64(1), row / 4.0, column / 4.0)
            key = key_of_column(row_key, column)
            _fill(key, (row, column), share * crowd, style, places[i, j], keys[i, j])
    return places, keys


@kernel
def _yields(places: Any, keys: Any, i: int, j: int, k: int) -> bool:
    """Return whether a candidate of higher priority stands too close to slot ``(i, j, k)``."""
    y, x, radius = places[i, j, k]
    for a in range(max(i - 2, 0), min(i + 3, places.shape[0])):
        for b in range(max(j - 2, 0), min(j + 3, places.shape[1])):
            for c in range(SLOTS):
                other = places[a, b, c, 2]
                if other == 0.0 or keys[a, b, c] <= keys[i, j, k]:
                    continue
                near = MIN_SEPARATION * (radius + other)
                dy, dx = places[a, b, c, 0] - y, places[a, b, c, 1] - x
                if dy * dy + dx * dx < near * near:
                    return True
    return False


@kernel
def _outline(key: Any, radius: float, shape: Any, out: Any) -> None:
    """Fill ``out (ANGLES + 1,)`` with the radius at each diamond angle.

    An ellipse of the same area, turned at random, times one plus low harmonics.
    ``shape`` holds elongation and irregularity.
    """
    elongation, irregularity = shape
    ratio = 1.0 + elongation * unit(mix(key + np.uint64(11)))
    long, short = radius * np.sqrt(ratio), radius / np.sqrt(ratio)
    turn = np.pi * unit(mix(key + np.uint64(12)))
    sizes, phases = np.empty(HARMONICS), np.empty(HARMONICS)
    for h in range(HARMONICS):
        sizes[h] = irregularity * unit(mix(key + np.uint64(20 + h))) / (h + 2)
        phases[h] = 2.0 * np.pi * unit(mix(key + np.uint64(30 + h)))
    for a in range(ANGLES):
        p = 4.0 * a / ANGLES
        dx = 1.0 - p if p < 2.0 else p - 3.0
        dy = p if p < 1.0 else (2.0 - p if p < 3.0 else p - 4.0)
        angle = np.arctan2(dy, dx)
        ellipse = np.sqrt((np.cos(angle - turn) / long) ** 2 + (np.sin(angle - turn) / short) ** 2)
        wave = 1.0
        for h in range(HARMONICS):
            wave += sizes[h] * np.cos((h + 2) * angle + phases[h])
        out[a] = wave / ellipse
    out[ANGLES] = out[0]


@kernel
def _keep(
    seed: Any, bounds: Any, across: int, style: Any, shape: Any
) -> tuple[Any, Any, Any, Any, Any]:
    """Return the fields of ``Cells`` for grid cells ``[row0, row1) x [column0, column1)``.

    ``across`` is the number of grid cells in a row of the scene, its margin included.
    """
    row0, row1, column0, column1 = bounds
    places, keys = _candidates(
        seed, (row0 - 2, column0 - 2), (row1 - row0 + 4, column1 - column0 + 4), style
    )
    count = 0
    chosen = np.zeros(((row1 - row0) * (column1 - column0) * SLOTS, 3), np.int64)
    for i in range(2, places.shape[0] - 2):
        for j in range(2, places.shape[1] - 2):
            for k in range(SLOTS):
                if places[i, j, k, 2] > 0.0 and not _yields(places, keys, i, j, k):
                    chosen[count, 0], chosen[count, 1], chosen[count, 2] = i, j, k
                    count += 1
    ids, centres = np.empty(count, np.int64), np.empty((count, 2))
    outlines = np.empty((count, ANGLES + 1))
    reach, tones = np.empty(count), np.empty(count)
    for n in range(count):
        i, j, k = chosen[n]
        # Rows and columns of the scene's margin start at -2; farther out no cell is seen.
        row, column = row0 + i, column0 + j
        ids[n] = (row * across + column) * SLOTS + k + 1
        centres[n] = places[i, j, k, :2]
        _outline(keys[i, j, k], places[i, j, k, 2], shape, outlines[n])
        reach[n] = outlines[n].max()
        tones[n] = 0.35 + 0.65 * unit(mix(keys[i, j, k] + np.uint64(13)))
    return ids, centres, outlines, reach, tones


@kernel
def _cover(cells: Any, y0: int, x0: int, labels: Any, rho: Any, tones: Any, glow: Any) -> None:
    """Fill the four planes of ``Cover`` for the region that starts at ``(y0, x0)``.

    The pixel belongs to the cell it lies deepest in; on a tie, to the first.
    """
    ids, centres, outlines, reaches, cell_tones = cells
    height, width = labels.shape
    for n in range(len(ids)):
        cy, cx, reach = centres[n, 0], centres[n, 1], GLOW * reaches[n]
        tone, outline = cell_tones[n], outlines[n]
        for i in range(max(int(cy - reach) - y0, 0), min(int(cy + reach) + 2 - y0, height)):
            dy = i + y0 + 0.5 - cy
            for j in range(max(int(cx - reach) - x0, 0), min(int(cx + reach) + 2 - x0, width)):
                dx = j + x0 + 0.5 - cx
                around = abs(dx) + abs(dy)
                if around == 0.0:
                    depth = 0.0
                else:
                    # The diamond angle is monotone in the angle and needs no arctangent.
                    p = dy / around if dx >= 0.0 else 2.0 - dy / around
                    p = (p + 4.0 if p < 0.0 else p) * (ANGLES / 4.0)
                    a = min(int(p), ANGLES - 1)
                    radius = outline[a] + (outline[a + 1] - outline[a]) * (p - a)
                    depth = np.sqrt(dy * dy + dx * dx) / radius
                if depth >= GLOW:
                    continue
                fall = 1.0 - depth * depth / (GLOW * GLOW)
                glow[i, j] += tone * fall * fall
                if depth < rho[i, j]:
                    rho[i, j] = depth
                    tones[i, j] = tone
                    if depth <= 1.0:
                        labels[i, j] = ids[n]


def grid_across(width: int, diameter: float) -> int:
    """Return the number of grid cells in a row of a scene ``width`` px wide, margins included."""
    return int(np.ceil(width / (PITCH * diameter))) + 5


def max_reach(diameter: float, elongation: float, irregularity: float) -> float:
    """Return how far a cell and its glow can reach from the centre, in px."""
    waves = sum(irregularity / (h + 2) for h in range(HARMONICS))
    return 0.5 * diameter * MAX_SCALE * float(np.sqrt(1.0 + elongation)) * (1.0 + waves) * GLOW


def cells_near(
    seed: int,
    region: tuple[int, int, int, int],
    *,
    width: int,
    style: tuple[float, float, float, float],
    shape: tuple[float, float],
) -> Cells:
    """Return every cell whose glow can reach ``region = (y0, y1, x0, x1)`` of a scene.

    Args:
        seed: any integer; its low 64 bits are used.
        region: half-open, px of the whole scene; may lie outside it.
        width: of the whole scene in px, which fixes the ids.
        style: diameter in px, spread, density, clumping.
        shape: elongation, irregularity.
    """
    pitch = PITCH * style[0]
    reach = max_reach(style[0], *shape)
    low = [int(np.floor((edge - reach) / pitch - 0.5)) for edge in (region[0], region[2])]
    high = [int(np.floor((edge + reach) / pitch + 0.5)) + 1 for edge in (region[1], region[3])]
    bounds = (low[0], high[0], low[1], high[1])
    key = np.uint64(seed & 0xFFFFFFFFFFFFFFFF)
    return Cells(*_keep(key, bounds, grid_across(width, style[0]), style, shape))


def cover(cells: Cells, region: tuple[int, int, int, int]) -> Cover:
    """Return what ``cells`` cover of ``region = (y0, y1, x0, x1)``."""
    size = (region[1] - region[0], region[3] - region[2])
    planes = Cover(
        np.zeros(size, np.int64),
        np.full(size, GLOW, np.float32),
        np.zeros(size, np.float32),
        np.zeros(size, np.float32),
    )
    arrays: tuple[Array, ...] = tuple(planes)
    _cover(tuple(cells), region[0], region[2], *arrays)
    return planes
