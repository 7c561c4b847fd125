"""Objects that overlap, in layers."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from domainseg.instances.layering import Layered, layered, numbered_planes
from domainseg.instances.runs import ObjectRuns, raster_runs
from domainseg.records import Instances


def objects_of(masks: NDArray[np.bool_]) -> ObjectRuns:
    runs = [raster_runs(mask.astype(np.uint8))[0] for mask in masks]
    offsets = np.concatenate([[0], np.cumsum([len(r) for r in runs])]).astype(np.int64)
    stacked = np.concatenate([np.zeros((0, 3), np.int64), *runs])
    return ObjectRuns(np.arange(1, len(masks) + 1), stacked, offsets, masks.shape[1:])


def random_masks(rng: np.random.Generator, count: int) -> NDArray[np.bool_]:
    masks = np.zeros((count, 40, 50), bool)
    for mask in masks:
        y, x = rng.integers(0, 35), rng.integers(0, 45)
        mask[y : y + rng.integers(2, 15), x : x + rng.integers(2, 15)] = True
    first = masks.reshape(count, -1).argmax(1)
    return masks[np.argsort(first, kind="stable")]


def made(masks: NDArray[np.bool_]) -> Layered:
    count = len(masks)
    return layered(
        objects_of(masks),
        classes=np.arange(count).astype(np.int16),
        scores=np.linspace(0, 1, count).astype(np.float32),
    )


@pytest.mark.parametrize("seed", range(5))
def test_every_object_is_whole_in_its_layer(seed: int) -> None:
    masks = random_masks(np.random.default_rng(seed), 30)
    found = made(masks)
    planes = found.labels(((0, 0), (40, 50)))
    assert len(planes) == found.layers > 1
    for layer, plane in enumerate(planes):
        first = found.first(layer)
        for i, kind in enumerate(found.classes_of(layer).tolist()):
            np.testing.assert_array_equal(plane == first + i, masks[kind])
    assert sorted(found.classes.tolist()) == list(range(30))


@pytest.mark.parametrize("seed", range(5))
def test_labels_of_boxes_are_those_of_the_whole(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = made(random_masks(rng, 20))
    whole = found.labels(((0, 0), (40, 50)))
    for _ in range(10):
        y0, x0 = int(rng.integers(0, 39)), int(rng.integers(0, 49))
        y1, x1 = int(rng.integers(y0 + 1, 41)), int(rng.integers(x0 + 1, 51))
        for part, plane in zip(found.labels(((y0, x0), (y1, x1))), whole, strict=True):
            np.testing.assert_array_equal(part, plane[y0:y1, x0:x1])


def test_objects_that_do_not_overlap_have_one_layer_and_count_along_the_rows() -> None:
    masks = np.zeros((3, 6, 6), bool)
    masks[0, 0, :2] = masks[1, 0, 3:] = masks[2, 4:, 1] = True
    found = made(masks)
    assert found.layers == 1
    (plane,) = found.labels(((0, 0), (6, 6)))
    expected = np.zeros((6, 6), int)
    expected[0, :2], expected[0, 3:], expected[4:, 1] = 1, 2, 3
    np.testing.assert_array_equal(plane, expected)


def test_a_third_object_over_two_that_overlap_needs_a_third_layer() -> None:
    masks = np.zeros((4, 4, 8), bool)
    masks[0, :, 0:4] = masks[1, :, 2:6] = masks[2, :, 3:8] = masks[3, 3, 7] = True
    found = made(masks)
    # The first three share column 3; the last overlaps the third alone.
    assert found.layers == 3
    assert found.classes_of(0).tolist() == [0, 3]


def test_no_object_leaves_one_empty_layer() -> None:
    found = made(np.zeros((0, 5, 5), bool))
    assert (found.layers, len(found)) == (1, 0)
    assert not found.labels(((1, 1), (4, 4)))[0].any()


def test_numbered_planes_hold_each_object_under_its_row() -> None:
    masks = np.zeros((3, 4, 6), bool)
    masks[0, :3, :3] = masks[1, 1:, 2:] = masks[2, 0, 4:] = True
    runs = objects_of(masks)
    truth = Instances(
        ids=np.array([7, 3, 9]),
        boxes=np.zeros((3, 2, 2), np.int64),
        runs=runs.runs,
        offsets=runs.offsets,
        classes=np.zeros(3, np.int16),
        scores=np.ones(3, np.float32),
        shape=(4, 6),
    )
    planes = numbered_planes(truth)
    assert len(planes) == 2
    for row, mask in enumerate(masks, start=1):
        np.testing.assert_array_equal(np.any([plane == row for plane in planes], axis=0), mask)
