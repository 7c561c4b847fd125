"""Detection with a tolerance: rules by hand, and the curve against detection done again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from statsmodels.stats.proportion import proportion_confint

from domainseg.instances.detection import DetectionRule, ImageDetection, detect
from domainseg.instances.free_response import free_response
from domainseg.instances.planes import disc_maximum, pixels_of, union
from domainseg.instances.recall import Detection, summarise_detection
from domainseg.records import Instances

EXACT = DetectionRule(tolerance_px=0.0)
RULE = DetectionRule()


def objects(
    *rows: str,
    classes: Mapping[int, int] | None = None,
    scores: Mapping[int, float] | None = None,
) -> Instances:
    """Return the objects of a map drawn with digits, ``.`` for background."""
    labels = np.array([[0 if c == "." else int(c) for c in row] for row in rows], np.int32)
    return Instances.from_label_map(labels, classes=classes, scores=scores)


def seen(
    truth: Instances,
    predicted: Instances,
    rule: DetectionRule = RULE,
    *,
    ignore: NDArray[np.bool_] | None = None,
) -> ImageDetection:
    return detect("a", truth, predicted, rule=rule, ignore=ignore)


def scattered(rng: np.random.Generator, count: int, shape: tuple[int, int]) -> Instances:
    """Return small rectangles at random, with classes 0 and 1 and scores in tenths."""
    labels = np.zeros(shape, np.int32)
    for number in range(1, count + 1):
        y, x = rng.integers(0, shape[0]), rng.integers(0, shape[1])
        labels[y : y + rng.integers(1, 4), x : x + rng.integers(1, 9)] = number
    numbers = range(1, count + 1)
    return Instances.from_label_map(
        labels,
        classes={n: int(rng.integers(2)) for n in numbers},
        scores={n: int(rng.integers(1, 11)) / 10 for n in numbers},
    )


def cut(instances: Instances, chosen: NDArray[np.bool_]) -> Instances:
    """Return some of the objects."""
    lengths = np.diff(instances.offsets)
    return replace(
        instances,
        ids=instances.ids[chosen],
        boxes=instances.boxes[chosen],
        runs=instances.runs[np.repeat(chosen, lengths)],
        offsets=np.concatenate([[0], np.cumsum(lengths[chosen])]),
        classes=instances.classes[chosen],
        scores=instances.scores[chosen],
    )


# The rule ---------------------------------------------------------------------------------


def test_a_scratch_drawn_beside_itself_is_found() -> None:
    found = seen(objects(*["..1.."] * 5), objects(*["....1"] * 5))
    assert found.found.tolist() == [True]
    assert found.false.tolist() == [False]


def test_beyond_the_tolerance_it_is_missed_and_the_call_is_false() -> None:
    found = seen(objects(*[".1..."] * 5), objects(*["....1"] * 5))
    assert found.found.tolist() == [False]
    assert found.false.tolist() == [True]


def test_a_call_on_everything_finds_nothing() -> None:
    # Of its 64 pixels 6 are within 2 px of the corner: less than a tenth.
    found = seen(objects("1.......", *["........"] * 7), objects(*["11111111"] * 8))
    assert found.false.tolist() == [True]
    assert found.found.tolist() == [False]
    # In an image of 6 x 10 they are a tenth exactly.
    found = seen(objects("1.........", *[".........."] * 5), objects(*["1111111111"] * 6))
    assert found.false.tolist() == [False]
    assert found.found.tolist() == [True]


def test_pieces_find_a_scratch_together_from_the_score_of_the_one_that_is_needed() -> None:
    truth = objects("11111111111111111111")
    two = objects("1.......2...........", scores={1: 0.9, 2: 0.6})
    assert seen(truth, two, EXACT).found_from.tolist() == [np.float32(0.6)]
    one = cut(two, np.array([True, False]))
    assert seen(truth, one, EXACT).found.tolist() == [False]
    # A pixel is enough for the ten around it.
    assert seen(objects("1111111111"), objects(".1........"), EXACT).found.tolist() == [True]


def test_one_call_may_find_several() -> None:
    found = seen(objects("1.2.3.........."), objects(".11111........."), RULE)
    assert found.found.tolist() == [True] * 3
    assert len(found.false) == 1


def test_overlapping_calls_count_by_the_best_score() -> None:
    low, high = objects("11..", scores={1: 0.4}), objects("1...", scores={1: 0.8})
    both = Instances(
        ids=np.array([1, 2]),
        boxes=np.concatenate([high.boxes, low.boxes]),
        runs=np.concatenate([high.runs, low.runs]),
        offsets=np.array([0, 1, 2]),
        classes=np.zeros(2, np.int16),
        scores=np.concatenate([high.scores, low.scores]),
        shape=(1, 4),
    )
    assert seen(objects("1..."), both, EXACT).found_from.tolist() == [np.float32(0.8)]


def test_a_defect_under_another_class_is_found_but_not_named() -> None:
    truth = objects("11..22", classes={1: 0, 2: 1})
    predicted = objects("11..22", classes={1: 0, 2: 0}, scores={1: 0.5, 2: 0.7})
    found = seen(truth, predicted)
    assert found.found.tolist() == [True, True]
    # The call on the other lies 3 px away.
    assert found.named.tolist() == [True, False]
    assert found.named_from[0] == np.float32(0.5)
    assert found.false.tolist() == [False, False]


def test_ignored_pixels_count_nowhere() -> None:
    truth, predicted = objects("11..22.."), objects("11....33")
    ignore = np.array([[False] * 4 + [True] * 2 + [False] * 2])
    found = seen(truth, predicted, EXACT, ignore=ignore)
    assert found.truth_px.tolist() == [2]
    assert found.inspected_px == 6
    assert found.false.tolist() == [False, True]
    # Of a call that is mostly ignored nobody knows.
    mostly = np.array([[False] * 5 + [True] * 2 + [False]])
    found = seen(objects("11......"), objects(".....333"), EXACT, ignore=mostly)
    assert found.false.tolist() == [False]
    whole = seen(truth, predicted, EXACT, ignore=np.ones((1, 8), bool))
    assert (len(whole.truth_px), len(whole.false), whole.inspected_px) == (0, 0, 0)


def test_nothing_on_either_side_is_nothing() -> None:
    empty, some = objects("...."), objects("1...")
    assert seen(empty, some).false.tolist() == [True]
    assert seen(some, empty).found.tolist() == [False]
    assert len(seen(empty, empty).false) == 0


def test_a_perfect_prediction_finds_all_and_calls_nothing_false() -> None:
    rng = np.random.default_rng(0)
    truth = scattered(rng, 30, (60, 70))
    found = seen(truth, truth)
    assert found.found.all()
    assert found.named.all()
    assert not found.false.any()


# Many images ------------------------------------------------------------------------------


def several() -> list[ImageDetection]:
    rng = np.random.default_rng(7)
    return [
        detect(
            f"{k}",
            scattered(rng, 12, (40, 50)),
            scattered(rng, 15, (40, 50)),
            rule=RULE,
            kind="even" if k % 2 == 0 else "odd",
            spacing_um=(10.0, 10.0),
        )
        for k in range(4)
    ]


def test_the_curve_is_detection_with_the_calls_above_each_score() -> None:
    rng = np.random.default_rng(5)
    pairs = [(scattered(rng, 10, (40, 50)), scattered(rng, 25, (40, 50))) for _ in range(3)]
    curve = free_response([seen(truth, calls) for truth, calls in pairs])
    assert len(curve.scores) > 5
    for score, found, false in zip(curve.scores, curve.found, curve.false, strict=True):
        again = [seen(truth, cut(calls, calls.scores >= score)) for truth, calls in pairs]
        assert found == sum(one.found.sum() for one in again)
        assert false == sum(one.false.sum() for one in again)
    assert (np.diff(curve.found) >= 0).all()
    assert (np.diff(curve.false) >= 0).all()
    assert 0 < curve.found[-1] < curve.truths


def test_recall_is_read_off_the_curve_by_hand() -> None:
    # Falling scores: .9 finds one, .8 is false, .7 finds the other, .6 is false.
    truth = objects("1.........", "..........", "..........", "2.........")
    calls = objects(
        "1.......2.",
        "..........",
        "..........",
        "3.......4.",
        scores={1: 0.9, 2: 0.8, 3: 0.7, 4: 0.6},
    )
    (image,) = [seen(truth, calls)]
    curve = free_response([image])
    assert curve.found.tolist() == [1, 1, 2, 2]
    assert curve.false.tolist() == [0, 1, 1, 2]
    per_call = 1e6 / 40
    assert curve.recall_at(0.0) == 0.5
    assert curve.recall_at(0.99 * per_call) == 0.5
    assert curve.at(per_call) == (1.0, float(np.float32(0.7)))
    assert curve.at(5 * per_call) == (1.0, float(np.float32(0.6)))
    assert [point["recall"] for point in curve.points()] == [0.5, 1.0, 1.0]
    assert [point["false_calls_per_mpx"] for point in curve.points()] == [0, per_call, 2 * per_call]


def test_a_curve_without_a_good_first_call_begins_at_nothing() -> None:
    curve = free_response([seen(objects("1........."), objects("........1."))])
    assert curve.at(0.0) == (0.0, None)
    nothing = free_response([seen(objects("...."), objects("...."))])
    assert math.isnan(nothing.recall_at(1.0))
    assert nothing.points() == []


def test_kinds_classes_and_sizes_partition_the_defects() -> None:
    images = several()
    found = summarise_detection(images, rule=RULE, class_names=("pit", "scratch"))
    for parts in (found.kinds, found.classes):
        for name in ("truths", "found", "calls", "false"):
            assert sum(getattr(one, name) for one in parts) == getattr(found.all, name)
    assert sum(one.truths for one in found.sizes) == found.all.truths
    assert sum(one.found for one in found.sizes) == found.all.found
    assert found.all.named is not None
    assert 0 < found.all.named < found.all.found
    assert found.all.mpx == 4 * 2000 / 1e6
    # 8,000 pixels of 100 um2 are .008 cm2.
    assert found.all.false_per_cm2 == pytest.approx(found.all.false / 0.008)
    assert found.all.false_per_mpx == pytest.approx(found.all.false / 0.008)
    assert found.um_per_px == 10.0


def test_the_order_of_the_images_does_not_matter() -> None:
    images = several()
    one, other = (
        json.dumps(summarise_detection(some, rule=RULE, rates=(100.0,)).to_json())
        for some in (images, images[::-1])
    )
    assert one == other


def test_sizes_are_equivalent_diameters() -> None:
    # 12 pixels are a circle of 3.9 px, 13 of 4.07 px.
    truth = objects("111111111111.2222222222222")
    (image,) = [seen(truth, objects("1" + "." * 25))]
    found = summarise_detection([image], rule=RULE, size_bins_px=(0, 4, 8))
    assert [(one.truths, one.found) for one in found.sizes] == [(1, 1), (1, 0)]
    assert found.sizes[0].recall == 1.0
    open_end = summarise_detection([image], rule=RULE, size_bins_px=(0, 4, math.inf))
    scaled = replace(open_end, um_per_px=1000.0)
    assert [row[0] for row in scaled.size_table()[1]] == [
        "diameter 0 to 4000 um",
        "diameter 4000 um or more",
    ]


def test_intervals_are_those_of_the_references() -> None:
    found = summarise_detection(several(), rule=RULE).all
    low, high = proportion_confint(found.found, found.truths, method="wilson")
    assert found.recall_interval.low == pytest.approx(low, abs=1e-9)
    assert found.recall_interval.high == pytest.approx(high, abs=1e-9)


def test_what_is_not_known_is_none() -> None:
    images = [replace(one, kind=None, spacing_um=None) for one in several()]
    found = summarise_detection(images[:1], rule=RULE, rates=(0.0,))
    content = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert content == found.to_json()
    assert content["all"]["false_calls_per_cm2"] is None
    assert content["all"]["named"] is None
    assert content["sizes"][-1]["high_px"] is None
    assert content["sizes"][0]["high_um"] is None
    assert list(content) == [
        *("tolerance_px", "min_cover", "all", "kinds", "classes", "sizes"),
        *("recall_at", "free_response", "images"),
    ]
    void = summarise_detection([seen(objects("...."), objects("...."))], rule=RULE)
    assert void.to_json()["all"]["recall"] is None
    assert void.table()[1][0] == ("all", "0", "0", "n/a", "n/a", "0", "0")


def rows_of(found: Detection) -> dict[str, tuple[str, ...]]:
    header, rows = found.table()
    assert {len(row) for row in rows} == {len(header)}
    return {row[0]: row[1:] for row in rows}


def test_the_table_names_what_applies() -> None:
    truth = objects("1....2", classes={1: 0, 2: 1})
    image = seen(truth, objects("1.....", scores={1: 0.9}))
    found = summarise_detection([image], rule=RULE, class_names=("pit", "crack"), rates=(0.0,))
    assert found.table()[0] == (
        *("detection", "defects", "found", "recall", "95 %", "named", "false", "per Mpx"),
    )
    assert rows_of(found)["all"] == ("2", "1", "0.500", "0.095-0.905", "0.500", "0", "0")
    assert rows_of(found)["crack"][:3] == ("1", "0", "0.000")
    assert found.size_table()[1] == [
        ("diameter 0 to 4 px", "2", "0.500"),
        ("at 0 false calls per Mpx", "2", "0.500"),
    ]


# Planes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("radius_px", [0.0, 1.0, 1.5, 2.0, 3.7, 9.0])
def test_the_maximum_in_a_disc_is_that_of_every_pixel_within_it(radius_px: float) -> None:
    rng = np.random.default_rng(3)
    plane = np.where(rng.random((7, 9)) < 0.2, rng.random((7, 9)), -np.inf).astype(np.float32)
    y, x = np.mgrid[:7, :9]
    wanted = np.empty_like(plane)
    for row in range(7):
        for column in range(9):
            near = (y - row) ** 2 + (x - column) ** 2 <= radius_px**2
            wanted[row, column] = plane[near].max()
    np.testing.assert_array_equal(disc_maximum(plane, radius_px, outside=-np.inf), wanted)
    np.testing.assert_array_equal(
        disc_maximum(np.isfinite(plane), radius_px, outside=0), np.isfinite(wanted)
    )


def test_pixels_are_listed_object_after_object() -> None:
    one = objects(".1.", "221")
    pixels, owners = pixels_of(one)
    assert pixels.tolist() == [1, 5, 3, 4]
    assert owners.tolist() == [0, 0, 1, 1]
    assert union(one, np.array([False, True])).tolist() == [[False] * 3, [True, True, False]]
