"""From a lot and its rules to a verdict: every number with its interval, every rule with its why.

Defects are graded (`severity`), dies and units judged, and the rules of acceptance held against
the numbers of the lot. What cannot be known makes the verdict indeterminate, never a pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from domainseg.quality.inspected_area import less_left_out
from domainseg.quality.lot import ImageCheck, Lot, Unit
from domainseg.quality.lot_checks import checked
from domainseg.quality.lot_numbers import Number, Numbers
from domainseg.quality.repeaters import repeaters
from domainseg.quality.rules import GRADES, Accept, Measure, Rules
from domainseg.quality.severity import Measured, Verdicts, graded, verdicts
from domainseg.quality.spatial import clusters
from domainseg.quality.zones import Area, Boxes, first_zone

NAMED = 3
"""Units that a requirement names."""

Outcome = Literal["PASS", "FAIL", "INDETERMINATE"]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RuleResult:
    """A rule of acceptance and what became of it.

    Attributes:
        rule: as the file has it.
        number: of the lot, at the confidence of the rule.
        judged: the one that is held against the limit; None where it cannot be known.
        outcome: of this rule.
        why: where it is indeterminate.
    """

    rule: Accept
    number: Number
    judged: float | None
    outcome: Outcome
    why: str = ""


@dataclass(frozen=True, slots=True)
class Requirement:
    """Something that there must be for a verdict, and whether it is there."""

    name: str
    found: str
    wanted: str
    met: bool


@dataclass(frozen=True, slots=True)
class Assessment:
    """A lot, judged.

    Attributes:
        lot: with its units.
        rules: it was judged by.
        defects: of the lot, with the columns of `severity.graded`, ``zone``, ``cluster``,
            ``die_repeats`` (dies with a defect at its place) and ``repeater``.
        dies: a row per inspected die: unit, die_x, die_y, numbers, passed, reasons.
        units: a row per unit: unit, numbers of its defects, passed, reasons.
        results: of the rules of acceptance, in their order.
        requirements: of a verdict.
        outcome: of all together.
        zones: of the rules, with their polygons.
    """

    lot: Lot
    rules: Rules
    defects: pl.DataFrame
    dies: pl.DataFrame
    units: pl.DataFrame
    results: tuple[RuleResult, ...]
    requirements: tuple[Requirement, ...]
    outcome: Outcome
    zones: tuple[Area, ...] = ()


def assess(lot: Lot, rules: Rules, zones: Sequence[Area] = ()) -> Assessment:
    """Return the verdict on a lot; ``zones`` are those of the rules, read.

    Raises:
        InputError: lot, rules and zones do not go together (`lot_checks.checked`).
    """
    lot = checked(lot, rules, zones)
    lot = replace(lot, units=tuple(less_left_out(unit, rules, zones) for unit in lot.units))
    defects = _graded(lot, rules, zones)
    dies = _die_verdicts(lot, defects, rules)
    units = _unit_verdicts(lot, defects, dies, rules)
    numbers = Numbers(lot, defects, dies, units, rules)
    results = tuple(_judged(rule, numbers) for rule in rules.accept)
    requirements = tuple(_requirements(lot, rules))
    return Assessment(
        lot,
        rules,
        defects,
        dies,
        units,
        results,
        requirements,
        _outcome(results, requirements),
        tuple(zones),
    )


def _graded(lot: Lot, rules: Rules, zones: Sequence[Area]) -> pl.DataFrame:
    table = lot.defects
    repeated, repeats = _repeaters(lot, rules)
    rule = rules.detection.repeaters
    reviewed = repeats & (rule is not None and not rule.count)
    place = first_zone(zones, _frames(table), len(table))
    factors = np.array([*(area.zone.factor for area in zones), 1.0])
    critical = np.array([*(area.zone.critical for area in zones), False])
    ignored = np.array([*(area.zone.ignore for area in zones), False])
    scored = graded(
        Measured(
            classes=table["class"].fill_null("unclassified").to_list(),
            sizes=_sizes(table, rules),
            contrast=_floats(table, "contrast"),
            confidence=_floats(table, "confidence"),
            diameter=_diameter(table, rules),
            zone_factor=factors[place],
            zone_critical=critical[place],
            outside=ignored[place]
            | _beyond_edge(lot, rules)
            | ~table["inspected"].fill_null(True).to_numpy(),
            repeated=np.where(reviewed, repeated, 0),
        ),
        rules,
    )
    # What the inspection tool gave as the chance of a kill holds where the rules say nothing.
    kill = scored["kill_prob"].fill_null(table["kill_prob"])
    names = np.array([*(area.zone.name for area in zones), ""], object)[place]
    zone = pl.Series("zone", names.tolist(), dtype=pl.String)
    made = table.drop("kill_prob").hstack(
        scored.with_columns(
            kill.alias("kill_prob"),
            zone,
            pl.Series("die_repeats", repeated, dtype=pl.Int64),
            pl.Series("repeater", repeats, dtype=pl.Boolean),
        ).get_columns()
    )
    return made.with_columns(pl.Series("cluster", _clusters(made, rules), dtype=pl.Int64))


def _repeaters(lot: Lot, rules: Rules) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the dies with a defect at the place of each, and whether it repeats; 0 without."""
    dies = np.zeros(len(lot.defects), np.int64)
    repeats = np.zeros(len(lot.defects), bool)
    rule = rules.detection.repeaters
    if rule is None:
        return dies, repeats
    index = lot.defects.select("die_x", "die_y")
    known = index.select(pl.all_horizontal(pl.all().is_not_null())).to_series().to_numpy()
    place = np.stack([_floats(lot.defects, f"die_{axis}rel_um") for axis in "xy"], 1)
    known = known & np.isfinite(place).all(1)
    known &= lot.defects["inspected"].fill_null(True).to_numpy()
    names = lot.defects["unit"].to_numpy()
    for unit in lot.units:
        if unit.dies is None:
            continue
        rows = np.flatnonzero(known & (names == unit.name))
        found = repeaters(
            index[rows].to_numpy(),
            place[rows],
            pitch_um=unit.dies.pitch_um,
            dies=unit.dies.total or len(unit.dies),
            tolerance_um=rule.tolerance_um,
            fewest=rule.min_dies,
        )
        dies[rows], repeats[rows] = found.dies, found.repeats
    return dies, repeats


