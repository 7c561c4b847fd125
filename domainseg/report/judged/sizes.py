"""How large the defects of each class are, and below which size none was looked for."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
from numpy.typing import NDArray

from domainseg.quality.assess import Assessment
from domainseg.quality.statistics import Interval, quartiles
from domainseg.report import plots
from domainseg.report.document import (
    COUNT,
    MEASURE,
    Block,
    Column,
    Figure,
    Section,
    Table,
    Value,
)
from domainseg.report.numbers import written
from domainseg.report.sections.wording import counted
from domainseg.report.visible import shortened

_PLOTTED = 8
"""Classes with a histogram, the most frequent first."""


def sizes(made: Assessment) -> Section | None:
    """Return the diameters of the defects that count by class; None where none is known."""
    unit = made.rules.units
    diameters = _diameters(made)
    if not diameters:
        return None
    names = sorted(diameters, key=lambda name: (-len(diameters[name]), name))
    plotted = {name: diameters[name] for name in names[:_PLOTTED]}
    edges = plots.log_edges(
        min(float(v.min()) for v in plotted.values()), max(float(v.max()) for v in plotted.values())
    )
    histograms = []
    for name, values in plotted.items():
        summary = quartiles(values)
        assert summary is not None  # of one value or more
        counts, _ = np.histogram(values, edges)
        histograms.append(plots.Histogram(name, tuple(counts.tolist()), summary))
    shown = "µm" if unit == "um" else "px"
    blocks: list[Block] = [
        _figure(made, edges, histograms, shown, left_out=len(names) - len(plotted)),
        _table(diameters, names, unit),
    ]
    return Section("sizes", "Sizes", tuple(blocks))


def _diameters(made: Assessment) -> dict[str, NDArray[np.float64]]:
    counted_ = made.defects.filter(pl.col("counts"))
    if made.rules.units == "um":
        size = pl.col("eq_diameter_um")
    else:
        size = (pl.col("area_px") * (4 / math.pi)).sqrt()
    table = counted_.select(pl.col("class"), size.alias("size")).filter(pl.col("size") > 0)
    return {
        str(name[0]): np.asarray(group["size"].to_numpy(), np.float64)
        for name, group in table.group_by("class", maintain_order=True)
    }


def _figure(
    made: Assessment,
    edges: list[float],
    histograms: list[plots.Histogram],
    unit: str,
    *,
    left_out: int,
) -> Figure:
    limit = made.rules.min_size or None
    rows = tuple(
        (one.name, low, high, count)
        for one in histograms
        for low, high, count in zip(edges[:-1], edges[1:], one.counts, strict=True)
        if count
    )
    columns = (
        Column("class", "Class"),
        Column(f"eq_diameter_{made.rules.units}_low", "From", MEASURE, unit),
        Column(f"eq_diameter_{made.rules.units}_high", "To", MEASURE, unit),
        Column("defects", "Defects", COUNT),
    )
    said = "; ".join(
        f"{shortened(one.name, 40)}: {counted(one.summary.count, 'defect')}, median "
        f"{written(one.summary.median, MEASURE)} {unit}"
        for one in histograms
    )
    caption = (
        "Defects that count by the diameter of the circle of the same area. The line spans the "
        "middle half of a class, its tick is the median."
    )
    if limit is not None:
        within = edges[0] <= limit <= edges[-1]
        where = "The dashed red line" if within else "Beyond the left end"
        caption += f" {where} is {limit:g} {unit}, below which the rules ignore what is found."
    if left_out:
        rarer = "1 rarer class is" if left_out == 1 else f"{left_out} rarer classes are"
        caption += f" {rarer} not drawn."
    return Figure(
        "size-distribution",
        plots.size_histograms(
            edges, histograms, title=f"diameter ({unit}, logarithmic)", limit=limit
        ),
        f"Histograms of the diameter. {said}.",
        caption,
        Table("size-bins", "Defects in each bin of the figure.", columns, rows),
    )


def _table(diameters: dict[str, NDArray[np.float64]], names: list[str], units: str) -> Table:
    unit = "µm" if units == "um" else "px"
    columns = (
        Column("class", "Class"),
        Column("defects", "Defects", COUNT),
        Column(f"eq_diameter_{units}_smallest", "Smallest", MEASURE, unit),
        Column(f"eq_diameter_{units}_median", "Median", MEASURE, unit),
        Column(f"eq_diameter_{units}_quartiles", "Middle half", MEASURE, unit),
        Column(f"eq_diameter_{units}_largest", "Largest", MEASURE, unit),
    )
    rows: list[tuple[Value, ...]] = []
    for name in names:
        values = diameters[name]
        found = quartiles(values)
        assert found is not None  # of one value or more
        rows.append(
            (
                name,
                len(values),
                float(values.min()),
                found.median,
                Interval(found.q1, found.q3),
                float(values.max()),
            )
        )
    caption = "Diameters of the defects that count by class: median and middle half (25 % to 75 %)."
    return Table("size-table", caption, columns, tuple(rows))
