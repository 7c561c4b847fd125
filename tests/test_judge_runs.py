"""Runs that are judged: a made-up wafer whose every die, count and area is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import tifffile
from scipy.ndimage import label

from domainseg.cli.app import run
from domainseg.errors import InputError, MissingInputError
from domainseg.judge import Judged, judge
from domainseg.quality.die_grid import read_die_grids, read_die_plan

Said = pytest.CaptureFixture[str]
FIXED = {"scope": "fixed", "fixed_low": 0.0, "fixed_high": 255.0}
MAKE = """view=wafer wafer_diameter_mm=5 spacing_um=5 die_um=[400,500] street_um=20 line_um=2
edge_exclusion_mm=0.2 density_per_cm2=300 particle_um=[15,60] scratch_um=[50,400]
scratch_width_um=[10,20] residue_um=[50,150] chip_um=[30,80] train=1 val=0 test=0 good=0"""
RULES = """schema: 1
units: um
classes: {default: {weight: 1.0, ref_um: 60}}
unit: {fail_if: "critical > 0"}
accept:
  - {id: density, metric: density_per_cm2, max: 1000}
  - {id: yield, metric: die_yield, min: 0.2}
"""


@pytest.fixture
def wafer(bright_model: Callable[..., Path], tmp_path: Path) -> Path:
    """Return a folder with the mask of a made-up wafer's defects, predicted exactly."""
    assert run(["data", "make", "wafers", str(tmp_path / "made"), *MAKE.split()]) == 0
    truth = tifffile.imread(tmp_path / "made" / "labels" / "train-00000.tif")
    mask = np.where(truth > 0, 255, 0).astype(np.uint8)
    tifffile.imwrite(tmp_path / "train-00000.tif", mask)
    model = bright_model(
        data={"normalise": FIXED, "loader": {"name": "mask_folder"}, "root": str(tmp_path)},
        tiling={"core_px": 512, "halo_px": 32},
        instances={"split": "none", "min_area_px": 0, "fill_holes": False},
    )
    command = [
        "predict",
        str(model),
        str(tmp_path / "train-00000.tif"),
        "-o",
        str(tmp_path / "run"),
    ]
    assert run([*command, "--spacing-um", "5"]) == 0
    (tmp_path / "rules.yaml").write_text(RULES, encoding="utf-8")
    return tmp_path


def judged(wafer: Path, out: str = "out", grid: Path | None = None) -> Judged:
    return judge(
        [wafer / "run"],
        rules=wafer / "rules.yaml",
        out=wafer / out,
        die_grid=grid or wafer / "made" / "die_grid.json",
    )


def test_every_die_count_area_and_density_is_that_of_the_truth(wafer: Path) -> None:
    made = judged(wafer).assessment
    mask = tifffile.imread(wafer / "train-00000.tif") > 0
    parts, count = label(mask, np.ones((3, 3)))
    assert count > 30
    grid = read_die_grids(wafer / "made" / "die_grid.json")["train-00000"]
    plan = read_die_plan(wafer / "made" / "die_grid.json")
    assert plan is not None
    dies = {(int(x), int(y)): [0, 0] for x, y in plan}
    total = 0
    for number in range(1, count + 1):
        y, x = np.nonzero(parts == number)
        at = grid.positions(np.array([y.mean()]), np.array([x.mean()]))
        die = dies.get((int(at.xi[0]), int(at.yi[0])))
        area = len(y) * 25.0
        severity = min(1.0, np.sqrt(area) / 60)
        if die is not None and severity >= 0.1:
            total += 1
            die[0] += 1
            die[1] += severity >= 0.7
    assert total > 20
    for row in made.dies.iter_rows(named=True):
        wanted = dies[row["die_x"], row["die_y"]]
        assert [row["defects"], row["critical"]] == wanted
        assert row["passed"] == (wanted[1] == 0)
    assert len(made.dies) == len(dies)
    counted = made.defects.filter(pl.col("counts"))
    assert len(counted) == total
    area_cm2 = len(dies) * 400 * 500 / 1e8
    assert made.lot.units[0].area_cm2 == pytest.approx(area_cm2)
    density, yield_ = (one.number.value for one in made.results)
    assert density == pytest.approx(total / area_cm2)
    assert yield_ == pytest.approx(sum(one[1] == 0 for one in dies.values()) / len(dies))
    areas = np.bincount(parts.ravel())[1:] * 25.0
    assert sorted(made.defects["area_um2"].to_list()) == pytest.approx(sorted(areas))
    outside = made.defects.filter(pl.col("grade_reason") == "outside the inspected area")
    assert 0 < len(outside) < count


def test_the_image_is_checked_where_it_still_is(wafer: Path) -> None:
    check = judged(wafer).assessment.lot.units[0].check
    assert check is not None
    assert check.coverage == 1.0
    assert check.saturated == 1.0  # a mask has no other values
    assert check.focus is not None
    (wafer / "train-00000.tif").unlink()
    check = judged(wafer).assessment.lot.units[0].check
    assert check is not None
    assert (check.coverage, check.focus, check.saturated) == (1.0, None, None)