def _floats(table: pl.DataFrame, name: str) -> Floats:
    return table[name].cast(pl.Float64).fill_null(math.nan).to_numpy()


def _sizes(table: pl.DataFrame, rules: Rules) -> dict[Measure, Floats]:
    """Return the sizes by measure in the unit of the rules; in pixels there is only the area."""
    if rules.units == "px":
        nothing = np.full(len(table), np.nan)
        area = np.sqrt(_floats(table, "area_px"))
        return {"area": area, "length": nothing, "width": nothing, "feret": nothing}
    feret = _floats(table, "feret_um")
    length = _floats(table, "length_um")
    return {
        "area": np.sqrt(_floats(table, "area_um2")),
        "length": np.where(np.isnan(length), feret, length),
        "width": _floats(table, "width_um"),
        "feret": feret,
    }


def _diameter(table: pl.DataFrame, rules: Rules) -> Floats:
    if rules.units == "um":
        return _floats(table, "eq_diameter_um")
    return np.sqrt(4 / np.pi * _floats(table, "area_px"))


def _frames(table: pl.DataFrame) -> Callable[[str], Boxes | None]:
    """Return the defects as boxes in each frame; None where no defect has a place in it."""
    width, height = (
        np.nan_to_num(np.maximum(_floats(table, f"box_{side}_um"), 0.0))
        for side in ("width", "height")
    )
    axes = {
        "die": ("die_xrel_um", "die_yrel_um"),
        "unit": ("x_um", "y_um"),
        "image": ("x_px", "y_px"),
    }

    def boxes(frame: str) -> Boxes | None:
        x, y = (_floats(table, name) for name in axes[frame])
        if len(table) and np.isnan(x).all():
            return None
        if frame == "image":
            sides = (_floats(table, f"box_{side}_px") for side in ("width", "height"))
            return Boxes(x, y, *(np.nan_to_num(np.maximum(side, 0.0)) for side in sides))
        return Boxes(x, y, width, height)

    return boxes


def _beyond_edge(lot: Lot, rules: Rules) -> NDArray[np.bool_]:
    """Return which defects lie in the ring at a wafer's edge that is not inspected."""
    exclusion = rules.detection.edge_exclusion_um
    if not exclusion:
        return np.zeros(len(lot.defects), bool)
    radii = {u.name: 500.0 * u.diameter_mm for u in lot.units if u.diameter_mm}
    radius = lot.defects["unit"].replace_strict(radii, default=None, return_dtype=pl.Float64)
    far = np.hypot(_floats(lot.defects, "x_um"), _floats(lot.defects, "y_um"))
    return np.asarray(far > radius.fill_null(math.inf).to_numpy() - exclusion)


