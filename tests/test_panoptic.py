"""Objects and regions as one segmentation: the rule, the files, training and scoring."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from domainseg.errors import RecipeError
from domainseg.evaluate import evaluate_model
from domainseg.gathering import Gathered
from domainseg.instances.layering import layered
from domainseg.instances.panoptic_quality import Panoptic, panoptic_counts
from domainseg.instances.runs import ObjectRuns, raster_runs
from domainseg.loaders.coco import Coco
from domainseg.loaders.coco_images import Category
from domainseg.loaders.coco_write import PanopticImage, Segment, write_panoptic
from domainseg.models.heads.panoptic import PanopticHead
from domainseg.models.semantic_branch import IGNORED, SemanticBranch
from domainseg.panoptic import merged, read_merged, write_merged
from domainseg.predict import predict
from domainseg.train import train

SHAPE = (8, 10)


def box(y0: int, x0: int, y1: int, x1: int) -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def gathered(
    masks: list[NDArray[np.bool_]], scores: list[float], regions: NDArray[np.uint8]
) -> Gathered:
    runs = [raster_runs(mask.astype(np.uint8))[0] for mask in masks]
    offsets = np.concatenate([[0], np.cumsum([len(r) for r in runs])]).astype(np.int64)
    stacked = np.concatenate([np.zeros((0, 3), np.int64), *runs])
    objects = layered(
        ObjectRuns(np.arange(1, len(masks) + 1), stacked, offsets, SHAPE),
        classes=np.zeros(len(masks), np.int16),
        scores=np.array(scores, np.float32),
    )
    return Gathered(objects, 0, 0, 0, 0, regions)


def made(found: Gathered, **options: Any) -> Panoptic:
    segments = merged(found, PanopticHead(**{"least_region_px": 4, **options}))
    assert segments is not None
    return segments


def test_of_two_objects_the_better_one_has_the_shared_pixels() -> None:
    one, two = box(0, 0, 4, 4), box(2, 2, 6, 6)
    segments = made(gathered([one, two], [0.6, 0.9], np.zeros(SHAPE, np.uint8)))
    np.testing.assert_array_equal(segments.plane == 1, two)
    np.testing.assert_array_equal(segments.plane == 2, one & ~two)
    assert segments.classes.tolist() == [0, 0]


def test_an_object_of_which_too_little_is_left_is_dropped() -> None:
    one, two = box(0, 0, 4, 4), box(0, 0, 4, 3)
    found = gathered([one, two], [0.6, 0.9], np.zeros(SHAPE, np.uint8))
    # A quarter of the first is left.
    assert len(made(found).ids) == 1
    assert len(made(found, visible_share=0.25).ids) == 2
    np.testing.assert_array_equal(made(found).plane > 0, two)


def test_regions_have_what_no_object_has_and_small_ones_are_void() -> None:
    regions = np.zeros(SHAPE, np.uint8)
    regions[:4], regions[4:, :5], regions[7, 7:] = 2, 3, 4
    one = box(0, 0, 5, 2)
    segments = made(gathered([one], [0.9], regions))
    assert segments.classes.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(segments.plane == 2, (regions == 2) & ~one)
    np.testing.assert_array_equal(segments.plane == 3, (regions == 3) & ~one)
    assert (segments.plane[7, 7:] == 0).all()


def test_a_model_without_regions_has_no_segments() -> None:
    nothing = Gathered(gathered([], [], np.zeros(SHAPE, np.uint8)).objects, 0, 0, 0, 0)
    assert merged(nothing, PanopticHead()) is None


def test_what_is_written_is_read_again_and_is_cocos_form(tmp_path: Path) -> None:
    regions = np.full(SHAPE, 2, np.uint8)
    segments = made(gathered([box(1, 1, 4, 4)], [0.9], regions))
    head = PanopticHead(stuff=("sky",))
    write_merged(tmp_path, "photo", segments, ("dog", "sky"), head)
    again = read_merged(tmp_path)
    assert again is not None
    np.testing.assert_array_equal(again.plane, segments.plane)
    np.testing.assert_array_equal(again.ids, segments.ids)
    np.testing.assert_array_equal(again.classes, segments.classes)
    told = json.loads((tmp_path / "panoptic.json").read_text())
    assert [(c["name"], c["isthing"]) for c in told["categories"]] == [("dog", 1), ("sky", 0)]
    assert told["annotations"][0]["file_name"] == "photo.png"
    assert (tmp_path / "panoptic" / "photo.png").is_file()
    counts = panoptic_counts(segments, again, class_count=2)
    assert counts.quality()[0].tolist() == [1.0, 1.0]


def test_a_branch_gives_the_likeliest_class_it_may() -> None:
    torch.manual_seed(0)
    branch = SemanticBranch(8, 6, names=("a", "b"), classes=20).eval()
    pyramid = {"a": torch.randn(2, 8, 16, 16), "b": torch.randn(2, 8, 8, 8)}
    size = torch.Size((64, 64))
    among = torch.tensor([0, 3, 5, 6, 7, 9, 11, 12, 14, 15, 17, 20])
    with torch.inference_mode():
        scores = torch.nn.functional.interpolate(
            branch(pyramid), size=size, mode="bilinear", align_corners=False
        )
        wanted = among[scores[:, among].argmax(1)].to(torch.uint8)
        assert torch.equal(branch.classes(pyramid, size, among), wanted)


def test_ignored_pixels_teach_no_region() -> None:
    torch.manual_seed(0)
    branch = SemanticBranch(8, 6, names=("a",), classes=3)
    pyramid = {"a": torch.randn(1, 8, 16, 16)}
    classes = torch.randint(0, 4, (1, 64, 64))
    classes[:, :, 32:] = IGNORED
    other = classes.clone()
    other[:, :, 40:] = IGNORED
    assert torch.equal(branch.loss(pyramid, classes), branch.loss(pyramid, other))
    nothing = branch.loss(pyramid, torch.full((1, 64, 64), IGNORED))
    assert float(nothing.detach()) == 0.0


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Write six images of a bright square before a dark sky and a middling ground."""
    rng = np.random.default_rng(0)
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    images = []
    for number in range(1, 7):
        ids = np.full((64, 64), 2)
        ids[40:] = 3
        y, x = rng.integers(4, 30, 2)
        ids[y : y + 24, x : x + 24] = 1
        ids[:, :2] = 0
        grey = np.choose(ids, [0, 230, 40, 120]).astype(np.uint8)
        Image.fromarray(np.stack([grey] * 3, -1)).save(root / "images" / f"{number}.png")
        segments = [Segment(1, 7), Segment(2, 8), Segment(3, 9)]
        images.append(PanopticImage(number, f"{number}.png", ids, segments))
    categories = [Category(7, "block"), Category(8, "sky", False), Category(9, "ground", False)]
    write_panoptic(root / "panoptic.json", root / "pngs", images, categories=categories)
    return root


