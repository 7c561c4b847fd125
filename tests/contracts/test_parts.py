"""What every part of the catalogue keeps to: a listed part is a tested part."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from domainseg import catalog
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

PARTS = (*catalog.LOADERS, *catalog.MODELS, *catalog.HEADS)
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


@named(catalog.MODELS)
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


@named(catalog.MODELS)
def test_a_model_sees_no_whole_window_with_its_own_encoder(part: Any) -> None:
    network = part().without_weights().build(3, 2)
    assert whole_window_layers(network) == ()


def truth_of(kinds: Any, classes: int) -> Truth:
    presence = np.stack([(LABELS > 0) & (kinds[LABELS] == index) for index in range(classes)])
    return Truth(LABELS.astype(np.int32), kinds, presence=presence)


@named(catalog.HEADS)
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


@named(catalog.HEADS)
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


@named((MaskFolder, KaggleNuclei, RleCsv))
def test_a_loader_gives_the_pixels_and_objects_of_its_files(part: Any, tmp_path: Path) -> None:
    dataset = MADE[part](tmp_path).open(tmp_path)
    sample = dataset.load(dataset.entries()[0])
    np.testing.assert_array_equal(sample.image[:, :, :], PIXELS[None])
    np.testing.assert_array_equal(sample.truth.to_label_map(), LABELS)
