"""Masks of detections drawn from their grids."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from domainseg.instances.detections import GRID_TOP, Detections, paste
from domainseg.instances.shared_pixels import areas_of, areas_within, boxes_of, find_shared
from domainseg.models.regions import mask_targets


def one(box: tuple[float, float, float, float], grid: NDArray[np.uint8]) -> Detections:
    y0, x0, y1, x1 = box
    return Detections(
        np.array([[[y0, x0], [y1, x1]]], np.float32),
        grid[None],
        np.zeros(1, np.int16),
        np.ones(1, np.float32),
    )


def drawn(found: Detections, shape: tuple[int, int], threshold: float = 0.5) -> NDArray[np.int_]:
    runs = paste(found, np.full(len(found), threshold, np.float32), shape=shape).runs
    out = np.zeros(shape, int)
    for y, x, length in runs.tolist():
        out[y, x : x + length] += 1
    return out


def test_a_full_grid_fills_the_pixels_whose_centres_lie_in_the_box() -> None:
    full = np.full((4, 4), GRID_TOP, np.uint8)
    mask = drawn(one((1.0, 2.0, 3.0, 5.0), full), (5, 6))
    expected = np.zeros((5, 6), int)
    expected[1:3, 2:5] = 1
    np.testing.assert_array_equal(mask, expected)
    # From 1.6 on row 1 has no centre in the box, up to 3.6 row 3 has.
    mask = drawn(one((1.6, 2.4, 3.6, 4.4), full), (5, 6))
    expected = np.zeros((5, 6), int)
    expected[2:4, 2:4] = 1
    np.testing.assert_array_equal(mask, expected)


def test_a_grid_of_pixel_size_is_its_own_mask() -> None:
    rng = np.random.default_rng(0)
    grid = (rng.random((6, 6)) < 0.5).astype(np.uint8) * GRID_TOP
    mask = drawn(one((2, 3, 8, 9), grid), (10, 12))
    np.testing.assert_array_equal(mask[2:8, 3:9], grid > 0)
    assert mask.sum() == np.count_nonzero(grid)


def test_between_cells_the_probability_is_linear() -> None:
    grid = np.array([[0, GRID_TOP], [0, GRID_TOP]], np.uint8)
    # Cells of 4 px: centres at 2 and 6; halfway at 4, a quarter of the way at 3.
    assert drawn(one((0, 0, 8, 8), grid), (8, 8))[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert drawn(one((0, 0, 8, 8), grid), (8, 8), 0.3)[0].tolist() == [0, 0, 0, 1, 1, 1, 1, 1]


def test_what_lies_outside_the_image_is_left_out() -> None:
    full = np.full((3, 3), GRID_TOP, np.uint8)
    assert drawn(one((-5, -5, 2, 2), full), (4, 4)).sum() == 4
    assert drawn(one((3, 3, 40, 40), full), (4, 4)).sum() == 1
    assert drawn(one((10, 10, 20, 20), full), (4, 4)).sum() == 0
    assert drawn(one((2, 2, 2, 3), full), (4, 4)).sum() == 0


@pytest.mark.parametrize("side", [14, 40, 150])
def test_a_mask_comes_back_from_the_grid_that_it_is_learned_as(side: int) -> None:
    ys, xs = np.mgrid[: side + 20, : side + 20] + 0.5
    centre = side / 2 + 10
    truth = ((ys - centre) / (side / 2)) ** 2 + ((xs - centre) / (side / 3)) ** 2 <= 1
    rows, columns = np.flatnonzero(truth.any(1)), np.flatnonzero(truth.any(0))
    box = (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1)
    roi = torch.tensor([[box[1], box[0], box[3], box[2]]], dtype=torch.float32)
    masks = torch.tensor(truth[None].astype(np.uint8))
    grid = mask_targets(masks, roi, torch.tensor([0]))
    quanta = (grid[0].numpy() * GRID_TOP).round().astype(np.uint8)
    mask = drawn(one(box, quanta), truth.shape) > 0
    iou = (mask & truth).sum() / (mask | truth).sum()
    assert iou > 0.93


def test_shared_pixels_are_those_of_dense_masks() -> None:
    rng = np.random.default_rng(3)
    count, shape = 30, (50, 60)
    corners = np.stack([rng.uniform(-5, 45, count), rng.uniform(-5, 55, count)], 1)
    sizes = rng.uniform(2, 25, (count, 2))
    found = Detections(
        np.stack([corners, corners + sizes], 1).astype(np.float32),
        rng.integers(0, 256, (count, 5, 5)).astype(np.uint8),
        np.zeros(count, np.int16),
        np.ones(count, np.float32),
    )
    objects = paste(found, np.full(count, 0.5, np.float32), shape=shape)
    masks = np.zeros((count, *shape), bool)
    for i in range(count):
        for y, x, length in objects.runs[objects.offsets[i] : objects.offsets[i + 1]].tolist():
            masks[i, y, x : x + length] = True
    np.testing.assert_array_equal(areas_of(objects), masks.sum((1, 2)))
    shared = find_shared(objects)
    common = np.einsum("iyx,jyx->ij", masks.astype(int), masks.astype(int))
    pairs = np.argwhere(np.triu(common, 1) > 0)
    np.testing.assert_array_equal(shared.pairs, pairs)
    np.testing.assert_array_equal(shared.areas_px, common[pairs[:, 0], pairs[:, 1]])
    for mask, box in zip(masks, boxes_of(objects), strict=True):
        if mask.any():
            ys, xs = np.nonzero(mask)
            assert box.tolist() == [[ys.min(), xs.min()], [ys.max() + 1, xs.max() + 1]]
    windows = np.broadcast_to(np.array([[10, 5], [30, 40]]), (count, 2, 2)).copy()
    np.testing.assert_array_equal(areas_within(objects, windows), masks[:, 10:30, 5:40].sum((1, 2)))
