"""What every part of the catalogue keeps to: a listed part is a tested part."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from domainseg import catalog
from domainseg.loaders.coco import Coco
from domainseg.loaders.kaggle_nuclei import KaggleNuclei
from domainseg.loaders.mask_folder import MaskFolder
from domainseg.loaders.mixedwm38 import MixedWM38
from domainseg.loaders.rle_csv import RleCsv
from domainseg.loaders.scenes import Scenes
from domainseg.loaders.wafer_maps import WaferMaps
from domainseg.loaders.wafers import Wafers
from domainseg.loaders.wm811k import WM811K
from domainseg.models.heads.head import Truth
from domainseg.models.network import whole_window_layers
from domainseg.training.object_patches import PatchTruth

PARTS = (*catalog.LOADERS, *catalog.MODELS, *catalog.HEADS)
MAPPING = tuple(part for part in catalog.MODELS if part.family == "maps")
FINDING = tuple(part for part in catalog.MODELS if part.family == "objects")
MAP_HEADS = tuple(part for part in catalog.HEADS if part.family == "maps")
OBJECT_HEADS = tuple(part for part in catalog.HEADS if part.family == "objects")
PIXELS = np.arange(24 * 20, dtype=np.uint16).reshape(24, 20)
LABELS = np.zeros((24, 20), np.uint8)
LABELS[3:9, 3:9], LABELS[12:20, 4:12] = 1, 2


def named(parts: tuple[Any, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("part", parts, ids=[part.__name__ for part in parts])


def test_names_are_unique() -> None:
    for parts in (catalog.LOADERS, catalog.MODELS, catalog.HEADS):
        names = catalog.names(parts)
        assert len(set(names)) == len(names) == len(parts)


@named(PARTS)
def test_a_part_is_a_frozen_slotted_dataclass_with_a_name(part: Any) -> None:
    assert vars(part)["__dataclass_params__"].frozen
    assert "__slots__" in vars(part)
    (name,) = (field for field in dataclasses.fields(part) if field.name == "name")
    assert re.fullmatch(r"[a-z0-9_]+", str(name.default))


@named(PARTS)
def test_a_part_is_described_with_every_option(part: Any) -> None:
    described = "".join(inspect.getdoc(kind) or "" for kind in part.__mro__[:-1])
    assert not (part.__doc__ or "").startswith(f"{part.__name__}("), "dataclass wrote it itself"
    for field in dataclasses.fields(part):
        if field.name != "name":
            assert re.search(rf"^ +{field.name}[:,]", described, re.MULTILINE), field.name


def test_every_family_has_models_and_heads() -> None:
    assert all((MAPPING, FINDING, MAP_HEADS, OBJECT_HEADS))
    assert len(MAPPING) + len(FINDING) == len(catalog.MODELS)
    assert len(MAP_HEADS) + len(OBJECT_HEADS) == len(catalog.HEADS)


@named(MAPPING)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_model_maps_an_image_to_as_many_maps_of_its_size(part: Any, channels: int) -> None:
    options = {"depth": 3, "encoder": "mobilenetv3_small_050"}
    names = {field.name for field in dataclasses.fields(part)}
    if "decoder_channels" in names and part.__name__ == "UNet":
        options["decoder_channels"] = (16, 12, 8)
    made = dataclasses.replace(part().without_weights(), **options)
    torch.manual_seed(0)
    network = made.build(channels, 5).eval()
    with torch.inference_mode():
        image = torch.rand(1, channels, 64, 64)
        scores = network(image)
        again = network(image)
    assert made.stride == 8
    assert scores.shape == (1, 5, 64, 64)
    assert torch.isfinite(scores).all()
    assert torch.equal(scores, again)


def _patch(classes: list[int]) -> PatchTruth:
    """Return two objects of a patch of 64 px, the left half of which nobody knows."""
    masks = torch.zeros(2, 64, 64, dtype=torch.uint8)
    masks[0, 10:30, 8:30] = masks[1, 20:60, 34:54] = 1
    boxes = torch.tensor([[8.0, 10, 30, 30], [34, 20, 54, 60]])
    ignored = torch.zeros(64, 64, dtype=torch.bool)
    ignored[:, :4] = True
    return PatchTruth(boxes, torch.tensor(classes), masks, ignored)


def _nobody() -> PatchTruth:
    nothing = torch.zeros(0, 64, 64, dtype=torch.uint8)
    classes = torch.zeros(0, dtype=torch.int64)
    return PatchTruth(torch.zeros(0, 4), classes, nothing, torch.zeros(64, 64, dtype=torch.bool))


@named(FINDING)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("head", OBJECT_HEADS)
def test_a_model_learns_and_finds_objects(part: Any, channels: int, head: Any) -> None:
    small = {"depth": 4, "encoder": "mobilenetv3_small_050", "pyramid_channels": 16}
    made = dataclasses.replace(part().without_weights(), **small, box_channels=24)
    rules = dataclasses.replace(head(), candidate_score=1e-3, detections=7)
    torch.manual_seed(0)
    network = made.build(channels, rules.outputs(3)).follow(rules)
    images = torch.rand(2, channels, 64, 64)
    for objects in ([_patch([0, 2]), _patch([1, 1])], [_patch([2, 2]), _nobody()], [_nobody()] * 2):
        loss = network.train().losses(images, objects)
        network.zero_grad()
        loss.backward()
        assert torch.isfinite(loss)
        found = [p.grad for p in network.parameters() if p.grad is not None]
        assert all(torch.isfinite(grad).all() for grad in found)
        assert any(grad.abs().sum() > 0 for grad in found)
    with torch.inference_mode():
        first, second = network.eval().detect(images), network.detect(images)
    assert made.stride == 16
    for one, again in zip(first, second, strict=True):
        count = len(one.scores)
        assert count == 7
        assert one.detections_cut
        assert one.boxes.shape == (count, 4)
        assert one.masks.shape[0] == count
        assert one.masks.ndim == 3
        assert (one.boxes[:, 2:] > one.boxes[:, :2]).all()
        assert ((one.scores > 0) & (one.scores <= 1)).all()
        assert ((one.masks >= 0) & (one.masks <= 1)).all()
        assert set(one.classes.tolist()) <= {0, 1, 2}
        assert torch.equal(one.boxes, again.boxes)
        assert torch.equal(one.masks, again.masks)


@named(catalog.MODELS)
def test_a_model_sees_no_whole_window_with_its_own_encoder(part: Any) -> None:
    network = part().without_weights().build(3, 2)
    assert whole_window_layers(network) == ()


def truth_of(kinds: Any, classes: int) -> Truth:
    presence = np.stack([(LABELS > 0) & (kinds[LABELS] == index) for index in range(classes)])
    return Truth(LABELS.astype(np.int32), kinds, presence=presence)


@named(MAP_HEADS)
@pytest.mark.parametrize("classes", [1, 3])
def test_a_head_turns_truth_into_loss_and_scores_into_maps(part: Any, classes: int) -> None:
    head = part()
    kinds = np.array([0, 0, classes - 1], np.int16)
    targets = head.targets(truth_of(kinds, classes), classes=classes)
    assert targets.dtype == np.float32
    assert targets.shape[1:] == LABELS.shape
    torch.manual_seed(0)
    scores = torch.randn(2, head.outputs(classes), *LABELS.shape, requires_grad=True)
    planes = torch.from_numpy(np.stack([targets, targets]))
    loss = head.loss(scores, planes, torch.ones(2, 1, *LABELS.shape), classes=classes)
    loss.backward()
    assert loss.shape == ()
    assert torch.isfinite(loss)
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()
    assert scores.grad.abs().sum() > 0
    maps = head.maps(scores.detach(), classes=classes)
    shape = (2, head.layers(classes), *LABELS.shape)
    assert [tuple(m.shape) for m in (maps.foreground, maps.height, maps.classes)] == [shape] * 3
    assert (maps.foreground.dtype, maps.classes.dtype) == (torch.float32, torch.uint8)
    assert float(maps.height.min()) >= 0
    assert float(maps.height.max()) <= 1
    assert int(maps.classes.max()) < classes


@named(MAP_HEADS)
def test_a_head_ignores_what_has_no_weight(part: Any) -> None:
    head = part()
    targets = head.targets(truth_of(np.zeros(3, np.int16), 1), classes=1)
    planes = torch.from_numpy(targets[None])
    torch.manual_seed(0)
    scores = torch.randn(1, head.outputs(1), *LABELS.shape)
    weight = torch.ones(1, 1, *LABELS.shape)
    weight[..., 10:] = 0
    other = scores.clone()
    other[..., 10:] = torch.randn_like(other[..., 10:])
    one, two = (head.loss(s, planes, weight, classes=1) for s in (scores, other))
    torch.testing.assert_close(one, two)


def _mask_folder(root: Path) -> MaskFolder:
    for folder, values in (("images", PIXELS), ("labels", LABELS)):
        (root / folder).mkdir()
        tifffile.imwrite(root / folder / "a.tif", values)
    return MaskFolder()


def _kaggle(root: Path) -> KaggleNuclei:
    for folder in ("images", "masks"):
        (root / "a" / folder).mkdir(parents=True)
    tifffile.imwrite(root / "a/images/a.tif", PIXELS)
    for label in (1, 2):
        mask = np.where(label == LABELS, 255, 0).astype(np.uint8)
        tifffile.imwrite(root / f"a/masks/{label}.tif", mask)
    return KaggleNuclei()


def _rle_csv(root: Path) -> RleCsv:
    (root / "train_images").mkdir()
    tifffile.imwrite(root / "train_images/a.tif", PIXELS)
    rows = [f"a.tif,{label},{_runs_down(label == LABELS)}" for label in (1, 2)]
    (root / "train.csv").write_text("\n".join(["ImageId,ClassId,EncodedPixels", *rows]))
    return RleCsv(classes={"1": "pit", "2": "scratch"})


def _runs_down(mask: Any) -> str:
    """Return the runs of a mask down its columns, counted from 1."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.T.ravel(), [0]])))
    return " ".join(f"{start + 1} {end - start}" for start, end in edges.reshape(-1, 2))


