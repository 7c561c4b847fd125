"""The diameter of an image's objects: measured at many scales, given, and what follows from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy.ndimage import label

from domainseg.cli.app import run as command
from domainseg.diameter import Reading, diameter_readings, estimate_diameter
from domainseg.errors import UsageError
from domainseg.evaluate import evaluate_model
from domainseg.predict import predict
from domainseg.records import Sample
from domainseg.runs import Model, RunOptions, open_model

Draw = Callable[..., NDArray[np.int32]]
Write = Callable[..., Path]
FIXED = {"normalise": {"scope": "fixed", "fixed_low": 0.0, "fixed_high": 255.0}}
SEEN = {"diameters_px": [10.0, 12.0, 20.0, 36.0, 40.0]}


def picture(discs: Draw, radius: float, *, many: int = 4) -> NDArray[np.uint8]:
    step = int(3 * radius)
    places = [
        (step * (y + 0.7), step * (x + 0.7), radius) for y in range(many) for x in range(many)
    ]
    labels = discs((step * many, step * many), *places)
    return np.where(labels > 0, 240, 10).astype(np.uint8)


def sample_of(pixels: NDArray[np.uint8]) -> Sample:
    return Sample("a", pixels[None], ("grey",))


@pytest.fixture
def model(bright_model: Write) -> Model:
    return open_model(bright_model(seen=SEEN, data=FIXED), RunOptions())


@pytest.mark.parametrize("radius", [5.0, 10.0, 30.0, 90.0])
def test_the_diameter_is_found_whatever_it_is(model: Model, discs: Draw, radius: float) -> None:
    found = estimate_diameter(model.segmenter, model.card, sample_of(picture(discs, radius)))
    assert found == pytest.approx(2 * radius, rel=0.1)


def test_readings_are_in_pixels_of_the_image(model: Model, discs: Draw) -> None:
    readings = diameter_readings(model.segmenter, sample_of(picture(discs, 24.0)))
    assert [one.scale for one in readings][:3] == [1.0, 2.0, 0.5]
    for one in readings[:3]:
        assert one.diameter_px == pytest.approx(48, rel=0.1)
        assert one.objects >= 3


def test_a_surer_reading_is_believed_unless_its_size_is_far_off() -> None:
    sure, unsure = Reading(1.0, 9, 20.0, 0.95), Reading(0.5, 9, 20.0, 0.8)
    assert sure.belief(20.0) > unsure.belief(20.0)
    fragments = Reading(1.0, 30, 1.0, 0.95)
    assert unsure.belief(20.0) > fragments.belief(20.0)


def test_an_image_without_objects_has_no_diameter(model: Model) -> None:
    assert (
        estimate_diameter(model.segmenter, model.card, sample_of(np.zeros((100, 100), np.uint8)))
        is None
    )


def test_a_model_that_knows_no_sizes_cannot_measure(bright_model: Write) -> None:
    with pytest.raises(UsageError, match="an estimate, for a model that works at no diameter"):
        open_model(bright_model(data=FIXED), RunOptions(estimate_diameter=True))


@pytest.mark.parametrize(
    ("given", "scale"), [(6.0, 2.0), (10.0, 1.0), (23.0, 1.0), (40.0, 1.0), (144.0, 0.25)]
)
def test_only_what_lies_beyond_the_training_is_scaled(
    tmp_path: Path, bright_model: Write, discs: Draw, given: float, scale: float
) -> None:
    image = tmp_path / "a.tif"
    tifffile.imwrite(image, picture(discs, given / 2))
    options = RunOptions(diameter_px=given)
    (run,) = predict(
        bright_model(seen=SEEN, data=FIXED), [image], tmp_path / "out", options=options
    )
    record: dict[str, Any] = json.loads((run.folder / "run.json").read_text())
    assert record["grid"]["scale"] == pytest.approx([scale, scale], rel=0.03)
    assert record["image"]["diameter_px"] == given
    assert run.count == 16


def test_auto_measures_each_image(
    tmp_path: Path, bright_model: Write, discs: Draw, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, radius in (("small", 6.0), ("large", 64.0)):
        tifffile.imwrite(tmp_path / f"{name}.tif", picture(discs, radius))
    model = bright_model(seen=SEEN, data=FIXED)
    out = tmp_path / "out"
    images = [str(tmp_path / f"{name}.tif") for name in ("small", "large")]
    assert command(["predict", str(model), *images, "-o", str(out), "--diameter-px", "auto"]) == 0
    capsys.readouterr()
    records = [json.loads((out / name / "run.json").read_text()) for name in ("small", "large")]
    assert records[0]["grid"]["scale"] == [1.0, 1.0]
    assert records[1]["grid"]["scale"] == pytest.approx([36 / 128, 36 / 128], rel=0.1)
    assert any("object diameter measured" in said for said in records[1]["warnings"])
    assert [record["objects"] for record in records] == [16, 16]


def test_a_repeated_run_knows_the_diameter_and_an_empty_one_has_none(
    tmp_path: Path,
    bright_model: Write,
    discs: Draw,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tifffile.imwrite(tmp_path / "large.tif", picture(discs, 64.0))
    tifffile.imwrite(tmp_path / "empty.tif", np.zeros((90, 90), np.uint8))
    model = bright_model(seen=SEEN, data=FIXED)
    images = [tmp_path / "large.tif", tmp_path / "empty.tif"]
    options = RunOptions(estimate_diameter=True)
    first = predict(model, images, tmp_path / "out", options=options)
    assert [run.count for run in first] == [16, 0]
    assert any("the image is not scaled" in said for said in first[1].warnings)
    monkeypatch.setattr(import_module("domainseg.predict"), "estimate_diameter", None)
    again = predict(model, images, tmp_path / "out", options=options)
    assert all(run.repeated for run in again)


def test_the_diameter_of_another_plane_is_not_taken_for_that_of_this_one(
    tmp_path: Path, bright_model: Write, discs: Draw
) -> None:
    large = picture(discs, 64.0)
    small = np.full_like(large, 10)
    part = picture(discs, 8.0)
    small[: part.shape[0], : part.shape[1]] = part
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.stack([large, small]),
        photometric="minisblack",
        planarconfig="separate",
    )
    model = bright_model(seen=SEEN, data=FIXED)
    measured = []
    for channel in (0, 1):
        options = RunOptions(estimate_diameter=True, select={"channel": channel}, restart=True)
        (run,) = predict(model, [tmp_path / "a.tif"], tmp_path / "out", options=options)
        record = json.loads((run.folder / "run.json").read_text())
        measured.append(record["image"]["diameter_px"])
    assert measured == [pytest.approx(128, rel=0.1), pytest.approx(16, rel=0.1)]


def test_the_diameter_is_that_of_the_region_to_look_at(
    tmp_path: Path, bright_model: Write, discs: Draw
) -> None:
    pixels = np.full((3000, 3000), 10, np.uint8)
    small, large = picture(discs, 10.0, many=60), picture(discs, 64.0, many=3)
    pixels[: small.shape[0], : small.shape[1]] = small
    pixels[2000 : 2000 + large.shape[0], 2000 : 2000 + large.shape[1]] = large
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    model = bright_model(seen=SEEN, data=FIXED)
    measured = []
    for corner, size in ((0, 600), (2000, 570)):
        end = corner + size
        ring = [[corner, corner], [end, corner], [end, end], [corner, end], [corner, corner]]
        roi = tmp_path / "roi.geojson"
        roi.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
        # The second region, in the same folder, is measured anew.
        options = RunOptions(estimate_diameter=True, roi=roi, restart=True)
        (run,) = predict(model, [tmp_path / "a.tif"], tmp_path / "out", options=options)
        record = json.loads((run.folder / "run.json").read_text())
        measured.append(record["image"]["diameter_px"])
    assert measured == [pytest.approx(20, rel=0.1), pytest.approx(128, rel=0.1)]


def test_the_scale_at_which_the_network_is_sure_is_believed(
    model: Model, discs: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at_one_size(_segmenter: Any, plane: Any, scale: float, _area: Any) -> Reading:
        # A network that knows discs of 20 px: larger ones fall to pieces, smaller ones merge.
        on_grid = 80 * scale
        sure = 0.98 - 0.1 * abs(np.log2(on_grid / 20))
        found = min(on_grid, 22.0) if on_grid > 30 else max(on_grid, 16.0)
        return Reading(scale, 9, float(found / scale), float(sure))

    monkeypatch.setattr("domainseg.diameter._reading", at_one_size)
    found = estimate_diameter(model.segmenter, model.card, sample_of(picture(discs, 40.0)))
    assert found == pytest.approx(80, rel=0.15)


def test_an_evaluation_measures_too_and_says_so(
    tmp_path: Path, bright_model: Write, discs: Draw
) -> None:
    root = tmp_path / "data"
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    pixels = picture(discs, 64.0)
    tifffile.imwrite(root / "images" / "a.tif", pixels)
    tifffile.imwrite(root / "labels" / "a.tif", label(pixels > 100)[0].astype(np.uint8))
    data = {
        **FIXED,
        "loader": {"name": "mask_folder"},
        "split": {"by": "hash", "val": 0.0, "test": 0.0},
    }
    options = RunOptions(estimate_diameter=True)
    model = bright_model(seen=SEEN, data=data)
    found = evaluate_model(model, root, out=tmp_path / "out", part="all", options=options)
    assert found.all.mean.ap[0] == 1
    record = json.loads((tmp_path / "out" / "a" / "run.json").read_text())
    assert record["image"]["diameter_from"] == "estimate"
    assert record["grid"]["scale"] == pytest.approx([36 / 128, 36 / 128], rel=0.1)
    assert any("object diameter measured" in said for said in record["warnings"])


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "--diameter-px", "big"],
        ["predict", "--diameter", "big"],
        ["predict", "--diameter=big"],
        ["evaluate", "--diameter", "big"],
        ["check", "--diameter", "big", "--image", "a.png"],
    ],
)
def test_what_is_no_diameter_is_refused(
    bright_model: Write, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    verb, *rest = words
    assert command([verb, str(bright_model()), *(["a.png"] if verb != "check" else []), *rest]) == 2
    assert capsys.readouterr().err == (
        "error: --diameter-px: found 'big', wanted a number or auto; correct it.\n"
    )


@pytest.mark.parametrize("verb", ["predict", "evaluate", "check"])
def test_the_help_has_one_name_for_the_diameter(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command([verb, "--help"]) == 0
    words = capsys.readouterr().out.split()
    assert "--diameter-px" in words
    assert "--diameter" not in words
