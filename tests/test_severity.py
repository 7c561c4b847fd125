"""Severity, grade and verdict: each factor by hand, and what overrules what."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainseg.quality.rules import GRADES, Rules
from domainseg.quality.severity import Measured, factor, graded, verdicts

BASE: dict[str, Any] = {
    "schema": 1,
    "units": "um",
    "detection": {"conf_min": 0.5, "min_size_um": 2.0},
    "classes": {
        "scratch": {
            "weight": 0.8,
            "measure": "length",
            "ref_um": 400,
            "gamma": 0.5,
            "kill_prob": 0.5,
        },
        "particle": {"weight": 0.5, "ref_um": 10},
        "stain": {"weight": 1.0},
    },
    "contrast": {"ref": 0.5, "gamma": 2.0},
    "unit": {"fail_if": "critical > 0 or demerits > 100"},
    "accept": [{"id": "all", "metric": "count", "max": 1}],
}


def rules(**changes: Any) -> Rules:
    return Rules.model_validate({**BASE, **changes})


def measured(*classes: str, **changes: Any) -> Measured:
    """Return defects that nothing makes harmless, but what is changed."""
    count = len(classes)
    full = np.full(count, 1e6)
    made = Measured(
        classes=classes,
        sizes={"area": full, "length": full, "width": full, "feret": full},
        contrast=np.full(count, 1.0),
        confidence=np.full(count, 1.0),
        diameter=np.full(count, 50.0),
        zone_factor=np.ones(count),
        zone_critical=np.zeros(count, bool),
        outside=np.zeros(count, bool),
        repeated=np.zeros(count, np.int64),
    )
    return replace(made, **changes)


def row(made: Measured, given: Rules | None = None) -> dict[str, Any]:
    return graded(made, given or rules()).row(0, named=True)


def test_every_factor_is_a_column_and_severity_their_product() -> None:
    one = row(
        measured(
            "scratch",
            sizes={
                "area": np.array([1.0]),
                "length": np.array([100.0]),
                "width": np.array([1.0]),
                "feret": np.array([1.0]),
            },
            contrast=np.array([-0.25]),
            zone_factor=np.array([0.9]),
        )
    )
    assert one["weight_factor"] == 0.8
    assert one["size_factor"] == pytest.approx(0.5)  # sqrt(100 / 400)
    assert one["contrast_factor"] == pytest.approx(0.25)  # (0.25 / 0.5) ** 2, dark or bright
    assert one["zone_factor"] == 0.9
    assert one["severity"] == pytest.approx(100 * 0.8 * 0.5 * 0.25 * 0.9)
    assert (one["grade"], one["grade_reason"]) == ("ignore", "severity below 10")
    assert one["kill_prob"] == 0.5


def test_what_is_not_measured_and_has_no_reference_is_no_factor() -> None:
    nothing = np.array([np.nan])
    sizes = dict.fromkeys(("area", "length", "width", "feret"), nothing)
    one = row(measured("scratch", sizes=sizes, contrast=nothing, confidence=nothing))
    assert (one["size_factor"], one["contrast_factor"]) == (1.0, 1.0)
    assert one["severity"] == pytest.approx(80.0)
    assert row(measured("stain"))["size_factor"] == 1.0
    unheard = row(measured("unheard of"))
    assert (unheard["weight_factor"], unheard["severity"]) == (1.0, 100.0)
    assert unheard["kill_prob"] is None
    assert row(measured("scratch"), rules(contrast=None))["contrast_factor"] == 1.0


@given(st.floats(0, 1e9), st.floats(1e-3, 1e6), st.floats(0.1, 5), st.floats(0, 1e9))
def test_a_factor_lies_between_0_and_1_and_grows_with_its_value(
    value: float, reference: float, gamma: float, other: float
) -> None:
    low, high = sorted((value, other))
    made = factor(np.array([low, high]), reference=reference, gamma=gamma)
    assert 0 <= made[0] <= made[1] <= 1
    assert factor(np.array([reference]), reference=reference, gamma=gamma) == [1.0]


@pytest.mark.parametrize(
    ("zone_factor", "grade"),
    [(1.0, "critical"), (0.70001, "critical"), (0.69, "major"), (0.39, "minor"), (0.09, "ignore")],
)
def test_grades_begin_where_the_rules_say(zone_factor: float, grade: str) -> None:
    one = row(measured("stain", zone_factor=np.array([zone_factor])))
    assert one["grade"] == grade
    assert one["counts"] == (grade in GRADES)
    assert one["demerits"] == {"critical": 100, "major": 50, "minor": 10}.get(grade, 0)


def test_what_overrules_what() -> None:
    zone = {"zone_factor": np.array([0.0]), "zone_critical": np.array([True])}
    one = row(measured("stain", **zone))
    assert (one["severity"], one["grade"], one["grade_reason"]) == (
        0.0,
        "critical",
        "zone is critical",
    )
    small = {**zone, "diameter": np.array([1.99])}
    one = row(measured("stain", **small))
    assert (one["grade"], one["grade_reason"]) == ("ignore", "smaller than 2 um")
    unsure = {**small, "confidence": np.array([0.49])}
    one = row(measured("stain", **unsure))
    assert (one["grade"], one["grade_reason"]) == ("review", "confidence below 0.5")
    outside = {**unsure, "outside": np.array([True])}
    one = row(measured("stain", **outside))
    assert (one["grade"], one["grade_reason"]) == ("ignore", "outside the inspected area")
    assert not one["counts"]


def test_a_unit_fails_by_its_condition_and_says_why() -> None:
    factors = np.array([1.0, 0.5, 0.5, 0.5, 0.05, 0.5])
    table = graded(measured(*["stain"] * 6, zone_factor=factors), rules())
    assert table["grade"].to_list() == ["critical", *["major"] * 3, "ignore", "major"]
    made = verdicts(table, np.array([0, 1, 1, 1, 2, -1]), 4, rules())
    assert made.table["defects"].to_list() == [1, 3, 0, 0]
    assert made.table["demerits"].to_list() == [100, 150, 0, 0]
    assert made.table["passed"].to_list() == [False, False, True, True]
    assert made.reasons == (
        ("critical is 1, which is > 0",),
        ("demerits is 150, which is > 100",),
        (),
        (),
    )


@given(
    st.lists(
        st.tuples(
            st.integers(-1, 4), st.sampled_from(("scratch", "particle", "stain")), st.floats(0, 1)
        ),
        max_size=40,
    )
)
def test_verdicts_of_all_units_are_those_of_each(defects: list[tuple[int, str, float]]) -> None:
    unit = np.array([one[0] for one in defects], np.int64)
    factors = np.array([one[2] for one in defects], np.float64)
    table = graded(measured(*[one[1] for one in defects], zone_factor=factors), rules())
    made = verdicts(table, unit, 5, rules())
    for number in range(5):
        mine = table.filter(pl.Series(unit == number) & pl.Series(table["counts"]))
        want = {g: float((mine["grade"] == g).sum()) for g in GRADES}
        alive = float(np.prod([1 - k for k in mine["kill_prob"].fill_null(0.0)]))
        got = made.table.row(number, named=True)
        assert {g: got[g] for g in GRADES} == want
        assert got["defects"] == len(mine)
        assert got["demerits"] == pytest.approx(mine["demerits"].sum())
        assert got["kill_probability"] == pytest.approx(1 - alive)
        assert got["passed"] == (want["critical"] == 0 and mine["demerits"].sum() <= 100)
        assert got["passed"] == (not made.reasons[number])


def test_a_certain_kill_is_certain_and_many_unlikely_ones_are_not_lost() -> None:
    sure = rules(classes={"default": {"kill_prob": 1.0}})
    made = verdicts(graded(measured("a", "b"), sure), np.array([0, 0]), 1, sure)
    assert made.table["kill_probability"].to_list() == [1.0]
    seldom = rules(classes={"default": {"kill_prob": 1e-9}})
    names = ["a"] * 1000
    made = verdicts(graded(measured(*names), seldom), np.zeros(1000, np.int64), 1, seldom)
    assert made.table["kill_probability"][0] == pytest.approx(1e-6, rel=1e-5)


def test_no_defects_are_no_rows_and_every_unit_passes() -> None:
    table = graded(measured(), rules())
    assert len(table) == 0
    assert table.schema["grade"] == pl.String
    made = verdicts(table, np.zeros(0, np.int64), 3, rules())
    assert made.table["passed"].to_list() == [True] * 3
    assert made.table["kill_probability"].to_list() == [0.0] * 3
