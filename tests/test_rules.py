"""The rules file: read whole, and refused with the line of what does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from domainseg.errors import RecipeError
from domainseg.rules_file import find_rules, load_rules

FULL = """schema: 1
units: um
title: Lot acceptance
detection: {conf_min: 0.5, min_size_um: 1.0, edge_exclusion_um: 3000}
classes:
  scratch: {weight: 0.8, measure: length, ref_um: 500, gamma: 0.5, kill_prob: 0.4}
  default: {weight: 0.5, measure: area, ref_um: 50}
contrast: {ref: 0.5, gamma: 0.5}
zones:
  - {name: pad, file: zones.geojson, frame: die, critical: true, touch: any}
  - {name: rim, file: rim.geojson, frame: unit, ignore: true, touch: area>=0.5}
  - {name: elsewhere, factor: 0.6}
grades:
  critical: {severity: 70, weight: 100}
  major: {severity: 40, weight: 50}
  minor: {severity: 10, weight: 10}
cluster: {eps_um: 200, min_samples: 5}
unit: {fail_if: "critical > 0 or demerits > 100"}
accept:
  - {id: D0, metric: density_killers_per_cm2, max: 0.10, use: ci_upper, confidence: 0.95}
  - {id: crit, metric: count_critical, max: 0, class: scratch}
  - {id: yield, metric: die_yield, min: 0.95, use: ci_lower}
