"""Which classes matter, how severe defects are, and the worst of them one by one."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import polars as pl

from domainseg.quality.assess import Assessment
from domainseg.quality.rules import GRADES
from domainseg.report import plots
from domainseg.report.document import (
    COUNT,
    MEASURE,
    Block,
    Column,
    Figure,
    Form,
    Gallery,
    Paragraph,
    Picture,
    Section,
    Table,
    Value,
)
from domainseg.report.sections.wording import counted

_CLASSES = 15
_WORST = 500
_EDGES = tuple(float(v) for v in range(0, 101, 5))
ALL_GRADES = (*GRADES, "review", "ignore")


def pareto(made: Assessment) -> Section | None:
    """Return the classes by their number, with areas, demerits and kills; None without defects."""
    counted_ = made.defects.filter(pl.col("counts"))
    if not len(counted_):
        return None
    table = (
        counted_.group_by("class")
        .agg(
            pl.len().alias("defects"),
            pl.when(pl.col("area_um2").null_count() == 0)
            .then(pl.col("area_um2").sum())
            .alias("area"),
            pl.col("demerits").sum(),
            pl.col("kill_prob").sum().alias("kills"),
            pl.col("kill_prob").null_count().alias("unknown"),
            *((pl.col("grade") == grade).sum().alias(grade) for grade in GRADES),
        )
        .sort(["defects", "class"], descending=[True, False])
    )
    total = int(table["defects"].sum())
    running = (table["defects"].cum_sum() / total).to_list()
    rows: list[tuple[Value, ...]] = []
    for one, share in zip(table.iter_rows(named=True), running, strict=True):
        kills = None if one["unknown"] else one["kills"]
        rows.append(
            (
                one["class"],
                one["defects"],
                100 * one["defects"] / total,
                100 * share,
                one["area"],
                one["demerits"],
                kills,
                *(one[grade] for grade in GRADES),
            )
        )
    columns = (
        Column("class", "Class"),
        Column("defects", "Defects", COUNT),
        Column("share_percent", "Share", MEASURE, "%"),
        Column("cumulative_percent", "Cumulative", MEASURE, "%"),
        Column("area_um2", "Area", MEASURE, "µm²"),
        Column("demerits", "Demerits", MEASURE),
        Column("expected_kills", "Expected kills", MEASURE),
        *(Column(grade, grade.capitalize(), COUNT) for grade in GRADES),
    )
    data = Table("pareto-table", "Classes of the defects that count.", columns, tuple(rows))
    return Section("pareto", "Pareto", (_pareto_figure(table, total), data))


def _pareto_figure(table: pl.DataFrame, total: int) -> Figure:
    names, counts = table["class"].to_list(), table["defects"].to_list()
    if len(names) > _CLASSES:
        rest = sum(counts[_CLASSES - 1 :])
        others = f"{len(names) - _CLASSES + 1} other classes"
        names, counts = [*names[: _CLASSES - 1], others], [*counts[: _CLASSES - 1], rest]
    shares = np.cumsum(counts) / total
    bars = [
        plots.Bar(name, float(count), float(share))
        for name, count, share in zip(names, counts, shares.tolist(), strict=True)
    ]
    said = "; ".join(f"{one.name} {one.value:g}" for one in bars)
    return Figure(
        "pareto-figure",
        plots.pareto(bars, title="defects"),
        f"Defects by class: {said}.",
        "Defects that count by class, the most frequent on top. Beside each bar the share of "
        "all defects that it and those above it hold.",
    )


def severity(made: Assessment, pictures: tuple[Picture, ...] = ()) -> Section | None:
    """Return the histogram of severity and the worst defects; None without any."""
    if not len(made.defects):
        return None
    blocks: list[Block] = [_histogram(made)]
    if pictures:
        caption = (
            f"The {counted(len(pictures), 'defect')} whose grade and severity are the worst, with "
            "the outline of each and how its severity comes about."
            if len(pictures) > 1
            else "The worst defect, with its outline and how its severity comes about."
        )
        blocks.append(Gallery("worst-pictures", pictures, size="small", caption=caption))
    return Section("severity", "Severity", (*blocks, *_worst(made)))


def _histogram(made: Assessment) -> Figure:
    grades, values = made.defects["grade"].to_numpy(), made.defects["severity"].to_numpy()
    counts = {
        grade: tuple(np.histogram(values[grades == grade], _EDGES)[0].tolist())
        for grade in ALL_GRADES
    }
    rows = tuple(
        (low, high, *(counts[grade][i] for grade in ALL_GRADES))
        for i, (low, high) in enumerate(pairwise(_EDGES))
        if any(counts[grade][i] for grade in ALL_GRADES)
    )
    columns = (
        Column("severity_low", "From", Form("fixed", 0)),
        Column("severity_high", "To", Form("fixed", 0)),
        *(Column(grade, grade.capitalize(), COUNT) for grade in ALL_GRADES),
    )
    said = ", ".join(
        f"{counted(sum(counts[g]), 'defect')} {g}" for g in ALL_GRADES if any(counts[g])
    )
    return Figure(
        "severity-figure",
        plots.severities(_EDGES, counts),
        f"Histogram of severity from 0 to 100: {said}.",
        "Severity of all defects, by grade. A defect may have another grade than its severity "
        "alone would give it: the table below says why.",
        Table("severity-bins", "Defects in each bin of the figure.", columns, rows),
    )


def worst_first(defects: pl.DataFrame, count: int) -> pl.DataFrame:
    """Return the worst defects that are not ignored, ``count`` or fewer.

    By grade, severity, area, then their order. Of a million defects only what orders them is
    sorted.
    """
    order = pl.col("grade").replace_strict(
        {grade: i for i, grade in enumerate(ALL_GRADES)}, return_dtype=pl.Int64
    )
    keys = defects.select(
        order.alias("order"),
        "severity",
        pl.coalesce("area_um2", "area_px", pl.lit(0.0)).alias("area"),
        pl.int_range(pl.len()).alias("row"),
    ).filter(pl.col("order") < ALL_GRADES.index("ignore"))
    by = ["order", "severity", "area", "row"]
    first = keys.sort(by, descending=[False, True, True, False]).head(count)
    return defects[first["row"]]


def _worst(made: Assessment) -> list[Block]:
    worst = worst_first(made.defects, _WORST)
    if not len(worst):
        return []
    seen = int((made.defects["grade"] != "ignore").sum())
    sized = "area_um2" if made.rules.units == "um" else "area_px"
    unit = "µm²" if made.rules.units == "um" else "px"
    columns = (
        Column("rank", "Rank", COUNT),
        Column("unit", "Unit"),
        Column("class", "Class"),
        Column("die_x", "Die x", COUNT),
        Column("die_y", "Die y", COUNT),
        Column("x_um", "x", MEASURE, "µm"),
        Column("y_um", "y", MEASURE, "µm"),
        Column(sized, "Area", MEASURE, unit),
        Column("severity", "Severity", Form("fixed", 1)),
        Column("weight_factor", "Class", MEASURE),
        Column("zone_factor", "Zone", MEASURE),
        Column("size_factor", "Size", MEASURE),
        Column("contrast_factor", "Contrast", MEASURE),
        Column("grade", "Grade"),
        Column("grade_reason", "Because"),
        Column("id", "Defect"),
    )
    ranked = worst.with_row_index("rank", offset=1)
    rows = tuple(ranked.select([column.key for column in columns]).iter_rows())
    blocks: list[Block] = [
        Table(
            "worst",
            "The worst defects. Severity is 100 times the product of the four factors.",
            columns,
            rows,
            shown=_WORST,
            interactive=True,
        )
    ]
    if seen > _WORST:
        blocks.append(
            Paragraph(
                f"The {_WORST} worst of {seen:,} defects; all of them are in defects.parquet "
                "and defects.csv."
            )
        )
    return blocks