def _coco(root: Path) -> Coco:
    (root / "images").mkdir()
    tifffile.imwrite(root / "images/a.tif", PIXELS)
    height, width = LABELS.shape
    marks = [
        {"id": label, "image_id": 7, "category_id": 3, "segmentation": _counts(label == LABELS)}
        for label in (1, 2)
    ]
    image = {"id": 7, "file_name": "a.tif", "height": height, "width": width}
    lists = {"images": [image], "categories": [{"id": 3, "name": "pit"}], "annotations": marks}
    (root / "annotations.json").write_text(json.dumps(lists))
    return Coco()


def _counts(mask: Any) -> dict[str, list[int]]:
    """Return a mask as COCO's run lengths that are not compressed."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.T.ravel()])))
    counts = np.diff(np.concatenate([[0], edges, [mask.size]]))
    return {"size": list(mask.shape), "counts": counts.tolist()}


def _scenes(root: Path) -> Scenes:
    return Scenes(train=1, val=0, test=0, height=48, width=40)


def _wafers(root: Path) -> Wafers:
    return Wafers(train=1, val=0, test=0, height=96, width=80, good=0.0, field_at=("anywhere",))


def _mixedwm38(root: Path) -> MixedWM38:
    hot = np.zeros((1, 8), np.uint8)
    hot[0, [0, 6]] = 1
    np.savez(root / "Wafer_Map_Datasets.npz", arr_0=LABELS[None], arr_1=hot)
    return MixedWM38()


def _wm811k(root: Path) -> WM811K:
    np.savez(
        root / "wm811k_subset.npz",
        maps_flat=LABELS.reshape(-1),
        offsets=np.array([0, LABELS.size]),
        shapes=np.array([LABELS.shape]),
        label=np.array(["Loc"]),
        split=np.array(["train"]),
        index=np.array([7]),
    )
    return WM811K()


def _wafer_maps(root: Path) -> WaferMaps:
    return WaferMaps(train=1, val=0, test=0, none=0.0)


MADE: dict[type, Callable[[Path], Any]] = {
    Coco: _coco,
    KaggleNuclei: _kaggle,
    MaskFolder: _mask_folder,
    MixedWM38: _mixedwm38,
    RleCsv: _rle_csv,
    Scenes: _scenes,
    WaferMaps: _wafer_maps,
    Wafers: _wafers,
    WM811K: _wm811k,
}
LABELS_ONLY = (MixedWM38, WM811K)
"""Layouts that say what is in an image and not where."""


@named(catalog.LOADERS)
def test_a_loader_opens_its_layout(part: Any, tmp_path: Path) -> None:
    dataset = MADE[part](tmp_path).open(tmp_path)
    entries = dataset.entries()
    assert [entry.id for entry in entries] == sorted(entry.id for entry in entries)
    assert len(entries) == 1
    sample = dataset.load(entries[0])
    assert (sample.id, sample.group) == (entries[0].id, entries[0].group)
    channels, height, width = sample.image.shape
    assert channels == len(sample.channels)
    if part in LABELS_ONLY:
        assert sample.truth is None
        assert sample.tags == entries[0].tags
        assert set(sample.tags) <= set(dataset.classes)
        return
    assert sample.truth is not None
    assert sample.truth.shape == (height, width)
    assert len(sample.truth) > 0
    assert set(sample.truth.classes.tolist()) <= set(range(len(dataset.classes)))


@named((Coco, MaskFolder, KaggleNuclei, RleCsv))
def test_a_loader_gives_the_pixels_and_objects_of_its_files(part: Any, tmp_path: Path) -> None:
    dataset = MADE[part](tmp_path).open(tmp_path)
    sample = dataset.load(dataset.entries()[0])
    np.testing.assert_array_equal(sample.image[:, :, :], PIXELS[None])
    np.testing.assert_array_equal(sample.truth.to_label_map(), LABELS)