def _clusters(defects: pl.DataFrame, rules: Rules) -> NDArray[np.int64]:
    """Return the cluster of each defect that counts, numbered unit by unit, 0 for none."""
    found = np.zeros(len(defects), np.int64)
    if rules.cluster is None:
        return found
    x, y = _floats(defects, "x_um"), _floats(defects, "y_um")
    usable = defects["counts"].to_numpy() & np.isfinite(x) & np.isfinite(y)
    names = defects["unit"].to_numpy()
    for name in dict.fromkeys(names.tolist()):
        rows = np.flatnonzero(usable & (names == name))
        found[rows] = clusters(
            x[rows], y[rows], eps_um=rules.cluster.eps_um, min_samples=rules.cluster.min_samples
        )
    return found


def _die_verdicts(lot: Lot, defects: pl.DataFrame, rules: Rules) -> pl.DataFrame:
    """Return a row per inspected die of every unit that has any."""
    parts = []
    for unit in lot.units:
        if unit.dies is None:
            continue
        mine = defects.filter(pl.col("unit") == unit.name)
        known = mine["die_x"].is_not_null().to_numpy() & mine["die_y"].is_not_null().to_numpy()
        number = np.full(len(mine), -1, np.int64)
        at = mine.filter(pl.Series(known))
        number[known] = unit.dies.number_of(at["die_x"].to_numpy(), at["die_y"].to_numpy())
        made = verdicts(mine, number, len(unit.dies), rules)
        place = pl.DataFrame(
            {
                "unit": pl.Series([unit.name] * len(unit.dies), dtype=pl.String),
                "die_x": unit.dies.index[:, 0],
                "die_y": unit.dies.index[:, 1],
            }
        )
        parts.append(place.hstack(_with_reasons(made).get_columns()))
    empty = {"unit": pl.String(), "die_x": pl.Int64(), "die_y": pl.Int64()}
    none = _with_reasons(verdicts(defects.clear(), np.zeros(0, np.int64), 0, rules))
    return pl.concat([pl.DataFrame(schema=empty).hstack(none.get_columns()), *parts])


def _with_reasons(made: Verdicts) -> pl.DataFrame:
    reasons = pl.Series("reasons", ["; ".join(lines) for lines in made.reasons], dtype=pl.String)
    return made.table.with_columns(reasons)


def _unit_verdicts(
    lot: Lot, defects: pl.DataFrame, dies: pl.DataFrame, rules: Rules
) -> pl.DataFrame:
    """Return a row per unit: one with dies says how many fail, one without is judged itself.

    ``passed`` is null where there are dies to be judged by, or nothing was inspected.
    """
    names = [unit.name for unit in lot.units]
    number = defects["unit"].replace_strict(
        {name: i for i, name in enumerate(names)}, default=-1, return_dtype=pl.Int64
    )
    made = _with_reasons(verdicts(defects, number.to_numpy(), len(names), rules))
    why = pl.Series([_not_judged(unit) for unit in lot.units], dtype=pl.String)
    made = made.with_columns(
        pl.when(why.is_null()).then(pl.col("passed")).alias("passed"),
        pl.when(why.is_null()).then(pl.col("reasons")).otherwise(why).alias("reasons"),
    )
    failed = dict(dies.filter(~pl.col("passed")).group_by("unit").len().iter_rows())
    defective = dict(dies.filter(pl.col("defects") > 0).group_by("unit").len().iter_rows())
    totals = [None if unit.dies is None else unit.dies.total for unit in lot.units]
    return pl.DataFrame(
        {
            "unit": pl.Series(names, dtype=pl.String),
            "lot": pl.Series([unit.lot for unit in lot.units], dtype=pl.String),
            "area_cm2": pl.Series([unit.area_cm2 for unit in lot.units], dtype=pl.Float64),
            "source": pl.Series([unit.source for unit in lot.units], dtype=pl.String),
            "sha256": pl.Series([unit.sha256 for unit in lot.units], dtype=pl.String),
            "dies": pl.Series(totals, dtype=pl.Int64),
            "dies_with_defects": pl.Series(
                [None if u.dies is None else defective.get(u.name, 0) for u in lot.units],
                dtype=pl.Int64,
            ),
            "dies_failed": pl.Series(
                [None if u.dies is None else failed.get(u.name, 0) for u in lot.units],
                dtype=pl.Int64,
            ),
        }
    ).hstack(made.get_columns())


def _not_judged(unit: Unit) -> str | None:
    """Return why a unit is not judged as one, None where it is."""
    if unit.dies is not None:
        return "judged by its dies"
    if not (unit.area_cm2 or unit.area_mpx):
        return "nothing was inspected"
    return None


