"""Where defects lie on each wafer, and whether that is chance."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from domainseg.quality.assess import Assessment
from domainseg.quality.lot import Dies, Unit
from domainseg.quality.spatial import Part, parts
from domainseg.report import plots
from domainseg.report.document import (
    COUNT,
    MEASURE,
    Block,
    Column,
    Figure,
    Paragraph,
    Section,
    Subheading,
    Table,
)
from domainseg.report.sections.wording import counted
from domainseg.report.visible import shortened

_UNITS = 8
"""Wafers with a map and tests of their own."""
_DOTS = 2500
"""Defects that are drawn on a map, the worst first."""
_LEVEL = 0.05
_CELLS = 4
_COLOURS = {"critical": plots.BAD, "major": plots.WARN, "minor": plots.ACCENT}


def maps(made: Assessment) -> Section | None:
    """Return a map of every wafer, the first `_UNITS`; None without a wafer."""
    wafers = [unit for unit in made.lot.units if unit.dies is not None]
    if not wafers:
        return None
    blocks: list[Block] = []
    for number, unit in enumerate(wafers[:_UNITS]):
        if len(wafers) > 1:
            blocks.append(Subheading(shortened(unit.name, 60)))
        blocks.append(_map(made, unit, number))
    if len(wafers) > _UNITS:
        blocks.append(Paragraph(f"The first {_UNITS} of {len(wafers):,} wafers are drawn."))
    return Section("map", "Map", tuple(blocks))


def _map(made: Assessment, unit: Unit, number: int) -> Figure:
    assert unit.dies is not None
    mine = made.dies.filter(pl.col("unit") == unit.name)
    passed = mine["passed"].to_numpy()
    defects = made.defects.filter((pl.col("unit") == unit.name) & pl.col("counts"))
    worst = defects.sort("severity", descending=True).head(_DOTS)
    dots = [
        (x, y, _COLOURS[grade])
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


def spatial(made: Assessment) -> Section | None:
    """Return tests of rings, quadrants and sectors, and clusters; None where nothing is known."""
    blocks: list[Block] = []
    wafers = [
        unit
        for unit in made.lot.units
        if unit.dies is not None and unit.dies.listed and unit.diameter_mm is not None
    ]
    for number, unit in enumerate(wafers[:_UNITS]):
        if len(wafers) > 1:
            blocks.append(Subheading(shortened(unit.name, 60)))
        blocks += _tests(made, unit, number)
    if made.rules.cluster is not None:
        blocks.append(_clusters(made))
    return Section("spatial", "Spatial evidence", tuple(blocks)) if blocks else None


def _tests(made: Assessment, unit: Unit, number: int) -> list[Block]:
    assert unit.dies is not None
    assert unit.diameter_mm is not None
    mine = made.defects.filter(
        (pl.col("unit") == unit.name)
        & pl.col("counts")
        & pl.col("x_um").is_not_null()
        & pl.col("y_um").is_not_null()
    )
    steps = (np.arange(_CELLS) + 0.5) / _CELLS
    cell = np.stack(np.meshgrid(*(steps * p for p in unit.dies.pitch_um)), -1).reshape(-1, 2)
    middles = (unit.dies.lower_left_um()[:, None] + cell).reshape(-1, 2)
    radius = 500.0 * unit.diameter_mm - made.rules.detection.edge_exclusion_um
    middles = middles[np.hypot(*middles.T) <= radius]
    if not len(middles) or not unit.area_cm2:
        return []
    areas = np.full(len(middles), unit.area_cm2 / len(middles))
    found = parts(
        mine["x_um"].to_numpy(),
        mine["y_um"].to_numpy(),
        cells_um=middles,
        cell_cm2=areas,
        radius_um=radius,
    )
    unlike = [one for one in found if one.adjusted < _LEVEL]
    if unlike:
        named = "; ".join(_said(one) for one in sorted(unlike, key=lambda p: p.adjusted)[:6])
        words = f"More or fewer defects than chance gives (family-wise level 5 %): {named}."
    else:
        words = (
            "No ring, quadrant or sector holds more or fewer defects than chance gives "
            "(family-wise level 5 %)."
        )
    return [Paragraph(words), _part_table(found, number)]


def _said(one: Part) -> str:
    side = "more" if one.count > one.expected else "fewer"
    return f"{one.kind} {one.name} has {one.count:,}, {side} than {one.expected:.3g}"


def _part_table(found: tuple[Part, ...], number: int) -> Table:
    columns = (
        Column("part", "Part"),
        Column("kind", "Kind"),
        Column("defects", "Defects", COUNT),
        Column("expected", "Expected", MEASURE),
        Column("density_per_cm2", "Density", MEASURE, "per cm²"),
        Column("density_interval_per_cm2", "95 % interval", MEASURE, "per cm²"),
        Column("p_value", "p", MEASURE),
        Column("p_adjusted", "p, adjusted", MEASURE),
    )
    rows = tuple(
        (
            one.name,
            one.kind,
            one.count,
            one.expected,
            one.density_per_cm2,
            one.interval,
            one.p_value,
            one.adjusted,
        )
        for one in found
    )
    caption = (
        "Each part of the wafer against the rest: exact binomial test, adjusted over all parts "
        "by the method of Holm."
    )
    return Table(f"parts-{number}", caption, columns, rows)


def _clusters(made: Assessment) -> Table:
    columns = (
        Column("unit", "Unit"),
        Column("defects", "Defects", COUNT),
        Column("clusters", "Clusters", COUNT),
        Column("in_clusters", "Defects in clusters", COUNT),
        Column("collapsed", "Defects, a cluster as one", COUNT),
    )
    rows = []
    for unit in made.lot.units:
        mine = made.defects.filter((pl.col("unit") == unit.name) & pl.col("counts"))
        inside = mine.filter(pl.col("cluster") > 0)
        count = inside["cluster"].n_unique()
        collapsed = len(mine) - len(inside) + count
        rows.append((unit.name, len(mine), count, len(inside), collapsed))
    assert made.rules.cluster is not None
    eps, least = made.rules.cluster.eps_um, made.rules.cluster.min_samples
    caption = (
        f"Clusters of defects that count: at least {least} within {eps:g} µm of one of them. What "
        "is left when a cluster counts once is nearer to independent events."
    )
    return Table("clusters", caption, columns, tuple(rows))