require: {min_area_cm2: 1.0, min_units: 1, qc: {focus_min: 0.2, saturated_max: 0.02}}
"""


def written(text: str, folder: Path) -> Path:
    path = folder / "rules.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_whole_file_says_what_it_says(tmp_path: Path) -> None:
    rules = load_rules(written(FULL, tmp_path))
    assert rules.min_size == 1.0
    scratch = rules.of_class("scratch")
    assert scratch is not None
    assert (scratch.weight, scratch.measure, rules.reference(scratch)) == (0.8, "length", 500)
    assert rules.of_class("unheard of") == rules.classes["default"]
    assert [zone.share for zone in rules.zones] == [0.0, 0.5, None]
    assert [one.limit for one in rules.accept] == [0.1, 0, 0.95]
    assert rules.accept[1].class_name == "scratch"
    assert rules.unit.condition.holds({"critical": 0, "demerits": 101})
    assert rules.grades.of("major").weight == 50


def test_the_least_file_has_defaults(tmp_path: Path) -> None:
    text = "schema: 1\nunits: px\naccept: [{id: all, metric: count, max: 3}]\n"
    rules = load_rules(written(text, tmp_path))
    assert rules.min_size == 0
    default = rules.of_class("anything")
    assert default is not None
    assert (default.weight, rules.reference(default)) == (1.0, None)
    assert rules.unit.condition.holds({"critical": 1})
    assert rules.contrast is None
    assert rules.cluster is None


def test_a_class_without_rule_and_default_has_none(tmp_path: Path) -> None:
    text = FULL.replace("  default: {weight: 0.5, measure: area, ref_um: 50}\n", "")
    assert load_rules(written(text, tmp_path)).of_class("particle") is None


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("gamma: 0.5, kill", "gamm: 0.5, kill", 6, "classes.scratch.gamm is not an option"),
        ("weight: 0.8", "weight: 1.5", 6, "classes.scratch.weight is 1.5, wanted 1 or less"),
        ("touch: any", "touch: some", 10, "zones.0.touch is 'some', wanted centroid, any, or"),
        ("touch: area>=0.5", "touch: area>=7", 11, "zones.1.touch is 'area>=7', wanted centroid"),
        ("name: elsewhere", "nam: elsewhere", 12, "zones.2.nam is not an option; did you mean"),
        ("factor: 0.6", "ignore: true", 12, "zones.2.ignore is true of a zone without a file"),
        ("name: rim", "name: pad", 9, "zones holds 2 called 'pad', wanted one"),
        ("file: rim.geojson, ", "", 11, "zones.1.ignore is true of a zone without a file"),
        ("severity: 70", "severity: 30", 14, "grades.critical begins at a lower severity than m"),
        ("eps_um: 200", "eps_um: 0", 17, "cluster.eps_um is 0, wanted a number above 0"),
        ("critical > 0 or", "critcal > 0 or", 18, "unit.fail_if: found critcal, wanted one of cr"),
        ("demerits > 100", "demerits >", 18, "unit.fail_if: found the end, wanted a number"),
        ("metric: die_yield", "metric: yield", 22, "accept.2.metric is 'yield', wanted 'density"),
        ("min: 0.95", "min: 0.95, max: 1", 22, "accept.2: found both max and min, wanted one li"),
        ("max: 0.10, ", "", 20, "accept.0: found neither max nor min, wanted one limit"),
        ("id: crit", "id: D0", 19, "accept holds 2 rules called 'D0', wanted one"),
        ("confidence: 0.95", "confidence: 1", 20, "accept.0.confidence is 1, wanted a number be"),
        ("max: 0.10", "max: .nan", 20, "accept.0.max is nan, wanted a finite number"),
        ("focus_min", "focusmin", 23, "require.qc.focusmin is not an option; did you mean 'focu"),
        ("units: um", "units: mm", 2, "units is 'mm', wanted 'um' or 'px'"),
        ("units: um\n", "", None, "units is missing; add it"),
        ("schema: 1", "schema: 2", 1, "schema is 2, wanted 1"),
        ("schema: 1\n", "schema: 1\nschema: 1\n", 2, "schema is set in line 1 too"),
        ("units: um", "units: px", 4, "detection.min_size_um is set where units is px"),
        ("min_size_um: 1.0", "min_size_px: 1.0", 4, "detection.min_size_px is set where units is"),
        ("ref_um: 500", "ref_px: 500", 6, "classes.scratch.ref_px is set where units is um"),
    ],
)
def test_what_does_not_fit_is_named_with_its_line(
    old: str, new: str, line: int | None, message: str, tmp_path: Path
) -> None:
    assert old in FULL
    path = written(FULL.replace(old, new, 1), tmp_path)
    with pytest.raises(RecipeError) as error:
        load_rules(path)
    where = str(path) if line is None else f"{path}:{line}"
    assert str(error.value).startswith(f"{where}: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found no sections, wanted schema, units, accept"),
        ("- 1\n", "found no sections, wanted schema, units, accept"),
        ("schema: [1\n", "this is not YAML"),
        ("schema: 1\nunits: um\naccept: []\n", "accept is [], wanted a list of at least 1"),
        ("schema: 1\nunits: um\n", "accept is missing; add it"),
        (
            "schema: 1\nunits: px\ncluster: {eps_um: 3}\n"
            "accept: [{id: a, metric: count, max: 1}]\n",
            "cluster is set where units is px",
        ),
        (
            "schema: 1\nunits: px\nzones: [{name: a, file: a, frame: die}]\n"
            "accept: [{id: a, metric: count, max: 1}]\n",
            "zones holds 'a', whose frame is in um, not px",
        ),
    ],
)
def test_half_a_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as error:
        load_rules(written(text, tmp_path))
    assert message in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="found no such file, wanted a rules file"):
        load_rules(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", ["wafer", "surface", "cells"])
def test_rules_that_ship_are_found_by_name(name: str, tmp_path: Path) -> None:
    assert load_rules(name).accept
    assert find_rules(f"{name}.yaml") == find_rules(name)
    with pytest.raises(RecipeError, match=f"did you mean '{name}'"):
        load_rules(f"{name[:-1]}")
    # A file of that name is itself.
    own = tmp_path / name
    own.write_text("schema: 1\nunits: px\naccept: [{id: mine, metric: count, max: 3}]\n")
    assert load_rules(own).accept[0].id == "mine"
