"""The verdict, and the rules that it follows from."""

from __future__ import annotations

from collections.abc import Iterable

from domainseg.quality.assess import Assessment, RuleResult, counts_by_grade
from domainseg.quality.lot_numbers import MM2_PER_CM2, Number
from domainseg.quality.rules import GRADES
from domainseg.quality.statistics import Interval, poisson_interval
from domainseg.report.document import (
    COUNT,
    MEASURE,
    Banner,
    Block,
    Callout,
    Column,
    KeyNumber,
    KeyNumbers,
    Section,
    Table,
    Value,
)
from domainseg.report.numbers import written
from domainseg.report.sections.wording import counted

TITLES = {
    "PASS": "All rules are met.",
    "FAIL": "At least one rule is not met.",
    "INDETERMINATE": "There is not enough evidence for a verdict.",
}
_LINES = 8


def verdict(made: Assessment) -> Section:
    """Return the verdict, the few numbers behind it, and every rule with what was measured."""
    blocks: list[Block] = [
        Banner(made.outcome, TITLES[made.outcome], tuple(_reasons(made))[:_LINES]),
        _key_numbers(made),
        _rules(made.results),
        _requirements(made),
        _units(made),
    ]
    if made.lot.warnings:
        blocks.append(Callout("warning", "What to know of the data", made.lot.warnings))
    return Section("verdict", "Verdict", tuple(blocks))


def _reasons(made: Assessment) -> Iterable[str]:
    """Yield why it is no pass: what is missing, then what is broken, then what is unknown."""
    for one in made.requirements:
        if not one.met:
            yield f"{one.name}: {one.found}, wanted {one.wanted}"
    for result in made.results:
        if result.outcome == "FAIL" and result.judged is not None:
            side = "at most" if result.rule.max is not None else "at least"
            which = {"value": "", "ci_upper": ", upper end", "ci_lower": ", lower end"}
            yield (
                f"{result.rule.id}: {_metric(result)}{which[result.rule.use]} is "
                f"{written(result.judged, MEASURE)}, wanted {side} "
                f"{written(result.rule.limit, MEASURE)}"
            )
        if result.outcome == "INDETERMINATE":
            yield f"{result.rule.id}: {_metric(result)} is not known, {result.why}"


def _metric(result: RuleResult) -> str:
    words = result.rule.metric.replace("_per_", " per ").replace("_", " ")
    of = "" if result.rule.class_name is None else f" of {result.rule.class_name}"
    return f"{words}{of}"


def _exact(result: RuleResult) -> float | int | None:
    """Return the number of a rule; a count as a whole number."""
    value = result.number.value
    if value is not None and result.rule.metric.startswith("count"):
        return int(value)
    return value


def _key_numbers(made: Assessment) -> KeyNumbers:
    areas = [unit.area_cm2 for unit in made.lot.units]
    area = None if None in areas else sum(a for a in areas if a is not None)
    grades = counts_by_grade(made.defects)
    total = sum(grades[name] for name in GRADES)
    # Cells are counted per mm2, and defects per cm2; the rules say which these are.
    small = any(rule.metric == "density_per_mm2" for rule in made.rules.accept)
    unit = "mm" if small else "cm"
    if area is not None and small:
        area *= MM2_PER_CM2
    density = Number(None)
    if area:
        density = Number(total / area, poisson_interval(total, exposure=area))
    aside = f"{counted(grades['review'], 'more')} to review, {grades['ignore']:,} ignored"
    numbers = [
        KeyNumber(
            "defects", "Defects that count", total, COUNT, note=aside.replace("mores", "more")
        ),
        KeyNumber(
            f"density_per_{unit}2",
            "Density",
            density.value,
            MEASURE,
            f"per {unit}²",
            density.interval,
        ),
        KeyNumber(f"inspected_{unit}2", "Inspected area", area, MEASURE, f"{unit}²"),
        KeyNumber(
            "critical",
            "Critical",
            grades["critical"],
            COUNT,
            note=f"{grades['major']:,} major, {grades['minor']:,} minor",
        ),
    ]
    if len(made.dies):
        failed = int((~made.dies["passed"]).sum())
        known = [unit.dies.total for unit in made.lot.units if unit.dies is not None]
        of = "" if None in known else f"of {sum(k for k in known if k is not None):,} inspected"
        numbers.append(KeyNumber("dies_failed", "Dies that fail", failed, COUNT, note=of))
    judged = made.units["passed"].drop_nulls()
    note = f"{written(total / len(made.units), MEASURE)} defects a unit"
    if len(judged):
        note += f"; {int((~judged).sum()):,} of {len(judged):,} judged as one fail"
    numbers.append(KeyNumber("units", "Units", len(made.units), COUNT, note=note))
    if made.rules.opportunities is not None:
        chances = len(made.units) * made.rules.opportunities
        numbers.append(
            KeyNumber(
                "dpmo",
                "Defects per million opportunities",
                1e6 * total / chances,
                MEASURE,
                note=f"{made.rules.opportunities:,} opportunities a unit",
            )
        )
    return KeyNumbers("totals", tuple(numbers))


def _rules(results: tuple[RuleResult, ...]) -> Table:
    columns = (
        Column("rule", "Rule"),
        Column("metric", "Number"),
        Column("value", "Measured", MEASURE),
        Column("interval", "Interval", MEASURE),
        Column("confidence", "Confidence", MEASURE),
        Column("use", "Judged by"),
        Column("limit", "Limit", MEASURE),
        Column("outcome", "Result"),
    )
    rows: list[tuple[Value, ...]] = []
    for one in results:
        rule, interval = one.rule, one.number.interval
        side = "at most" if rule.max is not None else "at least"
        rows.append(
            (
                rule.id,
                _metric(one),
                _exact(one),
                interval,
                rule.confidence if isinstance(interval, Interval) else None,
                {"value": "the number", "ci_upper": "its upper end", "ci_lower": "its lower end"}[
                    rule.use
                ]
                + f", {side}",
                rule.limit,
                one.outcome if one.outcome != "INDETERMINATE" else f"INDETERMINATE: {one.why}",
            )
        )
    return Table("rules", "Rules of acceptance, each with what was measured.", columns, tuple(rows))


def _units(made: Assessment) -> Table:
    with_dies = bool(len(made.dies))
    columns = [
        Column("unit", "Unit"),
        Column("lot", "Lot"),
        Column("area_cm2", "Inspected", MEASURE, "cm²"),
        Column("defects", "Defects", COUNT),
        *(Column(grade, grade.capitalize(), COUNT) for grade in GRADES),
        Column("demerits", "Demerits", MEASURE),
    ]
    if with_dies:
        columns += [Column("dies", "Dies", COUNT), Column("dies_failed", "Dies that fail", COUNT)]
    columns += [Column("passed", "Passes"), Column("reasons", "Because")]
    rows = tuple(made.units.select([column.key for column in columns]).iter_rows())
    caption = "What was inspected, and what became of it."
    return Table("units-table", caption, tuple(columns), rows, shown=100)


def _requirements(made: Assessment) -> Table:
    columns = (
        Column("requirement", "Wanted for a verdict"),
        Column("found", "Found"),
        Column("wanted", "Wanted"),
        Column("met", "Met"),
    )
    rows = tuple((one.name, one.found, one.wanted, one.met) for one in made.requirements)
    return Table("requirements", "What there must be for a verdict.", columns, rows)
