"""Runs of a model that finds objects one by one: windows, seams, overlaps, decoding again."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from pycocotools.coco import COCO
from scipy.ndimage import find_objects, label
from torch import Tensor, nn

from domainseg.errors import InputError, RecipeError, UsageError
from domainseg.images import open_image, read_labels
from domainseg.models.heads.panoptic import PanopticHead
from domainseg.models.mask_rcnn import Found, MaskRCNN
from domainseg.models.model_file import ModelCard, save_model
from domainseg.predict import predict
from domainseg.recipe import recipe_from_json, with_overrides
from domainseg.records import Sample
from domainseg.redecode import decode_run
from domainseg.run_folder import DETECTIONS, Run
from domainseg.runs import RunOptions
from domainseg.segmenter import open_segmenter, segment
from domainseg.tune import tune
from domainseg.verify_detection import ObjectsCompared
from domainseg.verify_tiling import verify_tiling, write_verification

Values = Callable[..., dict[str, Any]]
Draw = Callable[..., NDArray[np.int32]]


class FindsBright(nn.Module):
    """Finds each connected group of what is bright in a channel; the channel is its class.

    Its score is the group's brightest value, its mask 28 x 28 cells of it.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.classes = classes
        self.most = 1000
        self.sure = 2000

    def follow(self, rules: Any) -> FindsBright:
        self.most, self.sure = rules.detections, rules.proposals
        return self

    def detect(self, images: Tensor) -> list[Found]:
        return [self._one(image.numpy()) for image in images]

    def _one(self, image: NDArray[np.float32]) -> Found:
        boxes, kinds, scores, masks = [], [], [], []
        for kind in range(self.classes):
            groups, _ = label(image[kind] > 0.3)
            for number, box in enumerate(find_objects(groups), start=1):
                rows, columns = box
                inside = groups[box] == number
                boxes.append((columns.start, rows.start, columns.stop, rows.stop))
                kinds.append(kind)
                scores.append(float(image[kind][box][inside].max()))
                masks.append(_grid(inside))
        order = np.argsort(-np.array(scores), kind="stable")
        kept = order[: self.most]
        return Found(
            torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)[kept],
            torch.tensor(kinds, dtype=torch.int64)[kept],
            torch.tensor(scores, dtype=torch.float32)[kept],
            torch.from_numpy(np.array(masks, np.float32).reshape(-1, 28, 28))[kept],
            len(order) > self.sure,
            len(order) > self.most,
        )