def recipe_of(root: Path, **head: Any) -> str:
    return json.dumps(
        {
            "data": {
                "loader": {"name": "coco", "annotations": "panoptic.json", "panoptic": "pngs"},
                "root": str(root),
                "split": {"by": "hash", "val": 0.2, "test": 0.2},
                "normalise": {"scope": "fixed", "fixed_low": 0, "fixed_high": 255},
            },
            "model": {
                "name": "mask_rcnn",
                "encoder": "mobilenetv3_small_050",
                "weights": None,
                "depth": 4,
                "pyramid_channels": 16,
                "box_channels": 32,
                "semantic_channels": 16,
                "anchors_px": [[16], [24], [32]],
            },
            "head": {"name": "panoptic", "least_region_px": 16, "region_samples": 16, **head},
            "train": {
                "max_steps": 2,
                "patch_px": 64,
                "batch": 2,
                "accumulate": 2,
                "steps_per_epoch": 2,
                "workers": 0,
                "device": "cpu",
            },
            "tiling": {"core_px": 64},
            "instances": {"min_score": 0.0, "fill_holes": False},
            "evaluate": {"panoptic": True, "coco": True, "part": "all"},
        }
    )


def test_a_panoptic_model_is_trained_predicts_and_is_scored(
    tmp_path: Path, photographs: Path
) -> None:
    (tmp_path / "recipe.yaml").write_text(recipe_of(photographs))
    trained = train(tmp_path / "recipe.yaml", tmp_path / "run")
    resolved = (tmp_path / "run" / "recipe.yaml").read_text()
    assert "- sky" in resolved
    assert "- ground" in resolved
    (run,) = predict(trained.model, [photographs / "images" / "1.png"], tmp_path / "out")
    segments = read_merged(run.folder)
    assert segments is not None
    assert segments.plane.shape == (64, 64)
    assert set(np.unique(segments.plane)) - {0} == set(segments.ids.tolist())
    in_memory = evaluate_model(trained.model)
    on_disk = evaluate_model(trained.model, out=tmp_path / "scored")
    assert in_memory.panoptic is not None
    assert on_disk.panoptic == in_memory.panoptic
    assert on_disk.coco == in_memory.coco
    assert {one.name for one in in_memory.panoptic.classes} == {"block", "sky", "ground"}
    assert 0 <= in_memory.panoptic.all.pq <= 1
    assert "panoptic" in in_memory.to_json()


def test_regions_that_the_data_does_not_have_are_refused(tmp_path: Path, photographs: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(recipe_of(photographs, stuff=["sea"]))
    with pytest.raises(RecipeError, match=r"head.stuff: found 'sea', wanted classes of the recipe"):
        train(tmp_path / "recipe.yaml", tmp_path / "run")


def test_a_class_that_has_objects_is_no_region(tmp_path: Path, photographs: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(recipe_of(photographs, stuff=["block", "sky"]))
    with pytest.raises(RecipeError, match=r"found 'block', which has objects, wanted classes"):
        train(tmp_path / "recipe.yaml", tmp_path / "run")


def test_data_without_regions_wants_them_named(tmp_path: Path, photographs: Path) -> None:
    told = json.loads((photographs / "panoptic.json").read_text())
    for category in told["categories"]:
        category["isthing"] = 1
    (photographs / "panoptic.json").write_text(json.dumps(told))
    assert Coco(annotations="panoptic.json", panoptic="pngs").open(photographs).stuff == ()
    (tmp_path / "recipe.yaml").write_text(recipe_of(photographs))
    with pytest.raises(RecipeError, match=r"head\.stuff: found no class that is a region"):
        train(tmp_path / "recipe.yaml", tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"semantic_weight": 0}, "semantic_weight is 0, wanted above 0"),
        ({"visible_share": 2}, "visible_share is 2, wanted 0 to 1"),
        ({"least_region_px": -1}, "least_region_px is -1, wanted 0 or more"),
        ({"nms_iou": 0}, "nms_iou is 0, wanted a number in"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PanopticHead(**options)
