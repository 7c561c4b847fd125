"""Phrases and units that several sections share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from domainseg.report.evidence import Evidence
from domainseg.report.visible import shortened

_NAMED = 3
_WARNING = 300
_NUMBER = re.compile(r"(?<!\w)\d+(?:[.,]\d+)*(?!\w)")


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


def selected(select: Mapping[str, object]) -> str:
    """Return what of a file was read, as it is asked for at the command line; empty for all."""
    return " ".join(
        f"{axis}={','.join(map(str, value)) if isinstance(value, list) else value}"
        for axis, value in select.items()
    )


def warned(said: Iterable[tuple[str, str]], total: int) -> Iterator[str]:
    """Yield each warning once, with the names of the images, of ``total``, that it was given for.

    ``said`` are names and warnings; those that differ in their numbers only are one, with the
    numbers of the first.
    """
    alike: dict[str, list[tuple[str, str]]] = {}
    for name, warning in said:
        alike.setdefault(_NUMBER.sub("0", warning), []).append((name, warning))
    for each in alike.values():
        names = [name for name, _ in each]
        first = shortened(each[0][1], _WARNING)
        differ = len({warning for _, warning in each}) > 1
        numbers = f"; the numbers are those of {shortened(names[0], 40)}" if differ else ""
        yield f"{first} ({listed(names, total, 'image')}{numbers})"
