"""Counts per area, with what the count alone leaves open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from domainseg.quality.statistics import Interval, poisson_interval
from domainseg.report.evidence import InspectedImage

PX_PER_MPX = 1e6
UM2_PER_MM2 = 1e6


@dataclass(frozen=True, slots=True)
class AreaUnit:
    """The area densities are given per: square millimetres, or megapixels without a pixel size."""

    per: str
    name: str
    key: str


MM2 = AreaUnit("per mm\u00b2", "mm\u00b2", "mm2")
MPX = AreaUnit("per Mpx", "Mpx", "mpx")


@dataclass(frozen=True, slots=True)
class Density:
    """Objects per area with its 95 % interval; both None where no area was inspected."""

    value: float | None
    interval: Interval | None


def inspected_area(images: Sequence[InspectedImage], unit: AreaUnit) -> float:
    """Return the inspected area of the images together, in ``unit``."""
    if unit is MPX:
        return sum(image.inspected_px for image in images) / PX_PER_MPX
    return sum(image.inspected_um2 or 0.0 for image in images) / UM2_PER_MM2


def density(count: int, area: float) -> Density:
    """Return ``count / area`` with the exact Poisson interval."""
    if area <= 0:
        return Density(None, None)
    return Density(count / area, poisson_interval(count, exposure=area))