def _judged(rule: Accept, numbers: Numbers) -> RuleResult:
    number = numbers.of(rule)
    if number.value is None:
        return RuleResult(rule, number, None, "INDETERMINATE", number.why)
    judged: float | None = number.value
    if rule.use != "value":
        if number.interval is None:
            why = f"{rule.metric} has no interval"
            return RuleResult(rule, number, None, "INDETERMINATE", why)
        judged = number.interval.high if rule.use == "ci_upper" else number.interval.low
    assert judged is not None
    kept = judged <= rule.limit if rule.max is not None else judged >= rule.limit
    return RuleResult(rule, number, judged, "PASS" if kept else "FAIL")


def _requirements(lot: Lot, rules: Rules) -> Sequence[Requirement]:
    wanted = rules.require
    areas = [unit.area_cm2 for unit in lot.units]
    area = math.fsum(a or 0.0 for a in areas)
    least = wanted.min_area_cm2
    looked_at = any((unit.area_cm2 or unit.area_mpx or 0) > 0 for unit in lot.units)
    made = [
        Requirement(
            "units",
            f"{len(lot.units)}",
            f"at least {wanted.min_units}",
            len(lot.units) >= wanted.min_units,
        ),
        Requirement("inspected area", "some" if looked_at else "none", "some", looked_at),
    ]
    if least > 0:
        found = f"{area:.4g} cm2" if None not in areas else "not known"
        met = None not in areas and area >= least
        made.append(Requirement("least inspected area", found, f"at least {least:g} cm2", met))
    failed = sum(len(unit.failed) for unit in lot.units)
    if failed or wanted.max_failed:
        made.append(
            Requirement(
                "images that could not be read",
                f"{failed}",
                f"at most {wanted.max_failed}",
                failed <= wanted.max_failed,
            )
        )
    if wanted.max_unlike_share is not None:
        made.append(_alike(lot, wanted.max_unlike_share))
    for unit in lot.units:
        made += _checks(unit, rules)
    return made


def _checks(unit: Unit, rules: Rules) -> Sequence[Requirement]:
    """Return the checks of a unit's image that the rules ask for; one not measured is not met."""
    wanted, check = rules.require.qc, unit.check or ImageCheck(coverage=None)
    rows: tuple[tuple[str, float | None, float | None, bool], ...] = (
        ("focus", wanted.focus_min, check.focus, True),
        ("saturated", wanted.saturated_max, check.saturated, False),
        ("coverage", wanted.coverage_min, check.coverage, True),
    )
    made = []
    for name, limit, value, at_least in rows:
        if limit is None:
            continue
        met = value is not None and (value >= limit if at_least else value <= limit)
        found = "not measured" if value is None else f"{value:.3g}"
        side = "at least" if at_least else "at most"
        made.append(Requirement(f"{name} of {unit.name}", found, f"{side} {limit:g}", met))
    return made


def _alike(lot: Lot, most: float) -> Requirement:
    """Return whether few enough images are unlike the training's, or not known to be like them."""
    checks = [(unit.name, unit.check or ImageCheck()) for unit in lot.units]
    images, like = sum(one.images for _, one in checks), sum(one.like for _, one in checks)
    unlike = sum(one.unlike for _, one in checks)
    parts = [f"{unlike} unlike"] * (unlike > 0)
    parts += [f"{images - like - unlike} not known"] * (like + unlike < images)
    named = [name for name, one in checks if one.like < one.images]
    where = ", ".join(named[:NAMED]) + (", ..." if len(named) > NAMED else "")
    found = f"{' and '.join(parts)} of {images} ({where})" if parts else f"none of {images}"
    met = like == images or (images - like) / images <= most
    return Requirement("images unlike those of the training", found, f"at most {most:.3g}", met)


def _outcome(results: Sequence[RuleResult], requirements: Sequence[Requirement]) -> Outcome:
    """Return the verdict: what is missing comes before what fails, and that before a pass."""
    if not all(one.met for one in requirements):
        return "INDETERMINATE"
    outcomes = {one.outcome for one in results}
    if "FAIL" in outcomes:
        return "FAIL"
    return "INDETERMINATE" if "INDETERMINATE" in outcomes else "PASS"


def counts_by_grade(defects: pl.DataFrame) -> Mapping[str, int]:
    """Return how many defects have each grade, the worst first, those that do not count last."""
    found = dict(defects.group_by("grade").len().iter_rows())
    return {name: int(found.get(name, 0)) for name in (*GRADES, "review", "ignore")}
