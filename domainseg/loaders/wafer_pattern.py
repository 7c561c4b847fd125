"""The circuit of a made-up wafer: what every die shows, as a pure function of position.

A die's core is cut into blocks once per circuit; inside a block the pattern is period
arithmetic. A pixel holds the mean of the pattern over its own area, from the integral
of a square wave in closed form, so lines finer than a pixel turn grey instead of
into beats.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from domainseg.loaders.scene_cells import inlined, kernel, key_of_row, unit
from domainseg.quality.die_grid import DieGrid
from domainseg.records import Array

EMPTY, ROWS, COLUMNS, VIAS, PADS, ROUTES = range(6)
"""Kinds of block: bare film, lines along x, lines along y, vias, pads, lines with breaks."""
X0, Y0, X1, Y1, KIND, PITCH, WIDTH, SPACE_GREY, METAL_GREY = range(9)
"""Columns of ``Circuit.blocks``."""

OUTSIDE, STREET, FILM, BARE, EDGE, SEAL = 0.015, 0.35, 0.48, 0.57, 0.24, 0.68
"""Greys at full light: beyond the wafer, streets, unpatterned film, the ring without film, the
bevel, the seal ring around each die."""
NOTCH_UM = 1000.0
"""Depth of the notch, a right angle with its corner towards the centre (SEMI M1: 1 mm)."""
BEVEL_UM = 300.0
"""Width of the dark rim."""


class Circuit(NamedTuple):
    """What each die holds; lengths in micrometres from the die's lower left corner.

    Attributes:
        cells: int32 ``(rows, columns)``, block at each cell of the core; rows run up.
        origin: ``(y, x)`` of the corner of cell (0, 0).
        unit: ``(y, x)`` side of a cell.
        blocks: float64 ``(B, 9)``; block 0 is empty. Columns ``X0`` ... ``METAL_GREY``.
        border: half the street's width, and the width of the seal ring.
    """

    cells: NDArray[np.int32]
    origin: tuple[float, float]
    unit: tuple[float, float]
    blocks: NDArray[np.float64]
    border: tuple[float, float]


@lru_cache(maxsize=32)
def circuit_of(
    pitch_um: tuple[float, float], street_um: float, line_um: float, *, seed: int
) -> Circuit:
    """Return the circuit of a seed; the same for every die of every wafer that has it.

    Args:
        pitch_um: ``(y, x)`` of the dies.
        street_um: width of the streets between them.
        line_um: width of the finest lines, and of the spaces between them.
        seed: any non-negative integer.
    """
    rng = np.random.default_rng(seed)
    border = (0.5 * street_um, 2.0 * line_um)
    inset = border[0] + 3.0 * border[1]
    core = (pitch_um[0] - 2 * inset, pitch_um[1] - 2 * inset)
    # A block holds at least a dozen of its lines, and a die at most some 40 blocks a side.
    side = max(12.0 * line_um, min(core) / 160.0)
    counts = (max(int(core[0] / side), 1), max(int(core[1] / side), 1))
    unit_um = (core[0] / counts[0], core[1] / counts[1])
    cells = np.zeros(counts, np.int32)
    blocks = [np.zeros(9)]
    for top, left, height, width in _rectangles(rng, counts):
        cells[top : top + height, left : left + width] = len(blocks)
        low = (inset + top * unit_um[0], inset + left * unit_um[1])
        size = (height * unit_um[0], width * unit_um[1])
        blocks.append(_block(rng, low, size, line_um))
    return Circuit(cells, (inset, inset), unit_um, np.stack(blocks), border)


def _rectangles(
    rng: np.random.Generator, counts: tuple[int, int]
) -> list[tuple[int, int, int, int]]:
    """Return ``(top, left, height, width)`` that partition the cells, cut by cut."""
    found, open_ = [], [(0, 0, *counts)]
    while open_:
        top, left, height, width = open_.pop()
        longest = max(height, width)
        if longest < 4 or (longest <= 10 and rng.random() < 0.35):
            found.append((top, left, height, width))
            continue
        cut = int(rng.integers(2, longest - 1)) if longest > 3 else 2
        if height >= width:
            open_ += [(top, left, cut, width), (top + cut, left, height - cut, width)]
        else:
            open_ += [(top, left, height, cut), (top, left + cut, height, width - cut)]
    return found


def _block(
    rng: np.random.Generator, low: tuple[float, float], size: tuple[float, float], line_um: float
) -> Array:
    """Return the row of one block: whole lines only, in the middle of its place."""
    kind = int(rng.choice([EMPTY, ROWS, COLUMNS, VIAS, PADS, ROUTES], p=_SHARES))
    scale = float(rng.choice([1.0, 1.0, 1.5, 2.0]))
    width = line_um * scale
    pitch = {VIAS: 2.5, PADS: 16.0, ROUTES: 2.2}.get(kind, 2.0) * width
    if kind == PADS:
        width *= 11.0
    margin = 1.5 * line_um
    extent = []
    for start, side in zip(low, size, strict=True):
        room = side - 2 * margin
        number = int((room - width) / pitch) + 1 if room >= width else 0
        taken = max(number - 1, 0) * pitch + width
        extent.append((start + 0.5 * (side - taken), taken, number))
    (y0, tall, down), (x0, wide, across) = extent
    if min(down, across) < 1:
        kind = EMPTY
    space = FILM * (0.8 + 0.3 * rng.random())
    metal = (0.8 if kind == PADS else 0.61) + 0.12 * rng.random()
    return np.array([x0, y0, x0 + wide, y0 + tall, kind, pitch, width, space, metal])


_SHARES = (0.12, 0.22, 0.22, 0.2, 0.06, 0.18)


@inlined
def _share(low: Any, high: Any, start: Any, stop: Any) -> Any:
    """Return the share of ``[low, high]`` that ``[start, stop]`` covers."""
    return max(min(high, stop) - max(low, start), 0.0) / (high - low)


@inlined
def _filled(t: Any, pitch: Any, width: Any) -> Any:
    """Return the integral from 0 to ``t`` of a square wave that is 1 on the first ``width``."""
    turn = np.floor(t / pitch)
    return turn * width + min(t - turn * pitch, width)


@inlined
def _wave(low: Any, high: Any, pitch: Any, width: Any) -> Any:
    """Return the mean of the square wave over ``[low, high]``."""
    return (_filled(high, pitch, width) - _filled(low, pitch, width)) / (high - low)


@inlined
def on_wafer(y: Any, x: Any, radius: Any) -> Any:
    """Return whether a place, micrometres from the wafer's centre and up, is on the wafer."""
    return y * y + x * x <= radius * radius and not abs(x) < NOTCH_UM - radius - y


