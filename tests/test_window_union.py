"""Objects seen in overlapping windows, put together as one image's."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from domainseg.instances.runs import ObjectRuns, raster_runs
from domainseg.instances.window_union import Sightings, United, join_sightings, sighted, unite

SHAPE = (96, 128)
Seen = tuple[NDArray[np.bool_], int, float]
"""Mask in the image, class, score."""


def runs_of(masks: list[NDArray[np.bool_]]) -> ObjectRuns:
    runs = [raster_runs(mask.astype(np.uint8))[0] for mask in masks]
    offsets = np.concatenate([[0], np.cumsum([len(r) for r in runs])]).astype(np.int64)
    stacked = np.concatenate([np.zeros((0, 3), np.int64), *runs])
    return ObjectRuns(np.arange(1, len(masks) + 1), stacked, offsets, SHAPE)


def window(
    number: int, extent: list[list[int]], core: list[list[int]], seen: list[Seen]
) -> Sightings:
    """Return what a window sees of objects that it shows a part of."""
    (y0, x0), (y1, x1) = extent
    shown = np.zeros(SHAPE, bool)
    shown[y0:y1, x0:x1] = True
    cut = [(mask & shown, kind, score) for mask, kind, score in seen if (mask & shown).any()]
    boxes = []
    for mask, _, _ in cut:
        ys, xs = np.nonzero(mask)
        boxes.append([[ys.min(), xs.min()], [ys.max() + 1, xs.max() + 1]])
    return sighted(
        runs_of([mask for mask, _, _ in cut]),
        boxes=np.array(boxes, np.float32).reshape(-1, 2, 2),
        classes=np.array([kind for _, kind, _ in cut], np.int16),
        scores=np.array([score for _, _, score in cut], np.float32),
        window=number,
        extent=np.array(extent),
        core=np.array(core),
        edge_px=(2.0, 2.0),
    )


def windows_of(seen: list[Seen], core: int, halo: int) -> list[Sightings]:
    made = []
    rows, columns = range(0, SHAPE[0], core), range(0, SHAPE[1], core)
    for number, (y, x) in enumerate(product(rows, columns)):
        low = [max(y - halo, 0), max(x - halo, 0)]
        high = [min(y + core + halo, SHAPE[0]), min(x + core + halo, SHAPE[1])]
        owned = [[y, x], [min(y + core, SHAPE[0]), min(x + core, SHAPE[1])]]
        made.append(window(number, [low, high], owned, seen))
    return made


def masks_of(found: United) -> list[NDArray[np.bool_]]:
    out = []
    for i in range(len(found)):
        mask = np.zeros(SHAPE, bool)
        objects = found.objects
        for y, x, length in objects.runs[objects.offsets[i] : objects.offsets[i + 1]].tolist():
            mask[y, x : x + length] = True
        out.append(mask)
    return out


def united(parts: list[Sightings]) -> United:
    return unite(join_sightings(parts, shape=SHAPE), most_iou=0.5)


def blobs(rng: np.random.Generator, count: int, side: int) -> list[Seen]:
    """Return discs apart from each other."""
    taken = np.zeros(SHAPE, bool)
    made: list[Seen] = []
    ys, xs = np.mgrid[: SHAPE[0], : SHAPE[1]]
    while len(made) < count:
        y, x = rng.uniform(0, SHAPE[0]), rng.uniform(0, SHAPE[1])
        r = rng.uniform(3, side / 2)
        mask = (ys - y) ** 2 + (xs - x) ** 2 <= r * r
        grown = (ys - y) ** 2 + (xs - x) ** 2 <= (r + 2) ** 2
        if mask.sum() > 4 and not (grown & taken).any():
            taken |= mask
            made.append((mask, len(made) % 2, float(rng.uniform(0.5, 1))))
    return made


@pytest.mark.parametrize(("core", "halo"), [(32, 16), (48, 16), (64, 32), (128, 16)])
@pytest.mark.parametrize("seed", range(3))
def test_objects_are_found_once_and_whole_whatever_the_windows(
    core: int, halo: int, seed: int
) -> None:
    seen = blobs(np.random.default_rng(seed), 25, 18)
    found = united(windows_of(seen, core, halo))
    expected = {mask.tobytes(): (kind, np.float32(score)) for mask, kind, score in seen}
    assert len(found) == len(seen)
    for mask, kind, score in zip(masks_of(found), found.classes, found.scores, strict=True):
        assert expected[mask.tobytes()] == (kind, score)


@pytest.mark.parametrize("seed", range(3))
def test_an_object_larger_than_a_window_is_put_together(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ys, xs = np.mgrid[: SHAPE[0], : SHAPE[1]]
    wave = 48 + 20 * np.sin(xs / 20 + rng.uniform(0, 6))
    band = (np.abs(ys - wave) <= 4) & (xs > 3) & (xs < 120)
    found = united(windows_of([(band, 0, 0.8)], 32, 16))
    assert len(found) == 1
    np.testing.assert_array_equal(masks_of(found)[0], band)
    assert found.parts[0] > 1
    assert found.seams[0]
    assert found.scores[0] == pytest.approx(0.8)


def test_the_order_of_windows_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    seen = blobs(rng, 20, 60)
    parts = windows_of(seen, 32, 16)
    first = united(parts)
    for _ in range(3):
        rng.shuffle(parts)
        again = united(parts)
        np.testing.assert_array_equal(again.objects.runs, first.objects.runs)
        np.testing.assert_array_equal(again.scores, first.scores)


def square(y: int, x: int, side: int) -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE, bool)
    mask[y : y + side, x : x + side] = True
    return mask


def test_what_two_windows_see_a_little_apart_is_one_object_neither_lost_nor_doubled() -> None:
    # Seen from the left its centre lies right of the seam at 64, from the right left of it.
    left = window(0, [[0, 0], [96, 84]], [[0, 0], [96, 64]], [(square(20, 59, 12), 0, 0.7)])
    right = window(1, [[0, 44], [96, 128]], [[0, 64], [96, 128]], [(square(20, 57, 12), 0, 0.9)])
    found = united([left, right])
    assert len(found) == 1
    assert found.scores[0] == np.float32(0.9)
    both = [
        window(0, [[0, 0], [96, 84]], [[0, 0], [96, 64]], [(square(20, 57, 12), 0, 0.7)]),
        window(1, [[0, 44], [96, 128]], [[0, 64], [96, 128]], [(square(20, 59, 12), 0, 0.9)]),
    ]
    assert len(united(both)) == 1


def test_a_window_owns_what_it_sees_before_a_better_score_from_beyond() -> None:
    owner = window(0, [[0, 0], [96, 84]], [[0, 0], [96, 64]], [(square(20, 56, 12), 0, 0.6)])
    other = window(1, [[0, 44], [96, 128]], [[0, 64], [96, 128]], [(square(21, 56, 12), 0, 0.9)])
    found = united([owner, other])
    np.testing.assert_array_equal(masks_of(found)[0], square(20, 56, 12))


def test_doubles_of_one_class_go_and_those_of_two_stay() -> None:
    whole = [[0, 0], [96, 128]]
    twice = [(square(10, 10, 20), 0, 0.6), (square(11, 10, 20), 0, 0.9)]
    assert united([window(0, whole, whole, twice)]).scores.tolist() == [np.float32(0.9)]
    two = [(square(10, 10, 20), 0, 0.6), (square(11, 10, 20), 1, 0.9)]
    assert len(united([window(0, whole, whole, two)])) == 2
    apart = [(square(10, 10, 20), 0, 0.6), (square(10, 20, 20), 0, 0.9)]
    assert len(united([window(0, whole, whole, apart)])) == 2


def test_parts_side_by_side_that_disagree_stay_apart() -> None:
    left, right = [[0, 0], [96, 84]], [[0, 44], [96, 128]]
    parts = [
        window(0, left, [[0, 0], [96, 64]], [(square(10, 30, 60), 0, 0.9)]),
        window(1, right, [[0, 64], [96, 128]], [(square(45, 40, 50), 0, 0.9)]),
    ]
    # Where both look, 44 to 84, their overlap is below half.
    assert len(united(parts)) == 2


def test_no_sighting_is_no_object() -> None:
    found = united([])
    assert len(found) == 0
    assert found.objects.runs.shape == (0, 3)


def test_windows_that_disagree_on_the_class_see_one_object() -> None:
    owner = window(0, [[0, 0], [96, 84]], [[0, 0], [96, 64]], [(square(20, 57, 12), 0, 0.6)])
    other = window(1, [[0, 44], [96, 128]], [[0, 64], [96, 128]], [(square(20, 57, 12), 1, 0.9)])
    found = united([owner, other])
    assert found.classes.tolist() == [0]
    # Two of one window are two: nothing says that they are one thing.
    both = [(square(20, 30, 12), 0, 0.6), (square(20, 30, 12), 1, 0.9)]
    assert len(united([window(0, [[0, 0], [96, 84]], [[0, 0], [96, 64]], both)])) == 2


def test_a_part_of_another_class_is_the_whole_objects() -> None:
    whole = window(0, [[0, 0], [96, 84]], [[0, 0], [96, 64]], [(square(20, 40, 30), 0, 0.6)])
    part = window(1, [[0, 56], [96, 128]], [[0, 64], [96, 128]], [(square(20, 40, 30), 1, 0.9)])
    found = united([whole, part])
    assert found.classes.tolist() == [0]
    np.testing.assert_array_equal(masks_of(found)[0], square(20, 40, 30))


def test_a_part_alone_is_kept_by_the_core_that_owns_it() -> None:
    extent, core = [[0, 40], [96, 128]], [[0, 64], [96, 128]]
    # What the window shows of each begins at 40; the other window saw nothing.
    near = window(1, extent, core, [(square(20, 10, 80), 0, 0.9)])
    assert len(united([near])) == 1
    far = window(1, extent, core, [(square(20, 10, 60), 0, 0.9)])
    assert len(united([far])) == 0


def test_the_score_of_united_parts_weighs_their_areas() -> None:
    band = np.zeros(SHAPE, bool)
    band[40:50, 4:100] = True
    left = window(0, [[0, 0], [96, 84]], [[0, 0], [96, 64]], [(band, 0, 0.9)])
    right = window(1, [[0, 44], [96, 128]], [[0, 64], [96, 128]], [(band, 0, 0.6)])
    found = united([left, right])
    assert len(found) == 1
    assert found.scores[0] == pytest.approx((80 * 0.9 + 56 * 0.6) / 136)
