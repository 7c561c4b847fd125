"""Panoptic quality: its definition written slowly, another implementation, and by hand."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from domainseg.errors import InputError
from domainseg.instances.panoptic_quality import (
    Panoptic,
    PanopticCounts,
    panoptic_counts,
    panoptic_segments,
    summarise_panoptic,
)
from domainseg.records import Instances

Plane = NDArray[np.int64]
NAMES = ("cat", "dog", "sky")


def drawn(*rows: str) -> Plane:
    """Return a plane of ids drawn with digits, ``.`` for none."""
    return np.array([[0 if c == "." else int(c) for c in row] for row in rows], np.int64)


def panoptic(plane: Plane, classes: dict[int, int], crowds: tuple[int, ...] = ()) -> Panoptic:
    ids = np.array(list(classes), np.int64)
    return Panoptic(
        plane, ids, np.array(list(classes.values()), np.int16), np.isin(ids, np.array(crowds))
    )


def counted(counts: PanopticCounts) -> list[list[float]]:
    return [getattr(counts, field.name).tolist() for field in fields(PanopticCounts)]


# The definition, as sets of pixels ----------------------------------------------------------


def slow(truth: Panoptic, predicted: Panoptic, classes: int) -> list[list[float]]:
    """Return matched, missed, false and summed IoU by class, from sets of pixels."""
    void = set(np.flatnonzero(truth.plane == 0).tolist())

    def segments(one: Panoptic) -> list[tuple[set[int], int, bool]]:
        held = [set(np.flatnonzero(one.plane == name).tolist()) for name in one.ids.tolist()]
        every = zip(held, one.classes.tolist(), one.crowd.tolist(), strict=True)
        return [segment for segment in every if segment[0]]

    matched, missed, false, total = ([0.0] * classes for _ in range(4))
    of_truth, of_predicted = segments(truth), segments(predicted)
    taken: set[int] = set()
    for pixels, index, crowd in of_truth:
        if crowd:
            continue
        partners = []
        for row, (others, other, _) in enumerate(of_predicted):
            iou = len(pixels & others) / len((pixels | others) - void)
            if other == index and iou > 0.5:
                partners.append((row, iou))
        assert len(partners) <= 1
        if not partners:
            missed[index] += 1
        for row, iou in partners:
            assert row not in taken
            taken.add(row)
            matched[index] += 1
            total[index] += iou
    for row, (others, other, _) in enumerate(of_predicted):
        unscored = len(others & void)
        unscored += sum(
            len(others & pixels) for pixels, index, crowd in of_truth if crowd and index == other
        )
        if row not in taken and unscored / len(others) <= 0.5:
            false[other] += 1
    return [matched, missed, false, total]


def random_pair(rng: np.random.Generator, *, size: int = 24) -> tuple[Panoptic, Panoptic]:
    """Return a truth of patches, some void and some crowds, and a prediction like it."""
    truth = np.zeros((size, size), np.int64)
    ids = rng.choice(2**24, 14, replace=False) + 1
    for name in ids:
        y, x = rng.integers(0, size - 3, 2)
        truth[y : y + rng.integers(2, 12), x : x + rng.integers(2, 12)] = name
    predicted = truth.copy()
    for _ in range(8):
        y, x = rng.integers(0, size - 3, 2)
        name = rng.choice([0, *ids[:7].tolist(), 99_999_999])
        predicted[y : y + rng.integers(1, 7), x : x + rng.integers(1, 9)] = name
    classes = {int(name): int(rng.integers(3)) for name in ids}
    named = {
        name: index if rng.random() < 0.9 else int(rng.integers(3))
        for name, index in classes.items()
    }
    crowds = tuple(int(name) for name in ids[:3])
    return (
        panoptic(truth, classes, crowds),
        panoptic(predicted, {**named, 99_999_999: int(rng.integers(3))}),
    )


@settings(max_examples=120, deadline=None, database=None)
@given(st.integers(0, 2**32 - 1))
def test_counts_are_those_of_the_definition(seed: int) -> None:
    truth, predicted = random_pair(np.random.default_rng(seed))
    found = counted(panoptic_counts(truth, predicted, class_count=3))
    wanted = slow(truth, predicted, 3)
    assert found[:3] == wanted[:3]
    assert found[3] == pytest.approx(wanted[3], abs=1e-12)


def test_random_maps_hold_all_that_is_told_apart() -> None:
    sums = np.zeros((4, 3))
    excused = 0
    for seed in range(40):
        truth, predicted = random_pair(np.random.default_rng(seed))
        sums += np.array(slow(truth, predicted, 3))
        strict = slow(replace(truth, crowd=np.zeros_like(truth.crowd)), predicted, 3)
        excused += strict != slow(truth, predicted, 3)
    assert sums.min() > 5
    assert excused > 20


def test_counts_are_those_of_torchmetrics() -> None:
    torch = pytest.importorskip("torch")
    detection = pytest.importorskip("torchmetrics.detection")
    # Void in a prediction is left out there too, so predictions have none here.
    metric = detection.PanopticQuality(
        things={0, 1}, stuffs={2}, return_sq_and_rq=True, return_per_class=True
    )
    total = PanopticCounts.nothing(3)
    for seed in range(12):
        pair = random_pair(np.random.default_rng(seed))
        planes = [one_region_of_stuff(replace(one, crowd=one.crowd & False)) for one in pair]
        sky = planes[1].ids.max() + 1
        planes[1] = one_region_of_stuff(
            Panoptic(
                np.where(planes[1].plane == 0, sky, planes[1].plane),
                np.append(planes[1].ids, sky),
                np.append(planes[1].classes, np.int16(2)),
                np.append(planes[1].crowd, False),
            )
        )
        truth, predicted = planes
        total = total + panoptic_counts(truth, predicted, class_count=3)
        metric.update(
            torch.from_numpy(coloured(predicted, void=2))[None],
            torch.from_numpy(coloured(truth, void=7))[None],
        )
    theirs = metric.compute().numpy().reshape(3, 3)
    np.testing.assert_allclose(total.quality().T, theirs, atol=1e-6)
    # All three counts occur; of the sky there is one in each prediction, which mostly fits.
    assert total.matched.min() > 5
    assert total.missed.min() > 2
    assert total.false[:2].min() > 5


def one_region_of_stuff(one: Panoptic) -> Panoptic:
    """Return the segments with all of class 2 as one."""
    stuff = one.ids[one.classes == 2]
    if not len(stuff):
        return one
    first = stuff[0]
    plane = np.where(np.isin(one.plane, stuff), first, one.plane)
    keep = (one.classes != 2) | (one.ids == first)
    return Panoptic(plane, one.ids[keep], one.classes[keep], one.crowd[keep])


def coloured(one: Panoptic, *, void: int) -> Plane:
    """Return class and id per pixel, int64 ``(H, W, 2)``."""
    order = np.argsort(one.ids)
    at = np.searchsorted(one.ids[order], one.plane)
    classes = one.classes[order][np.minimum(at, len(order) - 1)].astype(np.int64)
    return np.stack([np.where(one.plane == 0, void, classes), one.plane], -1)


# Laws ---------------------------------------------------------------------------------------


def test_truth_agrees_with_itself() -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        truth = random_pair(rng)[0]
        objects = ~truth.crowd & np.isin(truth.ids, truth.plane)
        found = panoptic_counts(truth, truth, class_count=3)
        assert found.matched.sum() == objects.sum()
        assert found.missed.sum() == found.false.sum() == 0
        quality = summarise_panoptic(found, class_names=NAMES, stuff=("sky",))
        assert (quality.all.pq, quality.all.sq, quality.all.rq) == (1.0, 1.0, 1.0)


def test_names_of_segments_do_not_matter() -> None:
    truth, predicted = random_pair(np.random.default_rng(3))
    order = np.random.default_rng(4).permutation(len(truth.ids))
    shuffled = Panoptic(
        np.where(truth.plane > 0, truth.plane * 3 + 5, 0),
        truth.ids[order] * 3 + 5,
        truth.classes[order],
        truth.crowd[order],
    )
    found = panoptic_counts(shuffled, predicted, class_count=3)
    wanted = panoptic_counts(truth, predicted, class_count=3)
    assert counted(found)[:3] == counted(wanted)[:3]
    assert found.iou.tolist() == pytest.approx(wanted.iou.tolist(), abs=1e-12)


def test_counts_add_over_images() -> None:
    rng = np.random.default_rng(8)
    pairs = [random_pair(rng) for _ in range(5)]
    total = PanopticCounts.nothing(3)
    for truth, predicted in pairs:
        total = total + panoptic_counts(truth, predicted, class_count=3)
    wanted = np.sum([slow(truth, predicted, 3) for truth, predicted in pairs], axis=0)
    np.testing.assert_allclose(np.array(counted(total)), wanted, atol=1e-12)
    pq, sq, rq = total.quality()
    matched, missed, false, iou = wanted
    np.testing.assert_allclose(pq, iou / (matched + (missed + false) / 2), atol=1e-12)
    np.testing.assert_allclose(pq, sq * rq, atol=1e-15)


# By hand ------------------------------------------------------------------------------------

TRUTH = drawn(
    "11122...",
    "11122...",
    "33333333",
    "33333333",
)
FOUND = drawn(
    "1111....",
    "1111..55",
    "33333333",
    "33333336",
)
CLASSES = {1: 0, 2: 0, 3: 2}


def test_quality_by_hand() -> None:
    found = panoptic_counts(
        panoptic(TRUTH, CLASSES), panoptic(FOUND, {1: 0, 3: 2, 5: 0, 6: 1}), class_count=3
    )
    # 6 px shared of 8: .75. Object 2 is missed. Segment 5 lies in void. Segment 6 is false.
    # The sky shares 15 px of 16.
    assert counted(found) == [[1, 0, 1], [1, 0, 0], [0, 1, 0], [0.75, 0.0, 15 / 16]]
    quality = summarise_panoptic(found, class_names=NAMES, stuff=("sky",))
    cat, dog, sky = quality.classes
    assert (cat.pq, cat.sq, cat.rq) == (0.5, 0.75, 2 / 3)
    assert (dog.pq, dog.sq, dog.rq) == (0.0, 0.0, 0.0)
    assert (sky.pq, sky.sq, sky.rq) == (15 / 16, 15 / 16, 1.0)
    assert (quality.things.pq, quality.things.classes) == (0.25, 2)
    assert (quality.stuff.pq, quality.stuff.classes) == (15 / 16, 1)
    assert quality.all.pq == pytest.approx((0.5 + 0.0 + 15 / 16) / 3, abs=1e-15)
    assert (quality.all.matched, quality.all.missed, quality.all.false) == (2, 1, 1)


def test_half_is_no_match() -> None:
    one, other = drawn("11..", "...."), drawn("111.", "1...")
    whole = np.where(one == 0, 9, one)
    found = panoptic_counts(panoptic(whole, {1: 0, 9: 2}), panoptic(other, {1: 0}), class_count=3)
    assert counted(found)[:3] == [[0, 0, 0], [1, 0, 1], [1, 0, 0]]
    # Void is no part of the union: the same two pixels of two are shared.
    found = panoptic_counts(panoptic(one, {1: 0}), panoptic(other, {1: 0}), class_count=3)
    assert counted(found) == [[1, 0, 0], [0, 0, 0], [0, 0, 0], [1.0, 0.0, 0.0]]


def test_a_prediction_is_excused_by_more_than_half_in_void_and_crowds_of_its_class() -> None:
    truth = panoptic(drawn("4455", "..55"), {4: 0, 5: 2}, crowds=(4,))
    on_sky = panoptic(drawn("...1", "...."), {1: 0})
    assert panoptic_counts(truth, on_sky, class_count=3).false.tolist() == [1, 0, 0]
    for rows, index, false in (
        (("1111", "...."), 0, 1),  # Half in the crowd, half on the sky.
        (("111.", "...."), 0, 0),  # Two of three.
        (("111.", "...."), 1, 1),  # The crowd is of another class.
        (("1.11", "1..."), 0, 1),  # One in the crowd and one in void, of four.
        (("11.1", "1..."), 0, 0),  # Three of four.
        (("....", ".11."), 1, 1),  # Half in void.
        (("....", "111."), 1, 0),  # Two of three in void.
    ):
        found = panoptic_counts(truth, panoptic(drawn(*rows), {1: index}), class_count=3)
        assert found.false.tolist() == [false * (index == i) for i in range(3)], rows
        assert found.missed.tolist() == [0, 0, 1]
        assert found.matched.sum() == 0


def test_a_crowd_stays_in_the_union_where_void_does_not() -> None:
    # 4 px shared; 4 more of the prediction lie in the crowd.
    plane, found = drawn("1111", "4444"), drawn("1111", "1111")
    crowd = panoptic_counts(
        panoptic(plane, {1: 0, 4: 0}, crowds=(4,)), panoptic(found, {1: 0}), class_count=1
    )
    assert counted(crowd) == [[0], [1], [1], [0.0]]
    void = panoptic(np.where(plane == 4, 0, plane), {1: 0})
    assert counted(panoptic_counts(void, panoptic(found, {1: 0}), class_count=1))[0] == [1]


def test_classes_that_do_not_occur_are_in_no_mean() -> None:
    truth = panoptic(drawn("11"), {1: 0})
    quality = summarise_panoptic(
        panoptic_counts(truth, truth, class_count=3), class_names=NAMES, stuff=("sky",)
    )
    assert quality.all.pq == quality.things.pq == 1.0
    assert (quality.all.classes, quality.stuff.classes) == (1, 0)
    assert math.isnan(quality.stuff.pq)
    assert math.isnan(quality.classes[1].pq)
    nothing = summarise_panoptic(PanopticCounts.nothing(3), class_names=NAMES)
    assert math.isnan(nothing.all.pq)
    content: dict[str, Any] = json.loads(json.dumps(quality.to_json(), allow_nan=False))
    assert content["stuff"]["pq"] is None
    assert content["classes"]["cat"] == {
        "classes": 1,
        "matched": 1,
        "missed": 0,
        "false": 0,
        "pq": 1.0,
        "sq": 1.0,
        "rq": 1.0,
    }
    header, rows = quality.table()
    assert header == ("panoptic", "classes", "PQ", "SQ", "RQ", "matched", "missed", "false")
    assert rows == [
        ("all", "1", "1.000", "1.000", "1.000", "1", "0", "0"),
        ("things", "1", "1.000", "1.000", "1.000", "1", "0", "0"),
        ("stuff", "0", "n/a", "n/a", "n/a", "0", "0", "0"),
        ("cat", "1", "1.000", "1.000", "1.000", "1", "0", "0"),
    ]


def test_a_segment_without_a_pixel_does_not_exist() -> None:
    truth = panoptic(drawn("11"), {1: 0, 8: 1})
    found = panoptic_counts(truth, panoptic(drawn("11"), {1: 0, 9: 2}), class_count=3)
    assert counted(found)[:3] == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]


# From the records of a sample ---------------------------------------------------------------


def test_things_lie_above_crowds_and_crowds_above_stuff() -> None:
    things = Instances.from_label_map(drawn("11..", "...."), classes={1: 1})
    crowds = Instances.from_label_map(drawn(".11.", ".11."))
    semantic = drawn("3333", "2233").astype(np.uint8)
    ignore = drawn("..11", "1.1.") > 0
    made = panoptic_segments(things, semantic=semantic, stuff=(2,), crowds=crowds, ignore=ignore)
    # Class 2 is stuff, of segment 1; the crowd is segment 2, the object segment 3. The crowd is
    # ignored as well, and stays; what else is ignored, and class 1 of the plane, is void.
    np.testing.assert_array_equal(made.plane, drawn("332.", ".221"))
    assert made.ids.tolist() == [1, 2, 3]
    assert made.classes.tolist() == [2, 0, 1]
    assert made.crowd.tolist() == [False, True, False]
    every = panoptic_segments(things, semantic=semantic)
    np.testing.assert_array_equal(every.plane, drawn("3322", "1122"))
    assert every.classes.tolist() == [1, 2, 1]


def test_objects_alone_are_a_segmentation() -> None:
    things = Instances.from_label_map(drawn("77..", "..33"))
    made = panoptic_segments(things)
    np.testing.assert_array_equal(made.plane, drawn("22..", "..11"))
    assert panoptic_counts(made, made, class_count=1).matched.tolist() == [2]


# Errors -------------------------------------------------------------------------------------


def test_objects_that_overlap_are_no_panoptic_segmentation() -> None:
    one = Instances.from_label_map(drawn("11", ".."))
    both = Instances.joined([one, replace(one, ids=np.array([2]))])
    with pytest.raises(InputError) as caught:
        panoptic_segments(both)
    assert str(caught.value) == (
        "panoptic segmentation: found objects that overlap, wanted each pixel in one segment; "
        "decide which object owns the shared pixels."
    )
    with pytest.raises(InputError) as caught:
        panoptic_segments(one, semantic=np.zeros((3, 3), np.uint8))
    assert str(caught.value) == (
        "panoptic segmentation: found a class plane of shape (3, 3), wanted the shape (2, 2) of "
        "the objects; bring both to the pixels of one image."
    )


def test_every_segment_has_a_class_that_has_a_name() -> None:
    whole = panoptic(drawn("12"), {1: 0, 2: 1})
    with pytest.raises(InputError) as caught:
        panoptic_counts(whole, panoptic(drawn("12"), {1: 0}), class_count=2, where="a.png")
    assert str(caught.value) == (
        "a.png, prediction: found the id 2 in the plane alone, wanted every segment listed with "
        "its class; list it, or set its pixels to 0."
    )
    with pytest.raises(InputError) as caught:
        panoptic_counts(whole, whole, class_count=1, where="a.png")
    assert str(caught.value) == (
        "a.png, truth: found a segment of class 1, wanted classes 0 to 0; name every class."
    )
    with pytest.raises(InputError, match="of shape"):
        panoptic_counts(whole, panoptic(drawn("1", "2"), {1: 0, 2: 1}), class_count=2)