@kernel
def _across_row(v: Any, half: Any, blocks: Any, b: int) -> tuple[float, float, float, float]:
    """Return what a row of pixels has of a block: its share, that of metal, period and phase.

    Period and phase are those of the breaks in the line the row lies on: each line of
    ``ROUTES`` has breaks of its own.
    """
    low, high = v - half - blocks[b, Y0], v + half - blocks[b, Y0]
    inside = _share(low, high, 0.0, blocks[b, Y1] - blocks[b, Y0])
    metal, period, phase = 1.0, 1.0, 0.0
    if blocks[b, KIND] != COLUMNS:
        metal = _wave(low, high, blocks[b, PITCH], blocks[b, WIDTH])
    if blocks[b, KIND] == ROUTES:
        # From the middle of one space to the middle of the next.
        line = (low + half) / blocks[b, PITCH] + 0.5 - 0.5 * blocks[b, WIDTH] / blocks[b, PITCH]
        key = key_of_row(np.uint64(np.int64(blocks[b, X0] * 8.0)), np.int64(np.floor(line)))
        period = blocks[b, PITCH] * (9.0 + 14.0 * unit(key))
        phase = 7.7 * period * unit(key)
    return inside, metal, period, phase


@inlined
def _in_block(u: Any, half: Any, blocks: Any, b: Any, row: Any) -> Any:
    """Return the mean grey of a pixel at ``u`` that looks at block ``b`` in that ``row``."""
    inside, metal, period, phase = row
    kind = blocks[b, KIND]
    low, high = u - half - blocks[b, X0], u + half - blocks[b, X0]
    inside = inside * _share(low, high, 0.0, blocks[b, X1] - blocks[b, X0])
    if kind == ROUTES:
        metal = metal * _wave(low + phase, high + phase, period, period - 1.4 * blocks[b, WIDTH])
    elif kind != ROWS:
        metal = metal * _wave(low, high, blocks[b, PITCH], blocks[b, WIDTH])
    space = blocks[b, SPACE_GREY]
    grey = space + (blocks[b, METAL_GREY] - space) * metal
    return FILM + (grey - FILM) * inside


@kernel
def _in_street(v: Any, u: Any, half: Any, pitch: Any, street: Any) -> float:
    """Return the grey of a street: test structures are squares along its middle, in groups."""
    away_v, away_u = min(v, pitch[0] - v), min(u, pitch[1] - u)
    along = u if away_v < away_u else v
    # None where streets cross, and none in two of three groups.
    if max(away_v, away_u) < 2.0 * street or np.floor(along / (17.0 * street)) % 3.0 != 0.0:
        return STREET
    away = min(away_v, away_u)
    square = _share(away - half[0], away + half[0], -0.4 * street, 0.4 * street)
    square *= _wave(along - half[0], along + half[0], 1.7 * street, 0.8 * street)
    grey: float = STREET + 0.3 * square
    return grey


