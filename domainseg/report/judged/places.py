"""Maps of wafers, one by one and all on top of each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from domainseg.quality.assess import Assessment
from domainseg.quality.lot import Dies, Unit
from domainseg.report import plots
from domainseg.report.document import (
    Block,
    Figure,
    Gallery,
    Paragraph,
    Picture,
    Section,
    Subheading,
)
from domainseg.report.sections.wording import counted
from domainseg.report.visible import shortened

_UNITS = 8
"""Wafers with a map and tests of their own."""
_DOTS = 2500
"""Defects that are drawn on a map, the worst first."""
_DOTTED = (
    "What was inspected, in grey, with the outlines of all objects. Dots are defects that count: "
    "red critical, brown major, blue-green minor."
)
_STACKED = 20_000
"""Dies that a stacked map may have."""
GRADE_COLOURS = {"critical": plots.BAD, "major": plots.WARN, "minor": plots.ACCENT}


def maps(made: Assessment, pictures: tuple[Picture, ...] = ()) -> Section | None:
    """Return a map of every wafer, the first `_UNITS`, and pictures of other units.

    None where there is neither.
    """
    wafers = [unit for unit in made.lot.units if unit.dies is not None]
    blocks: list[Block] = []
    if pictures:
        blocks.append(Gallery("units", pictures, size="large", caption=_DOTTED))
    for number, unit in enumerate(wafers[:_UNITS]):
        if len(wafers) > 1:
            blocks.append(Subheading(shortened(unit.name, 60)))
        blocks.append(_map(made, unit, number))
    if len(wafers) > _UNITS:
        blocks.append(Paragraph(f"The first {_UNITS} of {len(wafers):,} wafers are drawn."))
    stack = _stacked(made, wafers)
    if stack is not None:
        blocks += [Subheading("All wafers on top of each other"), stack]
    return Section("map", "Map", tuple(blocks)) if blocks else None


def _stacked(made: Assessment, wafers: Sequence[Unit]) -> Figure | None:
    """Return the map of how many wafers fail at each die; None where it would not add up."""
    if len(wafers) < 2:
        return None
    first = wafers[0].dies
    assert first is not None
    for unit in wafers:
        if unit.dies is None or not unit.dies.listed or unit.notch != wafers[0].notch:
            return None
        if (unit.dies.pitch_um, unit.dies.center_um) != (first.pitch_um, first.center_um):
            return None
    by_die = made.dies.group_by("die_x", "die_y", maintain_order=True).agg(
        pl.len().alias("wafers"), (~pl.col("passed")).sum().alias("failed")
    )
    most = by_die.sort(["failed", "die_y", "die_x"], descending=[True, False, False])
    dies = Dies(
        by_die.select("die_x", "die_y").to_numpy(), first.pitch_um, first.center_um, len(by_die)
    )
    share = (by_die["failed"] / by_die["wafers"]).to_numpy()
    if len(dies) > _STACKED:
        return None
    corners = dies.lower_left_um()
    drawn = [
        plots.Spot((x, y, x + dies.pitch_um[0], y + dies.pitch_um[1]), plots.BAD, 0.06 + 0.84 * one)
        for (x, y), one in zip(corners.tolist(), share.tolist(), strict=True)
    ]
    diameter = wafers[0].diameter_mm
    worst = "; ".join(
        f"die {row['die_x']}, {row['die_y']} on {row['failed']}"
        for row in most.head(3).iter_rows(named=True)
        if row["failed"]
    )
    return Figure(
        "map-stacked",
        plots.wafer_map(
            drawn,
            [],
            radius=None if diameter is None else 500.0 * diameter,
            notch=wafers[0].notch,
        ),
        f"Stacked map of {len(wafers):,} wafers: {worst or 'no die fails on any'}.",
        "The redder a die, the larger the share of wafers on which it fails.",
    )


def _map(made: Assessment, unit: Unit, number: int) -> Figure:
    assert unit.dies is not None
    mine = made.dies.filter(pl.col("unit") == unit.name)
    passed = mine["passed"].to_numpy()
    defects = made.defects.filter((pl.col("unit") == unit.name) & pl.col("counts"))
    worst = defects.sort("severity", descending=True).head(_DOTS)
    dots = [
        (x, y, GRADE_COLOURS[grade])
        for x, y, grade in reversed(worst.select("x_um", "y_um", "grade").rows())
        if x is not None and y is not None
    ]
    failed = int((~passed).sum())
    radius = None if unit.diameter_mm is None else 500.0 * unit.diameter_mm
    left_out = len(defects) - len(worst)
    more = f" The {_DOTS:,} worst of them; the dies count all." if left_out else ""
    caption = (
        "Inspected dies, seen with the notch as it is marked: grey pass, red fail. Dots are "
        f"defects that count: red critical, brown major, blue-green minor.{more}"
    )
    if not unit.dies.listed:
        caption = "The inspected dies are not known: those with defects are drawn. " + caption
    return Figure(
        f"map-{number}",
        plots.wafer_map(spots(unit.dies, passed), dots, radius=radius, notch=unit.notch),
        f"Map of {shortened(unit.name, 60)}: {counted(len(passed), 'die')}, {failed:,} of them "
        f"fail, {counted(len(defects), 'defect')}.",
        caption,
    )


def spots(dies: Dies, passed: NDArray[np.bool_]) -> list[plots.Spot]:
    """Return dies as stretches: neighbours in a row that agree are one, where there are many."""
    if len(dies) <= 4000:
        corners = dies.lower_left_um()
        return [
            plots.Spot((x, y, x + dies.pitch_um[0], y + dies.pitch_um[1]), _colour(good))
            for (x, y), good in zip(corners.tolist(), passed.tolist(), strict=True)
        ]
    order = np.lexsort((dies.index[:, 0], dies.index[:, 1]))
    index, good = dies.index[order], passed[order]
    breaks = (np.diff(index[:, 1]) != 0) | (np.diff(index[:, 0]) != 1) | (np.diff(good) != 0)
    starts = np.r_[0, np.flatnonzero(breaks) + 1]
    ends = np.r_[starts[1:], len(index)]
    pitch, center = dies.pitch_um, dies.center_um
    made = []
    for a, b in zip(starts.tolist(), ends.tolist(), strict=True):
        x, y = (float(index[a, i]) * pitch[i] - center[i] for i in (0, 1))
        made.append(
            plots.Spot((x, y, x + (b - a) * pitch[0], y + pitch[1]), _colour(bool(good[a])))
        )
    return made


def _colour(passed: bool) -> str:
    return plots.IDLE if passed else plots.BAD
