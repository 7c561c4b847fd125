"""Detections of windows gathered: one answer for every lattice, scale and inspected area."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from domainseg.errors import InputError
from domainseg.gathering import Gathered, ObjectRules, gather
from domainseg.images.resample import Grid
from domainseg.instances.tile_graph import Box
from domainseg.tiling.detecting import Detector, detect_windows, open_detections, stream_detections
from domainseg.tiling.grid import Lattice

SHAPE = (144, 208)
Boxes = NDArray[np.int64]
"""``(N, 4)``: y0, x0, y1, x1, px of the model grid."""


@dataclass(frozen=True, slots=True)
class Knows:
    """Finds the rectangles it was told of, whole or cut by its window.

    Windows say where they are: the first two channels count rows and columns from 1.
    """

    boxes: Boxes
    classes: NDArray[np.int64]

    def __call__(self, images: Tensor) -> list[_Found]:
        return [self._one(image.numpy()) for image in images]

    def _one(self, image: NDArray[np.float32]) -> _Found:
        rows, columns = np.nonzero(image[0])
        top = round(float(image[0, rows[0], columns[0]]) * 1000) - 1 - rows[0]
        left = round(float(image[1, rows[0], columns[0]]) * 1000) - 1 - columns[0]
        moved = self.boxes - np.array([top, left, top, left])
        limit = np.array([*image.shape[1:], *image.shape[1:]])
        cut = np.clip(moved, 0, limit)
        there = (cut[:, 2:] > cut[:, :2]).all(1)
        boxes = cut[there][:, [1, 0, 3, 2]]
        scores = np.linspace(0.9, 0.5, len(self.boxes))[there]
        return _Found(
            torch.from_numpy(boxes.astype(np.float32)),
            torch.from_numpy(self.classes[there]),
            torch.from_numpy(scores),
            torch.ones(len(boxes), 28, 28),
        )


@dataclass(frozen=True, slots=True)
class _Found:
    boxes: Tensor
    classes: Tensor
    scores: Tensor
    masks: Tensor
    proposals_cut: bool = False
    detections_cut: bool = False
    regions: Tensor | None = None


def plane_of(shape: tuple[int, int]) -> NDArray[np.float32]:
    ys, xs = np.mgrid[: shape[0], : shape[1]]
    return np.stack([(ys + 1) / 1000, (xs + 1) / 1000]).astype(np.float32)


def rules_of(**changes: float | bool) -> ObjectRules:
    values = {"min_area": 0.0, "max_area": np.inf, "fill_holes": False, **changes}
    return ObjectRules(
        threshold=np.full(3, 0.5, np.float32),
        min_score=np.zeros(3, np.float32),
        min_area_px=np.full(3, values["min_area"]),
        max_area_px=float(values["max_area"]),
        fill_holes=bool(values["fill_holes"]),
        most_iou=0.5,
    )


def scattered(rng: np.random.Generator, side: int) -> tuple[Boxes, NDArray[np.int64]]:
    """Return rectangles that do not overlap, of sides up to ``side``."""
    taken, made = np.zeros(SHAPE, bool), []
    for _ in range(120):
        y, x = rng.integers(0, SHAPE[0] - 6), rng.integers(0, SHAPE[1] - 6)
        h, w = rng.integers(4, side + 1, 2)
        box = (y, x, min(y + h, SHAPE[0]), min(x + w, SHAPE[1]))
        if not taken[max(y - 4, 0) : box[2] + 4, max(x - 4, 0) : box[3] + 4].any():
            taken[y : box[2], x : box[3]] = True
            made.append(box)
    return np.array(made), rng.integers(0, 3, len(made))


def found_by(
    detect: Knows,
    lattice: Lattice,
    *,
    grid: Grid,
    inspected: NDArray[np.bool_] | None = None,
    rules: ObjectRules | None = None,
    folder: Path | None = None,
) -> Gathered:
    def mask(box: Box) -> NDArray[np.bool_]:
        assert inspected is not None
        (y0, x0), (y1, x1) = box
        return inspected[y0:y1, x0:x1]

    chosen = None if inspected is None else mask
    detector = Detector(detect, torch.device("cpu"))
    plane = plane_of(grid.model_shape)
    if folder is None:
        windows = detect_windows(detector, plane, lattice, mask=chosen)
        return gather(windows, rules or rules_of(), grid=grid)
    store = open_detections(folder, grid.model_shape, lattice)
    stream_detections(detector, plane, store, lattice, mask=chosen)
    return gather(store.windows(), rules or rules_of(), grid=grid)


def seen(found: Gathered) -> list[tuple[bytes, int, float]]:
    """Return pixels, class and score of each object, in an order of their own."""
    objects = found.objects
    runs, offsets = objects.objects.runs, objects.objects.offsets
    return sorted(
        (
            runs[offsets[i] : offsets[i + 1]].tobytes(),
            int(objects.classes[i]),
            float(objects.scores[i]),
        )
        for i in range(len(objects))
    )


LATTICES = [(32, 32, 1), (48, 32, 2), (64, 48, 1), (64, 32, 8), (112, 32, 3)]


@pytest.mark.parametrize("scale", [1.0, 0.5, 2.0, 0.37, 1.7])
@pytest.mark.parametrize("seed", range(2))
def test_every_lattice_gives_the_objects_of_one_window(scale: float, seed: int) -> None:
    boxes, classes = scattered(np.random.default_rng(seed), 28)
    grid = Grid((scale, scale), SHAPE, (int(SHAPE[0] / scale), int(SHAPE[1] / scale)))
    detect = Knows(boxes, classes)
    whole = found_by(detect, Lattice(256, 0, 16), grid=grid)
    assert len(whole.objects) == len(boxes)
    for core, halo, batch in LATTICES:
        found = found_by(detect, Lattice(core, halo, 16, batch), grid=grid)
        assert seen(found) == seen(whole)
        assert found.seams > 0
        assert found.united == 0


@pytest.mark.parametrize("scale", [1.0, 0.5, 1.7])
@pytest.mark.parametrize("seed", range(3))
def test_what_is_inspected_does_not_depend_on_the_lattice(
    tmp_path: Path, scale: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    boxes, classes = scattered(rng, 28)
    inspected = np.zeros(SHAPE, bool)
    for _ in range(4):
        y, x = rng.integers(0, 120), rng.integers(0, 180)
        inspected[y : y + rng.integers(10, 70), x : x + rng.integers(10, 70)] = True
    grid = Grid((scale, scale), SHAPE, (int(SHAPE[0] / scale), int(SHAPE[1] / scale)))
    detect = Knows(boxes, classes)
    whole = found_by(detect, Lattice(256, 0, 16), grid=grid, inspected=inspected)
    assert 0 < len(whole.objects) < len(boxes)
    for number, (core, halo, batch) in enumerate(LATTICES):
        lattice = Lattice(core, halo, 16, batch)
        found = found_by(detect, lattice, grid=grid, inspected=inspected)
        assert seen(found) == seen(whole)
        folder = tmp_path / str(number)
        stored = found_by(detect, lattice, grid=grid, inspected=inspected, folder=folder)
        assert seen(stored) == seen(whole)


def test_objects_larger_than_a_window_are_whole() -> None:
    boxes = np.array([[10, 5, 22, 200], [40, 30, 140, 46], [60, 80, 130, 190]])
    classes = np.array([0, 1, 2])
    grid = Grid((1.0, 1.0), SHAPE, SHAPE)
    detect = Knows(boxes, classes)
    whole = found_by(detect, Lattice(256, 0, 16), grid=grid)
    found = found_by(detect, Lattice(48, 32, 16), grid=grid)
    assert [one[:2] for one in seen(found)] == [one[:2] for one in seen(whole)]
    assert found.united == found.seams == 3
    # The score of all parts of one is its own.
    assert [one[2] for one in seen(found)] == pytest.approx([one[2] for one in seen(whole)])


def test_areas_are_bounded_on_the_model_grid() -> None:
    boxes = np.array([[10, 10, 20, 20], [40, 40, 60, 60]])
    grid = Grid((0.5, 0.5), SHAPE, (SHAPE[0] * 2, SHAPE[1] * 2))
    detect = Knows(boxes, np.zeros(2, np.int64))
    lattice = Lattice(64, 32, 16)
    assert len(found_by(detect, lattice, grid=grid).objects) == 2
    # 100 and 400 px there are 400 and 1,600 of the image.
    large = found_by(detect, lattice, grid=grid, rules=rules_of(min_area=101))
    assert large.objects.boxes.tolist() == [[[80, 80], [120, 120]]]
    small = found_by(detect, lattice, grid=grid, rules=rules_of(max_area=399))
    assert small.objects.boxes.tolist() == [[[20, 20], [40, 40]]]


def test_a_window_without_anything_to_look_at_has_no_objects(tmp_path: Path) -> None:
    boxes, classes = scattered(np.random.default_rng(0), 20)
    grid = Grid((1.0, 1.0), SHAPE, SHAPE)
    inspected = np.zeros(SHAPE, bool)
    inspected[:40, :40] = True

    def mask(box: Box) -> NDArray[np.bool_]:
        (y0, x0), (y1, x1) = box
        return inspected[y0:y1, x0:x1]

    lattice = Lattice(32, 16, 16, 4)
    store = open_detections(tmp_path, SHAPE, lattice)
    detector = Detector(Knows(boxes, classes), torch.device("cpu"))
    spent = stream_detections(detector, plane_of(grid.model_shape), store, lattice, mask=mask)
    reached = [tile.core[0][0] <= 48 and tile.core[0][1] <= 48 for tile in store.tiles]
    assert spent.skipped == reached.count(False)
    for near, (_, one) in zip(reached, store.windows(), strict=True):
        assert near or not len(one.detections)


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_damaged_detections_say_so(tmp_path: Path, damage: str) -> None:
    boxes, classes = scattered(np.random.default_rng(0), 20)
    grid = Grid((1.0, 1.0), SHAPE, SHAPE)
    lattice = Lattice(64, 32, 16)
    found_by(Knows(boxes, classes), lattice, grid=grid, folder=tmp_path)
    path = tmp_path / "000001.npz"
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[:300]
    else:
        for at in range(60, len(content) - 200, 7):
            content[at] ^= 255
    path.write_bytes(bytes(content))
    store = open_detections(tmp_path, SHAPE, lattice)
    with pytest.raises(InputError, match="found no detections that can be read"):
        list(store.windows())


def union_of(*sets: Sequence[int]) -> Boxes:
    return np.array(sets)


def test_an_object_beyond_the_border_belongs_to_the_core_along_it() -> None:
    grid = Grid((1.0, 1.0), SHAPE, SHAPE)
    detect = Knows(union_of((0, 50, 12, 62), (132, 50, 144, 62), (60, 0, 72, 9)), np.zeros(3, int))
    found = found_by(detect, Lattice(48, 16, 16), grid=grid)
    assert len(found.objects) == 3
