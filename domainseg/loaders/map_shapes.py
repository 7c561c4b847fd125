"""Where the patterns of a wafer map strike: one field of shares per pattern and style.

A shape is a function of a generator and a wafer. The share is 1 well inside, 0 far away
and falls over the rim; the zone is where it is at least a half.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from domainseg.loaders.map_wafer import (
    Draw,
    Strike,
    Wafer,
    any_angle,
    away_from,
    blob,
    falling,
    lay_scratch,
    lobes_of,
    log_uniform,
    place,
    rotated,
    towards,
)
from domainseg.records import Array

Style = Literal["mixed", "wm811k"]
"""Whose shapes: those of MixedWM38, or those of WM-811K."""
Shape = Callable[[Draw, Wafer], Strike]

# MixedWM38: figures measured on its 3,673 maps of one pattern and its 527 of none.


def _disc(rng: Draw, wafer: Wafer) -> Strike:
    """Center: a full disc with a sharp outline."""
    radius = max(rng.uniform(0.09, 0.335), 2.2 / wafer.per_radius)
    at = (rng.uniform(-0.18, 0.18), rng.uniform(-0.18, 0.18))
    inside = blob(wafer, at, (radius, radius))
    return Strike(falling(inside, wafer, over=0.5, frayed=0.1))


def _clean_donut(rng: Draw, wafer: Wafer) -> Strike:
    """Donut: a sharp hole in which nothing fails, a rim that crumbles."""
    hole = max(rng.uniform(0.05, 0.33), 1.0 / wafer.per_radius)
    outer = hole + rng.uniform(0.16, 0.29)
    at = (rng.uniform(-0.18, 0.18), rng.uniform(-0.18, 0.18))
    away = np.hypot(wafer.v - at[0], wafer.u - at[1])
    inside = falling(
        (outer - away) * wafer.per_radius, wafer, over=rng.uniform(1.0, 3.0), frayed=0.8
    )
    spared = away < hole
    return Strike(np.where(spared, 0.0, inside), spared)


def _edge_depth(rng: Draw, wafer: Wafer, low: float, high: float) -> Array:
    """Return the share of a ring along the rim that thins out inwards."""
    depth = rng.uniform(low, high)
    ring = falling(depth - wafer.rim, wafer, over=0.9, frayed=0.15)
    return np.asarray(ring * np.clip(1.06 - 0.12 * wafer.rim, 0.0, 1.0) * rng.uniform(0.85, 1.0))


def _thin_arc(rng: Draw, wafer: Wafer) -> Strike:
    """Edge-Loc: part of a ring two dies deep."""
    half = np.pi * rng.uniform(0.09, 0.88)
    fade = rng.uniform(0.1, 0.6)
    ends = np.clip(0.5 + (half - away_from(wafer, any_angle(rng))) / fade, 0.0, 1.0)
    return Strike(ends * _edge_depth(rng, wafer, 1.7, 2.3))


def _thin_ring(rng: Draw, wafer: Wafer) -> Strike:
    """Edge-Ring: a whole ring two dies deep."""
    return Strike(_edge_depth(rng, wafer, 1.6, 2.3))


def _rayed_blob(rng: Draw, wafer: Wafer) -> Strike:
    """Loc: a blob near the rim whose outline breaks into rays."""
    angle = any_angle(rng)
    at = place(rng.uniform(0.66, 0.83), angle)
    size, long = rng.uniform(0.14, 0.32), rng.uniform(1.0, 1.9)
    size = max(size, 2.2 / wafer.per_radius)
    axes = (size * np.sqrt(long), size / np.sqrt(long))
    turned = angle + 0.5 * np.pi
    inside = blob(wafer, at, axes, turned=turned)
    along = towards(wafer, turned)
    rays = rng.standard_normal(64)
    row = np.floor(along * wafer.per_radius).astype(np.int64) % len(rays)
    inside = inside + rng.uniform(0.8, 2.4) * (rays[row] + 0.3)
    return Strike(falling(inside, wafer, over=1.2, frayed=0.7))


def _bottom_scratch(rng: Draw, wafer: Wafer) -> Strike:
    """Scratch: one thin arc, mostly from the bottom to the lower left or right."""
    side = rng.choice((-1.0, 1.0))
    start = (rng.uniform(0.82, 0.99), side * rng.uniform(-0.12, 0.2))
    far = rng.uniform(0.2, 0.68)
    stop = (np.sin(far) * 0.97, side * np.cos(far) * 0.97)
    bulge = side * rng.uniform(-0.04, 0.18)
    turned = 0.0 if rng.random() < 0.8 else any_angle(rng)
    on = np.zeros(wafer.dies.shape, bool)
    wide = 2 if rng.random() < 0.35 else 1
    lay_scratch(on, wafer, rotated(start, turned), rotated(stop, turned), bulge=bulge, wide=wide)
    return Strike(on.astype(np.float64), flat=rng.uniform(0.88, 1.0))


# WM-811K: figures measured on up to 600 maps of each label.


def _ragged_blob(rng: Draw, wafer: Wafer) -> Strike:
    """Center: a blob near the centre, often with a wide soft rim."""
    at = place(0.12 * np.sqrt(rng.random()), any_angle(rng))
    size = max(log_uniform(rng, 0.13, 0.52), 1.9 / wafer.per_radius)
    long = rng.uniform(1.0, 1.3)
    inside = blob(
        wafer, at, (size * long, size / long), turned=any_angle(rng), lobes=lobes_of(rng, 0.2)
    )
    soft = 1.0 + rng.random() * 0.7 * size * wafer.per_radius
    return Strike(falling(inside, wafer, over=soft, frayed=rng.uniform(0.2, 0.9)))


def _soft_donut(rng: Draw, wafer: Wafer) -> Strike:
    """Donut: an annulus or part of one, soft on both sides."""
    at = place(0.16 * np.sqrt(rng.random()), any_angle(rng))
    away = np.hypot(wafer.v - at[0], wafer.u - at[1])
    middle = rng.uniform(0.3, 0.56)
    half = max(rng.uniform(0.08, 0.5) * middle, 1.1 / wafer.per_radius)
    facing = np.arctan2(wafer.v - at[0], wafer.u - at[1]) - any_angle(rng)
    open_ = rng.random() ** 2 * 1.3
    width = half * (1.0 + open_ * np.cos(facing))
    soft = rng.uniform(0.8, 1.0 + 0.7 * half * wafer.per_radius)
    inside = (width - np.abs(away - middle)) * wafer.per_radius
    return Strike(falling(inside, wafer, over=soft, frayed=rng.uniform(0.3, 0.9)))


def _edge_piece(rng: Draw, wafer: Wafer) -> Strike:
    """Edge-Loc: a piece of the rim, deepest in the middle; now and then a large part."""
    large = rng.random() < 0.12
    half = rng.uniform(0.7, 1.5) if large else log_uniform(rng, 0.15, 1.1)
    half = max(half, 1.6 / wafer.per_radius)
    deepest = rng.uniform(0.2, 0.8) * wafer.per_radius if large else log_uniform(rng, 1.4, 6.0)
    bow = np.sqrt(np.clip(1.0 - (away_from(wafer, any_angle(rng)) / half) ** 2, 0.0, 1.0))
    inside = np.where(bow > 0, deepest * bow - wafer.rim, -9.0)
    soft = rng.uniform(0.5, 1.0 + 0.3 * deepest)
    return Strike(falling(inside, wafer, over=soft, frayed=rng.uniform(0.1, 0.6)))


def _edge_ring(rng: Draw, wafer: Wafer) -> Strike:
    """Edge-Ring: mostly one die deep, now and then a wide band; deeper on one side, or open.

    The wide bands are not measured on the set: they are drawn so that a model knows them, too.
    """
    depth = 0.9 + rng.exponential(0.25)
    lean, soft = rng.random() ** 2, 0.8
    if rng.random() < 0.2:
        depth = max(depth, rng.uniform(0.06, 0.42) * wafer.per_radius)
        lean, soft = 0.4 * lean, rng.uniform(0.8, 1.0 + 0.2 * depth)
    away = away_from(wafer, any_angle(rng))
    inside = depth * (1.0 + lean * np.cos(away)) - wafer.rim
    share = falling(inside, wafer, over=soft, frayed=rng.uniform(0.1, 0.3))
    if rng.random() < 0.25:
        share = share * (away < np.pi * rng.uniform(0.7, 0.95))
    return Strike(share)


def _inner_blob(rng: Draw, wafer: Wafer) -> Strike:
    """Loc: a blob off the centre, a wedge or bar of dies, or two small spots."""
    kind = rng.random()
    if kind < 0.15:
        return _two_spots(rng, wafer)
    angle = any_angle(rng)
    at = place(rng.uniform(0.35, 0.8), angle)
    size = max(log_uniform(rng, 0.12, 0.4), 1.7 / wafer.per_radius)
    long = rng.uniform(1.0, 1.6)
    turned = any_angle(rng)
    if kind < 0.4:
        long = rng.uniform(1.6, 2.6)
        turned = float(rng.choice((0.0, 0.5 * np.pi, angle, angle + 0.5 * np.pi)))
    axes = (size * long, max(size / long, 0.9 / wafer.per_radius))
    inside = blob(wafer, at, axes, turned=turned, lobes=lobes_of(rng, 0.25))
    soft = 0.8 + rng.random() * 0.7 * min(axes) * wafer.per_radius
    return Strike(falling(inside, wafer, over=soft, frayed=rng.uniform(0.2, 0.8)))


def _two_spots(rng: Draw, wafer: Wafer) -> Strike:
    """Return two spots opposite each other, as a handler leaves them."""
    at = place(rng.uniform(0.45, 0.85), any_angle(rng))
    share = np.zeros(wafer.dies.shape)
    for sign in (1.0, -1.0):
        size = max(rng.uniform(0.06, 0.13), 1.5 / wafer.per_radius)
        inside = blob(wafer, (sign * at[0], sign * at[1]), (size, size), lobes=lobes_of(rng, 0.2))
        share = np.maximum(share, falling(inside, wafer, over=0.7, frayed=0.35))
    return Strike(share)


def _scratches(rng: Draw, wafer: Wafer) -> Strike:
    """Scratch: one or several thin arcs, alone, side by side or from one place."""
    on = np.zeros(wafer.dies.shape, bool)
    least = 8.0 / wafer.per_radius
    start = place(0.88 * float(np.sqrt(rng.random())), any_angle(rng))
    heading, kind, count = any_angle(rng), rng.random(), 1
    if kind > 0.65:
        count = int(rng.integers(2, 4)) if kind < 0.92 else int(rng.integers(4, 8))
    together = rng.integers(3)
    for _ in range(count):
        if together == 0:
            start, heading = (
                place(0.88 * float(np.sqrt(rng.random())), any_angle(rng)),
                any_angle(rng),
            )
            if rng.random() < 0.2:
                heading = 0.5 * np.pi * int(rng.integers(4))
        elif together == 1:
            start = (start[0] + rng.normal(0, 0.12), start[1] + rng.normal(0, 0.12))
        else:
            heading += rng.uniform(0.4, 2.0)
        # Inwards, where the way outwards is short.
        if np.hypot(*start) > 0.6 and start[0] * np.sin(heading) + start[1] * np.cos(heading) > 0:
            heading += np.pi
        length = max(log_uniform(rng, 0.2, 1.5), least)
        ahead = place(length, heading)
        stop = (start[0] + ahead[0], start[1] + ahead[1])
        wide = 1 + int(rng.random() < 0.3) + int(rng.random() < 0.06)
        bulge = length * rng.normal(0, 0.09)
        gap = (1.0, 0.0)
        if rng.random() < 0.15:
            gap = (
                gap_start := rng.uniform(0.3, 0.6),
                gap_start + 3.0 / (length * wafer.per_radius),
            )
        lay_scratch(on, wafer, start, stop, bulge=bulge, wide=wide, gap=gap)
    return Strike(on.astype(np.float64), flat=rng.uniform(0.88, 1.0))


# Both sets: the whole wafer.


def _everywhere(rng: Draw, wafer: Wafer) -> Strike:
    """Random: about half of all dies, more on one side than on the other."""
    lean = rng.random() ** 2 * 0.9 * towards(wafer, any_angle(rng))
    bowl = rng.normal(0.0, 0.15) * (wafer.radius**2 - 0.5)
    flat = float(np.clip(rng.normal(0.47, 0.1), 0.28, 0.68))
    return Strike(np.clip(1.0 + lean + bowl, 0.5, 1.0 / flat), wafer.dies, flat)


def _nearly_full(rng: Draw, wafer: Wafer) -> Strike:
    """Near-full: all dies, but for a part of the rim or of the middle on some wafers."""
    kind = rng.random()
    flat = 1.0 - rng.random() ** 2 * 0.2
    if kind < 0.3:
        return Strike(np.ones(wafer.dies.shape), wafer.dies, flat)
    if kind < 0.75:
        inside = (rng.uniform(0.15, 0.8) - towards(wafer, any_angle(rng))) * wafer.per_radius
    elif kind < 0.9:
        inside = wafer.rim - rng.uniform(0.5, 1.7)
    else:
        inside = (wafer.radius - rng.uniform(0.08, 0.2)) * wafer.per_radius
    soft = rng.uniform(1.5, 0.4 * wafer.per_radius)
    return Strike(0.35 + 0.65 * falling(inside, wafer, over=soft, frayed=0.9), wafer.dies, flat)


SHAPES: dict[Style, dict[str, Shape]] = {
    "mixed": {
        "Center": _disc,
        "Donut": _clean_donut,
        "Edge-Loc": _thin_arc,
        "Edge-Ring": _thin_ring,
        "Loc": _rayed_blob,
        "Near-full": _nearly_full,
        "Random": _everywhere,
        "Scratch": _bottom_scratch,
    },
    "wm811k": {
        "Center": _ragged_blob,
        "Donut": _soft_donut,
        "Edge-Loc": _edge_piece,
        "Edge-Ring": _edge_ring,
        "Loc": _inner_blob,
        "Near-full": _nearly_full,
        "Random": _everywhere,
        "Scratch": _scratches,
    },
}
"""The shape of each pattern, by style."""
