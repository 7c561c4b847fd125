"""What is said of images and objects that are unlike those of the training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import tifffile
from numpy.typing import NDArray

from domainseg.images.appearance import FEATURES, Looks, appearance
from domainseg.outside import Found, Outside, Sizes, judged_again, seen_in_training
from domainseg.predict import predict
from domainseg.predict_data import predict_data
from domainseg.redecode import decode_run
from domainseg.report import run_folder as run_folder_module
from domainseg.report.run_folder import image_folders, read_image
from domainseg.runs import RunOptions
from domainseg.training.prepared import Prepared

Draw = Callable[..., NDArray[np.int32]]
Write = Callable[..., Path]
FIXED = {"normalise": {"scope": "fixed", "fixed_low": 0.0, "fixed_high": 255.0}}


def picture(discs: Draw, seed: int, *, radius: float = 5.0) -> NDArray[np.uint8]:
    """Return nine bright discs on a dark ground with noise."""
    rng = np.random.default_rng(seed)
    places = [(30 + 40 * y, 30 + 40 * x, radius) for y in range(3) for x in range(3)]
    plane = np.where(discs((140, 140), *places) > 0, 200.0, 30.0)
    return np.clip(plane + rng.normal(0, 5, plane.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def seen(discs: Draw) -> dict[str, Any]:
    """Return what a training on such pictures would keep."""
    planes = [np.repeat(picture(discs, seed)[None] / 255, 3, axis=0) for seed in range(30)]
    looks = Looks.of([appearance(plane.astype(np.float32)) for plane in planes])
    assert looks is not None
    return {"looks": looks.to_json(), "diameters_px": [8.0, 9.0, 10.0, 11.0, 12.0]}


def run_of(model: Path, image: Path, pixels: NDArray[np.uint8], out: Path) -> dict[str, Any]:
    tifffile.imwrite(image, pixels)
    (run,) = predict(model, [image], out)
    record: dict[str, Any] = json.loads((run.folder / "run.json").read_text())
    assert list(run.warnings) == record["warnings"]
    return record


def test_an_image_like_the_training_is_run_without_a_word(
    tmp_path: Path, bright_model: Write, seen: dict[str, Any], discs: Draw
) -> None:
    model = bright_model(seen=seen, data=FIXED)
    record = run_of(model, tmp_path / "a.tif", picture(discs, 100), tmp_path / "out")
    assert record["objects"] == 9
    told = record["training"]
    assert (told["unlike"], told["size"]) == (None, None)
    assert record["warnings"] == []
    assert set(told["looks"]) == set(FEATURES)
    assert told["median_diameter_px"] == pytest.approx(10, abs=0.5)


def test_an_inverted_image_is_named(
    tmp_path: Path, bright_model: Write, seen: dict[str, Any], discs: Draw
) -> None:
    model = bright_model(seen=seen, data=FIXED)
    record = run_of(model, tmp_path / "a.tif", 255 - picture(discs, 100), tmp_path / "out")
    said = record["training"]["unlike"]
    assert "trained on: it looks inverted (distance" in said
    assert said.endswith("; invert it and predict that")
    assert said in record["warnings"]
    (folder,) = image_folders(tmp_path / "out")
    assert said in read_image(folder).warnings


@pytest.mark.parametrize(("radius", "within"), [(4.0, True), (7.0, True), (10.0, False)])
def test_objects_of_another_size_are_named(
    tmp_path: Path,
    bright_model: Write,
    seen: dict[str, Any],
    discs: Draw,
    radius: float,
    within: bool,
) -> None:
    model = bright_model(seen={"diameters_px": seen["diameters_px"]}, data=FIXED)
    pixels = picture(discs, 100, radius=radius)
    record = run_of(model, tmp_path / "a.tif", pixels, tmp_path / "out")
    sizes = [said for said in record["warnings"] if "px across in the median" in said]
    assert len(sizes) == (0 if within else 1)
    if not within:
        assert "those of its training images 8 to 12 px; --diameter-px auto scales" in sizes[0]


@pytest.mark.parametrize("defects", [False, True])
def test_few_large_objects_are_measured_at_other_scales(
    tmp_path: Path, bright_model: Write, seen: dict[str, Any], discs: Draw, defects: bool
) -> None:
    # Three discs are too few for a median, but other scales show their size.
    labels = discs((400, 400), (80, 80, 50.0), (80, 280, 50.0), (280, 180, 50.0))
    pixels = np.where(labels > 0, 240, 10).astype(np.uint8)
    sizes = {"diameters_px": seen["diameters_px"]}
    model = bright_model(seen=sizes, data=FIXED, evaluate={"defects": defects})
    record = run_of(model, tmp_path / "a.tif", pixels, tmp_path / "out")
    told = record["training"]
    assert told["median_diameter_px"] is None
    if defects:
        # Few defects are the usual case.
        assert (told["probed_diameter_px"], told["size"]) == (None, None)
        return
    assert told["probed_diameter_px"] == pytest.approx(100, rel=0.1)
    assert "at other scales the objects look" in told["size"]
    assert "those of its training images 8 to 12 px; --diameter-px auto scales" in told["size"]
    assert told["size"] in record["warnings"]
    again = decode_run(tmp_path / "out" / "a", ["instances.min_area_px=20"])
    assert told["size"] in again.warnings


@pytest.mark.parametrize(
    ("count", "score", "doubtful"),
    [(10, 0.95, False), (10, 0.8, True), (4, 0.95, True), (0, 0.0, True), (5, 0.95, False)],
)
def test_few_objects_and_unsure_ones_are_doubtful(count: int, score: float, doubtful: bool) -> None:
    found = Found.of(np.full(count, 30.0), np.full(count, score))
    assert found.doubtful == doubtful
    assert found.median_px == (30 if count >= 5 else None)


@pytest.mark.parametrize(
    ("median", "doubtful", "probed", "said"),
    [
        (30.0, False, None, None),
        (90.0, False, None, "are 90 px across"),
        (5.0, True, 100.0, "look 100 px across"),
        (30.0, True, 100.0, "look 100 px across"),
        (30.0, False, 100.0, None),
        (90.0, True, 30.0, None),
        (90.0, True, None, "are 90 px across"),
        (None, True, None, None),
    ],
)
def test_what_is_measured_at_other_scales_counts_where_objects_are_doubtful(
    median: float | None, doubtful: bool, probed: float | None, said: str | None
) -> None:
    sizes = Sizes(10.0, 12.0, 20.0, 36.0, 40.0)
    outside = Outside({}, True, None, sizes, "scale the image")
    record, told = outside.judged(Found(median, doubtful), (1.0, 1.0), probed)
    assert len(told) == (0 if said is None else 1)
    assert said is None or said in told[0]
    # In another decode what was measured stays, and counts by the objects that are there now.
    sure = judged_again(record["training"], Found(30.0, False), (1.0, 1.0))
    assert sure["size"] is None


def test_few_objects_of_the_right_size_are_not_named(
    tmp_path: Path, bright_model: Write, seen: dict[str, Any], discs: Draw
) -> None:
    labels = discs((140, 140), (30, 30, 5.0), (30, 100, 5.0), (90, 60, 5.0))
    pixels = np.where(labels > 0, 240, 10).astype(np.uint8)
    model = bright_model(seen={"diameters_px": seen["diameters_px"]}, data=FIXED)
    record = run_of(model, tmp_path / "a.tif", pixels, tmp_path / "out")
    assert record["training"]["probed_diameter_px"] == pytest.approx(10, rel=0.15)
    assert record["warnings"] == []


def test_an_empty_image_is_not_called_of_another_size(
    tmp_path: Path, bright_model: Write, seen: dict[str, Any]
) -> None:
    model = bright_model(seen={"diameters_px": seen["diameters_px"]}, data=FIXED)
    record = run_of(model, tmp_path / "a.tif", np.full((90, 90), 10, np.uint8), tmp_path / "out")
    assert (record["objects"], record["training"]["size"]) == (0, None)


@pytest.mark.parametrize(
    "options", [RunOptions(), RunOptions(diameter_px=10.0), RunOptions(estimate_diameter=True)]
)
def test_sizes_of_an_empty_image_count_as_looked_for(
    tmp_path: Path, bright_model: Write, seen: dict[str, Any], options: RunOptions
) -> None:
    model = bright_model(seen={"diameters_px": seen["diameters_px"]}, data=FIXED)
    tifffile.imwrite(tmp_path / "a.tif", np.full((90, 90), 10, np.uint8))
    (run,) = predict(model, [tmp_path / "a.tif"], tmp_path / "out", options=options)
    record = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    assert (record["training"]["probed"], record["training"]["size"]) == (True, None)


def test_sizes_are_those_the_network_sees(
    tmp_path: Path, bright_model: Write, seen: dict[str, Any], discs: Draw
) -> None:
    model = bright_model(
        seen={"diameters_px": seen["diameters_px"]}, data={**FIXED, "spacing_um": 1.0}
    )
    tifffile.imwrite(tmp_path / "a.tif", picture(discs, 100, radius=10.0))
    (run,) = predict(
        model, [tmp_path / "a.tif"], tmp_path / "out", options=RunOptions(spacing_um=0.5)
    )
    assert run.warnings == ()


def test_a_model_that_knows_nothing_of_its_training_says_nothing(
    tmp_path: Path, bright_model: Write, discs: Draw
) -> None:
    record = run_of(
        bright_model(data=FIXED), tmp_path / "a.tif", 255 - picture(discs, 1), tmp_path / "out"
    )
    assert record["training"]["unlike"] is None
    assert not record["training"]["compared"]
    (folder,) = image_folders(tmp_path / "out")
    assert not read_image(folder).compared
    assert read_image(folder).like_training is None


@pytest.mark.parametrize(
    ("radius", "inverted", "like"), [(5.0, False, True), (5.0, True, False), (15.0, False, False)]
)
def test_looks_and_sizes_make_an_image_like_those_of_the_training(
    tmp_path: Path,
    bright_model: Write,
    seen: dict[str, Any],
    discs: Draw,
    radius: float,
    inverted: bool,
    like: bool,
) -> None:
    pixels = picture(discs, 100, radius=radius)
    model = bright_model(seen=seen, data=FIXED)
    run_of(model, tmp_path / "a.tif", 255 - pixels if inverted else pixels, tmp_path / "out")
    (folder,) = image_folders(tmp_path / "out")
    assert read_image(folder).like_training is like


@pytest.mark.parametrize(
    ("told", "like"),
    [
        ({}, None),
        ({"compared": False}, None),
        ({"looks": {}}, None),
        ({"median_diameter_px": 9.0}, True),
        ({"probed": True}, True),
        ({"diameters_px": None}, True),
        ({"median_diameter_px": 90.0, "size": "too large"}, False),
        ({"compared": False, "unlike": "inverted"}, False),
    ],
)
def test_like_the_training_is_what_was_measured_and_found_so(
    told: dict[str, Any], like: bool | None
) -> None:
    record = {
        "looks": {"level": 0.5},
        "compared": True,
        "unlike": None,
        "diameters_px": [8, 12],
        "median_diameter_px": None,
        "probed": False,
        "size": None,
    }
    assert vars(run_folder_module)["_like_training"](record | told) is like


def test_a_decode_asks_again_for_the_sizes(
    tmp_path: Path, bright_model: Write, seen: dict[str, Any], discs: Draw
) -> None:
    model = bright_model(seen=seen, data=FIXED)
    pixels = picture(discs, 100, radius=10.0)
    y, x = np.mgrid[4:140:12, 6:140:44]
    pixels[y.ravel(), x.ravel()] = 250
    record = run_of(model, tmp_path / "a.tif", pixels, tmp_path / "out")
    assert record["training"]["median_diameter_px"] < 2
    unlike = record["training"]["unlike"]
    again = decode_run(tmp_path / "out" / "a", ["instances.min_area_px=20"])
    record = json.loads((again.folder / "run.json").read_text())
    assert record["training"]["median_diameter_px"] == pytest.approx(20, abs=0.5)
    assert record["training"]["unlike"] == unlike
    assert record["warnings"] == list(again.warnings)
    assert sum("px across in the median" in said for said in again.warnings) == 1


def test_only_what_is_inspected_is_looked_at(
    tmp_path: Path, bright_model: Write, seen: dict[str, Any], discs: Draw
) -> None:
    pixels = np.tile(picture(discs, 100), (8, 16))
    pixels[:, 1120:] = 255 - pixels[:, 1120:]
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    model = bright_model(seen=seen, data=FIXED)
    levels = []
    for left in (100, 1500):
        corners = [[left, 300], [left + 400, 300], [left + 400, 800], [left, 800], [left, 300]]
        roi = tmp_path / "roi.geojson"
        roi.write_text(json.dumps({"type": "Polygon", "coordinates": [corners]}))
        options = RunOptions(roi=roi)
        (run,) = predict(model, [tmp_path / "a.tif"], tmp_path / f"{left}", options=options)
        record = json.loads((run.folder / "run.json").read_text())
        levels.append(record["training"]["looks"]["level"])
    seen_level = picture(discs, 100).mean() / 255
    assert levels == [pytest.approx(seen_level, abs=0.02), pytest.approx(1 - seen_level, abs=0.02)]


def test_a_data_set_names_its_images_that_are_unlike(
    tmp_path: Path, bright_model: Write, seen: dict[str, Any], discs: Draw
) -> None:
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "data" / "labels").mkdir()
    drawn = (
        ("a", picture(discs, 100)),
        ("b", 255 - picture(discs, 100)),
        ("c", picture(discs, 100, radius=10.0)),
    )
    for name, pixels in drawn:
        tifffile.imwrite(tmp_path / "data" / "images" / f"{name}.tif", pixels)
        tifffile.imwrite(
            tmp_path / "data" / "labels" / f"{name}.tif", np.ones((140, 140), np.uint8)
        )
    data = {
        **FIXED,
        "loader": {"name": "mask_folder"},
        "split": {"by": "hash", "val": 0.0, "test": 0.0},
    }
    made = predict_data(bright_model(seen=seen, data=data), tmp_path / "data", tmp_path / "out")
    images = pl.read_csv(made.folder / "images.csv")
    first, second, third = images.sort("image")["unlike_training"].to_list()
    assert first is None
    assert second.startswith("the image looks unlike")
    # The command of a whole data set does not scale its images.
    assert "px across in the median" in third
    assert third.endswith("; segment the image by itself with --diameter-px auto")


def prepared(looks: NDArray[np.float64] | None, *areas: int) -> Prepared:
    none = np.zeros(0, np.int64)
    sizes = np.array(areas, np.int64)
    return Prepared(Path(), 3, (9, 9), none, none.astype(np.int16), sizes, none, None, "", looks)


def test_sizes_of_a_training_are_medians_of_images() -> None:
    images = [prepared(None, *[round(np.pi / 4 * d * d)] * 3, 10**6) for d in range(10, 51)]
    low, *_, high = seen_in_training(images)["diameters_px"]
    assert low == pytest.approx(10.2, abs=0.2)
    assert high == pytest.approx(49.8, abs=0.2)
    assert "looks" not in seen_in_training(images)


def test_images_without_objects_have_looks_and_no_size() -> None:
    rows = np.random.default_rng(0).random((25, len(FEATURES)))
    seen = seen_in_training([prepared(row) for row in rows])
    assert "diameters_px" not in seen
    assert len(seen["looks"]["values"]) == 25
