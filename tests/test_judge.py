"""Reports that judge, end to end: files in, a verdict, its page and tables out."""

from __future__ import annotations

import csv
import json
import math
import os
import re
from importlib import resources
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import jsonschema
import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domainseg.cli.app import run
from domainseg.errors import DomainsegError, InputError, UsageError
from domainseg.judge import DEFAULT_FORMATS, judge
from domainseg.quality.klarf import InspectionTest, Klarf, Table, Wafer
from domainseg.quality.klarf_file import read_klarf
from domainseg.quality.klarf_write import write_klarf
from domainseg.report import json as json_renderer
from domainseg.report import text as text_renderer
from domainseg.report.judged.compose import judged_document
from domainseg.report.judged.places import spots

Said = pytest.CaptureFixture[str]
GOLDEN = Path(__file__).parent / "golden"
RULES = """schema: 1
units: um
classes:
  scratch: {weight: 0.9, kill_prob: 0.5}
  default: {weight: 0.5, ref_um: 4, kill_prob: 0.1}
cluster: {eps_um: 500, min_samples: 3}
unit: {fail_if: "critical > 4 or demerits > 900"}
accept:
  - {id: density, metric: density_per_cm2, max: %s, use: ci_upper}
  - {id: killers, metric: density_killers_per_cm2, max: 100}
  - {id: yield, metric: die_yield, min: 0.1, use: ci_lower}
"""
HOSTILE = "<script>alert('1')</script>\"&\u202e=cmd|x"


def wafer_file(folder: Path, name: str = "w.001", **changes: Any) -> Path:
    """Write a KLARF of 200 defects on 5 x 5 dies and return its path."""
    rng = np.random.default_rng(7)
    count = changes.pop("count", 200)
    xi, yi = rng.integers(-2, 3, (2, count))
    size = rng.lognormal(1, 0.7, count)
    table = Table(
        {
            "DEFECTID": np.arange(1, count + 1),
            "XREL": rng.uniform(0, 4000, count),
            "YREL": rng.uniform(0, 5000, count),
            "XINDEX": xi,
            "YINDEX": yi,
            "XSIZE": size,
            "YSIZE": size,
            "DEFECTAREA": size**2,
            "DSIZE": size * 1.4,
            "CLASSNUMBER": rng.integers(1, 4, count),
            "TEST": np.ones(count, np.int64),
        }
    )
    index = np.array([(x, y) for x in range(-2, 3) for y in range(-2, 3)])
    wafer = Wafer(
        name=changes.pop("wafer", "W1"),
        slot=3,
        center_um=(2000.0, 2500.0),
        tests=(InspectionTest(1, 25 * 4000.0 * 5000.0, index),),
        defects=table,
    )
    klarf = Klarf(
        "1.2",
        lot=changes.pop("lot", "L1"),
        pitch_um=(4000.0, 5000.0),
        diameter_mm=50.0,
        mark="NOTCH",
        mark_degrees=0.0,
        classes=changes.pop("classes", {1: "scratch", 2: "particle", 3: "stain"}),
        wafers=(wafer,),
        timestamps={
            "FileTimestamp": ("03-14-2026", "08:00:00"),
            "ResultTimestamp": ("03-14-2026", "08:30:00"),
        },
        fields={
            "StepID": ("etch",),
            "DeviceID": ("D1",),
            "SetupID": ("S", "03-14-2026", "1:00:00"),
        },
    )
    path = folder / name
    write_klarf(path, klarf)
    return path


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    return rules_file(tmp_path)


def rules_file(folder: Path, limit: str = "60", text: str = RULES) -> Path:
    path = folder / "rules.yaml"
    path.write_text(text % limit, encoding="utf-8")
    return path


