"""Cells and tissue: how many per mm2, how large, and the share that is positive."""

from __future__ import annotations

import numpy as np
import polars as pl

from domainseg.quality.assess import Assessment
from domainseg.quality.lot_numbers import MM2_PER_CM2, proportion
from domainseg.quality.statistics import Interval, poisson_interval, quartiles
from domainseg.report.document import COUNT, MEASURE, RATIO, Column, Section, Table, Value

_SIZES = (("area_um2", "Area", "µm²"), ("eq_diameter_um", "Diameter", "µm"))


def cells(made: Assessment) -> Section | None:
    """Return densities, sizes and positive shares by unit; None where there are wafers."""
    units = [unit for unit in made.lot.units if unit.dies is None]
    if not units or len(units) < len(made.lot.units):
        return None
    counted = made.defects.filter(pl.col("counts"))
    sign = _signs(made)
    columns = [
        Column("unit", "Unit"),
        Column("objects", "Objects", COUNT),
        Column("density_per_mm2", "Density", MEASURE, "per mm²"),
        Column("density_interval_per_mm2", "95 % interval", MEASURE, "per mm²"),
    ]
    for key, title, unit in _SIZES:
        columns += [
            Column(f"{key}_median", title, MEASURE, unit),
            Column(f"{key}_quartiles", "Middle half", MEASURE, unit),
        ]
    if sign:
        columns += [
            Column("positive", "Positive", COUNT),
            Column("negative", "Negative", COUNT),
            Column("positive_share", "Share positive", RATIO),
            Column("positive_interval", "95 % interval", RATIO),
        ]
    rows = [
        _row(unit.name, unit.area_cm2, counted.filter(pl.col("unit") == unit.name), sign)
        for unit in units
    ]
    areas = [unit.area_cm2 for unit in units]
    if len(units) > 1:
        area = None if None in areas else sum(a for a in areas if a is not None)
        rows.append(_row("all units", area, counted, sign))
    caption = (
        "Objects that count, by unit: density over the inspected area with its exact interval, "
        "sizes as median and middle half."
    )
    if sign:
        caption += " The share positive is of those that are either, with Wilson's interval."
    return Section(
        "cells", "Density and size", (Table("cells", caption, tuple(columns), tuple(rows)),)
    )


def _signs(made: Assessment) -> dict[str, bool]:
    """Return which classes are positive and which negative by the rules."""
    found = {name: made.rules.of_class(name) for name in made.lot.classes}
    return {
        name: rule.positive
        for name, rule in found.items()
        if rule is not None and rule.positive is not None
    }


def _row(
    name: str, area_cm2: float | None, mine: pl.DataFrame, sign: dict[str, bool]
) -> tuple[Value, ...]:
    cells_: list[Value] = [name, len(mine)]
    interval: Interval | None = None
    density = None
    if area_cm2:
        area = area_cm2 * MM2_PER_CM2
        density, interval = len(mine) / area, poisson_interval(len(mine), exposure=area)
    cells_ += [density, interval]
    for key, _, _ in _SIZES:
        values = np.asarray(mine[key].drop_nulls().to_numpy(), np.float64)
        found = quartiles(values) if len(values) else None
        cells_ += [None, None] if found is None else [found.median, Interval(found.q1, found.q3)]
    if sign:
        told = mine["class"].replace_strict(sign, default=None, return_dtype=pl.Boolean)
        known = told.drop_nulls()
        positive = int(known.sum())
        share = proportion(positive, len(known), confidence=0.95)
        cells_ += [positive, len(known) - positive, share.value, share.interval]
    return tuple(cells_)
