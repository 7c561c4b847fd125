"""How bad each defect is: factors, severity, grade, and the verdict on each die or unit.

Severity is ``100 * clip(w * z * s * c, 0, 1)``: weight of the class, factor of the zone, and
for size and contrast ``clip((x / reference) ** gamma, 0, 1)``. A factor without a reference, or
without the measurement that it needs, is 1. Formula and defaults are this project's proposal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from domainseg.quality.expression import text as condition_text
from domainseg.quality.rules import GRADES, UNIT_NUMBERS, Measure, Rules

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
REVIEW, IGNORE = "review", "ignore"
"""Grades of what does not count: to be looked at by someone, and nothing at all."""
FACTORS = ("weight_factor", "zone_factor", "size_factor", "contrast_factor")


@dataclass(frozen=True, slots=True)
class Measured:
    """What the severity of each defect is made of, one element each.

    Attributes:
        classes: names.
        sizes: by measure, in the unit of the rules; NaN where not measured.
        contrast: against the ring around it, relative; NaN where not measured.
        confidence: NaN where not known, which is never too low.
        diameter: of the circle of the same area, in the unit of the rules; NaN where not known.
        zone_factor: of the zone that it lies in.
        zone_critical: whether that zone makes it critical.
        outside: whether it lies where nobody looked, or in a zone that is ignored.
        repeated: dies that have a defect at its place, where it is to be reviewed for that;
            0 where not.
    """

    classes: Sequence[str]
    sizes: Mapping[Measure, Floats]
    contrast: Floats
    confidence: Floats
    diameter: Floats
    zone_factor: Floats
    zone_critical: Mask
    outside: Mask
    repeated: NDArray[np.int64]


def factor(values: Floats, *, reference: float | None, gamma: float) -> Floats:
    """Return ``clip((|x| / reference) ** gamma, 0, 1)``; 1 without a reference or a value."""
    if reference is None:
        return np.ones(len(values))
    made = np.clip(np.abs(values) / reference, 0.0, 1.0) ** gamma
    return np.where(np.isnan(values), 1.0, made)


def graded(measured: Measured, rules: Rules) -> pl.DataFrame:
    """Return a row per defect: FACTORS, severity, grade, grade_reason, demerits, kill_prob, counts.

    ``kill_prob`` is null where the rules do not say, ``counts`` whether the rules of acceptance
    see it.
    """
    total = len(measured.classes)
    weight, size, kill = np.ones(total), np.ones(total), np.full(total, np.nan)
    names = np.array(measured.classes, object)
    for name in sorted(set(measured.classes)):
        rule, here = rules.of_class(name), names == name
        if rule is None:
            continue
        weight[here] = rule.weight
        values = measured.sizes[rule.measure][here]
        size[here] = factor(values, reference=rules.reference(rule), gamma=rule.gamma)
        if rule.kill_prob is not None:
            kill[here] = rule.kill_prob
    contrast = np.ones(total)
    if rules.contrast is not None:
        contrast = factor(
            measured.contrast, reference=rules.contrast.ref, gamma=rules.contrast.gamma
        )
    severity = 100.0 * np.clip(weight * measured.zone_factor * size * contrast, 0.0, 1.0)
    grade, reason = _grades(measured, severity, rules)
    demerits: dict[str, float] = {name: rules.grades.of(name).weight for name in GRADES}
    return pl.DataFrame(
        {
            "weight_factor": weight,
            "zone_factor": measured.zone_factor,
            "size_factor": size,
            "contrast_factor": contrast,
            "severity": severity,
            "grade": pl.Series(grade, dtype=pl.String),
            "grade_reason": pl.Series(reason, dtype=pl.String),
            "demerits": pl.Series([demerits.get(name, 0.0) for name in grade], dtype=pl.Float64),
            "kill_prob": pl.Series(kill).fill_nan(None),
            "counts": pl.Series([name in GRADES for name in grade], dtype=pl.Boolean),
        }
    )


def _grades(measured: Measured, severity: Floats, rules: Rules) -> tuple[list[str], list[str]]:
    """Return the grade of each defect and why it has it; a later line overrules an earlier."""
    total = len(severity)
    grade = np.full(total, IGNORE, object)
    reason = np.full(total, f"severity below {rules.grades.minor.severity:g}", object)
    for name in reversed(GRADES):
        least = rules.grades.of(name).severity
        reached = severity >= least
        grade[reached], reason[reached] = name, f"severity of at least {least:g}"
    grade[measured.zone_critical], reason[measured.zone_critical] = "critical", "zone is critical"
    small = measured.diameter < rules.min_size
    grade[small], reason[small] = IGNORE, f"smaller than {rules.min_size:g} {rules.units}"
    unsure = measured.confidence < rules.detection.conf_min
    grade[unsure], reason[unsure] = REVIEW, f"confidence below {rules.detection.conf_min:g}"
    for row in np.flatnonzero(measured.repeated):
        grade[row], reason[row] = REVIEW, f"at the same place of {measured.repeated[row]} dies"
    grade[measured.outside], reason[measured.outside] = IGNORE, "outside the inspected area"
    return grade.tolist(), reason.tolist()


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What is said of each of several dies, or units without dies.

    Attributes:
        table: a row each, columns as UNIT_NUMBERS and ``passed``.
        reasons: of each, why it fails; empty where it passes.
    """

    table: pl.DataFrame
    reasons: tuple[tuple[str, ...], ...]


def verdicts(defects: pl.DataFrame, unit: NDArray[np.int64], count: int, rules: Rules) -> Verdicts:
    """Return the verdict on ``count`` units.

    Args:
        defects: as `graded` returns them.
        unit: int64 ``(N,)``, number of the unit that each lies in, -1 for none.
        count: of the units; those without defects pass or fail too.
        rules: of the inspection.
    """
    counted = defects["counts"].to_numpy() & (unit >= 0)
    units, grades = unit[counted], defects["grade"].to_numpy()[counted]
    numbers: dict[str, Floats] = {
        name: np.bincount(units[grades == name], minlength=count).astype(np.float64)
        for name in GRADES
    }
    numbers["defects"] = sum((numbers[name] for name in GRADES), np.zeros(count))
    demerits = defects["demerits"].to_numpy()[counted]
    numbers["demerits"] = np.bincount(units, demerits, minlength=count).astype(np.float64)
    # 1 - prod(1 - k), by logarithms; a kill that is certain is one, not 1 - 1e-16.
    kill = defects["kill_prob"].fill_null(0.0).to_numpy()[counted]
    with np.errstate(divide="ignore"):
        survival = np.bincount(units, np.log1p(-kill), minlength=count).astype(np.float64)
    numbers["kill_probability"] = -np.expm1(survival)
    assert set(numbers) == set(UNIT_NUMBERS)
    condition = rules.unit.condition
    names = tuple(numbers)
    rows = zip(*(numbers[name].tolist() for name in names), strict=True)
    reasons = tuple(condition.broken(dict(zip(names, row, strict=True))) for row in rows)
    if "kill_probability" in condition_text(condition):
        # What the condition asks for is not known where that of a defect is not.
        lacking = defects["kill_prob"].is_null().to_numpy()[counted]
        unknown = np.bincount(units[lacking], minlength=count).tolist()
        reasons = tuple(
            (*lines, f"the kill probability of {number} of its defects is not known")
            if number
            else lines
            for lines, number in zip(reasons, unknown, strict=True)
        )
    passed = pl.Series("passed", [not reason for reason in reasons], dtype=pl.Boolean)
    return Verdicts(pl.DataFrame(numbers).with_columns(passed), reasons)