def test_all_files_say_the_same(tmp_path: Path, rules: Path) -> None:
    made = judge([wafer_file(tmp_path)], rules=rules, out=tmp_path / "out")
    names = {path.name for path in made.files}
    assert names == {
        "report.html", "report.json", "defects.parquet", "dies.parquet", "defects.csv",
        "units.csv", "L1-W1.001", "L1-W1.g85.xml", "junit.xml",
    }  # fmt: skip
    defects = pl.read_parquet(tmp_path / "out" / "defects.parquet")
    dies = pl.read_parquet(tmp_path / "out" / "dies.parquet")
    counted = int(defects["counts"].sum())
    assert len(defects) == 200
    assert 0 < counted < 200
    assert len(dies) == 25
    assert dies["defects"].sum() == counted
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    schema = resources.files("domainseg.report").joinpath("report.schema.json")
    jsonschema.validate(report, json.loads(schema.read_text("utf-8")))
    blocks = [block for section in report["sections"] for block in section["blocks"]]
    (totals,) = [block for block in blocks if block["type"] == "key_numbers"]
    assert totals["values"]["defects"]["value"] == counted
    assert totals["values"]["density_per_cm2"]["value"] == pytest.approx(counted / 5.0)
    assert totals["values"]["dies_failed"]["value"] == int((~dies["passed"]).sum())
    with (tmp_path / "out" / "defects.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == defects["id"].to_list()
    assert [float(row["severity"]) for row in rows] == pytest.approx(defects["severity"].to_list())
    units = pl.read_csv(tmp_path / "out" / "units.csv")
    assert units["dies_failed"][0] == int((~dies["passed"]).sum())
    written = read_klarf(tmp_path / "out" / "L1-W1.001").wafers[0]
    kept = defects.filter(pl.col("grade") != "ignore")
    assert len(written.defects) == len(kept)
    np.testing.assert_allclose(written.defects.columns["SEVERITY"], kept["severity"], atol=1e-6)
    np.testing.assert_allclose(written.defects.columns["KILLPROB"], kept["kill_prob"], atol=1e-6)
    assert written.summary.columns["NDEFECT"][0] == counted
    assert written.summary.columns["DEFDENSITY"][0] == pytest.approx(counted / 5.0)
    assert written.summary.columns["NDEFDIE"][0] == int((dies["defects"] > 0).sum())
    cases = ET.parse(tmp_path / "out" / "junit.xml").getroot()[0]
    assert [case.get("name") for case in cases if case.get("classname") == "rule"] == [
        "density",
        "killers",
        "yield",
    ]


def test_a_report_on_two_wafers_reads_as_agreed(tmp_path: Path) -> None:
    law = RULES.replace("cluster:", "detection: {repeaters: {tolerance_um: 300}}\ncluster:")
    files = [
        wafer_file(tmp_path, f"{name}.001", wafer=name, count=count)
        for name, count in (("W1", 30), ("W2", 12))
    ]
    made = judge(files, rules=rules_file(tmp_path, text=law), out=tmp_path / "o", formats=["csv"])
    document = judged_document(
        made.assessment, title="Lot L1", generator="domainseg", footer="No medical device."
    )
    said = text_renderer.render(document)
    numbers = json.loads(json_renderer.render(document))
    if os.environ.get("DOMAINSEG_WRITE_GOLDEN"):
        (GOLDEN / "verdict.txt").write_text(said, encoding="utf-8")
        (GOLDEN / "verdict.json").write_text(json_renderer.render(document), encoding="utf-8")
    assert said == (GOLDEN / "verdict.txt").read_text(encoding="utf-8")
    assert close(numbers, json.loads((GOLDEN / "verdict.json").read_text(encoding="utf-8")))


def test_opportunities_and_layers_are_on_the_page_where_the_rules_have_them(tmp_path: Path) -> None:
    law = RULES + "opportunities: 400\ncritical_layers: 3\n"
    made = judge([wafer_file(tmp_path)], rules=rules_file(tmp_path, text=law), out=tmp_path / "o")
    report = json.loads((tmp_path / "o" / "report.json").read_text())
    blocks = [block for section in report["sections"] for block in section["blocks"]]
    (totals,) = [block for block in blocks if block["type"] == "key_numbers"]
    counted = int(made.assessment.defects["counts"].sum())
    assert totals["values"]["dpmo"]["value"] == pytest.approx(1e6 * counted / 400)
    (yields,) = [block for block in blocks if block.get("id") == "yields"]
    (row,) = [one for one in yields["rows"] if one["model"].startswith("Bose-Einstein")]
    assert row["all_defects"] == pytest.approx((1 + counted / 25) ** -3)


def close(found: Any, wanted: Any) -> bool:
    """Return whether two JSON values are equal, numbers to 1e-9."""
    if isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(close(found[k], wanted[k]) for k in wanted)
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(close, found, wanted))
    if isinstance(wanted, float):
        return isinstance(found, (int, float)) and math.isclose(found, wanted, rel_tol=1e-9)
    return bool(found == wanted)