@pytest.mark.parametrize(
    ("told", "found", "outcome"),
    [
        ({"compared": True, "unlike": None}, "none of 1", "PASS"),
        ({"compared": True, "unlike": "it looks inverted"}, "1 unlike of 1", "INDETERMINATE"),
        ({"compared": False, "unlike": None}, "1 not known of 1", "INDETERMINATE"),
    ],
)
def test_rules_may_ask_for_images_like_the_training(
    wafer: Path, told: dict[str, Any], found: str, outcome: str
) -> None:
    path = wafer / "run" / "train-00000" / "run.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["training"] |= {"looks": {"level": 0.5}, "size": None, **told}
    path.write_text(json.dumps(record), encoding="utf-8")
    with (wafer / "rules.yaml").open("a", encoding="utf-8") as file:
        file.write("require: {max_unlike_share: 0.05}\n")
    made = judged(wafer).assessment
    (one,) = [one for one in made.requirements if one.name.startswith("images unlike")]
    assert one.found.startswith(found)
    assert made.outcome == outcome
    page = (wafer / "out" / "report.html").read_text(encoding="utf-8")
    assert "Alike" in page


def test_a_run_without_a_die_grid_is_an_image(wafer: Path, capsys: Said) -> None:
    command = ["report", str(wafer / "run"), "--rules", str(wafer / "rules.yaml"), "--gate"]
    assert run([*command, "-o", str(wafer / "out")]) == 4
    assert "INDETERMINATE yield: die_yield not known" in capsys.readouterr().out
    table = pl.read_parquet(wafer / "out" / "defects.parquet")
    assert table["die_x"].null_count() == len(table)
    side = 5.0 * tifffile.imread(wafer / "train-00000.tif").shape[0]
    assert table["x_um"].is_between(0, side).all()
    # y runs up from the lower edge of the image.
    np.testing.assert_allclose(table["y_um"], side - 5.0 * (table["y_px"] + 0.5))


def test_a_run_of_one_image_keeps_its_own_tables_and_is_judged_again(wafer: Path) -> None:
    (record,) = (wafer / "run").rglob("run.json")
    folder = record.parent
    assert run(["defects", str(folder)]) == 0
    before = (folder / "defects.parquet").read_bytes()
    command = ["report", str(folder), "--rules", str(wafer / "rules.yaml")]
    for _ in range(2):
        assert run(command) == 0
        assert (folder / "defects.parquet").read_bytes() == before
        assert (folder / "verdict" / "report.html").is_file()
    assert run([*command, "-o", str(folder)]) == 2


def test_without_a_plan_every_die_whole_on_the_wafer_is_inspected(wafer: Path) -> None:
    grid = json.loads((wafer / "made" / "die_grid.json").read_text())
    listed = len(grid.pop("dies"))
    path = wafer / "grid.json"
    path.write_text(json.dumps(grid))
    made = judged(wafer, grid=path).assessment
    corners = made.lot.units[0].dies
    assert corners is not None
    low = corners.lower_left_um()
    far = np.hypot(*np.maximum(np.abs(low), np.abs(low + corners.pitch_um)).T)
    assert far.max() <= 2500
    assert len(corners) >= listed


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": {}}, MissingInputError, "found no die grid of this image"),
        ({"dies": [[1, 2], [1, 2]]}, InputError, "found dies that are no list of different"),
        ({"dies": [[1.5, 2]]}, InputError, "found dies that are no list of different"),
        ({"dies": "all"}, InputError, "found dies that are no list of different"),
    ],
)
def test_a_die_grid_that_does_not_fit_is_refused(
    change: dict[str, object], error: type[Exception], message: str, wafer: Path
) -> None:
    grid = json.loads((wafer / "made" / "die_grid.json").read_text())
    if change.get("images") == {}:
        change = {"images": {"another": grid["images"]["train-00000"]}}
    path = wafer / "grid.json"
    path.write_text(json.dumps(grid | change))
    with pytest.raises(error, match=message):
        judged(wafer, grid=path)


def test_a_run_of_an_older_table_is_refused(wafer: Path) -> None:
    (path,) = (wafer / "run").rglob("objects.parquet")
    pl.read_parquet(path).drop("skeleton_length_um").write_parquet(path)
    with pytest.raises(InputError, match="found no column skeleton_length_um, wanted"):
        judged(wafer)


def test_a_run_that_was_changed_by_hand_is_refused(wafer: Path) -> None:
    (path,) = (wafer / "run").rglob("objects.parquet")
    pl.read_parquet(path).head(3).write_parquet(path.with_name("defects.parquet"))
    with pytest.raises(InputError, match=r"defects\.parquet: found 3 rows, wanted the"):
        judged(wafer)
