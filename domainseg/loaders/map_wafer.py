"""The disc of dies of a made-up wafer map, and the outlines that patterns are made of."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from domainseg.records import Array

Draw = np.random.Generator


class Wafer(NamedTuple):
    """The dies of a wafer; lengths without a unit are in radii of the wafer.

    Attributes:
        dies: bool ``(H, W)``.
        v: down from the centre, float ``(H, W)``.
        u: right from the centre.
        radius: from the centre.
        angle: from ``u`` to ``v``, radians.
        rim: to the rim, in dies; above 0 on every die.
        noise: standard normal, alike over about two dies; it frays outlines.
        per_radius: dies in a radius, the geometric mean of down and across.
    """

    dies: NDArray[np.bool_]
    v: Array
    u: Array
    radius: Array
    angle: Array
    rim: Array
    noise: Array
    per_radius: float


class Strike(NamedTuple):
    """What a pattern does to the dies.

    Attributes:
        share: float ``(H, W)`` in [0, 1] of the pattern's own fail density.
        spared: bool ``(H, W)``, dies that the background leaves alone, or None.
        flat: the fail density where the pattern has one of its own, else None.
    """

    share: Array
    spared: NDArray[np.bool_] | None = None
    flat: float | None = None


Lobes = tuple[tuple[float, float], ...]
"""Size and phase of the waves of an outline: 2, 3, 4 of them around."""


def wafer_of(
    rng: Draw, size: tuple[int, int], *, reach: float, moved: tuple[float, float] = (0.0, 0.0)
) -> Wafer:
    """Return the wafer whose disc, stretched to ``(H, W)``, reaches ``reach`` of the way out.

    ``moved`` is how far its centre lies from the map's, down and right, in dies.
    """
    height, width = size
    v = ((np.arange(height) - 0.5 * (height - 1) - moved[0]) / (0.5 * height))[:, None]
    u = ((np.arange(width) - 0.5 * (width - 1) - moved[1]) / (0.5 * width))[None, :]
    radius = np.hypot(v, u)
    v, u = np.broadcast_arrays(v, u)
    noise = ndimage.uniform_filter(rng.standard_normal(size), 2, mode="wrap") * 2.0
    per_radius = 0.5 * float(np.sqrt(height * width))
    rim = (reach - radius) * per_radius
    return Wafer(rim > 0, v, u, radius, np.arctan2(v, u), rim, noise, per_radius)


def towards(wafer: Wafer, angle: float) -> Array:
    """Return how far each place lies from the centre in the direction of ``angle``."""
    return np.asarray(wafer.u * np.cos(angle) + wafer.v * np.sin(angle))


def falling(distance: Array, wafer: Wafer, *, over: float, frayed: float) -> Array:
    """Return 1 inside falling to 0 over ``over`` dies around distance 0, in dies, frayed."""
    return np.clip(0.5 + (distance + frayed * wafer.noise) / over, 0.0, 1.0)


def away_from(wafer: Wafer, angle: float) -> Array:
    """Return the angle from ``angle`` in [0, pi]."""
    return np.abs((wafer.angle - angle + np.pi) % (2 * np.pi) - np.pi)


def any_angle(rng: Draw) -> float:
    """Return an angle in [-pi, pi)."""
    return float(rng.uniform(-np.pi, np.pi))


def place(distance: float, angle: float) -> tuple[float, float]:
    """Return the place ``(v, u)`` at this distance from the centre."""
    return distance * float(np.sin(angle)), distance * float(np.cos(angle))


def log_uniform(rng: Draw, low: float, high: float) -> float:
    """Return a number whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def blob(
    wafer: Wafer,
    at: tuple[float, float],
    half_axes: tuple[float, float],
    *,
    turned: float = 0.0,
    lobes: Lobes = (),
) -> Array:
    """Return the distance inside an ellipse with lobes, in dies; negative outside."""
    v, u = wafer.v - at[0], wafer.u - at[1]
    cos, sin = np.cos(turned), np.sin(turned)
    along, across = (u * cos + v * sin) / half_axes[0], (v * cos - u * sin) / half_axes[1]
    inside = 1.0 - np.hypot(along, across)
    if lobes:
        angle = np.arctan2(across, along)
        for order, (size, phase) in enumerate(lobes, start=2):
            inside += size * np.cos(order * angle + phase)
    return np.asarray(inside * (wafer.per_radius * min(half_axes)))


def lobes_of(rng: Draw, size: float) -> Lobes:
    """Return waves of which the higher are the smaller."""
    return tuple((size * float(rng.normal()) / order, any_angle(rng)) for order in (2, 3, 4))


def rotated(at: tuple[float, float], by: float) -> tuple[float, float]:
    """Return the place ``(v, u)`` turned about the centre."""
    cos, sin = float(np.cos(by)), float(np.sin(by))
    return at[0] * cos + at[1] * sin, at[1] * cos - at[0] * sin


def lay_scratch(
    on: NDArray[np.bool_],
    wafer: Wafer,
    start: tuple[float, float],
    stop: tuple[float, float],
    *,
    bulge: float,
    wide: int,
    gap: tuple[float, float] = (1.0, 0.0),
) -> None:
    """Set the dies under an arc from ``start`` to ``stop``, ``(v, u)``, ``wide`` dies across.

    From ``gap[0]`` to ``gap[1]`` of the way the arc leaves the dies alone.
    """
    span = (stop[0] - start[0], stop[1] - start[1])
    steps = max(int(1.4 * np.hypot(*span) * wafer.per_radius), 2)
    t = np.linspace(0.0, 1.0, steps)
    t = t[(t < gap[0]) | (t > gap[1])]
    bow = 4.0 * bulge * t * (1.0 - t) / max(np.hypot(*span), 1e-9)
    v = start[0] + span[0] * t - bow * span[1]
    u = start[1] + span[1] * t + bow * span[0]
    height, width = on.shape
    y = np.rint((v + 1.0) * 0.5 * height - 0.5).astype(np.int64)
    x = np.rint((u + 1.0) * 0.5 * width - 0.5).astype(np.int64)
    steep = abs(span[0]) * height > abs(span[1]) * width
    for offset in range(wide):
        row, column = (y, x + offset) if steep else (y + offset, x)
        kept = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        on[row[kept], column[kept]] = True