def test_a_klarf_that_was_written_is_reported_alike(tmp_path: Path, rules: Path) -> None:
    first = judge([wafer_file(tmp_path)], rules=rules, out=tmp_path / "one")
    again = judge([tmp_path / "one" / "L1-W1.001"], rules=rules, out=tmp_path / "two")
    before = first.assessment.defects.filter(pl.col("grade") != "ignore")
    after = again.assessment.defects
    assert after["class"].to_list() == before["class"].to_list()
    assert after["grade"].to_list() == before["grade"].to_list()
    np.testing.assert_allclose(after["severity"], before["severity"], atol=1e-3)
    assert [one.outcome for one in again.assessment.results] == [
        one.outcome for one in first.assessment.results
    ]


def test_equal_inputs_give_equal_bytes(tmp_path: Path, rules: Path) -> None:
    source = wafer_file(tmp_path)
    one = judge([source], rules=rules, out=tmp_path / "one")
    two = judge([source], rules=rules, out=tmp_path / "two")
    assert [path.name for path in one.files] == [path.name for path in two.files]
    for a, b in zip(one.files, two.files, strict=True):
        assert a.read_bytes() == b.read_bytes(), a.name
    # Over what was there as well.
    judge([source], rules=rules, out=tmp_path / "two")
    assert (tmp_path / "two" / "report.html").read_bytes() == one.files[0].read_bytes()


@pytest.mark.parametrize(("limit", "outcome", "code"), [("60", "PASS", 0), ("1", "FAIL", 1)])
def test_the_gate_leaves_by_the_verdict(
    limit: str, outcome: str, code: int, tmp_path: Path, capsys: Said
) -> None:
    rules = rules_file(tmp_path, limit)
    command = [
        "report",
        str(wafer_file(tmp_path)),
        "--rules",
        str(rules),
        "-o",
        str(tmp_path / "o"),
    ]
    assert run([*command, "--gate"]) == code
    said = capsys.readouterr()
    assert f"{outcome}  " in said.out
    assert ("gate: found verdict FAIL, wanted PASS" in said.err) == (code == 1)
    # Without the gate a report that was written is a success.
    assert run(command) == 0


