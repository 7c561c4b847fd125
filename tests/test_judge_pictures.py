"""What a verdict on runs shows and hands on: pictures of the worst, outlines, units, paper."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import tifffile
from PIL import Image
from pycocotools.coco import COCO
from scipy.ndimage import label

from domainseg.cli.app import run
from domainseg.errors import MissingInputError, UsageError
from domainseg.gallery import unit_pictures, worst_pictures
from domainseg.judge import judge
from domainseg.report import pdf
from domainseg.report.scale_bar import length_words, round_length, with_scale_bar

RULES = """schema: 1
units: um
classes: {default: {weight: 0.8, ref_um: 10}}
accept: [{id: count, metric: count, max: 100}]
"""
FIXED = {"scope": "fixed", "fixed_low": 0.0, "fixed_high": 255.0}


@pytest.fixture
def two(bright_model: Callable[..., Path], tmp_path: Path) -> Path:
    """Return a folder with the runs of two images of squares, sides 4 to 12 px."""
    for name, sides in (("one", (4, 8, 12)), ("two", (6,))):
        picture = np.zeros((64, 96), np.uint8)
        for i, side in enumerate(sides):
            picture[8 : 8 + side, 8 + 28 * i : 8 + 28 * i + side] = 255
        tifffile.imwrite(tmp_path / f"{name}.tif", picture)
    model = bright_model(
        data={"normalise": FIXED, "loader": {"name": "mask_folder"}, "root": str(tmp_path)},
        tiling={"core_px": 64, "halo_px": 32},
        instances={"split": "none", "min_area_px": 0},
    )
    images = [str(tmp_path / f"{name}.tif") for name in ("one", "two")]
    command = ["predict", str(model), *images, "-o", str(tmp_path / "run")]
    assert run([*command, "--spacing-um", "0.5"]) == 0
    (tmp_path / "rules.yaml").write_text(RULES, encoding="utf-8")
    return tmp_path


def test_the_worst_are_drawn_first_with_outline_bar_and_factors(two: Path) -> None:
    made = judge([two / "run"], rules=two / "rules.yaml", out=two / "out", formats=["html"])
    runs = {name: two / "run" / name for name in ("one", "two")}
    pictures = worst_pictures(made.assessment, runs)
    assert len(pictures) == 4
    sides = [12, 8, 6, 4]
    for picture, side in zip(pictures, sides, strict=True):
        severity = 100 * 0.8 * side * 0.5 / 10
        assert f"Severity {severity:.1f} = 100 \u00d7 class 0.80 \u00d7 zone 1.00" in picture.note
        assert f"{side * side * 0.25:.3g}".split(".")[0] in picture.note
        pixels = np.asarray(Image.open(io.BytesIO(picture.data)).convert("RGB"), int)
        orange = (pixels[..., 0] > 200) & (pixels[..., 2] < 120)
        assert orange.sum() > 50
    page = (two / "out" / "report.html").read_text("utf-8")
    assert page.count("data:image/png;base64") == 4 + 2  # the two images with dots


def test_images_that_are_no_wafers_have_their_defects_as_dots(two: Path) -> None:
    made = judge([two / "run"], rules=two / "rules.yaml", out=two / "out", formats=["json"])
    runs = {name: two / "run" / name for name in ("one", "two")}
    pictures = unit_pictures(made.assessment, runs)
    assert [picture.title for picture in pictures] == ["one", "two"]
    assert [picture.note for picture in pictures] == ["1 major, 2 minor", "1 minor"]
    for picture, count in zip(pictures, (3, 1), strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(picture.data)).convert("RGB"), int)
        _, dots = label(np.ptp(pixels, axis=2) > 30)
        assert dots == count
    (two / "run" / "one" / "overlay.png").unlink()
    assert len(unit_pictures(made.assessment, runs)) == 1


def test_an_image_that_is_gone_or_another_is_not_drawn(two: Path) -> None:
    made = judge([two / "run"], rules=two / "rules.yaml", out=two / "out", formats=["json"])
    runs = {name: two / "run" / name for name in ("one", "two")}
    (two / "two.tif").unlink()
    tifffile.imwrite(two / "one.tif", np.zeros((64, 96), np.uint8))
    assert worst_pictures(made.assessment, runs) == ()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_outlines_carry_grades_and_what_is_ignored_has_none(two: Path) -> None:
    (two / "rules.yaml").write_text(
        RULES + "detection: {min_size_um: 2.5}\n", encoding="utf-8"
    )  # a square of 4 px has the area of a circle of 2.26 um
    made = judge([two / "run"], rules=two / "rules.yaml", out=two / "out")
    table = made.assessment.defects.filter(pl.col("grade") != "ignore")
    assert len(table) == 3
    found = {}
    for name in ("one", "two"):
        content = json.loads((two / "out" / f"{name}.geojson").read_text("utf-8"))
        for feature in content["features"]:
            assert feature["properties"]["objectType"] == "detection"
            found[feature["id"]] = feature["properties"]
    assert sorted(found) == sorted(table["id"])
    for row in table.iter_rows(named=True):
        assert found[row["id"]]["metadata"]["grade"] == row["grade"]
        assert found[row["id"]]["measurements"]["severity"] == row["severity"]
    coco = COCO(str(two / "out" / "defects.coco.json"))
    assert len(coco.anns) == 3
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation)
        assert mask.sum() == annotation["area"]
        name = Path(coco.imgs[annotation["image_id"]]["file_name"]).stem
        assert (tifffile.imread(two / f"{name}.tif")[mask > 0] == 255).all()
        assert annotation["area_um2"] == annotation["area"] * 0.25


def test_images_of_one_unit_are_one(two: Path) -> None:
    (two / "manifest.csv").write_text(
        "image,unit_id,lot,step\none.tif,panel,L1,etch\ntwo.tif,panel,L1,etch\n"
        "three.tif,other,L1,etch\n"
    )
    command = ["report", str(two / "run"), "--rules", str(two / "rules.yaml"), "-o"]
    command += [str(two / "out"), "--manifest", str(two / "manifest.csv"), "--gate"]
    assert run(command) == 4  # the third image is missing
    units = pl.read_csv(two / "out" / "units.csv")
    assert units["unit"].to_list() == ["panel", "other"]
    assert units["defects"].to_list() == [4, 0]
    (two / "manifest.csv").write_text("image,unit_id\none.tif,panel\n")
    with pytest.raises(MissingInputError, match="two: found no row of this image"):
        judge(
            [two / "run"],
            rules=two / "rules.yaml",
            out=two / "out",
            manifest=two / "manifest.csv",
        )


def test_what_is_judged_per_mm2_is_shown_per_mm2(two: Path) -> None:
    (two / "rules.yaml").write_text(RULES.replace("metric: count,", "metric: density_per_mm2,"))
    judge([two / "run"], rules=two / "rules.yaml", out=two / "out", formats=["json"])
    report = json.loads((two / "out" / "report.json").read_text("utf-8"))
    blocks = [block for section in report["sections"] for block in section["blocks"]]
    (totals,) = [block for block in blocks if block["type"] == "key_numbers"]
    area = 2 * 64 * 96 * 0.25 / 1e6
    assert totals["values"]["inspected_mm2"]["value"] == pytest.approx(area)
    assert totals["values"]["density_per_mm2"]["value"] == pytest.approx(4 / area)


def test_equal_runs_give_equal_files(two: Path) -> None:
    try:
        pdf.require()
        formats = ["html", "json", "geojson", "coco", "pdf"]
    except MissingInputError:
        formats = ["html", "json", "geojson", "coco"]
    files = [
        judge([two / "run"], rules=two / "rules.yaml", out=two / out, formats=formats).files
        for out in ("a", "b")
    ]
    assert len(files[0]) == len(formats) + 1
    for a, b in zip(*files, strict=True):
        assert a.read_bytes() == b.read_bytes()
    if "pdf" in formats:
        assert (two / "a" / "report.pdf").read_bytes().startswith(b"%PDF-")


def test_without_weasyprint_the_sentence_says_what_to_install(
    two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "weasyprint", None)
    with pytest.raises(MissingInputError, match=r"domainseg\[pdf\]"):
        judge([two / "run"], rules=two / "rules.yaml", out=two / "out", formats=["pdf"])
    assert not (two / "out").exists()
    with pytest.raises(UsageError, match="formats: found png"):
        judge([two / "run"], rules=two / "rules.yaml", out=two / "out", formats=["png"])


@pytest.mark.parametrize(
    ("longest", "length"),
    [(0.3, 0.2), (1.0, 1.0), (4.999, 2.0), (5.0, 5.0), (1234.0, 1000.0), (0.05, 0.05)],
)
def test_a_bar_has_a_round_length(longest: float, length: float) -> None:
    assert round_length(longest) == pytest.approx(length)


def test_a_bar_is_as_long_as_it_says() -> None:
    grey = np.full((100, 300, 3), 90, np.uint8)
    drawn = with_scale_bar(grey, um_per_px=0.5)
    # 35 % of 150 um: 50 um, 100 px and the one that it begins with.
    white = (drawn == 255).all(2)
    assert max(white.sum(1)) == 101
    assert length_words(50.0) == "50 µm"
    assert length_words(2000.0) == "2 mm"
    assert length_words(0.2) == "200 nm"
    assert with_scale_bar(grey, um_per_px=None) is grey
