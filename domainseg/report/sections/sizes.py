"""How large the objects are, and what shape they have."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from domainseg.quality.statistics import Interval, Quartiles, quartiles
from domainseg.report import plots
from domainseg.report.document import (
    COUNT,
    MEASURE,
    RATIO,
    Block,
    Column,
    Figure,
    Form,
    Paragraph,
    Section,
    Table,
    Value,
)
from domainseg.report.evidence import CLASS, Evidence
from domainseg.report.numbers import written
from domainseg.report.sections.wording import Quantity, counted, wanted
from domainseg.report.visible import shortened

_PLOTTED = 8
"""Classes with a histogram of their own, the most frequent first."""

_SHAPES = (
    Quantity("eccentricity", "Eccentricity", ""),
    Quantity("solidity", "Solidity", ""),
    Quantity("circularity", "Circularity", ""),
)


def sizes(evidence: Evidence) -> Section | None:
    """Return size distributions and morphology by class; None without objects."""
    objects = evidence.objects
    if not objects.height:
        return None
    names = _by_frequency(evidence)
    blocks: list[Block] = [
        *_figure(evidence, names[:_PLOTTED], left_out=len(names[_PLOTTED:])),
        _size_table(evidence, names),
        *_cut(objects),
        _shape_table(objects, names),
    ]
    return Section("sizes", "Size and shape", tuple(blocks))


def _by_frequency(evidence: Evidence) -> list[str]:
    """Return the classes that have objects, the most frequent first, ties in class order."""
    counts = dict(evidence.objects.group_by(CLASS).len().iter_rows())
    present = [name for name in evidence.classes if name in counts]
    return sorted(present, key=lambda name: -int(counts[name]))


def _values(objects: pl.DataFrame, name: str, column: str) -> NDArray[np.float64]:
    """Return a column of one class as float64, NaN where it is not known."""
    chosen = objects.filter(pl.col(CLASS) == name).get_column(column)
    return np.asarray(chosen.cast(pl.Float64).fill_null(float("nan")).to_numpy(), np.float64)


def _figure(evidence: Evidence, names: list[str], *, left_out: int) -> list[Figure]:
    size = wanted(evidence).diameter
    values = {name: _values(evidence.objects, name, size.column) for name in names}
    usable = {name: some for name, v in values.items() if (some := v[v > 0]).size}
    if not usable:
        return []
    edges = plots.log_edges(
        min(float(v.min()) for v in usable.values()), max(float(v.max()) for v in usable.values())
    )
    histograms = [_histogram(name, v, edges) for name, v in usable.items()]
    title = f"{size.title.lower()} ({size.unit}, logarithmic)"
    rows = [
        (one.name, low, high, count)
        for one in histograms
        for low, high, count in zip(edges[:-1], edges[1:], one.counts, strict=True)
        if count
    ]
    columns = (
        Column("class", "Class"),
        Column(f"{size.column}_low", "From", MEASURE, size.unit),
        Column(f"{size.column}_high", "To", MEASURE, size.unit),
        Column("objects", "Objects", COUNT),
    )
    data = Table("size-bins", "Objects in each bin of the figure.", columns, tuple(rows))
    caption = (
        f"Number of objects by {size.title.lower()}. The line spans the middle half of the "
        "objects of a class, its tick is the median."
    )
    if left_out:
        caption += f" The {len(names)} most frequent classes; the table has {left_out} more."
    svg = plots.size_histograms(edges, histograms, title=title)
    return [Figure("size-distribution", svg, _alt(histograms, size), caption, data)]


def _histogram(name: str, values: NDArray[np.float64], edges: list[float]) -> plots.Histogram:
    counts, _ = np.histogram(values, edges)
    summary = quartiles(values)
    assert summary is not None  # the caller keeps classes with at least one size
    return plots.Histogram(name, tuple(counts.tolist()), summary)


def _alt(histograms: list[plots.Histogram], size: Quantity) -> str:
    parts = [
        f"{shortened(one.name, 40)}: {counted(one.summary.count, 'object')}, median "
        f"{written(one.summary.median, MEASURE)} {size.unit}, middle half "
        f"{written(one.summary.q1, MEASURE)} to {written(one.summary.q3, MEASURE)} {size.unit}"
        for one in histograms
    ]
    return f"Histograms of the {size.title.lower()}. {'; '.join(parts)}."


def _size_table(evidence: Evidence, names: list[str]) -> Table:
    measured = wanted(evidence)
    columns = [Column("class", "Class"), Column("objects", "Objects", COUNT)]
    for one in (measured.diameter, measured.area):
        columns += _median_and_middle(one, MEASURE)
    columns.append(Column("touching_border", "At the border", COUNT))
    rows: list[tuple[Value, ...]] = []
    for name in names:
        chosen = evidence.objects.filter(pl.col(CLASS) == name)
        cells: list[Value] = [name, chosen.height]
        for one in (measured.diameter, measured.area):
            cells += _summary(quartiles(_values(chosen, name, one.column)))
        rows.append((*cells, int(chosen.get_column("touches_border").sum())))
    caption = "Sizes by class: median and middle half (25 % to 75 %)."
    return Table("size-table", caption, tuple(columns), tuple(rows))


def _shape_table(objects: pl.DataFrame, names: list[str]) -> Table:
    columns = [Column("class", "Class")]
    for one in _SHAPES:
        columns += _median_and_middle(one, RATIO)
    rows: list[tuple[Value, ...]] = []
    for name in names:
        cells: list[Value] = [name]
        for one in _SHAPES:
            cells += _summary(quartiles(_values(objects, name, one.column)))
        rows.append(tuple(cells))
    caption = "Shapes by class: median and middle half (25 % to 75 %). A circle has circularity 1."
    return Table("shape-table", caption, tuple(columns), tuple(rows))


def _median_and_middle(one: Quantity, form: Form) -> tuple[Column, Column]:
    return (
        Column(f"{one.column}_median", one.title, form, one.unit),
        Column(f"{one.column}_quartiles", "Middle half", form, one.unit),
    )


def _summary(found: Quartiles | None) -> list[Value]:
    return [None, None] if found is None else [found.median, Interval(found.q1, found.q3)]


def _cut(objects: pl.DataFrame) -> list[Paragraph]:
    count = int(objects.get_column("touches_border").sum())
    if not count:
        return []
    verb = "touches" if count == 1 else "touch"
    return [
        Paragraph(
            f"{counted(count, 'object')} of {objects.height:,} {verb} the border of an image and "
            "may continue outside it: counted here with the part that was seen, so that their "
            "sizes are lower bounds."
        )
    ]
