"""Where defects fall: at random, or as the tools and handling of a factory leave them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domainseg.loaders.wafer_look import Law

Points = NDArray[np.float64]
Spread = Callable[[np.random.Generator, int], Points]


@dataclass(frozen=True, slots=True)
class Area:
    """The part of an image that is wafer, in px; the centre of the first pixel is 0.0.

    Attributes:
        size: ``(H, W)`` of the image.
        wafer_center: ``(y, x)`` of the wafer's centre.
        radius: of the flat part of the wafer, inside its bevel.
    """

    size: tuple[int, int]
    wafer_center: tuple[float, float]
    radius: float

    def inside(self, points: Points) -> NDArray[np.bool_]:
        """Return which points ``(N, 2)``, ``(y, x)``, are in the image and on the wafer."""
        on_image = ((points > -0.5) & (points < np.array(self.size) - 0.5)).all(1)
        return np.asarray(on_image & (self._from_center(points) <= self.radius))

    def middle(self) -> tuple[tuple[float, float], float]:
        """Return what placements turn about, and how far they reach.

        The wafer's centre and radius where the image shows all of it, else the image's.
        """
        height, width = self.size
        corner = np.array(self.wafer_center)
        if (corner >= self.radius).all() and (corner + self.radius <= np.array(self.size)).all():
            return self.wafer_center, self.radius
        return (0.5 * height - 0.5, 0.5 * width - 0.5), 0.5 * min(self.size)

    def anywhere(self, rng: np.random.Generator, count: int) -> Points:
        """Return ``count`` points spread evenly over the image; some may miss the wafer."""
        return np.asarray(rng.random((count, 2)) * np.array(self.size) - 0.5)

    def _from_center(self, points: Points) -> Points:
        away = points - np.array(self.wafer_center)
        return np.asarray(np.hypot(away[:, 0], away[:, 1]))


def spots(rng: np.random.Generator, area: Area, spread: Spread, *, count: int) -> Points:
    """Return up to ``count`` points ``(N, 2)`` of ``spread`` that lie in the area."""
    found = np.zeros((0, 2))
    for _ in range(8):
        drawn = spread(rng, count)
        found = np.concatenate([found, drawn[area.inside(drawn)]])
        if len(found) >= count:
            break
    return found[:count]


def spread_of(law: Law, rng: np.random.Generator, area: Area) -> Spread:
    """Return what draws points by a law whose own parameters (place, direction) are drawn here."""
    (y, x), reach = area.middle()
    if law == "random":
        return area.anywhere
    if law == "cluster":
        seeds = spots(rng, area, area.anywhere, count=int(rng.integers(1, 4)))
        return _cluster(
            seeds if len(seeds) else np.array([[y, x]]), rng.uniform(0.04, 0.12) * reach
        )
    if law == "ring":
        radius, width = rng.uniform(0.3, 0.9) * reach, 0.04 * reach
        return lambda draw, n: _polar(
            (y, x), draw.uniform(0, 2 * np.pi, n), draw.normal(radius, width, n)
        )
    if law == "sector":
        towards, half = rng.uniform(0, 2 * np.pi), rng.uniform(0.15, 0.5)
        return lambda draw, n: _polar(
            (y, x), towards + draw.uniform(-half, half, n), reach * np.sqrt(draw.random(n))
        )
    ends = rng.uniform(0, 2 * np.pi) + np.array([0.0, rng.uniform(0.6, 1.4) * np.pi])
    start, stop = _polar((y, x), ends, np.full(2, 0.95 * reach))
    return lambda draw, n: (
        start + draw.random((n, 1)) * (stop - start) + draw.normal(0, 0.015 * reach, (n, 2))
    )


def _cluster(seeds: Points, width: float) -> Spread:
    return lambda draw, n: seeds[draw.integers(0, len(seeds), n)] + draw.normal(0.0, width, (n, 2))


def _polar(center: tuple[float, float], angle: Points, radius: Points) -> Points:
    """Return points ``(N, 2)`` at angles and distances from a centre."""
    return np.stack([center[0] + radius * np.sin(angle), center[1] + radius * np.cos(angle)], 1)
