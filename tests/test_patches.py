"""Patches: a function of (seed, number) alone, seeing what is rare; prepared images on disk."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from domainseg.errors import OutputError
from domainseg.images.resample import Grid, resample_labels
from domainseg.records import Instances
from domainseg.training.augment import Augmentation
from domainseg.training.patches import (
    Numbers,
    Patches,
    PatchOptions,
    image_weights,
    object_weights,
)
from domainseg.training.prepared import Prepared, find_places, images_sha256, save_planes


def prepared(
    path: Path,
    labels: NDArray[np.int32],
    *,
    kind: str | None = None,
    classes: tuple[int, ...] | None = None,
    weight: NDArray[np.bool_] | None = None,
) -> Prepared:
    """Return an image whose one channel is label / 100 and whose target is the label."""
    plane = labels[None].astype(np.float32)
    whole = np.ones(labels.shape, bool) if weight is None else weight
    sha256 = save_planes(path, plane / np.float32(100), plane, whole)
    places = find_places(Instances.from_label_map(labels))
    return Prepared(
        path=path,
        channels=1,
        shape=(labels.shape[0], labels.shape[1]),
        centres=places.centres,
        classes=np.array(classes or (0,) * len(places.areas_px), np.int16),
        areas_px=places.areas_px,
        sides_px=places.sides_px,
        kind=kind,
        sha256=sha256,
    )


def listed(
    kind: str | None, shape: tuple[int, int], classes: tuple[int, ...], areas: tuple[int, ...]
) -> Prepared:
    """Return an image that is only weighed, never read."""
    return Prepared(
        Path("none.npy"),
        1,
        shape,
        np.zeros((len(classes), 2), np.int64),
        np.array(classes, np.int16),
        np.array(areas, np.int64),
        np.array(areas, np.int64),
        kind,
        "",
    )


def patches(
    images: list[Prepared],
    *,
    seed: int = 0,
    side: int = 8,
    margin: float = 1.0,
    share: float = 0.7,
    steps: tuple[dict[str, dict[str, float]], ...] = (),
) -> Patches:
    options = PatchOptions(seed, side, margin, share)
    return Patches(images, options, Augmentation(steps, crop_px=side))


def test_places_by_hand() -> None:
    labels = np.zeros((4, 6), np.int32)
    labels[0, 0] = 2
    labels[1:4, 2:5] = 5
    truth = Instances.from_label_map(labels)
    places = find_places(truth)
    assert places.centres.tolist() == [[0, 0], [2, 3]]
    assert places.areas_px.tolist() == [1, 9]
    # Twice as wide: column 3 covers 6 to 8; half as high: row 2 covers 1 to 1.5.
    places = find_places(truth, scale_yx=(0.5, 2.0))
    assert places.centres.tolist() == [[0, 0], [1, 6]]
    assert places.areas_px.tolist() == [1, 9]
    assert find_places(truth, scale_yx=(0.1, 0.1)).areas_px.tolist() == [1, 1]
    assert find_places(Instances.from_label_map(np.zeros((3, 3), int))).centres.shape == (0, 2)


@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.7, 0.7), (1.3, 1.3), (0.6, 1.5)])
def test_places_are_those_of_the_labels_on_the_model_grid(scale: tuple[float, float]) -> None:
    y, x = np.mgrid[:60, :80]
    labels = (1 + y // 20 * 4 + x // 20).astype(np.int32)
    labels[(y % 20 < 4) | (x % 20 < 3)] = 0
    grid = Grid(scale, (round(60 * scale[0]), round(80 * scale[1])), (60, 80))
    shown = Instances.from_label_map(resample_labels(labels, grid))
    expected = find_places(shown)
    found = find_places(Instances.from_label_map(labels), scale_yx=scale)
    assert np.abs(found.centres - expected.centres).max() <= 1
    np.testing.assert_allclose(found.areas_px, expected.areas_px, rtol=0.2)


def test_prepared_planes_are_read_back_as_half_precision(tmp_path: Path) -> None:
    image = np.linspace(0, 1, 12, dtype=np.float32).reshape(1, 3, 4)
    weight = np.eye(3, 4, dtype=bool)
    first = save_planes(tmp_path / "a.npy", image, 2 * image, weight)
    labels = np.zeros((3, 4), np.int32)
    planes = prepared(tmp_path / "b.npy", labels).planes()
    assert planes.dtype == np.float16
    stored = np.load(tmp_path / "a.npy")
    np.testing.assert_array_equal(
        stored, np.concatenate([image, 2 * image, weight[None]]).astype(np.float16)
    )
    assert save_planes(tmp_path / "c.npy", image, 2 * image, weight) == first
    assert save_planes(tmp_path / "c.npy", image, 2 * image, ~weight) != first


def test_the_digest_of_a_training_knows_every_image_and_their_order(tmp_path: Path) -> None:
    a = prepared(tmp_path / "a.npy", np.zeros((3, 4), np.int32))
    b = prepared(tmp_path / "b.npy", np.ones((3, 4), np.int32))
    digests = {images_sha256(images) for images in ([a, b], [b, a], [a], [b], [a, a])}
    assert len(digests) == 5


def test_a_disk_without_room_leaves_no_planes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    path = tmp_path / "a.npy"
    with pytest.raises(OutputError) as caught:
        save_planes(
            path,
            np.zeros((1, 2, 2), np.float32),
            np.zeros((1, 2, 2), np.float32),
            np.ones((2, 2), bool),
        )
    assert str(caught.value) == (
        f"{path}: found no room left on the disk, wanted room for the whole file; "
        "free some space or choose another output folder."
    )
    assert list(tmp_path.iterdir()) == []


def test_kinds_are_drawn_by_the_root_of_their_number() -> None:
    images = [listed("common", (10, 10), (0,), (5,))] * 9 + [listed("rare", (10, 10), (0,), (5,))]
    weights = image_weights(images)
    assert weights.sum() == pytest.approx(1)
    assert weights[:9].sum() == pytest.approx(3 / 4)
    assert weights[9] == pytest.approx(1 / 4)


def test_an_image_of_a_rare_class_and_a_large_one_are_drawn_more() -> None:
    images = [listed(None, (10, 10), (0,), (5,))] * 4 + [listed(None, (10, 10), (0, 1), (5, 5))]
    weights = image_weights(images)
    assert weights[4] / weights[0] == pytest.approx(np.sqrt(5))
    images = [listed(None, (10, 10), (), ()), listed(None, (40, 10), (), ())]
    assert image_weights(images).tolist() == pytest.approx([1 / 3, 2 / 3])


def test_small_and_rare_objects_are_drawn_more() -> None:
    weights = object_weights(listed(None, (9, 9), (0, 0, 0, 0, 1), (16, 16, 16, 1, 16)))
    assert weights[3] / weights[0] == pytest.approx(2)
    assert weights[4] / weights[0] == pytest.approx(2)


def test_a_rare_class_is_seen_more_often_than_its_share(tmp_path: Path) -> None:
    many = np.zeros((64, 64), np.int32)
    for number, (y, x) in enumerate(itertools.product(range(0, 64, 8), repeat=2), start=1):
        many[y + 2 : y + 6, x + 2 : x + 6] = number
    image = prepared(tmp_path / "a.npy", many, classes=(1, *(0,) * 63))
    seen = Counter(
        bool((patches([image], share=1.0)[number][1] == 1).any()) for number in range(300)
    )
    # One of 64 objects: alike for all, about 5 % of patches would show it.
    assert seen[True] > 25


def test_patch_number_n_is_the_same_in_every_order_and_process(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [
        prepared(tmp_path / f"{i}.npy", rng.integers(0, 9, (40, 50)).astype(np.int32))
        for i in range(3)
    ]
    steps = (
        {"D4": {"p": 1.0}},
        {"RandomBrightnessContrast": {"p": 0.5}},
        {"GaussNoise": {"p": 0.5}},
    )
    data = patches(images, margin=1.4, steps=steps)
    first = {n: data[n] for n in (3, 0, 2, 1)}
    again = {n: patches(images, margin=1.4, steps=steps)[n] for n in range(4)}
    for n in range(4):
        for a, b in zip(first[n], again[n], strict=True):
            assert torch.equal(a, b)
    loader = DataLoader(data, batch_size=2, sampler=Numbers(4), num_workers=1)
    for index, batch in enumerate(loader):
        for i in range(2):
            for a, b in zip(batch, first[2 * index + i], strict=True):
                assert torch.equal(a[i], b)
    assert not torch.equal(patches(images, seed=1, steps=steps)[0][0], first[0][0])


def test_numbers_go_on_from_epoch_to_epoch() -> None:
    numbers = Numbers(3)
    assert list(numbers) == [0, 1, 2]
    numbers.begin_at(12)
    assert list(numbers) == [12, 13, 14]
    assert len(numbers) == 3


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (5, 3), (8, 8), (20, 7)])
def test_a_patch_of_a_small_image_is_mirrored_and_weighs_nothing_outside(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    labels = (1 + np.arange(shape[0] * shape[1]).reshape(shape)).astype(np.int32)
    data = patches([prepared(tmp_path / "a.npy", labels)], share=0.0)
    for number in range(5):
        image, targets, weight = data[number]
        assert image.shape == targets.shape == weight.shape == (1, 8, 8)
        inside = weight[0].bool().numpy()
        assert inside.sum() == min(8, shape[0]) * min(8, shape[1])
        found = targets[0].numpy()[inside]
        assert len(np.unique(found)) == len(found)
        assert set(targets[0].numpy().ravel()) == set(found)


def test_a_patch_holds_the_object_that_it_was_drawn_around(tmp_path: Path) -> None:
    labels = np.zeros((100, 100), np.int32)
    labels[70, 81] = 1
    data = patches([prepared(tmp_path / "a.npy", labels)], share=1.0)
    corners = set()
    for number in range(40):
        targets = data[number][1][0].numpy()
        assert targets.sum() == 1
        corners.add(tuple(np.argwhere(targets)[0].tolist()))
    assert len(corners) > 20


def test_ignored_pixels_weigh_nothing(tmp_path: Path) -> None:
    weight = np.ones((8, 8), bool)
    weight[:, 5:] = False
    image = prepared(tmp_path / "a.npy", np.ones((8, 8), np.int32), weight=weight)
    np.testing.assert_array_equal(patches([image])[0][2][0].numpy(), weight)