def _grid(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the cells of a mask: the nearest pixel of each."""
    rows, columns = (((np.arange(28) + 0.5) * n / 28).astype(int) for n in mask.shape)
    return mask[np.ix_(rows, columns)].astype(np.float32)


@pytest.fixture
def finder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe_values: Values
) -> Callable[..., Path]:
    """Return what writes a model that finds the bright; the file is a real one."""

    def build(_self: MaskRCNN, _channels: int, outputs: int) -> FindsBright:
        return FindsBright(outputs)

    monkeypatch.setattr(MaskRCNN, "build", build)

    def make(*, classes: tuple[str, ...] = ("cell",), halo_px: int = 32, **sections: Any) -> Path:
        values = recipe_values(
            **{
                "model": {"name": "mask_rcnn", "depth": 4, "weights": None},
                "head": {"name": "detection"},
                "tiling": {"core_px": 64},
                **sections,
            }
        )
        card = ModelCard(
            recipe=recipe_from_json(values, where="test").to_json(),
            classes=classes,
            channels=("red", "green", "blue"),
            stride_px=16,
            halo_px=halo_px,
            halos=(),
            whole_window_layers=(),
            diameter_px=None,
            training={"minutes": 1.0},
            data={},
            scores={},
            versions={},
        )
        path = tmp_path / "finder.safetensors"
        save_model(path, FindsBright(len(classes)).state_dict(), card)
        return path

    return make


def save(path: Path, *planes: NDArray[Any]) -> Path:
    """Write an RGB image of up to three planes in [0, 1]."""
    pixels = np.zeros((3, *planes[0].shape), np.uint8)
    for channel, plane in enumerate(planes):
        pixels[channel] = np.round(255 * plane)
    tifffile.imwrite(path, pixels.transpose(1, 2, 0), photometric="rgb")
    return path


def squares(shape: tuple[int, int], *places: tuple[int, int, int, float]) -> NDArray[np.float64]:
    plane = np.zeros(shape)
    for y, x, side, value in places:
        plane[y : y + side, x : x + side] = value
    return plane


MANY = [
    (y + int(7 * np.sin(x)), x, 14, 0.5 + 0.4 * ((x + y) % 7) / 7)
    for y in range(10, 180, 24)
    for x in range(4, 230, 21)
]


def run_of(model: Path, image: Path, out: Path, *overrides: str, **options: Any) -> Run:
    (run,) = predict(model, [image], out, options=RunOptions(overrides=overrides, **options))
    return run


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in {"timings.json", "run.json", "progress.json"}
    }


def labels_of(run: Run) -> NDArray[Any]:
    return np.asarray(read_labels(run.folder / "labels.tif"))


def test_objects_are_those_of_the_image_whatever_the_windows(
    tmp_path: Path, finder: Callable[..., Path]
) -> None:
    plane = squares((200, 250), *MANY)
    image = save(tmp_path / "a.tif", plane)
    truth, count = label(plane > 0)
    for core in (16, 48, 64, 256):
        run = run_of(finder(), image, tmp_path / f"out{core}", f"tiling.core_px={core}")
        assert run.count == count
        np.testing.assert_array_equal(labels_of(run), truth)
        table = run.objects
        tops = [round(float(plane[truth == i].max()) * 255) / 255 for i in range(1, count + 1)]
        np.testing.assert_allclose(table["score"].to_numpy(), tops, atol=1e-6)
        record = json.loads((run.folder / "run.json").read_text())
        assert record["limits_reached"] == {"proposals": 0, "detections": 0}
        assert record["seams"]["united"] == 0
        assert (record["seams"]["objects"] > 0) == (core < 250)


def test_an_object_through_many_windows_is_one(tmp_path: Path, finder: Callable[..., Path]) -> None:
    plane = np.zeros((120, 300))
    plane[50:62, 10:290] = 0.9
    image = save(tmp_path / "a.tif", plane)
    run = run_of(finder(), image, tmp_path / "out", "tiling.core_px=48")
    assert run.count == 1
    np.testing.assert_array_equal(labels_of(run) > 0, plane > 0)
    record = json.loads((run.folder / "run.json").read_text())
    assert record["seams"] == {"objects": 1, "united": 1}


def test_objects_that_overlap_are_whole_in_layers_and_in_every_file(
    tmp_path: Path, finder: Callable[..., Path]
) -> None:
    one = squares((80, 90), (10, 10, 30, 0.9), (50, 60, 12, 0.8))
    two = squares((80, 90), (20, 20, 40, 0.7))
    image = save(tmp_path / "a.tif", one, two)
    run = run_of(finder(classes=("nucleus", "cell")), image, tmp_path / "out")
    assert run.count == 3
    layers = [np.asarray(read_labels(run.folder / f"labels-layer{i}.tif")) for i in range(2)]
    np.testing.assert_array_equal(layers[0] > 0, one > 0)
    np.testing.assert_array_equal(layers[1] > 0, two > 0)
    assert run.objects["class"].to_list() == ["nucleus", "nucleus", "cell"]
    assert run.objects["area_px"].to_list() == [900, 144, 1600]
    coco = json.loads((run.folder / "objects.coco.json").read_text())
    assert [one["area"] for one in coco["annotations"]] == [900, 144, 1600]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_several_images_have_one_coco_file_that_pycocotools_loads(
    tmp_path: Path, finder: Callable[..., Path]
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    save(folder / "a.tif", squares((80, 90), (10, 10, 30, 0.9), (50, 60, 12, 0.8)))
    save(folder / "b.tif", squares((60, 50)))
    save(folder / "c.tif", squares((70, 60), (5, 6, 20, 0.7)))
    runs = predict(finder(), [folder], tmp_path / "out")
    with redirect_stdout(io.StringIO()):
        coco = COCO(tmp_path / "out" / "objects.coco.json")
    described = [(i["file_name"], i["height"], i["width"]) for i in coco.dataset["images"]]
    assert described == [("a.tif", 80, 90), ("b.tif", 60, 50), ("c.tif", 70, 60)]
    found = coco.dataset["annotations"]
    assert [one["id"] for one in found] == [1, 2, 3]
    assert [one["image_id"] for one in found] == [1, 1, 3]
    assert [one["score"] for one in found] == pytest.approx(
        [230 / 255, 204 / 255, 178 / 255], abs=1e-4
    )
    for one in found:
        image = coco.loadImgs(one["image_id"])[0]["file_name"]
        plane = labels_of(next(run for run in runs if run.image == image[0]))
        np.testing.assert_array_equal(coco.annToMask(one) > 0, plane == one["label"])


def test_a_run_goes_on_where_it_was_interrupted(
    tmp_path: Path, finder: Callable[..., Path]
) -> None:
    image = save(tmp_path / "a.tif", squares((200, 250), *MANY))
    model = finder()
    run = run_of(model, image, tmp_path / "out")
    whole = files_of(run.folder)
    # As if it had been killed: no record, some windows and a half-written one.
    record = json.loads((run.folder / "run.json").read_text())
    (run.folder / "run.json").rename(run.folder / "kept.json")
    (run.folder / "kept.json").unlink()
    windows = sorted((run.folder / DETECTIONS).glob("*.npz"))
    for path in windows[5:]:
        path.unlink()
    again = run_of(model, image, tmp_path / "out")
    assert files_of(again.folder) == whole
    assert json.loads((again.folder / "run.json").read_text()) == record
    timings = json.loads((again.folder / "timings.json").read_text())
    assert timings["tiles_from_before"] in (0, 5)


def test_decoding_again_is_predicting_with_those_rules(
    tmp_path: Path, finder: Callable[..., Path]
) -> None:
    image = save(tmp_path / "a.tif", squares((200, 250), *MANY))
    model = finder()
    run = run_of(model, image, tmp_path / "first")
    changes = ("instances.min_score=0.7", "instances.min_area_px=30")
    wanted = run_of(model, image, tmp_path / "second", *changes)
    again = decode_run(run.folder, changes, out=tmp_path / "again")
    assert 0 < again.count == wanted.count < run.count
    assert files_of(again.folder) == files_of(wanted.folder)
    records = [json.loads((r.folder / "run.json").read_text()) for r in (again, wanted)]
    assert records[0] == records[1]


def test_decoding_without_detections_says_how_to_get_them(
    tmp_path: Path, finder: Callable[..., Path]
) -> None:
    image = save(tmp_path / "a.tif", squares((70, 70), (5, 5, 9, 0.9)))
    run = run_of(finder(), image, tmp_path / "out", drop_maps=True)
    assert not (run.folder / DETECTIONS).exists()
    with pytest.raises(InputError, match="found no detections, wanted those of a prediction"):
        decode_run(run.folder)


def test_a_limit_that_is_reached_is_told(tmp_path: Path, finder: Callable[..., Path]) -> None:
    image = save(tmp_path / "a.tif", squares((200, 250), *MANY))
    run = run_of(finder(), image, tmp_path / "out", "head.detections=5", "head.proposals=8")
    record = json.loads((run.folder / "run.json").read_text())
    assert record["limits_reached"]["detections"] > 0
    assert record["limits_reached"]["proposals"] > 0
    said = " ".join(run.warnings)
    assert "more than head.detections of them; raise it, or lower tiling.core_px" in said
    assert "head.proposals_per_level" in said


def test_only_what_is_inspected_has_objects(tmp_path: Path, finder: Callable[..., Path]) -> None:
    plane = squares((200, 250), *MANY)
    image = save(tmp_path / "a.tif", plane)
    ring = [[20, 30], [150, 30], [150, 120], [20, 120], [20, 30]]
    roi = {"type": "Polygon", "coordinates": [ring]}
    (tmp_path / "roi.geojson").write_text(json.dumps(roi))
    run = run_of(finder(), image, tmp_path / "out", roi=tmp_path / "roi.geojson")
    inside = np.zeros(plane.shape, bool)
    inside[30:120, 20:150] = True
    np.testing.assert_array_equal(labels_of(run) > 0, (plane > 0) & inside)
    again = decode_run(run.folder, out=tmp_path / "again")
    np.testing.assert_array_equal(labels_of(again), labels_of(run))


def test_in_memory_as_on_disk(tmp_path: Path, finder: Callable[..., Path]) -> None:
    one, two = squares((200, 250), *MANY), squares((200, 250), (15, 20, 60, 0.7))
    image = save(tmp_path / "a.tif", one, two)
    model = finder(classes=("a", "b"))
    run = run_of(model, image, tmp_path / "out")
    segmenter, _ = open_segmenter(model)
    with open_image(image) as opened:
        made = segment(segmenter, Sample("a", opened, opened.channels))
    for layer, plane in enumerate(made.labels):
        stored = read_labels(run.folder / f"labels-layer{layer}.tif")
        np.testing.assert_array_equal(plane, stored)
    found = made.instances()
    assert sorted(found.areas_px().tolist()) == sorted(run.objects["area_px"].to_list())


def test_masks_are_drawn_in_the_pixels_of_the_image(
    tmp_path: Path, finder: Callable[..., Path]
) -> None:
    plane = squares((120, 120), (20, 30, 40, 0.9))
    image = save(tmp_path / "a.tif", plane)
    model = finder(data={"spacing_um": 1.0})
    run = run_of(model, image, tmp_path / "out", spacing_um=0.5)
    shown = labels_of(run) > 0
    assert np.count_nonzero(shown != (plane > 0)) <= 4 * 40
    assert run.count == 1


def test_tiles_of_a_detector_are_verified_by_its_objects(
    tmp_path: Path, finder: Callable[..., Path]
) -> None:
    image = save(tmp_path / "a.tif", squares((200, 250), *MANY))
    found = verify_tiling(finder(), image)
    compared = found.compared
    assert isinstance(compared, ObjectsCompared)
    assert found.passed
    assert compared.objects == label(squares((200, 250), *MANY) > 0)[1]
    assert all(one.f1 == 1 for one in compared.readings if one.setting.judged)
    header, rows = compared.table()
    assert {len(row) for row in rows} == {len(header)}
    write_verification(found, tmp_path / "v.json")
    assert json.loads((tmp_path / "v.json").read_text())["passed"] is True


def test_a_halo_smaller_than_objects_fails_the_verification(
    tmp_path: Path, finder: Callable[..., Path]
) -> None:
    plane = np.zeros((200, 250))
    for y in range(8, 190, 60):
        for x in range(8, 240, 60):
            plane[y : y + 50, x : x + 50] = 0.9
            plane[y + 20 : y + 30, x + 20 : x + 30] = 0
    image = save(tmp_path / "a.tif", plane)
    found = verify_tiling(finder(halo_px=0, instances={"fill_holes": True}), image)
    assert isinstance(found.compared, ObjectsCompared)
    assert not found.passed
    assert "wanted at least 0.99 at IoU 0.9, and none doubled" in found.refusal()


def test_what_tunes_maps_refuses_a_model_that_draws_none(
    tmp_path: Path, finder: Callable[..., Path]
) -> None:
    with pytest.raises(UsageError, match="finds objects one by one, wanted one that draws maps"):
        tune(finder(), out=tmp_path / "tuned.safetensors")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("instances.split=none", "instances.split is set, but head detection finds each object"),
        ("instances.link_px={cell: 3}", "instances.link_px is set, but head detection"),
        ("tiling.symmetries=8", "tiling.symmetries is 8, but head detection draws no maps"),
        ("train.equal_size_px=9", "train.equal_size_px is set, but head detection counts"),
        ("head={name: semantic}", "head.name is semantic, but model mask_rcnn draws objects"),
        ("model.depth=6", "depth is 6, wanted 2 to 5"),
        ("model.anchors_px=[[8]]", "anchors_px has 1 lists, wanted 3"),
        ("model.anchors_px=[[8], [9, 1], [3]]", "lists of different lengths"),
        ("model.weights=coco", "weights is coco with published null"),
        (
            "model={name: mask_rcnn, encoder: resnet50, published: v1, weights: coco, "
            "anchors_px: [[8, 9], [16, 20], [32, 40], [64, 80], [99, 120]]}",
            "make 6 anchors a place, wanted 3 with weights coco; set anchors_px to null",
        ),
        ("head.nms_iou=1.5", "nms_iou is 1.5, wanted a number in"),
        ("head.detections=0", "detections is 0, wanted 1 or more"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(
    recipe_values: Values, change: str, said: str
) -> None:
    values = recipe_values(
        model={"name": "mask_rcnn", "depth": 4, "weights": None}, head={"name": "detection"}
    )
    recipe = recipe_from_json(values, where="test")
    with pytest.raises(RecipeError, match=said):
        with_overrides(recipe, [change])


def test_a_model_of_maps_wants_a_head_of_maps(recipe_values: Values) -> None:
    with pytest.raises(RecipeError, match="but model unet draws maps; use boundary or height"):
        recipe_from_json(recipe_values(head={"name": "detection"}), where="test")


def test_limits_are_those_of_the_rules() -> None:
    network = replace(MaskRCNN(), weights=None, encoder="mobilenetv3_small_050").build(3, 2)
    from domainseg.models.heads.detection import DetectionHead

    rules = DetectionHead(proposals=11, proposals_per_level=13, detections=3, nms_iou=0.4)
    network.follow(rules)
    network.eval()
    assert (network.rpn.pre_nms_top_n(), network.rpn.post_nms_top_n()) == (13, 11)
    assert (network.roi_heads.detections_per_img, network.roi_heads.nms_thresh) == (3, 0.4)
    # A window twice as large may show twice as much; one that is smaller has room for as much.
    with torch.inference_mode():
        network.detect(torch.rand(1, 3, 1024, 2048))
        assert (network.rpn.pre_nms_top_n(), network.rpn.post_nms_top_n()) == (26, 22)
        assert network.roi_heads.detections_per_img == 6
        network.detect(torch.rand(1, 3, 64, 64))
        assert network.roi_heads.detections_per_img == 3


def test_holes_are_filled_where_the_recipe_says(
    tmp_path: Path, finder: Callable[..., Path]
) -> None:
    plane = squares((70, 80), (10, 10, 30, 0.9), (50, 60, 10, 0.9))
    plane[20:28, 20:28] = 0
    image = save(tmp_path / "a.tif", plane)
    model = finder(instances={"fill_holes": False})
    open_ones = run_of(model, image, tmp_path / "open")
    assert open_ones.objects["area_px"].to_list() == [900 - 64, 100]
    filled = decode_run(open_ones.folder, ("instances.fill_holes=true",), out=tmp_path / "filled")
    assert filled.objects["area_px"].to_list() == [900, 100]


def test_images_of_one_name_are_told_apart_in_the_coco_file(
    tmp_path: Path, finder: Callable[..., Path]
) -> None:
    for folder in ("a", "b"):
        (tmp_path / "images" / folder).mkdir(parents=True)
        save(tmp_path / "images" / folder / "x.tif", squares((40, 40), (5, 5, 9, 0.9)))
    options = RunOptions(keep_folders=True)
    predict(finder(), [tmp_path / "images"], tmp_path / "out", options=options)
    coco = json.loads((tmp_path / "out" / "objects.coco.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == ["a/x.tif", "b/x.tif"]


def test_a_coco_file_that_something_else_wrote_is_refused(
    tmp_path: Path, finder: Callable[..., Path]
) -> None:
    for name in ("a", "b"):
        save(tmp_path / f"{name}.tif", squares((40, 40), (5, 5, 9, 0.9)))
    images = [tmp_path / "a.tif", tmp_path / "b.tif"]
    model = finder()
    predict(model, images, tmp_path / "out")
    path = tmp_path / "out" / "b" / "objects.coco.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=2))
    with pytest.raises(InputError, match="found a COCO file of another layout"):
        predict(model, images, tmp_path / "out")


def test_a_bound_on_memory_holds_for_detectors_too(
    tmp_path: Path, finder: Callable[..., Path]
) -> None:
    image = save(tmp_path / "a.tif", squares((200, 250), *MANY))
    with pytest.raises(UsageError, match=r"--max-memory: found 0\.05 GB, wanted at least"):
        run_of(finder(), image, tmp_path / "out", max_memory_mb=50.0)


def test_a_halo_below_what_the_objects_need_is_told(
    tmp_path: Path, finder: Callable[..., Path]
) -> None:
    image = save(tmp_path / "a.tif", squares((200, 250), *MANY))
    run = run_of(finder(), image, tmp_path / "out", "tiling.halo_px=16")
    assert any("the halo is 16 px, and those of the training need 32 px" in w for w in run.warnings)
    whole = run_of(finder(), image, tmp_path / "whole", "tiling.halo_px=16", "tiling.core_px=256")
    assert whole.warnings == ()


def test_regions_are_never_found_as_objects() -> None:
    torch.manual_seed(0)
    made = replace(
        MaskRCNN(), weights=None, encoder="mobilenetv3_small_050", depth=4, semantic_channels=8
    )
    rules = PanopticHead(candidate_score=1e-6)
    network = made.build(3, 4).follow(rules).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        (before,) = network.detect(images)
        (after,) = network.draw_regions([1, 3], weight=0.5).detect(images)
    assert set(before.classes.tolist()) == {0, 1, 2, 3}
    assert set(after.classes.tolist()) == {0, 2}
    assert after.regions is not None
    assert set(torch.unique(after.regions).tolist()) <= {0, 2, 4}