def test_what_cannot_be_judged_leaves_with_4(tmp_path: Path, capsys: Said) -> None:
    text = RULES + "require: {min_area_cm2: 50}\n"
    rules = rules_file(tmp_path, text=text)
    out = ["-o", str(tmp_path / "o"), "--gate"]
    assert run(["report", str(wafer_file(tmp_path)), "--rules", str(rules), *out]) == 4
    assert "INDETERMINATE least inspected area: 5 cm2, wanted at least 50 cm2" in (
        capsys.readouterr().out
    )
    cases = ET.parse(tmp_path / "o" / "junit.xml").getroot()[0]
    assert cases.get("errors") == "1"
    assert "There is not enough evidence for a verdict." in (
        (tmp_path / "o" / "report.html").read_text()
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{wafer}", "--gate"], 2, "--gate: found no --rules, wanted a rules file"),
        (["{wafer}", "--rules", "{rules}"], 2, "--out: found none, wanted a folder for the files"),
        (["{wafer}", "--rules", "none.yaml", "-o", "{out}"], 2, "none.yaml: found no such file"),
        (
            ["none", "--rules", "{rules}", "-o", "{out}"],
            3,
            "none: found nothing, wanted the folder",
        ),
        (
            ["{wafer}", "{wafer}", "--rules", "{rules}", "-o", "{out}"],
            2,
            "found it named twice, wanted each once",
        ),
        (
            ["{wafer}", "--rules", "{rules}", "-o", "{out}", "--formats", "html,doc"],
            2,
            "formats: found doc, wanted some of html, json",
        ),
        (
            ["{wafer}", "--rules", "{rules}", "-o", "{out}", "--klarf-version", "1.7"],
            2,
            "--klarf-version: found '1.7', wanted one of 1.1, 1.2, 1.8",
        ),
        (["{wafer}", "--rules", "{rules}", "-o", "{rules}"], 3, "wanted a folder to write into"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    arguments: list[str], code: int, message: str, tmp_path: Path, rules: Path, capsys: Said
) -> None:
    places = {"wafer": wafer_file(tmp_path), "rules": rules, "out": tmp_path / "out"}
    assert run(["report", *(one.format(**places) for one in arguments)]) == code
    said = capsys.readouterr().err
    assert message in said
    assert not (tmp_path / "out").exists()


def test_only_the_formats_that_are_asked_for_are_written(tmp_path: Path, rules: Path) -> None:
    source = wafer_file(tmp_path)
    for name in DEFAULT_FORMATS:
        made = judge([source], rules=rules, out=tmp_path / name, formats=[name])
        # Outlines are of runs, and a result file has none.
        assert bool(made.files) == (name not in ("geojson", "coco"))
        assert {path.parent for path in made.files} <= {tmp_path / name}
        assert len(made.files) == len(list((tmp_path / name).iterdir()))
    with pytest.raises(UsageError, match="found nothing to report on"):
        judge([], rules=rules, out=tmp_path / "none")


def test_two_wafers_of_one_name_are_refused_and_of_two_reported_together(
    tmp_path: Path, rules: Path
) -> None:
    one = wafer_file(tmp_path)
    with pytest.raises(InputError, match="L1/W1: found 2 units of this name"):
        judge([one, wafer_file(tmp_path, "again.001")], rules=rules, out=tmp_path / "out")
    made = judge([one, wafer_file(tmp_path, "b.001", wafer="W2")], rules=rules, out=tmp_path / "o")
    assert made.assessment.units["unit"].to_list() == ["L1/W1", "L1/W2"]
    assert made.assessment.lot.units[1].area_cm2 == pytest.approx(5.0)
    page = (tmp_path / "o" / "report.html").read_text(encoding="utf-8")
    assert "<h3><bdi>L1/W2</bdi></h3>" in page


def test_no_defects_are_a_result(tmp_path: Path, rules: Path) -> None:
    made = judge([wafer_file(tmp_path, count=0)], rules=rules, out=tmp_path / "out")
    assert made.outcome == "PASS"
    density = made.assessment.results[0].number
    assert density.value == 0
    assert density.interval is not None
    assert density.interval.high == pytest.approx(3.689 / 5.0, rel=1e-3)
    assert b"DefectList;" in (tmp_path / "out" / "L1-W1.001").read_bytes().replace(b" ;", b";")
    assert len(pl.read_parquet(tmp_path / "out" / "defects.parquet")) == 0


@pytest.mark.parametrize("name", [HOSTILE, "x" * 10_000, "..", "con/../../etc"])
def test_names_from_files_are_text_everywhere(name: str, tmp_path: Path, rules: Path) -> None:
    # Neither quotes nor control characters can be written in a KLARF.
    bare = name.replace('"', "")
    source = wafer_file(tmp_path, lot=bare, wafer=bare, classes={1: bare, 2: "a", 3: "b"})
    made = judge([source], rules=rules, out=tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert re.findall(r"<script[^>]*>.{13}", page) == ['<script>"use strict";']
    assert "\u202e" not in page
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", page)
    for path in made.files:
        assert path.parent == tmp_path / "out"
        assert len(path.name) < 200
    with (tmp_path / "out" / "defects.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.reader(file):
            assert not any(cell.startswith(("=", "@", "\t")) for cell in row)
    ET.parse(tmp_path / "out" / "junit.xml")


def test_a_map_of_many_dies_joins_neighbours_and_covers_the_same(tmp_path: Path) -> None:
    from domainseg.quality.lot import Dies

    rng = np.random.default_rng(0)
    index = np.array([(x, y) for x in range(80) for y in range(60)])
    index = index[rng.random(len(index)) < 0.97]
    dies = Dies(index, (3.0, 2.0), (1.0, 1.0), len(index))
    passed = rng.random(len(index)) < 0.8
    made = spots(dies, passed)
    assert len(made) < len(index) * 0.6
    small = [
        spots(Dies(index[i : i + 1], (3.0, 2.0), (1.0, 1.0), 1), passed[i : i + 1])[0]
        for i in range(len(index))
    ]
    for colour in {one.colour for one in small}:
        area = sum(
            (b[2] - b[0]) * (b[3] - b[1]) for b in (s.box for s in made if s.colour == colour)
        )
        assert area == pytest.approx(6.0 * sum(one.colour == colour for one in small))
    corners = {(round(s.box[0], 6), round(s.box[1], 6)) for s in small}
    assert all((round(s.box[0], 6), round(s.box[1], 6)) in corners for s in made)


@given(content=st.binary(max_size=300))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_file_that_is_no_klarf_is_refused_in_a_sentence(
    content: bytes, tmp_path: Path, rules: Path
) -> None:
    path = tmp_path / "noise.001"
    path.write_bytes(content)
    with pytest.raises(DomainsegError):
        judge([path], rules=rules, out=tmp_path / "out")
