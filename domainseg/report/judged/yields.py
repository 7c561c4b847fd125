"""What share of dies is good, beside what models of the defects' density say."""

from __future__ import annotations

import numpy as np
import polars as pl

from domainseg.quality.assess import Assessment
from domainseg.quality.lot_numbers import proportion
from domainseg.quality.statistics import Interval
from domainseg.quality.yields import Clustering, clustering, models
from domainseg.report.document import (
    COUNT,
    MEASURE,
    RATIO,
    Block,
    Column,
    Paragraph,
    Section,
    Table,
    Value,
)
from domainseg.report.numbers import written
from domainseg.report.sections.wording import counted

_DISPERSED = 0.01


def yields(made: Assessment) -> Section | None:
    """Return observed and modelled yields; None where no wafer's dies are known."""
    wafers = [u for u in made.lot.units if u.dies is not None and u.dies.total is not None]
    if not wafers:
        return None
    names = [unit.name for unit in wafers]
    named = made.dies.filter(pl.col("unit").is_in(names))
    total = sum(unit.dies.total or 0 for unit in wafers if unit.dies is not None)
    if not total:
        return None
    failed = int((~named["passed"]).sum())
    observed = proportion(total - failed, total, confidence=0.95)
    # Dies that are not listed have no defect.
    counts = np.zeros(total, np.int64)
    counts[: len(named)] = named["defects"].to_numpy().astype(np.int64)
    spread = clustering(counts)
    free = proportion(int((counts == 0).sum()), total, confidence=0.95)
    blocks: list[Block] = [_table(made, names, total, observed.value, observed.interval, spread)]
    blocks.insert(
        0,
        Paragraph(
            f"{total - failed:,} of {counted(total, 'die')} pass the rules; "
            f"{int((counts == 0).sum()):,} have no defect that counts, "
            f"{written(free.value, RATIO)} ({written(free.interval, RATIO)})."
        ),
    )
    if spread is not None and spread.ratio is not None and spread.p_value is not None:
        blocks.append(_dispersion(spread))
    return Section("yield", "Yield", tuple(blocks))


def _table(
    made: Assessment,
    names: list[str],
    total: int,
    observed: float | None,
    interval: Interval | None,
    spread: Clustering | None,
) -> Table:
    counted_ = made.defects.filter(pl.col("counts") & pl.col("unit").is_in(names))
    columns = (
        Column("model", "Yield"),
        Column("formula", "Formula"),
        Column("assumes", "Supposes"),
        Column("all_defects", "Of all defects", RATIO),
        Column("killers", "Of killers", RATIO),
        Column("interval", "95 % interval", RATIO),
    )
    mean = len(counted_) / total
    unknown = counted_["kill_prob"].null_count()
    killers = None if unknown else float(counted_["kill_prob"].sum()) / total
    rows: list[tuple[Value, ...]] = [
        ("observed", "dies that pass / inspected dies", "", observed, None, interval)
    ]
    rows += [
        (
            model.name,
            model.formula,
            model.assumes,
            model.of(mean),
            None if killers is None else model.of(killers),
            None,
        )
        for model in models(
            None if spread is None else spread.alpha, layers=made.rules.critical_layers
        )
    ]
    said = f"x is the mean per die: {written(mean, MEASURE)} defects"
    if killers is not None:
        said += f", {written(killers, MEASURE)} killers"
    return Table("yields", f"Observed yield beside models of it; {said}.", columns, tuple(rows))


def _dispersion(spread: Clustering) -> Table:
    columns = (
        Column("quantity", "Defects per die"),
        Column("value", "Value", MEASURE),
        Column("note", "Meaning"),
    )
    assert spread.p_value is not None
    meaning = (
        "as chance gives"
        if spread.p_value >= _DISPERSED
        else "clustered: intervals that suppose independent defects are too narrow"
    )
    rows: tuple[tuple[Value, ...], ...] = (
        ("mean", spread.mean, ""),
        ("variance over mean", spread.ratio, "1 where defects fall independently"),
        ("p of that or more", spread.p_value, meaning),
        (
            "alpha of the negative binomial",
            spread.alpha,
            "mean² / (variance - mean)"
            if spread.alpha is not None
            else "none: counts vary no more than by chance",
        ),
    )
    return Table("dispersion", "How unevenly defects are spread over dies.", columns, rows)


def pareto_of_dies(made: Assessment) -> Table | None:
    """Return how many dies have how many defects; None without dies."""
    if not len(made.dies):
        return None
    counts = made.dies["defects"].cast(pl.Int64).value_counts().sort("defects")
    columns = (Column("defects", "Defects", COUNT), Column("dies", "Dies", COUNT))
    rows = tuple((int(a), int(b)) for a, b in counts.iter_rows())
    return Table("dies-by-defects", "Dies by their number of defects.", columns, rows)
