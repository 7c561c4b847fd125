"""Result files as lots: values that parse and still cannot be are refused or told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from domainseg.errors import DomainsegError, InputError
from domainseg.quality.assess import assess
from domainseg.quality.klarf import InspectionTest, Klarf, Table, Wafer
from domainseg.quality.klarf_file import read_klarf_text
from domainseg.quality.klarf_of_lot import klarf_of
from domainseg.quality.klarf_write import klarf_text
from domainseg.quality.lot_klarf import Origin, lot_of_klarf
from domainseg.quality.rules import Rules
from domainseg.report import html
from domainseg.report.judged.compose import judged_document

PLAN = np.array([(x, y) for x in range(-2, 3) for y in range(-2, 3)])
RULES = Rules.model_validate(
    {
        "schema": 1,
        "units": "um",
        "classes": {"default": {"ref_um": 3.0}},
        "detection": {"edge_exclusion_um": 10.0, "repeaters": {"tolerance_um": 2.0}},
        "cluster": {"eps_um": 100.0, "min_samples": 2},
        "unit": {"fail_if": "critical > 1"},
        "accept": [
            {"id": "D", "metric": "density_per_cm2", "max": 5},
            {"id": "k", "metric": "density_killers_per_cm2", "max": 5},
            {"id": "y", "metric": "die_yield", "min": 0.5},
        ],
    }
)


def klarf(count: int = 12, *, summary: Any = None, **columns: Any) -> Klarf:
    rng = np.random.default_rng(3)
    table = {
        "DEFECTID": np.arange(11, 11 + count),
        "XREL": rng.uniform(0, 4000, count),
        "YREL": rng.uniform(0, 5000, count),
        "XINDEX": rng.integers(-2, 3, count),
        "YINDEX": rng.integers(-2, 3, count),
        "XSIZE": np.full(count, 2.0),
        "YSIZE": np.full(count, 2.0),
        "DEFECTAREA": np.full(count, 4.0),
        "DSIZE": np.full(count, 3.0),
        "CLASSNUMBER": np.ones(count, np.int64),
        "TEST": np.ones(count, np.int64),
        **columns,
    }
    wafer = Wafer(
        name="W",
        center_um=(2000.0, 2500.0),
        tests=(InspectionTest(1, 25 * 2e7, PLAN),),
        defects=Table({name: values for name, values in table.items() if values is not None}),
        summary=Table(summary or {}),
    )
    return Klarf(
        "1.2",
        lot="L",
        pitch_um=(4000.0, 5000.0),
        diameter_mm=50.0,
        mark="NOTCH",
        mark_degrees=0.0,
        classes={1: "a"},
        wafers=(wafer,),
    )


def judged(given: Klarf) -> Any:
    """Return the assessment; the page and the file that come of it are made too."""
    made = assess(lot_of_klarf(given, Origin("f.001", "")), RULES)
    html.render(judged_document(made, title="t", generator="g", footer="f"))
    for unit in made.lot.units:
        klarf_text(klarf_of(made, unit, version="1.2", software="0"), version="1.2")
    return made


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"XINDEX": np.full(12, 1e300)}, r"found XINDEX 1e\+300, wanted a whole number"),
        ({"XINDEX": np.full(12, 0.5)}, "found XINDEX 0.5, wanted a whole number"),
        ({"YINDEX": np.r_[0.0, np.full(11, 1e6)]}, "found YINDEX from 0 to 1e.06, wanted at most"),
        ({"CLASSNUMBER": np.full(12, 1e300)}, r"found CLASSNUMBER 1e\+300"),
        ({"CLASSNUMBER": np.full(12, 1.5)}, "found CLASSNUMBER 1.5"),
    ],
)
def test_numbers_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        judged(klarf(**changes))


@pytest.mark.parametrize(
    ("pitch", "area", "diameter", "plan"),
    [
        ((0.0, 5000.0), 1e8, 50.0, PLAN),
        ((4000.0, float("nan")), 1e8, 50.0, PLAN),
        ((4000.0, 5000.0), -5.0, 50.0, PLAN),
        ((4000.0, 5000.0), 1e8, -1.0, PLAN),
        ((4000.0, 5000.0), 1e8, 50.0, np.array([[0, 0], [10**9, 0]])),
    ],
)
def test_a_wafer_that_cannot_be_is_refused(
    pitch: tuple[float, float], area: float, diameter: float, plan: Any
) -> None:
    given = klarf()
    wafer = replace(given.wafers[0], tests=(InspectionTest(1, area, plan),))
    with pytest.raises(InputError, match="wanted"):
        judged(replace(given, pitch_um=pitch, diameter_mm=diameter, wafers=(wafer,)))


def test_what_is_not_known_is_said_and_taken_as_that() -> None:
    made = judged(klarf(XREL=np.full(12, np.nan), KILLPROB=np.full(12, 85.0)))
    assert sorted(made.lot.warnings) == [
        "L/W: 12 KILLPROB are no chance from 0 to 1: not known",
        "L/W: the place of 12 of 12 defects is not known",
    ]
    assert made.results[1].number.value is None
    assert judged(klarf(XREL=None)).defects["counts"].all()


def test_a_size_of_0_is_one_that_was_not_measured() -> None:
    made = judged(klarf(DEFECTAREA=np.zeros(12), DSIZE=np.zeros(12)))
    assert made.defects["counts"].all()
    assert (made.defects["size_factor"] == 1).all()
    flat = replace(klarf(), diameter_mm=0.0)
    assert judged(flat).defects["counts"].all()


def test_defects_on_dies_that_were_not_inspected_do_not_count() -> None:
    x = np.r_[np.full(5, 7), np.zeros(7, np.int64)]
    made = judged(klarf(XINDEX=x))
    assert made.defects["counts"].to_list() == [False] * 5 + [True] * 7
    assert made.lot.warnings == ("L/W: 5 defects lie on dies that were not inspected: ignored",)
    assert made.results[0].number.value == pytest.approx(7 / 5.0)


def test_fewer_dies_than_have_defects_are_not_believed() -> None:
    given = klarf(summary={"TESTNO": np.array([1]), "NDIE": np.array([3])})
    wafer = replace(given.wafers[0], tests=(InspectionTest(1, 25 * 2e7, None),))
    made = judged(replace(given, wafers=(wafer,)))
    assert made.results[2].outcome == "INDETERMINATE"


def test_numbers_of_defects_stay_and_what_is_not_known_is_not_written() -> None:
    made = judged(klarf())
    written = klarf_of(made, made.lot.units[0], version="1.2", software="0").wafers[0].defects
    assert written.columns["DEFECTID"].tolist() == list(range(11, 23))
    assert "KILLPROB" not in written.columns
    assert "CONTRAST" not in written.columns


def test_a_time_with_signs_in_it_is_read_as_it_was_written() -> None:
    given = replace(klarf(), timestamps={"ResultTimestamp": ("03-14;EndOfFile", "1")})
    for version in ("1.1", "1.2", "1.8"):
        text = klarf_text(given, version=version)
        assert read_klarf_text(text).timestamps == given.timestamps


STRANGE = (0.0, -1.0, 0.5, 1e300, -1e300, np.nan, 3.0, 5000.0, 1e9)
NAMES = ("XREL", "YREL", "XINDEX", "YINDEX", "XSIZE", "DEFECTAREA", "DSIZE", "CLASSNUMBER")


@pytest.mark.parametrize("count", [40, pytest.param(300, marks=pytest.mark.long)])
def test_strange_values_give_a_report_or_a_sentence(count: int) -> None:
    rng = np.random.default_rng(4)
    good = 0
    for _ in range(count):
        changes: dict[str, Any] = {}
        for name in rng.choice([*NAMES, "KILLPROB", "CONTRAST"], rng.integers(1, 4)):
            values = np.ones(12)
            values[rng.integers(0, 12, rng.integers(1, 12))] = rng.choice(STRANGE)
            changes[str(name)] = None if rng.random() < 0.1 else values
        try:
            judged(klarf(**changes))
            good += 1
        except DomainsegError:
            pass
    assert 0 < good < count
