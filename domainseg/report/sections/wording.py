"""Phrases and units that several sections share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from domainseg.report.evidence import Evidence
from domainseg.report.visible import shortened

_NAMED = 3


@dataclass(frozen=True, slots=True)
class Quantity:
    """A column of the object table with its title and unit."""

    column: str
    title: str
    unit: str


@dataclass(frozen=True, slots=True)
class Sizes:
    """The columns sizes are taken from."""

    area: Quantity
    diameter: Quantity


IN_UM = Sizes(
    Quantity("area_um2", "Area", "\u00b5m\u00b2"),
    Quantity("eq_diameter_um", "Equivalent diameter", "\u00b5m"),
)
IN_PX = Sizes(
    Quantity("area_px", "Area", "px"), Quantity("eq_diameter_px", "Equivalent diameter", "px")
)


def wanted(evidence: Evidence) -> Sizes:
    """Return micrometres where every image has a pixel size, else pixels."""
    return IN_UM if evidence.calibrated else IN_PX


def counted(count: int, noun: str) -> str:
    """Return ``1 image``, ``2 images``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def listed(names: Sequence[str], total: int, noun: str) -> str:
    """Return names in words: that it is all of them, or the first three and how many more."""
    if len(names) == total:
        return f"the {noun}" if total == 1 else f"all {total:,} {noun}s"
    shown = ", ".join(shortened(name, 40) for name in names[:_NAMED])
    more = len(names) - _NAMED
    rest = f" and {more:,} more" if more > 0 else ""
    return f"{counted(len(names), noun)}: {shown}{rest}"
