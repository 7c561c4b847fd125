"""Whether what lies where on a wafer is chance: patterns, parts, repeaters and clusters."""

from __future__ import annotations

import numpy as np
import polars as pl

from domainseg.quality.assess import Assessment
from domainseg.quality.inspected_area import places_of_dies
from domainseg.quality.lot import Unit
from domainseg.quality.signature import signature
from domainseg.quality.spatial import Part, clusters, parts
from domainseg.report.document import (
    COUNT,
    MEASURE,
    Block,
    Callout,
    Column,
    Paragraph,
    Section,
    Subheading,
    Table,
    Value,
)
from domainseg.report.sections.wording import counted
from domainseg.report.visible import shortened

_UNITS = 8
"""Wafers with tests of their own."""
_PLACES = 100
"""Places of repeaters that are listed, those of the most dies."""
_FEWEST_DIES = 50
"""Dies of a wafer below which their pattern has no name."""
_LEVEL = 0.05
_CELLS = 4


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
        blocks += [*_signature(made, unit), *_tests(made, unit, number)]
    if made.rules.detection.repeaters is not None:
        blocks += _repeaters(made)
    if made.rules.cluster is not None:
        blocks.append(_clusters(made))
    return Section("spatial", "Spatial evidence", tuple(blocks)) if blocks else None


def _signature(made: Assessment, unit: Unit) -> list[Block]:
    """Return the name of the pattern of failing dies with what speaks for it."""
    assert unit.dies is not None
    if len(unit.dies) < _FEWEST_DIES:
        return []
    mine = made.dies.filter(pl.col("unit") == unit.name)
    found = signature(mine.select("die_x", "die_y").to_numpy(), ~mine["passed"].to_numpy())
    title = f"Pattern of the dies that fail: {found.label}"
    note = "A name by shape, for where to look first; it says nothing of the cause."
    return [Callout("note", title, (*found.evidence, note))]


def _tests(made: Assessment, unit: Unit, number: int) -> list[Block]:
    assert unit.dies is not None
    assert unit.diameter_mm is not None
    mine = made.defects.filter(
        (pl.col("unit") == unit.name)
        & pl.col("counts")
        & pl.col("x_um").is_not_null()
        & pl.col("y_um").is_not_null()
    )
    radius = 500.0 * unit.diameter_mm - made.rules.detection.edge_exclusion_um
    at, kept = places_of_dies(unit, unit.dies, made.rules, made.zones, per_die=_CELLS)
    middles = at[kept]
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


def _repeaters(made: Assessment) -> list[Block]:
    """Return the places that many dies have defects at."""
    rule = made.rules.detection.repeaters
    assert rule is not None
    rows: list[tuple[str, float, float, int, int, str]] = []
    total = 0
    for unit in made.lot.units:
        mine = made.defects.filter((pl.col("unit") == unit.name) & pl.col("repeater"))
        total += len(mine)
        x, y = (mine[f"die_{axis}rel_um"].to_numpy() for axis in "xy")
        place = clusters(x, y, eps_um=rule.tolerance_um, min_samples=2)
        for _, group in (
            mine.with_columns(pl.Series("place", place))
            .filter(pl.col("place") > 0)
            .group_by("place", maintain_order=True)
        ):
            dies = group.select("die_x", "die_y").n_unique()
            name = group["class"].mode().sort()[0]
            at = [float(np.median(group[f"die_{axis}rel_um"].to_numpy())) for axis in "xy"]
            rows.append((unit.name, at[0], at[1], dies, len(group), name))
    if not rows:
        return [Paragraph("No defect lies at the same place of more dies than chance explains.")]
    rows.sort(key=lambda row: (-row[3], row[:3]))
    counting = "They count as any other." if rule.count else "They are for review and not counted."
    columns = (
        Column("unit", "Unit"),
        Column("die_xrel_um", "x in the die", MEASURE, "µm"),
        Column("die_yrel_um", "y in the die", MEASURE, "µm"),
        Column("dies", "Dies", COUNT),
        Column("defects", "Defects", COUNT),
        Column("class", "Class"),
    )
    caption = (
        f"Places of a die, {rule.tolerance_um:g} µm wide, where more dies have a defect than "
        "chance explains: of the reticle, or of the design."
    )
    words = f"{counted(total, 'defect')} repeat from die to die. {counting}"
    if len(rows) > _PLACES:
        words += f" The {_PLACES} places of the most dies of {len(rows):,} are listed."
    return [Paragraph(words), Table("repeaters", caption, columns, tuple(rows[:_PLACES]))]


def _clusters(made: Assessment) -> Table:
    columns = (
        Column("unit", "Unit"),
        Column("defects", "Defects", COUNT),
        Column("clusters", "Clusters", COUNT),
        Column("in_clusters", "Defects in clusters", COUNT),
        Column("collapsed", "Defects, a cluster as one", COUNT),
    )
    rows: list[tuple[Value, ...]] = []
    for unit in made.lot.units:
        mine = made.defects.filter((pl.col("unit") == unit.name) & pl.col("counts"))
        if len(mine) and not mine["x_um"].is_not_null().any():
            rows.append((unit.name, len(mine), None, None, None))  # of several images
            continue
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
