"""Prediction end to end: every input that must work, what is written, what is refused."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from domainseg import results
from domainseg.cli.app import run as command
from domainseg.errors import InputError, MissingInputError, OutputError, UsageError
from domainseg.images import read_labels
from domainseg.predict import PartlyFailedError, name_images, predict
from domainseg.report.run_folder import image_folders, read_image, read_label_map, read_objects
from domainseg.run_folder import FILES, begin_folder, difference
from domainseg.runs import RunOptions

Draw = Callable[..., NDArray[np.int32]]
Write = Callable[..., Path]


@pytest.fixture
def disc(discs: Draw) -> NDArray[np.int32]:
    return discs((70, 90), (20, 30, 9), (50, 60, 12))


def grey(labels: NDArray[np.int32]) -> NDArray[np.uint8]:
    return np.where(labels > 0, 240, 10).astype(np.uint8)


def save_png(path: Path, pixels: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def test_a_run_folder_holds_every_form_of_the_result(
    tmp_path: Path, bright_model: Write, disc: NDArray[np.int32]
) -> None:
    image = save_png(tmp_path / "plate.png", grey(disc))
    (run,) = predict(bright_model(), [image], tmp_path / "out")
    folder = tmp_path / "out" / "plate"
    assert run.folder == folder
    small = {"labels.tif", "objects.coco.json"}
    kept = {"maps.zarr", "run.json", "timings.json"}
    assert {p.name for p in folder.iterdir()} == {*FILES, *small, *kept}
    np.testing.assert_array_equal(read_labels(folder / "labels.tif"), disc)
    assert run.objects["area_px"].to_list() == [(disc == 1).sum(), (disc == 2).sum()]
    assert pl.read_parquet(folder / "objects.parquet").equals(run.objects)
    geojson = json.loads((folder / "objects.geojson").read_text())
    assert [f["properties"]["metadata"]["label"] for f in geojson["features"]] == ["1", "2"]
    coco = json.loads((folder / "objects.coco.json").read_text())
    assert [a["area"] for a in coco["annotations"]] == run.objects["area_px"].to_list()
    record = json.loads((folder / "run.json").read_text())
    assert record["objects"] == 2
    assert record["objects_per_class"] == {"cell": 2}
    assert record["inspected_px"] == disc.size
    assert record["intensity"] == {"low": [0.0] * 3, "high": [255.0] * 3}
    assert not (tmp_path / "out" / "objects.parquet").exists()
    (found,) = image_folders(tmp_path / "out")
    assert read_objects(found, read_image(found)).height == 2


def test_a_data_bar_is_not_looked_at(tmp_path: Path, bright_model: Write, discs: Draw) -> None:
    labels = discs((70, 90), (20, 30, 9))
    pixels = grey(labels)
    pixels[60:, 10:80] = 255
    image = save_png(tmp_path / "sem.png", pixels)
    edges = {"ignore_edges_px": {"bottom": 10}}
    model = bright_model(image=edges, data={"normalise": {"scope": "image"}})
    (run,) = predict(model, [image], tmp_path / "out")
    np.testing.assert_array_equal(read_labels(run.folder / "labels.tif"), labels)
    record = json.loads((run.folder / "run.json").read_text())
    assert record["inspected_px"] == 60 * 90
    # Nor does the bar stretch the intensities.
    assert record["intensity"] == {"low": [10.0] * 3, "high": [240.0] * 3}


def gradient(shape: tuple[int, int]) -> NDArray[np.float64]:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.asarray((y + 2 * x) / max(1, shape[0] + 2 * shape[1] - 3))


INPUTS: dict[str, NDArray[Any]] = {
    "one": np.full((1, 1), 240, np.uint8),
    "row": np.full((1, 37), 240, np.uint8),
    "column": np.full((37, 1), 240, np.uint8),
    "smaller": (255 * gradient((5, 7))).astype(np.uint8),
    "core": (255 * gradient((64, 64))).astype(np.uint8),
    "tiles": (255 * gradient((65, 130))).astype(np.uint8),
    "black": np.zeros((40, 50), np.uint8),
    "white": np.full((40, 50), 255, np.uint8),
    "deep": (65535 * gradient((40, 50))).astype(np.uint16),
    "float": gradient((40, 50)).astype(np.float32),
}


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("scope", ["image", "fixed"])
def test_images_of_every_size_and_depth_work(
    tmp_path: Path, bright_model: Write, name: str, scope: str
) -> None:
    pixels = INPUTS[name]
    high = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}[pixels.dtype.name]
    fixed = {"scope": "fixed", "fixed_low": 0.0, "fixed_high": high}
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    model = bright_model(data={"normalise": fixed if scope == "fixed" else {"scope": "image"}})
    exact = RunOptions(precision="fp32")
    (run,) = predict(model, [tmp_path / "a.tif"], tmp_path / "out", options=exact)
    labels = read_labels(run.folder / "labels.tif")
    assert labels.shape == pixels.shape
    if scope == "fixed":
        np.testing.assert_array_equal(labels > 0, pixels / high >= 0.5)
    elif np.ptp(pixels) == 0:
        assert run.objects.height == 0
    else:
        assert run.objects.height == 1
    with Image.open(run.folder / "overlay.png") as picture:
        assert picture.size == pixels.shape[::-1]


def test_colour_and_its_alpha_work(
    tmp_path: Path, bright_model: Write, disc: NDArray[np.int32]
) -> None:
    rgba = np.zeros((*disc.shape, 4), np.uint8)
    rgba[..., :3] = grey(disc)[..., None]
    rgba[..., 3] = 7
    paths = [
        save_png(tmp_path / "rgb.png", np.ascontiguousarray(rgba[..., :3])),
        save_png(tmp_path / "rgba.png", rgba),
    ]
    for run in predict(bright_model(), paths, tmp_path / "out"):
        np.testing.assert_array_equal(read_labels(run.folder / "labels.tif"), disc)


def test_named_channels_are_taken_in_the_order_of_the_model(
    tmp_path: Path, bright_model: Write, disc: NDArray[np.int32]
) -> None:
    names = ["A", "B", "C", "D", "E"]
    planes = np.full((5, *disc.shape), 10, np.uint8)
    planes[3] = grey(disc)
    path = tmp_path / "five.ome.tif"
    metadata = {"axes": "CYX", "Channel": {"Name": names}}
    tifffile.imwrite(path, planes, metadata=metadata, photometric="minisblack")
    model = bright_model(data={"channels": ["D", "A", "B", "C", "E"]})
    (run,) = predict(model, [path], tmp_path / "out")
    np.testing.assert_array_equal(read_labels(run.folder / "labels.tif"), disc)
    assert run.objects["intensity_mean_D"].to_list() == [240, 240]
    assert run.objects["intensity_mean_A"].to_list() == [10, 10]


def test_tiles_make_no_difference_to_objects_across_them(
    tmp_path: Path, bright_model: Write, discs: Draw
) -> None:
    labels = discs((200, 200), (64, 64, 30), (130, 128, 25), (190, 20, 15))
    image = save_png(tmp_path / "a.png", grey(labels))
    for batch in (1, 3):
        model = bright_model(tiling={"batch": batch})
        (run,) = predict(model, [image], tmp_path / f"out{batch}")
        np.testing.assert_array_equal(read_labels(run.folder / "labels.tif"), labels)


def test_layers_leave_a_file_each_and_their_highest_labels(
    tmp_path: Path, bright_model: Write
) -> None:
    rgb = np.full((20, 20, 3), 10, np.uint8)
    rgb[2:10, 2:10, 0] = 240
    rgb[6:14, 6:14, 1] = 240
    model = bright_model(head={"name": "semantic", "activation": "sigmoid"}, classes=("a", "b"))
    (run,) = predict(model, [save_png(tmp_path / "a.png", rgb)], tmp_path / "out")
    layers = [read_labels(run.folder / f"labels-layer{i}.tif") for i in (0, 1)]
    np.testing.assert_array_equal(layers[0] > 0, rgb[..., 0] > 99)
    np.testing.assert_array_equal(layers[1] > 0, rgb[..., 1] > 99)
    flat = read_label_map(run.folder / "labels.tif")
    np.testing.assert_array_equal(flat, np.maximum(*layers))
    assert run.objects["layer"].to_list() == [0, 1]
    assert run.objects["label"].to_list() == [1, 2]
    assert run.objects["area_px"].to_list() == [64, 64]
    assert run.objects["class"].to_list() == ["a", "b"]
    features = json.loads((run.folder / "objects.geojson").read_text())["features"]
    assert [f["properties"]["classification"]["name"] for f in features] == ["a", "b"]
    coco = json.loads((run.folder / "objects.coco.json").read_text())
    assert [a["area"] for a in coco["annotations"]] == [64, 64]
    assert read_objects(run.folder, read_image(run.folder)).height == 2


def test_a_pixel_size_gives_micrometres(
    tmp_path: Path, bright_model: Write, disc: NDArray[np.int32]
) -> None:
    image = save_png(tmp_path / "a.png", grey(disc))
    options = RunOptions(spacing_um=0.5)
    (run,) = predict(bright_model(), [image], tmp_path / "out", options=options)
    assert run.objects["area_um2"].to_list() == pytest.approx(
        [0.25 * (disc == 1).sum(), 0.25 * (disc == 2).sum()]
    )
    assert json.loads((run.folder / "run.json").read_text())["inspected_um2"] == disc.size / 4


def test_images_of_one_call_are_one_group(
    tmp_path: Path, bright_model: Write, disc: NDArray[np.int32]
) -> None:
    # Alone the dim one is stretched until its discs are bright; beside the bright one not.
    dim = np.where(disc > 0, 60, 10).astype(np.uint8)
    bright = save_png(tmp_path / "bright.png", grey(disc))
    paths = [bright, save_png(tmp_path / "dim.png", dim)]
    percentiles = {"low_percentile": 0.0, "high_percentile": 100.0}
    alone = bright_model(data={"normalise": {"scope": "image", **percentiles}})
    found = predict(alone, paths, tmp_path / "alone")
    assert [run.objects.height for run in found] == [2, 2]
    grouped = bright_model(data={"normalise": {"scope": "group", **percentiles}})
    found = predict(grouped, paths, tmp_path / "grouped")
    assert [run.objects.height for run in found] == [2, 0]
    record = json.loads((found[1].folder / "run.json").read_text())
    assert record["intensity"] == {"low": [10.0] * 3, "high": [240.0] * 3}
    with pytest.raises(OutputError) as caught:
        predict(grouped, paths[1:], tmp_path / "grouped")
    assert str(caught.value) == (
        f"{tmp_path / 'grouped' / 'dim'}: found a run with another image.group_intensity.high, "
        "wanted the same model, image and settings; choose another output folder, or replace it "
        "with --restart."
    )


def test_several_images_leave_one_table(
    tmp_path: Path, bright_model: Write, disc: NDArray[np.int32]
) -> None:
    for name in ("a/x", "b/x"):
        save_png(tmp_path / "images" / f"{name}.png", grey(disc))
    options = RunOptions(keep_folders=True)
    out = tmp_path / "out"
    told: list[tuple[int, int, str]] = []
    found = predict(
        bright_model(),
        [tmp_path / "images"],
        out,
        options=options,
        tell=lambda *now: told.append(now),
    )
    assert [run.folder for run in found] == [out / "a" / "x", out / "b" / "x"]
    table = pl.read_parquet(out / "objects.parquet")
    assert table["image"].to_list() == ["a/x", "a/x", "b/x", "b/x"]
    assert told == [(0, 2, "a/x"), (1, 2, "b/x"), (2, 2, "")]


def test_a_finished_run_is_not_run_again_and_a_damaged_one_is(
    tmp_path: Path, bright_model: Write, disc: NDArray[np.int32]
) -> None:
    image = save_png(tmp_path / "a.png", grey(disc))
    model, out = bright_model(), tmp_path / "out"
    (first,) = predict(model, [image], out)
    (again,) = predict(model, [image], out)
    assert not first.repeated
    assert again.repeated
    assert again.objects.equals(first.objects)
    for name in ("run.json", "objects.parquet"):
        whole = (first.folder / name).read_bytes()
        for content in (whole[: len(whole) // 2], b""):
            (first.folder / name).write_bytes(content)
            (mended,) = predict(model, [image], out)
            assert not mended.repeated
            assert (first.folder / name).read_bytes() == whole
    for name in FILES:
        if (first.folder / name).is_file():
            (first.folder / name).unlink()
            assert not predict(model, [image], out)[0].repeated
            assert (first.folder / name).exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"spacing_um": 0.5}, "image.spacing_um"),
        ({"select": {"z": 0}}, "image.select.z"),
        ({"overrides": ("instances.threshold=0.6",)}, "recipe.instances.threshold"),
        ({"overrides": ("tiling.core_px=32",)}, "recipe.tiling.core_px"),
        ({"precision": "bf16"}, "lattice.precision"),
    ],
)
def test_a_run_of_another_setting_is_neither_returned_nor_replaced(
    tmp_path: Path,
    bright_model: Write,
    disc: NDArray[np.int32],
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    named: str,
) -> None:
    image = save_png(tmp_path / "a.png", grey(disc))
    model, out = bright_model(), tmp_path / "out"
    exact = RunOptions(precision="fp32")
    (run,) = predict(model, [image], out, options=exact)
    before = (run.folder / "run.json").read_bytes()
    if "select" in change:
        # A PNG has no z to choose from; what matters here is what was asked for.
        room = import_module("domainseg.predict")
        real = room.open_image
        monkeypatch.setattr(room, "open_image", lambda path, **_: real(path))
    with pytest.raises(OutputError) as caught:
        predict(model, [image], out, options=replace(exact, **change))
    assert str(caught.value) == (
        f"{run.folder}: found a run with another {named}, wanted the same model, image and "
        "settings; choose another output folder, or replace it with --restart."
    )
    assert (run.folder / "run.json").read_bytes() == before


def test_a_diameter_is_part_of_a_run_and_refused_where_it_has_no_effect(
    tmp_path: Path, bright_model: Write, disc: NDArray[np.int32]
) -> None:
    image = save_png(tmp_path / "a.png", grey(disc))
    given = RunOptions(diameter_px=9.0)
    with pytest.raises(UsageError) as caught:
        predict(bright_model(), [image], tmp_path / "out", options=given)
    assert str(caught.value) == (
        "--diameter-px: found 9 px, for a model that works at no diameter, wanted an option that "
        "takes effect; drop it, or train with data.diameter_px."
    )
    model = bright_model(data={"diameter_px": 10.0})
    predict(model, [image], tmp_path / "out", options=given)
    with pytest.raises(OutputError, match=r"a run with another image\.diameter_px"):
        predict(model, [image], tmp_path / "out", options=replace(given, diameter_px=8.0))


def test_restart_replaces_a_run_and_train_settings_do_not_matter(
    tmp_path: Path, bright_model: Write, disc: NDArray[np.int32]
) -> None:
    image = save_png(tmp_path / "a.png", grey(disc))
    model, out = bright_model(), tmp_path / "out"
    predict(model, [image], out)
    other = ("evaluate.by_class=true", "report.title=x", "train.workers=0", "data.root=y")
    (same,) = predict(model, [image], out, options=RunOptions(overrides=other))
    assert same.repeated
    options = RunOptions(overrides=("instances.min_area_px=300",), restart=True)
    (run,) = predict(model, [image], out, options=options)
    assert not run.repeated
    assert run.objects.height == 1


def test_a_restart_that_fails_leaves_no_record_of_the_run_before(
    tmp_path: Path,
    bright_model: Write,
    disc: NDArray[np.int32],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = save_png(tmp_path / "a.png", grey(disc))
    model, out = bright_model(), tmp_path / "out"
    (run,) = predict(model, [image], out)
    full = OSError(errno.ENOSPC, "No space left on device")

    def refuse(*_: object, **__: object) -> None:
        raise full

    monkeypatch.setattr(tifffile, "imwrite", refuse)
    with pytest.raises(OutputError) as caught:
        predict(model, [image], out, options=RunOptions(restart=True))
    assert str(caught.value) == (
        f"{run.folder / 'labels.tif'}: found no room left on the disk, wanted room for the whole "
        "file; free some space or choose another output folder."
    )
    assert not (run.folder / "run.json").exists()
    monkeypatch.undo()


@pytest.mark.parametrize("at", ["label_store", "reap", "write_labels", "Canvas"])
def test_a_disk_without_room_leaves_nothing_half_written_and_the_run_goes_on(
    tmp_path: Path,
    bright_model: Write,
    disc: NDArray[np.int32],
    monkeypatch: pytest.MonkeyPatch,
    at: str,
) -> None:
    image = save_png(tmp_path / "a.png", grey(disc))
    model = bright_model()

    def refuse(*_: object, **__: object) -> None:
        from domainseg.atomic import atomic_path

        with atomic_path(tmp_path / "out" / "a" / "half.bin") as partial:
            partial.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(results, at, refuse)
        with pytest.raises(OutputError):
            predict(model, [image], tmp_path / "out")
    left = {p.name for p in (tmp_path / "out" / "a").iterdir()}
    assert left <= {*FILES, "labels.tif", "objects.coco.json", "maps.zarr", "progress.json"}
    assert "progress.json" in left
    (run,) = predict(model, [image], tmp_path / "out")
    assert json.loads((run.folder / "timings.json").read_text())["tiles_from_before"] > 0
    assert not (run.folder / "progress.json").exists()


def test_an_unfinished_run_of_another_setting_is_refused_and_restarted(
    tmp_path: Path, bright_model: Write, disc: NDArray[np.int32], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = save_png(tmp_path / "a.png", grey(disc))
    model, out = bright_model(), tmp_path / "out"

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(results, "reap", stop)
        with pytest.raises(KeyboardInterrupt):
            predict(model, [image], out)
    other = RunOptions(overrides=("instances.threshold=0.6",))
    with pytest.raises(OutputError) as caught:
        predict(model, [image], out, options=other)
    assert str(caught.value) == (
        f"{out / 'a'}: found an unfinished run with another recipe.instances.threshold, wanted "
        "the same model, image and settings; choose another output folder, or replace it with "
        "--restart."
    )
    save_png(tmp_path / "a.png", np.ascontiguousarray(grey(disc)[::-1]))
    with pytest.raises(OutputError, match=r"an unfinished run with another image\.sha256"):
        predict(model, [image], out)
    (run,) = predict(model, [image], out, options=replace(other, restart=True))
    assert json.loads((run.folder / "timings.json").read_text())["tiles_from_before"] == 0


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        ({"select": {"channel": [0, 1, 2, 3]}}, "--select channel=0"),
        ({"diameter_px": 100_000.0}, "--diameter-px"),
    ],
)
def test_a_run_that_is_refused_begins_nothing_and_takes_nothing_away(
    tmp_path: Path,
    bright_model: Write,
    disc: NDArray[np.int32],
    refused: dict[str, Any],
    said: str,
) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.stack([grey(disc)] * 5),
        photometric="minisblack",
        planarconfig="separate",
    )
    model, out = bright_model(data={"diameter_px": 10.0}), tmp_path / "out"
    wrong = replace(RunOptions(select={"channel": 0}, diameter_px=10.0), **refused)
    with pytest.raises(InputError, match=said):
        predict(model, [tmp_path / "a.tif"], out, options=wrong)
    assert not out.exists()
    right = RunOptions(select={"channel": 0}, diameter_px=10.0)
    (run,) = predict(model, [tmp_path / "a.tif"], out, options=right)
    with pytest.raises(InputError, match=said):
        predict(model, [tmp_path / "a.tif"], out, options=replace(wrong, restart=True))
    (again,) = predict(model, [tmp_path / "a.tif"], out, options=right)
    assert (again.count, again.repeated) == (run.count, True)


def test_an_unfinished_run_of_which_no_tile_is_done_is_replaced(
    tmp_path: Path, bright_model: Write, disc: NDArray[np.int32]
) -> None:
    pixels = np.stack([grey(disc).astype(np.float32)] * 2)
    pixels[0, 3, 4] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", planarconfig="separate")
    out = tmp_path / "out"
    model = bright_model(data={"normalise": {"scope": "image"}})
    with pytest.raises(InputError, match="NaN"):
        predict(model, [tmp_path / "a.tif"], out, options=RunOptions(select={"channel": 0}))
    assert (out / "a" / "progress.json").exists()
    (run,) = predict(model, [tmp_path / "a.tif"], out, options=RunOptions(select={"channel": 1}))
    assert run.count == 2


@pytest.mark.parametrize(
    ("left", "refused"),
    [
        ("maps.zarr/zarr.json", False),
        ("maps.zarr/c/0/0/1.8e7a.partial", False),
        ("maps.zarr/c/0/0/1", True),
        ("detections/windows.json", False),
        ("detections/.partial-8e7a.npz", False),
        ("detections/000001.npz", True),
    ],
)
def test_what_is_seen_of_a_tile_keeps_another_run_out(
    tmp_path: Path, left: str, refused: bool
) -> None:
    begin_folder(tmp_path, {"image": {"sha256": "a"}}, restart=False)
    (tmp_path / left).parent.mkdir(parents=True)
    (tmp_path / left).touch()
    other = {"image": {"sha256": "b"}}
    if not refused:
        begin_folder(tmp_path, other, restart=False)
        assert not (tmp_path / left).exists()
        return
    with pytest.raises(OutputError, match=r"an unfinished run with another image\.sha256"):
        begin_folder(tmp_path, other, restart=False)
    assert (tmp_path / left).exists()


def test_images_that_cannot_be_read_do_not_stop_the_others(
    tmp_path: Path, bright_model: Write, disc: NDArray[np.int32]
) -> None:
    folder = tmp_path / "images"
    for name in "abc":
        save_png(folder / f"{name}.png", grey(disc))
    whole = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PartlyFailedError) as caught:
        predict(bright_model(), [folder], tmp_path / "out")
    assert str(caught.value) == (
        f"{tmp_path / 'out'}: found 1 of 3 images that could not be run (b), wanted images that "
        "can be read and fit the model; mend or leave them out and repeat the command: what is "
        "done stays."
    )
    ((name, failure),) = caught.value.failures
    assert name == "b"
    assert str(failure).startswith(f"{folder / 'b.png'}: found a truncated or corrupt PNG file")
    assert [(run.image, run.count) for run in caught.value.runs] == [("a", 2), ("c", 2)]
    table = pl.read_parquet(tmp_path / "out" / "objects.parquet")
    assert table["image"].to_list() == ["a", "a", "c", "c"]


def test_what_was_run_is_told_before_what_could_not_be(
    tmp_path: Path,
    bright_model: Write,
    disc: NDArray[np.int32],
    capsys: pytest.CaptureFixture[str],
) -> None:
    images = [str(save_png(tmp_path / f"{name}.png", grey(disc))) for name in "ac"]
    pixels = np.zeros((5, 9, 9), np.uint8)
    tifffile.imwrite(
        tmp_path / "five.tif", pixels, photometric="minisblack", planarconfig="separate"
    )
    model = bright_model(data={"diameter_px": 10.0})
    out = tmp_path / "out"
    words = ["predict", str(model), *images, str(tmp_path / "five.tif"), "-o", str(out)]
    assert command(words) == 3
    said = capsys.readouterr()
    lines = [line for line in said.out.splitlines() if line.startswith(str(out))]
    assert lines == [f"{out / name}  2 objects" for name in "ac"]
    first, second, third, last = said.err.splitlines()
    assert first.startswith("warning: a: object diameter not given")
    assert second.startswith("warning: c: object diameter not given")
    assert third.startswith("warning: five: found channels c0, c1, c2, c3, c4, wanted ")
    assert last.startswith(f"error: {out}: found 1 of 3 images that could not be run (five)")


@pytest.mark.parametrize(
    ("name", "said", "told"),
    [
        ("five", "five: found 5 channels.", "five: found 5 channels."),
        ("x/five", "x/five: found 5 channels.", "x/five: found 5 channels."),
        ("a.b", "a.b: found 5 channels.", "a.b: found 5 channels."),
        ("a.b", "d/a.b.tif: found nothing.", "d/a.b.tif: found nothing."),
        ("x/five", "d/x/five.tif: found nothing.", "d/x/five.tif: found nothing."),
        ("five", "http://h/five.zarr: found nothing.", "http://h/five.zarr: found nothing."),
        ("i", "image: found no pixel.", "i: image: found no pixel."),
    ],
)
def test_a_failure_names_its_image_once(name: str, said: str, told: str) -> None:
    assert PartlyFailedError("no.", ((name, InputError(said)),)).sentences() == (told,)


def test_only_the_regions_given_are_inspected(
    tmp_path: Path, bright_model: Write, discs: Draw
) -> None:
    labels = discs((200, 200), (40, 40, 9), (150, 150, 12))
    image = save_png(tmp_path / "a.png", grey(labels))
    ring = [[0, 0], [100, 0], [100, 100], [0, 100], [0, 0]]
    roi = tmp_path / "roi.geojson"
    roi.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    options = RunOptions(roi=roi, spacing_um=2.0)
    (run,) = predict(bright_model(), [image], tmp_path / "out", options=options)
    found = read_labels(run.folder / "labels.tif")
    np.testing.assert_array_equal(found, np.where(labels == 1, 1, 0))
    record = json.loads((run.folder / "run.json").read_text())
    assert record["inspected_px"] == 10_000
    assert record["inspected_um2"] == 40_000
    assert record["area"] is not None
    with pytest.raises(OutputError, match="a run with another area"):
        predict(bright_model(), [image], tmp_path / "out", options=RunOptions(spacing_um=2.0))


def test_maps_can_be_dropped(tmp_path: Path, bright_model: Write, disc: NDArray[np.int32]) -> None:
    image = save_png(tmp_path / "a.png", grey(disc))
    (run,) = predict(bright_model(), [image], tmp_path / "out", options=RunOptions(drop_maps=True))
    assert not (run.folder / "maps.zarr").exists()
    assert predict(bright_model(), [image], tmp_path / "out")[0].repeated


def test_an_output_folder_that_is_a_file_is_refused(
    tmp_path: Path, bright_model: Write, disc: NDArray[np.int32]
) -> None:
    image = save_png(tmp_path / "a.png", grey(disc))
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError) as caught:
        predict(bright_model(), [image], tmp_path / "out")
    assert str(caught.value) == (
        f"{tmp_path / 'out' / 'a'}: found Not a directory, wanted a folder to write into; "
        "choose another output folder."
    )


def test_pixels_that_are_no_numbers_are_refused(tmp_path: Path, bright_model: Write) -> None:
    pixels = np.ones((20, 20), np.float32)
    pixels[3, 4] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    with pytest.raises(InputError) as caught:
        predict(bright_model(), [tmp_path / "a.tif"], tmp_path / "out")
    assert str(caught.value).startswith(f"{tmp_path / 'a.tif'}: found ")
    assert "NaN" in str(caught.value)
    assert not (tmp_path / "out" / "a" / "run.json").exists()


def test_images_are_named_by_stem_or_by_path(tmp_path: Path) -> None:
    for name in ("a/x.png", "b/y.tif", "b/notes.txt", "b/.hidden.png", "c.JPG"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    files = {"x": "a/x.png", "y": "b/y.tif", "c": "c.JPG"}
    found = name_images([tmp_path], keep_folders=False)
    assert dict(found) == {name: tmp_path / file for name, file in files.items()}
    kept = name_images([tmp_path], keep_folders=True)
    assert [name for name, _ in kept] == ["a/x", "b/y", "c"]
    alone = name_images([tmp_path / "a" / "x.png"], keep_folders=True)
    assert alone == (("a/x", tmp_path / "a" / "x.png"),)


def test_results_of_an_earlier_call_are_no_images(
    tmp_path: Path, bright_model: Write, disc: NDArray[np.int32]
) -> None:
    image = save_png(tmp_path / "images" / "a.png", grey(disc))
    model = bright_model()
    predict(model, [image], image.parent)
    (run,) = predict(model, [image.parent], image.parent)
    assert run.repeated


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("a/x.png", "b/x.png", "a/x.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    first, second, third = (tmp_path / n for n in ("a/x.png", "b/x.png", "a/x.tif"))
    with pytest.raises(UsageError) as caught:
        name_images([first, second], keep_folders=False)
    assert str(caught.value) == (
        f"{second}: found the stem of {first}, wanted one name per image; "
        "use --keep-folders, or another output folder."
    )
    assert len(name_images([first, second], keep_folders=True)) == 2
    with pytest.raises(UsageError) as caught:
        name_images([first, third], keep_folders=True)
    assert str(caught.value) == (
        f"{third}: found the name of {first}, wanted one name per image; use another output folder."
    )


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError) as caught:
        name_images([tmp_path], keep_folders=False)
    assert str(caught.value).startswith(
        f"{tmp_path}: found a folder without images, wanted files ending in "
    )
    assert str(caught.value).endswith("; name the folder that holds them.")


def test_a_difference_is_named_by_its_path() -> None:
    old = {"a": {"b": 1, "c": [1, 2]}, "d": None}
    assert difference(old, {"a": {"b": 1, "c": [1, 2]}, "d": None}) is None
    assert difference(old, {"a": {"c": [1, 3]}}) == "a.c"
    assert difference(old, {"a": {"c": [1, 3]}}, leave_out={"a"}) is None
    assert difference(old, {"a": {"c": [1, 3], "b": 2}}, leave_out={"a.c"}) == "a.b"
    assert difference(old, {"e": None}) == "e"
    assert difference(old, {"d": {"x": 1}}) == "d"