@kernel
def _within(places: Any, half: Any, pitch: Any, inset: Any) -> NDArray[np.float64]:
    """Return the share of each pixel that is more than ``inset`` inside its die, along an axis."""
    shares = np.empty(len(places))
    for k in range(len(places)):
        shares[k] = _share(places[k] - half, places[k] + half, inset, pitch - inset)
    return shares


@kernel
def _lay_dies(v: Any, u: Any, half: Any, pitch: Any, circuit: Any, out: Any) -> None:
    """Fill ``out (h, w)`` with the dies and streets, as if the wafer had no end.

    ``v`` and ``u`` are the places of rows and columns in their dies.
    """
    cells, origin, unit_um, blocks, border = circuit
    street, inset = border[0], border[0] + border[1]
    die_v, die_u = _within(v, half[0], pitch[0], street), _within(u, half[1], pitch[1], street)
    core_v, core_u = _within(v, half[0], pitch[0], inset), _within(u, half[1], pitch[1], inset)
    across = np.empty(len(u), np.int64)
    for j in range(len(u)):
        column = np.int64(np.floor((u[j] - origin[1]) / unit_um[1]))
        across[j] = column if column < cells.shape[1] else -1
    for i in range(len(v)):
        line = np.int64(np.floor((v[i] - origin[0]) / unit_um[0]))
        last, row = -1, (0.0, 0.0, 1.0, 0.0)
        for j in range(len(u)):
            die, core = die_v[i] * die_u[j], core_v[i] * core_u[j]
            value = FILM
            if core > 0.0 and 0 <= line < cells.shape[0] and across[j] >= 0:
                b = cells[line, across[j]]
                if b != last:
                    last, row = b, _across_row(v[i], half[0], blocks, b)
                if blocks[b, KIND] != EMPTY:
                    value = _in_block(u[j], half[1], blocks, b, row)
            if core < 1.0:
                value = SEAL * (die - core) + value * core
                if die < 1.0:
                    value += (1.0 - die) * _in_street(v[i], u[j], half, pitch, street)
            out[i, j] = value


@kernel
def _end(y: Any, x: Any, half: Any, radius: Any, usable: Any, out: Any) -> None:
    """Put the ring without film, the bevel, the notch and the dark beyond over ``out (h, w)``."""
    size = 2.0 * half
    inner = max(usable - size, 0.0)
    for i in range(len(y)):
        for j in range(len(x)):
            far = y[i] * y[i] + x[j] * x[j]
            if far <= inner * inner:
                continue
            r = np.sqrt(far)
            film = min(max((usable - r) / size + 0.5, 0.0), 1.0)
            value = BARE + (out[i, j] - BARE) * film
            value += (EDGE - value) * min(max((r - radius + BEVEL_UM) / BEVEL_UM, 0.0), 1.0)
            notch = NOTCH_UM - radius - y[i] - abs(x[j])
            edge = min((radius - r) / size, -0.7071 * notch / size) + 0.5
            out[i, j] = OUTSIDE + (value - OUTSIDE) * min(max(edge, 0.0), 1.0)


def lay_pattern(
    grid: DieGrid,
    circuit: Circuit | None,
    region: tuple[int, int, int, int],
    *,
    edge_exclusion_mm: float,
) -> NDArray[np.float32]:
    """Return the greys of ``region = (y0, y1, x0, x1)`` in px at full light, float32 ``(h, w)``.

    Without a circuit the wafer is bare. The region may lie outside the image.
    """
    y0, y1, x0, x1 = region
    down = grid.positions(np.arange(y0, y1), 0.0)
    right = grid.positions(0.0, np.arange(x0, x1))
    half = (0.5 * grid.spacing_um[0], 0.5 * grid.spacing_um[1])
    out = np.full((y1 - y0, x1 - x0), FILM, np.float32)
    if circuit is not None:
        _lay_dies(down.yrel, right.xrel, half, grid.pitch_um, tuple(circuit), out)
    radius = 500.0 * grid.wafer_diameter_mm
    usable = radius - 1000.0 * edge_exclusion_mm
    farthest = np.hypot(np.abs(down.y_um).max(), np.abs(right.x_um).max())
    if farthest > usable - 4 * half[0]:
        _end(down.y_um, right.x_um, half[0], radius, usable, out)
    return out


def blocks_at(
    circuit: Circuit, yrel: NDArray[np.float64], xrel: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return the block at each place of a die, 0 where there is none."""
    i = np.floor((yrel - circuit.origin[0]) / circuit.unit[0]).astype(np.int64)
    j = np.floor((xrel - circuit.origin[1]) / circuit.unit[1]).astype(np.int64)
    inside = (i >= 0) & (i < circuit.cells.shape[0]) & (j >= 0) & (j < circuit.cells.shape[1])
    return np.where(inside, circuit.cells[np.where(inside, i, 0), np.where(inside, j, 0)], 0)
