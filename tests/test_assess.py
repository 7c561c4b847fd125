"""From defects and rules to a verdict: numbers against other libraries, and every way to fail."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import shapely
from scipy import stats
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.rates import confint_poisson

from domainseg.errors import InputError
from domainseg.quality.assess import Assessment, assess, counts_by_grade
from domainseg.quality.klarf_file import read_klarf, read_klarf_text
from domainseg.quality.lot import Dies, ImageCheck, Lot, Unit, defect_table
from domainseg.quality.lot_klarf import Origin, lot_of_klarf
from domainseg.quality.lot_numbers import weighted_interval
from domainseg.quality.rules import Rules, Zone
from domainseg.quality.zones import Area

DATA = Path(__file__).parents[2] / "shared" / "data" / "klarf"
PITCH = (1000.0, 2000.0)
CENTER = (500.0, 1000.0)


def rules(*accept: dict[str, Any], **changes: Any) -> Rules:
    return Rules.model_validate(
        {
            "schema": 1,
            "units": "um",
            "accept": list(accept) or [{"id": "all", "metric": "count", "max": 1e9}],
            **changes,
        }
    )


def rule(metric: str, **values: Any) -> dict[str, Any]:
    return {"id": metric, "metric": metric, **(values or {"max": 1e9})}


def wafer(name: str = "W1", **changes: Any) -> Unit:
    """Return a wafer of 5 x 3 dies."""
    index = np.array([(x, y) for x in range(-2, 3) for y in range(-1, 2)])
    unit = Unit(
        name=name,
        lot="L1",
        area_cm2=15 * 1000 * 2000 / 1e8,
        diameter_mm=10.0,
        dies=Dies(index, PITCH, CENTER, len(index)),
    )
    return replace(unit, **changes)


def lot(
    *defects: tuple[int, int], classes: str = "", unit: Unit | None = None, **columns: Any
) -> Lot:
    """Return one wafer with a defect in the middle of each of these dies."""
    one = wafer() if unit is None else unit
    x, y = (
        np.array(values, np.int64)
        for values in (zip(*defects, strict=True) if defects else ((), ()))
    )
    names = list(classes) or ["a"] * len(defects)
    table = defect_table(
        {
            "unit": [one.name] * len(defects),
            "id": [str(i) for i in range(len(defects))],
            "class": names,
            "die_x": x,
            "die_y": y,
            "die_xrel_um": np.full(len(x), 500.0),
            "die_yrel_um": np.full(len(x), 1000.0),
            "x_um": x * PITCH[0],
            "y_um": y * PITCH[1],
            **columns,
        },
        len(defects),
    )
    return Lot((one,), table, tuple(dict.fromkeys(names)))


def number(made: Assessment, metric: str) -> Any:
    (found,) = [one.number for one in made.results if one.rule.metric == metric]
    return found


def test_the_density_of_a_real_wafer_is_the_one_its_file_states() -> None:
    if not DATA.is_dir():
        pytest.skip(f"no real data at {DATA}")
    klarf = read_klarf(DATA / "CPS3TwithoutReview.001")
    made = assess(
        lot_of_klarf(klarf, Origin("a", "")),
        rules(rule("density_per_cm2"), rule("die_yield", min=0), unit={"fail_if": "defects > 0"}),
    )
    density = number(made, "density_per_cm2")
    assert density.value == pytest.approx(
        klarf.wafers[0].summary.columns["DEFDENSITY"][0], abs=5e-7
    )
    assert (round(density.value, 4), round(density.interval.low, 4)) == (0.0687, 0.0393)
    assert round(density.interval.high, 4) == 0.1115
    assert made.units["dies_with_defects"].to_list() == [15]
    assert made.units["dies"].to_list() == [4988]
    assert number(made, "die_yield").value == pytest.approx(1 - 15 / 4988)
    far = np.hypot(made.defects["x_um"], made.defects["y_um"])
    assert far.max() < 91_600


@pytest.mark.parametrize("count", [0, 1, 7])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
def test_intervals_are_those_of_statsmodels(count: int, confidence: float) -> None:
    given = lot(*[(k % 5 - 2, 0) for k in range(count)])
    made = assess(
        given,
        rules(
            rule("density_per_cm2", max=1, confidence=confidence),
            rule("density_per_mm2", max=1, confidence=confidence),
            rule("count", max=1, confidence=confidence),
            rule("die_yield", min=0, confidence=confidence),
        ),
    )
    area = 0.3
    low, high = confint_poisson(count, area, method="exact-c", alpha=1 - confidence)
    density = number(made, "density_per_cm2")
    assert density.value == pytest.approx(count / area, rel=1e-9)
    assert density.interval.low == pytest.approx(0 if count == 0 else low, rel=1e-9)
    assert density.interval.high == pytest.approx(high, rel=1e-9)
    assert number(made, "density_per_mm2").interval.high == pytest.approx(high / 100, rel=1e-9)
    assert number(made, "count").interval.high == pytest.approx(high * area, rel=1e-9)
    good = 15 - min(count, 5)
    low, high = proportion_confint(good, 15, alpha=1 - confidence, method="wilson")
    assert number(made, "die_yield").interval.low == pytest.approx(low, rel=1e-9)
    assert number(made, "die_yield").interval.high == pytest.approx(high, rel=1e-9)


def test_killers_are_weighed_and_their_interval_holds_all_weights_equal_exactly() -> None:
    classes = {"a": {"kill_prob": 0.5}, "b": {"kill_prob": 0.5}}
    made = assess(
        lot((0, 0), (1, 0), (1, 1), classes="aab"),
        rules(rule("density_killers_per_cm2"), classes=classes),
    )
    killers = number(made, "density_killers_per_cm2")
    assert killers.value == pytest.approx(1.5 / 0.3)
    low, high = confint_poisson(3, 0.3, method="exact-c", alpha=0.05)
    assert killers.interval.low == pytest.approx(0.5 * low, rel=1e-9)
    assert killers.interval.high == pytest.approx(0.5 * high, rel=1e-9)
    none = assess(lot(), rules(rule("density_killers_per_cm2"), classes=classes))
    high = 0.5 * stats.chi2.ppf(0.975, 2) / 2 / 0.3
    assert number(none, "density_killers_per_cm2").interval.high == pytest.approx(high, rel=1e-9)


def test_the_interval_of_weights_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    weights, rates = np.array([0.1, 0.4, 1.0]), np.array([4.0, 2.0, 1.0])
    true = float(weights @ rates)
    covered = 0
    for _ in range(1000):
        events = np.repeat(weights, rng.poisson(rates))
        found = weighted_interval(events, 1.0, confidence=0.9)
        covered += found.low <= true <= found.high
    assert covered >= 890


def test_the_chance_of_a_kill_of_the_file_holds_where_the_rules_have_none() -> None:
    given = lot((0, 0), (1, 0), classes="ab", kill_prob=[0.25, 0.25])
    made = assess(given, rules(classes={"a": {"kill_prob": 1.0}, "default": {}}))
    assert made.defects["kill_prob"].to_list() == [1.0, 0.25]
    unknown = assess(lot((0, 0)), rules(rule("density_killers_per_cm2")))
    assert unknown.results[0].why == "the kill probability of 1 defects is not known"
    assert unknown.outcome == "INDETERMINATE"


def test_dies_fail_by_the_condition_and_units_without_dies_themselves() -> None:
    classes = {"bad": {}, "fair": {"weight": 0.5}, "slight": {"weight": 0.05}}
    names = ["bad", "fair", "fair", "fair", "slight"]
    given = lot((0, 0), (1, 0), (1, 0), (1, 0), (2, 1), unit=wafer())
    table = given.defects.with_columns(pl.Series("class", names))
    made = assess(
        replace(given, defects=table),
        rules(
            rule("die_yield", min=0),
            classes=classes,
            unit={"fail_if": "critical > 0 or demerits > 100"},
        ),
    )
    failed = made.dies.filter(~pl.col("passed")).select("die_x", "die_y", "reasons").rows()
    assert failed == [
        (0, 0, "critical is 1, which is > 0"),
        (1, 0, "demerits is 150, which is > 100"),
    ]
    assert len(made.dies) == 15
    assert made.units.row(0, named=True)["dies_failed"] == 2
    assert number(made, "die_yield").value == pytest.approx(13 / 15)
    assert counts_by_grade(made.defects) == {
        "critical": 1,
        "major": 3,
        "minor": 0,
        "review": 0,
        "ignore": 1,
    }
    flat = lot((0, 0), unit=Unit("image", area_cm2=1.0))
    plain = assess(flat, rules(rule("unit_yield", min=0.5), rule("die_yield", min=0)))
    assert plain.units["passed"].to_list() == [False]
    assert plain.units["dies"].to_list() == [None]
    assert [one.outcome for one in plain.results] == ["FAIL", "INDETERMINATE"]
    assert plain.results[1].why == "no unit has dies"


@pytest.mark.parametrize(
    ("accept", "outcome"),
    [
        (rule("count", max=2), "PASS"),
        (rule("count", max=1), "FAIL"),
        (rule("count", min=2), "PASS"),
        (rule("count", min=2.5), "FAIL"),
        (rule("count", max=7.2, use="ci_upper"), "FAIL"),
        (rule("count", max=7.3, use="ci_upper"), "PASS"),
        (rule("count", min=0.2, use="ci_lower"), "PASS"),
        (rule("count", min=0.3, use="ci_lower"), "FAIL"),
        (rule("count_critical", max=1), "FAIL"),
        (rule("count_major", max=0), "PASS"),
        ({"id": "x", "metric": "count", "class": "a", "max": 1}, "PASS"),
        ({"id": "x", "metric": "count", "class": "default", "min": 1}, "FAIL"),
        (rule("demerits", max=200), "PASS"),
        (rule("demerits", max=199), "FAIL"),
        (rule("demerits", max=200, use="ci_upper"), "INDETERMINATE"),
        (rule("positive_fraction", max=1), "INDETERMINATE"),
        (rule("unit_yield", min=0.5), "INDETERMINATE"),
    ],
)
def test_a_rule_is_held_against_what_it_names(accept: dict[str, Any], outcome: str) -> None:
    made = assess(lot((0, 0), (1, 1), classes="ab"), rules(accept))
    assert made.results[0].outcome == outcome
    assert made.outcome == outcome


def test_a_share_of_positive_cells() -> None:
    classes = {"p": {"positive": True}, "n": {"positive": False}, "default": {}}
    made = assess(
        lot((0, 0), (0, 1), (1, 1), (2, 1), classes="ppnx"),
        rules(rule("positive_fraction", max=1), classes=classes),
    )
    assert number(made, "positive_fraction").value == pytest.approx(2 / 3)


def test_defects_at_the_edge_and_in_zones_that_are_ignored_leave_with_their_area() -> None:
    wide = rules(rule("density_per_cm2"), detection={"edge_exclusion_um": 2600.0})
    given = lot((0, 0), (2, 1), (2, 0))  # 0, 2828 and 2000 um from the centre
    made = assess(given, wide)
    assert made.defects["grade"].to_list() == ["critical", "ignore", "critical"]
    assert made.defects["grade_reason"][1] == "outside the inspected area"
    # Cells are counted: the disc of 2400 um, cut by the dies' 5000 x 6000 um.
    disc = shapely.Point(0, 0).buffer(2400, 256).intersection(shapely.box(-2500, -3000, 2500, 3000))
    assert made.lot.units[0].area_cm2 == pytest.approx(disc.area / 1e8, rel=5e-3)
    half = Area(
        Zone(name="half", file="x", frame="die", ignore=True), shapely.box(0, 0, 499, 2000), ""
    )
    made = assess(given, rules(), [half])
    assert made.defects["grade"].to_list() == ["critical"] * 3
    assert made.lot.units[0].area_cm2 == pytest.approx(0.15)
    left = Area(
        Zone(name="left", file="x", frame="unit", ignore=True),
        shapely.box(-9e3, -9e3, 500, 9e3),
        "",
    )
    made = assess(given, rules(), [left])
    assert made.defects["zone"].to_list() == ["left", "", ""]
    assert made.defects["counts"].to_list() == [False, True, True]
    assert made.lot.units[0].area_cm2 == pytest.approx(0.12)


def test_zones_give_their_factor_and_the_first_holds() -> None:
    pad = Area(
        Zone(name="pad", file="x", frame="die", critical=True, factor=0.1),
        shapely.box(400, 900, 600, 1100),
        "",
    )
    rest = Area(Zone(name="rest", factor=0.5), None, "")
    given = lot((0, 0), (1, 0), die_xrel_um=np.array([500.0, 10.0]))
    made = assess(given, rules(), [pad, rest])
    assert made.defects["zone"].to_list() == ["pad", "rest"]
    assert made.defects["zone_factor"].to_list() == [0.1, 0.5]
    assert made.defects["grade"].to_list() == ["critical", "major"]


def test_clusters_are_of_one_unit_and_of_what_counts() -> None:
    x = np.array([0.0, 10, 20, 5, 3000])
    given = lot(*[(0, 0)] * 5, x_um=x, y_um=np.zeros(5), confidence=[1.0, 1, 1, 0.1, 1])
    made = assess(
        given, rules(cluster={"eps_um": 15, "min_samples": 2}, detection={"conf_min": 0.5})
    )
    assert made.defects["cluster"].to_list() == [1, 1, 1, 0, 0]
    assert made.defects["grade"].to_list()[3] == "review"


UNLIKE = "images unlike those of the training"


@pytest.mark.parametrize(
    ("require", "unit", "missing"),
    [
        ({"min_units": 2}, wafer(), "units"),
        ({"min_area_cm2": 0.31}, wafer(), "least inspected area"),
        ({}, wafer(area_cm2=0.0), "inspected area"),
        ({}, wafer(area_cm2=None), "inspected area"),
        ({}, wafer(failed=("a.png",)), "images that could not be read"),
        ({"qc": {"focus_min": 0.2}}, wafer(check=ImageCheck(focus=0.1)), "focus of W1"),
        ({"qc": {"focus_min": 0.2}}, wafer(), "focus of W1"),
        ({"qc": {"saturated_max": 0.1}}, wafer(check=ImageCheck(saturated=0.2)), "saturated of W1"),
        ({"qc": {"coverage_min": 0.9}}, wafer(check=ImageCheck(coverage=0.5)), "coverage of W1"),
        ({"max_unlike_share": 0}, wafer(check=ImageCheck(unlike=1)), UNLIKE),
        ({"max_unlike_share": 0}, wafer(check=ImageCheck()), UNLIKE),
        ({"max_unlike_share": 0.5}, wafer(), UNLIKE),
        ({"max_unlike_share": 0.05}, wafer(check=ImageCheck(images=19, like=18)), UNLIKE),
    ],
)
def test_without_evidence_there_is_no_verdict(
    require: dict[str, Any], unit: Unit, missing: str
) -> None:
    made = assess(lot(unit=unit), rules(require=require))
    assert [one.name for one in made.requirements if not one.met] == [missing]
    assert made.outcome == "INDETERMINATE"


@pytest.mark.parametrize(
    ("check", "found"),
    [
        (ImageCheck(images=3, like=1, unlike=1), "1 unlike and 1 not known of 3 (W1)"),
        (ImageCheck(images=3, like=2, unlike=1), "1 unlike of 3 (W1)"),
        (ImageCheck(images=3, like=1), "2 not known of 3 (W1)"),
        (ImageCheck(images=3, like=3), "none of 3"),
        (None, "1 not known of 1 (W1)"),
    ],
)
def test_images_unlike_the_training_are_counted(check: ImageCheck | None, found: str) -> None:
    made = assess(lot(unit=wafer(check=check)), rules(require={"max_unlike_share": 0.1}))
    assert [one.found for one in made.requirements if one.name == UNLIKE] == [found]


def test_evidence_that_is_there_is_no_hindrance() -> None:
    check = ImageCheck(focus=0.5, saturated=0.0, coverage=1.0, images=20, like=19, unlike=1)
    good = wafer(check=check, failed=("a.png",))
    require = {
        "min_area_cm2": 0.3,
        "max_failed": 1,
        "qc": {"focus_min": 0.2, "saturated_max": 0.02, "coverage_min": 0.5},
        "max_unlike_share": 0.05,
    }
    made = assess(lot(unit=good), rules(require=require))
    assert all(one.met for one in made.requirements)
    assert made.outcome == "PASS"


def test_no_inspected_area_is_never_a_density_of_zero() -> None:
    made = assess(lot(unit=wafer(area_cm2=0.0)), rules(rule("density_per_cm2")))
    assert made.results[0].number.value is None
    assert made.results[0].why == "nothing was inspected"


def test_rules_in_pixels_judge_areas_in_pixels() -> None:
    given = lot((0, 0), (1, 0), area_px=[100.0, 1.0], unit=Unit("image", area_mpx=1.0))
    made = assess(
        given,
        Rules.model_validate(
            {
                "schema": 1,
                "units": "px",
                "detection": {"min_size_px": 3},
                "classes": {"default": {"ref_px": 20}},
                "accept": [rule("count", max=1), rule("density_per_cm2")],
            }
        ),
    )
    assert made.defects["size_factor"].to_list() == [0.5, 0.05]
    assert made.defects["grade"].to_list() == ["major", "ignore"]
    assert [one.outcome for one in made.results] == ["PASS", "INDETERMINATE"]
    assert made.results[1].why == "the pixel size of an image is not known"


KLARF = """FileVersion 1 2;
FileTimestamp 01-01-2026 00:00:00;
LotID "L";
SampleSize 1 200;
{pitch}
WaferID "W";
{center}
{plan}
DefectRecordSpec 6 DEFECTID XREL YREL XINDEX YINDEX CLASSNUMBER ;
DefectList
 1 10 20 0 0 7
 2 10 20 1 0 7;
{summary}
EndOfFile;
"""
PARTS = {
    "pitch": "DiePitch 1e3 2e3;",
    "center": "SampleCenterLocation 5e2 1e3;",
    "plan": "InspectionTest 1;\nSampleTestPlan 3\n 0 0\n 1 0\n 2 0;\nAreaPerTest 6e6;",
    "summary": "",
}


def klarf_lot(**changes: str) -> Lot:
    text = KLARF.format(**{**PARTS, **changes})
    return lot_of_klarf(
        read_klarf_text(text.encode(), Path("a.klarf")), Origin("a.klarf", "0" * 64)
    )


def test_a_klarf_that_says_little_says_what_it_lacks() -> None:
    full = klarf_lot()
    assert full.warnings == ()
    assert full.defects["class"].to_list() == ["class 7"] * 2
    assert full.defects["x_um"].to_list() == [-490.0, 510.0]
    accept = (rule("density_per_cm2"), rule("die_yield", min=0))
    no_plan = klarf_lot(plan="InspectionTest 1;\nAreaPerTest 6e6;")
    assert no_plan.warnings == ("L/W: the file does not list the inspected dies",)
    made = assess(no_plan, rules(*accept, unit={"fail_if": "defects > 0"}))
    assert made.results[1].why == "how many dies were inspected is not known"
    summary = "SummarySpec 2 TESTNO NDIE ;\nSummaryList\n 1 40;"
    counted = klarf_lot(plan="InspectionTest 1;\nAreaPerTest 6e6;", summary=summary)
    made = assess(counted, rules(*accept, unit={"fail_if": "defects > 0"}))
    assert made.results[1].number.value == pytest.approx(38 / 40)
    no_area = klarf_lot(plan="InspectionTest 1;\nSampleTestPlan 2\n 0 0\n 1 0;")
    assert no_area.units[0].area_cm2 == pytest.approx(2 * 2e6 / 1e8)
    assert "does not give the inspected area" in no_area.warnings[0]
    neither = klarf_lot(plan="")
    assert neither.units[0].area_cm2 is None


def test_tests_of_the_same_dies_count_their_area_once() -> None:
    again = PARTS["plan"] + "\n" + PARTS["plan"].replace("InspectionTest 1", "InspectionTest 2")
    assert klarf_lot(plan=again).units[0].area_cm2 == pytest.approx(6e6 / 1e8)
    other = PARTS["plan"] + "\nInspectionTest 2;\nSampleTestPlan 2\n 2 0\n 3 0;\nAreaPerTest 4e6;"
    made = klarf_lot(plan=other)
    assert made.units[0].area_cm2 == pytest.approx(8e6 / 1e8)
    assert made.units[0].dies is not None
    assert len(made.units[0].dies) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pitch": ""}, "a.klarf, wafer W: found no DiePitch, wanted both"),
        ({"center": ""}, "a.klarf, wafer W: found no SampleCenterLocation, wanted both"),
    ],
)
def test_a_klarf_without_places_is_refused(change: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        klarf_lot(**change)


def repeated(**repeaters: Any) -> Assessment:
    """Return ten defects at one place of their dies, and one elsewhere, judged."""
    dies = [(x, y) for x in range(-2, 3) for y in (-1, 0)] + [(0, 1)]
    place = np.r_[np.full(10, 500.0), 20.0]
    law = rules(detection={"repeaters": {"tolerance_um": 4.0, **repeaters}})
    return assess(lot(*dies, die_xrel_um=place), law)


def test_repeaters_are_marked_and_count_unless_the_rules_say_otherwise() -> None:
    made = repeated()
    assert made.defects["repeater"].to_list() == [True] * 10 + [False]
    assert made.defects["die_repeats"].to_list() == [10] * 10 + [1]
    assert made.defects["counts"].all()
    made = repeated(count=False)
    assert made.defects["grade"].to_list()[:10] == ["review"] * 10
    assert set(made.defects["grade_reason"].head(10)) == {"at the same place of 10 dies"}
    assert made.defects["counts"].sum() == 1
    assert made.dies["defects"].sum() == 1
    assert not repeated(min_dies=11).defects["repeater"].any()


@pytest.mark.parametrize("count", [True, False])
def test_repeaters_may_be_gated_on_whether_they_count_or_not(count: bool) -> None:
    law = rules(
        rule("count_repeaters", max=9),
        detection={"repeaters": {"tolerance_um": 4.0, "count": count}},
    )
    dies = [(x, y) for x in range(-2, 3) for y in (-1, 0)]
    (result,) = assess(lot(*dies), law).results
    assert (result.number.value, result.outcome) == (10, "FAIL")
    (result,) = assess(lot(*dies), rules(rule("count_repeaters"))).results
    assert result.outcome == "INDETERMINATE"


def test_without_a_rule_nothing_repeats() -> None:
    made = assess(lot((0, 0), (1, 0), (2, 0), (-1, 0)), rules())
    assert not made.defects["repeater"].any()
    assert made.defects["die_repeats"].to_list() == [0] * 4


def test_two_defects_of_one_number_are_refused() -> None:
    with pytest.raises(InputError, match=r"found 2 defects that share their number .* such as 7"):
        assess(lot((0, 0), (1, 0), (2, 0), id=["7", "8", "7"]), rules())


def test_a_class_that_no_rule_speaks_of_is_refused() -> None:
    only = rules(classes={"a": {"weight": 1.0}})
    assess(lot((0, 0), classes="a"), only)
    with pytest.raises(InputError, match="class b: found no rule for it, and no default"):
        assess(lot((0, 0), (1, 0), classes="ab"), only)


@pytest.mark.parametrize(
    ("frame", "box", "message"),
    [
        ("die", (0, 0, 1000, 2000), None),
        ("die", (-5000, 0, 10, 10), "wanted places in a die of 1000 x 2000 um"),
        ("die", (0, 0, 1000, 2500), "wanted places in a die of 1000 x 2000 um"),
        ("unit", (-9000, -9000, 9000, 0), None),
        ("unit", (6000, 6000, 7000, 7000), "wanted places within 5000 um of the wafer's centre"),
        ("image", (-9, -9, -1, -1), "wanted pixels, y down"),
    ],
)
def test_a_zone_in_the_wrong_frame_is_refused(
    frame: Any, box: tuple[float, ...], message: str | None
) -> None:
    area = Area(Zone(name="z", file="z.geojson", frame=frame), shapely.box(*box), "")
    if message is None:
        assess(lot((0, 0)), rules(), [area])
        return
    with pytest.raises(InputError, match=message):
        assess(lot((0, 0)), rules(), [area])


def test_a_size_below_0_is_not_known_and_said() -> None:
    made = assess(lot((0, 0), (1, 0), area_um2=[-3.0, 4.0], feret_um=[2.0, 2.0]), rules())
    assert made.defects["area_um2"].to_list() == [None, 4.0]
    assert made.lot.warnings == (
        "1 defect has a size below 0, which cannot be: taken as not known",
    )


def test_a_rule_on_a_class_that_is_nowhere_is_refused() -> None:
    misspelt = {"id": "x", "metric": "count", "class": "Partcle", "max": 0}
    with pytest.raises(InputError, match="rule x: found the class Partcle"):
        assess(lot((0, 0)), rules(misspelt))
    with pytest.raises(ValueError, match="class is set, which die_yield is not counted by"):
        rules({"id": "x", "metric": "die_yield", "class": "a", "min": 0})


@pytest.mark.parametrize(
    ("units", "area_cm2", "message"),
    [("um", None, "found no pixel size, wanted one"), ("px", 1.0, "a pixel size, and rules in px")],
)
def test_rules_in_a_unit_that_the_image_lacks_are_refused(
    units: str, area_cm2: float | None, message: str
) -> None:
    image = Unit("image", area_cm2=area_cm2, area_mpx=3.0)
    with pytest.raises(InputError, match=message):
        assess(lot((0, 0), unit=image), rules(units=units))


def test_a_die_whose_chance_of_a_kill_is_not_known_does_not_pass_by_it() -> None:
    law = rules(unit={"fail_if": "kill_probability > 0.5"})
    made = assess(lot((0, 0), (1, 0), kill_prob=[0.1, None]), law)
    failed = made.dies.filter(~pl.col("passed"))
    assert failed.select("die_x", "die_y").rows() == [(1, 0)]
    assert failed["reasons"].to_list() == ["the kill probability of 1 of its defects is not known"]


def test_units_that_nobody_looked_at_are_no_part_of_the_yield() -> None:
    bad, empty = Unit("bad", area_cm2=1.0), Unit("empty", area_cm2=0.0, failed=("a.png",))
    given = lot((0, 0), unit=bad)
    given = replace(given, units=(bad, empty))
    made = assess(given, rules(rule("unit_yield", min=0.5), require={"max_failed": 1}))
    assert made.units["passed"].to_list() == [False, None]
    assert made.results[0].number.value == 0.0
    assert made.outcome == "FAIL"


def test_a_wafer_is_judged_by_its_dies() -> None:
    made = assess(lot((0, 0), (1, 0), (2, 0)), rules(unit={"fail_if": "defects > 2"}))
    assert made.dies["passed"].all()
    assert made.units["passed"].to_list() == [None]
    assert made.units["reasons"].to_list() == ["judged by its dies"]


@pytest.mark.parametrize("frame", ["image", "unit"])
def test_what_a_zone_leaves_out_of_an_image_is_not_inspected(frame: Any) -> None:
    image = Unit(
        "image", area_cm2=4.0, area_mpx=1.0, extent_px=(1000.0, 1000.0), extent_um=(2e4, 2e4)
    )
    side = 1000 if frame == "image" else 2e4
    half = Area(
        Zone(name="z", file="z", frame=frame, ignore=True), shapely.box(0, 0, side / 2, side), ""
    )
    places: Any = {"x_px": [100.0, 900.0], "y_px": [5.0, 5.0]}
    places |= {"x_um": [2e3, 1.8e4], "y_um": [5.0, 5.0]}
    made = assess(lot((0, 0), (1, 0), unit=image, **places), rules(), [half])
    assert made.lot.units[0].area_cm2 == pytest.approx(2.0)
    assert made.defects["counts"].to_list() == [False, True]
    # The first zone that holds is not left out, whatever lies behind it.
    first = Area(Zone(name="first", file="z", frame=frame), half.shape, "")
    made = assess(lot((0, 0), (1, 0), unit=image, **places), rules(), [first, half])
    assert made.lot.units[0].area_cm2 == pytest.approx(4.0)
    assert made.defects["counts"].all()
    several = replace(image, extent_px=None, extent_um=None)
    with pytest.raises(InputError, match="cannot be known"):
        assess(lot((0, 0), unit=several), rules(), [half])


def test_defects_without_a_place_repeat_nowhere() -> None:
    dies = [(x, 0) for x in range(-2, 3)]
    law = rules(detection={"repeaters": {"tolerance_um": 4.0, "count": False}})
    made = assess(lot(*dies, die_xrel_um=np.full(5, np.nan)), law)
    assert not made.defects["repeater"].any()
    assert made.defects["counts"].all()
