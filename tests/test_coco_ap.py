"""COCO's average precision: pycocotools is the reference; and by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from coco_cases import (
    CAPS,
    NO_CAP,
    Case,
    box,
    evaluated,
    masks_of,
    moved,
    numbers,
    objects,
    random_case,
    random_cases,
    twelve,
)

from domainseg.errors import InputError
from domainseg.instances import coco_image as rooms
from domainseg.instances.coco_ap import Coco, CocoPair, summarise_coco
from domainseg.instances.coco_image import CocoImage, coco_image
from domainseg.instances.encode import read_segmentation
from domainseg.instances.runs import runs_of_instances
from domainseg.records import Instances

DATA = Path(__file__).parents[1] / ".." / "shared" / "data"
NAMES = tuple("abcde")
KINDS = ("mask", "box")
SHAPE = (120, 120)


def summary(cases: Sequence[Case], names: Sequence[str] = NAMES) -> Coco:
    return summarise_coco([case.image() for case in cases], class_names=names)


def of_kind(one: object, kind: str) -> CocoPair:
    found = getattr(one, kind)
    assert isinstance(found, CocoPair)
    return found


def squares(*places: tuple[int, int, int], scores: Sequence[float] | None = None) -> Instances:
    """Return squares ``(y, x, side)`` of class 0."""
    masks = [box(y, x, side, side, shape=SHAPE) for y, x, side in places]
    return objects(masks, shape=SHAPE, scores=scores)


# Against pycocotools ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_all_numbers_are_those_of_pycocotools(seed: int, kind: str) -> None:
    cases = random_cases(seed)
    found = summary(cases)
    capped = evaluated(cases, kind)
    assert capped.stats.tolist() == pytest.approx(twelve(capped), abs=0)
    assert numbers(of_kind(found, kind).capped) == pytest.approx(capped.stats.tolist(), abs=1e-9)
    uncapped = evaluated(cases, kind, caps=NO_CAP)
    assert numbers(of_kind(found, kind).uncapped) == pytest.approx(twelve(uncapped), abs=1e-9)
    assert found.beyond > 0
    for column, one in enumerate(found.classes):
        pair = of_kind(one, kind)
        assert numbers(pair.capped) == pytest.approx(twelve(capped, column=column), abs=1e-9)
        assert numbers(pair.uncapped) == pytest.approx(twelve(uncapped, column=column), abs=1e-9)
    # What the cases are there for occurs: classes without truth, and numbers that say something.
    assert [one.name for one in found.classes] == list("abcde")
    assert [one.truths == 0 for one in found.classes] == [False, False, False, True, True]
    assert math.isnan(of_kind(found.classes[3], kind).capped.ap)
    assert 0.05 < of_kind(found, kind).capped.ap < 0.95


def test_real_objects_give_the_numbers_of_pycocotools() -> None:
    cases, names = coco_sample()
    assert sum(len(case.truth) for case in cases) == 740
    rng = np.random.default_rng(1)
    made = [perturbed(case, rng, copies=20 if row == 37 else 1) for row, case in enumerate(cases)]
    found = summary(made, names)
    assert found.images == 100
    assert found.beyond > 0
    for kind in KINDS:
        wanted = evaluated(made, kind, caps=(*CAPS, NO_CAP[-1]))
        pair = of_kind(found, kind)
        assert numbers(pair.capped) == pytest.approx(wanted.stats.tolist(), abs=1e-9)
        assert 0.1 < pair.capped.ap < 0.9
        for column, one in enumerate(found.classes):
            ours = numbers(of_kind(one, kind).capped)
            assert ours == pytest.approx(twelve(wanted, column=column), abs=1e-9)
        assert numbers(pair.uncapped) == pytest.approx(twelve(wanted, cap=3), abs=1e-9)
        assert pair.uncapped.ap != pair.capped.ap


def test_real_objects_agree_with_themselves() -> None:
    cases, names = coco_sample()
    found = summary([replace(case, predicted=case.truth) for case in cases], names)
    for kind in KINDS:
        at_cap = of_kind(found, kind).capped
        assert (at_cap.ap, at_cap.ap_small, at_cap.ap_large, at_cap.ar) == (1.0,) * 4
        assert at_cap.ar_1 < 1.0
        assert {of_kind(one, kind).capped.ap for one in found.classes if one.truths} == {1.0}


def coco_sample() -> tuple[list[Case], list[str]]:
    """Return the images of the sample with their truth and crowds, and the class names."""
    file = DATA / "coco-sample" / "annotations" / "instances_train2017.json"
    if not file.is_file():
        pytest.skip("the data of shared/data/coco-sample are not here")
    content = json.loads(file.read_text())
    names = [one["name"] for one in content["categories"]]
    index = {one["id"]: row for row, one in enumerate(content["categories"])}
    cases = []
    for image in content["images"]:
        shape = (image["height"], image["width"])
        sides = []
        for crowd in (0, 1):
            mine = [
                one
                for one in content["annotations"]
                if one["image_id"] == image["id"] and one["iscrowd"] == crowd
            ]
            masks = [
                read_segmentation(one["segmentation"], shape=shape, where=one["id"]).to_mask()
                for one in mine
            ]
            # The run lengths of the six crowds hold no pixel.
            there = [row for row, mask in enumerate(masks) if mask.any()]
            classes = [index[mine[row]["category_id"]] for row in there]
            sides.append(objects([masks[row] for row in there], shape=shape, classes=classes))
        cases.append(Case(f"{image['id']:012d}", sides[0], sides[0], sides[1]))
    return sorted(cases, key=lambda case: case.id), names


def perturbed(case: Case, rng: np.random.Generator, *, copies: int) -> Case:
    """Return made-up detections: truth moved, missed, doubled and misnamed, scores often equal.

    A fifth of the objects are crowds as well.
    """
    masks, classes, crowds, kinds = [], [], [], []
    for mask, index in zip(masks_of(case.truth), case.truth.classes.tolist(), strict=True):
        if rng.random() < 0.2:
            crowds.append(mask)
            kinds.append(index)
        for _ in range(copies * int(rng.integers(0, 3))):
            masks.append(moved(mask, rng, by=int(rng.integers(1, 12))))
            classes.append(index if rng.random() < 0.9 else int(rng.integers(80)))
    shape = case.truth.shape
    scores = np.round(rng.random(len(masks)), 1).tolist()
    predicted = objects(masks, shape=shape, classes=classes, scores=scores)
    assert case.crowds is not None
    added = objects(crowds, shape=shape, classes=kinds)
    both = Instances.joined([case.crowds, added])
    return replace(case, predicted=predicted, crowds=replace(both, ids=np.arange(1, len(both) + 1)))


# By hand ------------------------------------------------------------------------------------


def test_average_precision_by_hand() -> None:
    # Hit, false, hit: recall .5, .5, 1 and precision 1, 1/2, 2/3. Made to fall, precision is
    # 1 at the 51 recalls up to .5 and 2/3 at the 50 beyond, at every threshold.
    truth = squares((0, 0, 40), (60, 60, 40))
    predicted = squares((0, 0, 40), (0, 60, 40), (60, 60, 40), scores=(0.9, 0.8, 0.7))
    found = summary([Case("a", truth, predicted)])
    for pair in (found.mask, found.box):
        one = pair.capped
        assert one.ap == pytest.approx((51 + 50 * 2 / 3) / 101, abs=1e-12)
        assert one.ap50 == one.ap75 == pytest.approx(one.ap, abs=1e-12)
        assert one.ap_medium == pytest.approx(one.ap, abs=1e-12)
        assert (one.ar_1, one.ar_10, one.ar, one.ar_medium) == (0.5, 1.0, 1.0, 1.0)
        assert all(map(math.isnan, (one.ap_small, one.ap_large, one.ar_small, one.ar_large)))
        assert numbers(pair.uncapped) == numbers(one)
    assert (found.images, found.truths, found.crowds, found.calls, found.beyond) == (1, 2, 0, 3, 0)


def test_thresholds_are_reached_not_passed() -> None:
    # 50 x 11 of 50 x 20 px shared: an IoU of .55 exactly counts at .5 and .55 of ten thresholds.
    truth = objects([box(0, 0, 50, 20, shape=SHAPE)], shape=SHAPE)
    predicted = objects([box(0, 0, 50, 11, shape=SHAPE)], shape=SHAPE)
    found = summary([Case("a", truth, predicted)])
    assert found.mask.capped.ap == found.box.capped.ap == pytest.approx(0.2, abs=1e-12)
    assert (found.mask.capped.ap50, found.mask.capped.ap75) == (1.0, 0.0)


def test_equal_scores_are_taken_in_the_order_of_images_then_of_rows() -> None:
    truth = squares((0, 0, 40))
    hit_first = squares((0, 0, 40), (60, 60, 40), scores=(0.5, 0.5))
    hit_last = squares((60, 60, 40), (0, 0, 40), scores=(0.5, 0.5))
    assert summary([Case("a", truth, hit_first)]).mask.capped.ap == 1.0
    assert summary([Case("a", truth, hit_last)]).mask.capped.ap == pytest.approx(0.5, abs=1e-12)
    nothing = squares()
    false = squares((60, 60, 40), scores=(0.5,))
    hit = squares((0, 0, 40), scores=(0.5,))
    early = [Case("a", nothing, false), Case("b", truth, hit)]
    late = [Case("b", nothing, false), Case("a", truth, hit)]
    assert summary(early).mask.capped.ap == pytest.approx(0.5, abs=1e-12)
    assert summary(late).mask.capped.ap == 1.0


@pytest.mark.parametrize(
    ("height", "width", "sizes"),
    [
        (31, 33, "s"),
        (32, 32, "sm"),
        (25, 41, "m"),
        (96, 96, "ml"),
        (95, 97, "m"),
        (93, 100, "l"),
    ],
)
def test_objects_on_a_bound_of_size_are_on_both_sides_of_it(
    height: int, width: int, sizes: str
) -> None:
    one = objects([box(2, 3, height, width, shape=SHAPE)], shape=SHAPE)
    found = summary([Case("a", one, one)])
    for ap in (found.mask.capped, found.box.capped):
        there = dict(zip("sml", (ap.ap_small, ap.ap_medium, ap.ap_large), strict=True))
        assert {size for size, value in there.items() if value == 1.0} == set(sizes)
        assert all(math.isnan(there[size]) for size in "sml" if size not in sizes)


def test_size_is_that_of_the_pixels_of_truth_and_of_what_is_compared_of_a_prediction() -> None:
    # A frame of 656 px in a box of 45 x 45 px is a small object. A second one, false, is small as
    # a mask and counts; as a box it is medium, and among small objects it does not.
    frame = box(0, 0, 45, 45, shape=SHAPE) & ~box(4, 4, 37, 37, shape=SHAPE)
    assert frame.sum() == 656
    false = np.roll(frame, (60, 60), (0, 1))
    truth = objects([frame], shape=SHAPE)
    predicted = objects([false, frame], shape=SHAPE, scores=(0.9, 0.8))
    found = summary([Case("a", truth, predicted)])
    assert found.mask.capped.ap_small == pytest.approx(0.5, abs=1e-12)
    assert found.box.capped.ap_small == pytest.approx(1.0, abs=1e-12)
    assert math.isnan(found.box.capped.ap_medium)


def test_predictions_inside_a_crowd_of_their_class_are_not_counted() -> None:
    truth = squares((0, 0, 40))
    crowds = squares((60, 0, 50))
    inside = squares((65, 5, 20), (80, 10, 20), (0, 0, 40), scores=(0.9, 0.9, 0.8))
    found = summary([Case("a", truth, inside, crowds)])
    assert found.mask.capped.ap == found.box.capped.ap == 1.0
    assert (found.truths, found.crowds) == (1, 1)
    other = replace(crowds, classes=np.array([1], np.int16))
    found = summary([Case("a", truth, inside, other)])
    assert found.classes[0].mask.capped.ap == pytest.approx(1 / 3, abs=1e-12)
    # 24 of 40 columns inside: enough at .5, .55 and .6, false at the seven thresholds above.
    partly = squares((65, 26, 40), (0, 0, 40), scores=(0.9, 0.8))
    found = summary([Case("a", truth, partly, squares((60, 0, 50)))])
    assert found.mask.capped.ap == pytest.approx((3 * 1.0 + 7 * 0.5) / 10, abs=1e-12)


def test_a_crowd_is_never_missed_and_gives_no_class_a_number() -> None:
    found = summary([Case("a", squares(), squares((0, 0, 9)), squares((60, 0, 50)))])
    assert (found.truths, found.crowds, found.calls) == (0, 1, 1)
    assert math.isnan(found.mask.capped.ap)
    assert math.isnan(found.mask.capped.ar)


def test_a_detectors_boxes_are_compared_where_boxes_are() -> None:
    truth = squares((0, 0, 40))
    wide = Case("a", truth, truth, boxes_xyxy=np.array([[0.0, 0.0, 60.0, 40.0]]))
    found = summary([wide])
    assert found.mask.capped.ap == 1.0
    # 40 of 60: reaches .5, .55, .6 and .65.
    assert found.box.capped.ap == pytest.approx(0.4, abs=1e-12)


# Without the cap ----------------------------------------------------------------------------


def grid(count: int) -> Instances:
    """Return as many squares of 4 px, apart from each other, of falling score."""
    places = [(y, x) for y in range(0, 120, 6) for x in range(0, 120, 6)][:count]
    masks = [box(y, x, 4, 4, shape=SHAPE) for y, x in places]
    return objects(masks, shape=SHAPE, scores=np.linspace(1, 0.1, count).tolist())


def test_of_dense_images_the_cap_sees_a_hundred_and_without_it_all_are_seen() -> None:
    many = grid(400)
    found = summary([Case("a", many, many)])
    assert found.beyond == 300
    for pair in (found.mask, found.box):
        assert pair.capped.ar == 0.25
        assert pair.capped.ap == pytest.approx(26 / 101, abs=1e-12)
        assert (pair.uncapped.ap, pair.uncapped.ar, pair.uncapped.ar_small) == (1.0, 1.0, 1.0)
        assert pair.uncapped.ar_1 == pytest.approx(1 / 400, abs=1e-12)
        assert pair.uncapped.ar_10 == pytest.approx(10 / 400, abs=1e-12)


def test_a_dense_image_is_evaluated_in_parts_whose_tables_stay_small() -> None:
    many = grid(400)
    one = Case("a", many, many).image()
    for kind in KINDS:
        sides = [getattr(side, f"{kind}_parts") for side in (one.truth, one.predicted)]
        np.testing.assert_array_equal(*sides)
        assert np.bincount(np.concatenate(sides)).tolist() == [256, 256, 256, 32]
    hundred = grid(100)
    assert not Case("a", many, hundred).image().truth.mask_parts.any()


@pytest.mark.parametrize("seed", range(2))
def test_parts_change_no_number(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    cases = [random_case(f"{n}", rng, truths=80, calls=330, crowds=1) for n in range(2)]
    found = []
    for size in (3, 50, 10**9):
        monkeypatch.setattr(rooms, "_PART", size)
        images = [case.image() for case in cases]
        parts = {int(one.truth.mask_parts.max()) for one in images}
        assert (parts == {0}) == (size == 10**9)
        found.append(summarise_coco(images, class_names=NAMES))
    assert found[0].to_json() == found[1].to_json() == found[2].to_json()


# Edges --------------------------------------------------------------------------------------


def test_without_objects_nothing_is_known() -> None:
    found = summary([Case("a", squares(), squares()), Case("b", squares(), squares())])
    assert (found.images, found.truths, found.calls, found.classes) == (2, 0, 0, ())
    for pair in (found.mask, found.box):
        assert numbers(pair.capped) == numbers(pair.uncapped) == [-1.0] * 12
    content = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert content["mask"]["capped"]["ap"] is None
    assert found.table()[1][0] == ("masks", *["n/a"] * 12)


def test_false_alone_is_unknown_and_missed_alone_is_zero() -> None:
    one = squares((0, 0, 40))
    assert math.isnan(summary([Case("a", squares(), one)]).mask.capped.ap)
    missed = summary([Case("a", one, squares())])
    assert (missed.mask.capped.ap, missed.mask.capped.ar, missed.box.uncapped.ap) == (0, 0, 0)
    # A false call in an image without truth counts against the class of other images.
    cases = [Case("a", squares(), replace(one, scores=np.array([2], np.float32)))]
    assert summary([*cases, Case("b", one, one)]).mask.capped.ap == pytest.approx(0.5, abs=1e-12)


def test_the_order_of_images_is_free() -> None:
    images = [case.image() for case in random_cases(5)]
    one = summarise_coco(images, class_names=NAMES)
    assert summarise_coco(images[::-1], class_names=NAMES).to_json() == one.to_json()


def test_objects_may_overlap_and_have_any_ids() -> None:
    truth = squares((0, 0, 40), (10, 10, 40))
    strange = replace(truth, ids=np.array([70_000, 3]))
    found = summary([Case("a", strange, strange, squares((60, 60, 9)))])
    assert found.mask.capped.ap == found.box.capped.ap == 1.0


def test_ignored_pixels_outside_of_crowds_leave_objects_out() -> None:
    ignore = np.zeros(SHAPE, bool)
    ignore[60:] = True
    truth = squares((0, 0, 40), (70, 0, 40))
    false = squares((0, 0, 40), (80, 60, 20), (35, 60, 40), scores=(0.5, 0.9, 0.9))
    one = coco_image("a", truth, false, ignore=ignore)
    # The second lies in what is ignored; of the third 25 rows of 40 are seen.
    assert len(one.predicted) == 2
    assert one.truth.crowd.tolist() == [False, True]
    found = summarise_coco([one], class_names=NAMES)
    assert found.mask.capped.ap == pytest.approx(0.5, abs=1e-12)
    # Pixels of a crowd are ignored for other reasons: COCO knows what to do there.
    crowds = squares((60, 0, 60), (60, 60, 60))
    in_crowds = coco_image("a", truth, false, crowds=crowds, ignore=ignore)
    assert len(in_crowds.predicted) == 3
    assert in_crowds.truth.crowd.tolist() == [False, False, True, True]


def test_exactly_half_ignored_is_not_most() -> None:
    ignore = np.zeros(SHAPE, bool)
    ignore[60:] = True
    half = squares((50, 0, 20), (49, 30, 20))
    one = coco_image("a", half, half, ignore=ignore)
    assert one.truth.crowd.tolist() == [False, False]
    assert one.predicted.areas_px.tolist() == [400, 400]
    more = squares((51, 0, 20), (49, 30, 20))
    one = coco_image("a", more, more, ignore=ignore)
    assert one.truth.crowd.tolist() == [True, False]
    assert len(one.predicted) == 1


def test_what_is_gathered_of_an_image_is_small_whatever_its_size() -> None:
    shape = (2000, 3000)
    labels = np.zeros(shape, np.int32)
    labels[100:1900, 100:2900] = 1
    one = Instances.from_label_map(labels)
    made = coco_image("a", one, one, ignore=np.zeros(shape, bool))
    assert sum(map(held, (made.truth, made.predicted))) < 20_000
    assert len(runs_of_instances(one).runs) == 1800


def held(side: object) -> int:
    """Return the bytes of a side's arrays and texts."""
    total = 0
    for field in fields(type(side)):  # type: ignore[arg-type]
        value = getattr(side, field.name)
        total += value.nbytes if isinstance(value, np.ndarray) else sum(map(len, value))
    return total


def test_tables_say_what_they_hold() -> None:
    many = grid(200)
    named = replace(many, classes=np.repeat([0, 2], [150, 50]).astype(np.int16))
    found = summary([Case("a", named, named)])
    (header, rows), (class_header, class_rows) = found.tables()
    assert header[:4] == ("COCO, 200 objects", "AP", "AP .5", "AP .75")
    assert [row[0] for row in rows] == [
        "masks, best 100",
        "boxes of masks, best 100",
        "masks, all",
        "boxes of masks, all",
    ]
    assert {len(row) for row in rows} == {len(header)} == {13}
    assert rows[2][1:5] == ("1.000", "1.000", "1.000", "1.000")
    assert class_header[:4] == ("COCO, class", "objects", "predicted", "mask AP")
    assert class_rows == [
        ("a", "150", "150", *["1.000"] * 6),
        ("c", "50", "50", *["1.000"] * 6),
    ]
    few = squares((0, 0, 40))
    (only,) = summary([Case("a", few, few)]).tables()
    assert [row[0] for row in only[1]] == ["masks", "boxes of masks"]
    assert only[1][0] == (
        "masks",
        *["1.000"] * 3,
        "n/a",
        "1.000",
        "n/a",
        *["1.000"] * 3,
        "n/a",
        "1.000",
        "n/a",
    )


def test_json_names_every_number() -> None:
    one = squares((0, 0, 40))
    content = summary([Case("a", one, one)]).to_json()
    assert list(content) == [
        "images",
        "objects",
        "crowds",
        "predicted",
        "max_detections",
        "beyond_max_detections",
        "mask",
        "box",
        "classes",
    ]
    assert content["mask"]["capped"] == {
        "ap": 1.0,
        "ap50": 1.0,
        "ap75": 1.0,
        "ap_small": None,
        "ap_medium": 1.0,
        "ap_large": None,
        "ar_1": 1.0,
        "ar_10": 1.0,
        "ar": 1.0,
        "ar_small": None,
        "ar_medium": 1.0,
        "ar_large": None,
    }
    assert content["classes"]["a"]["objects"] == 1


def test_what_does_not_fit_together_is_refused() -> None:
    one, other = squares((0, 0, 40)), objects([np.ones((3, 4), bool)], shape=(3, 4))
    with pytest.raises(InputError) as caught:
        coco_image("a", one, other)
    assert str(caught.value) == (
        "a: found a prediction of shape (3, 4), wanted the shape (120, 120) of the truth; "
        "compare results in the pixels of the annotated image."
    )
    with pytest.raises(InputError, match="a: found crowds of shape"):
        coco_image("a", one, one, crowds=other)
    with pytest.raises(InputError, match="a: found an ignore mask of shape"):
        coco_image("a", one, one, ignore=np.zeros((3, 4), bool))
    with pytest.raises(InputError) as caught:
        coco_image("a", one, one, boxes_xyxy=np.zeros((2, 4)))
    assert str(caught.value) == (
        "a: found boxes of shape (2, 4), wanted (1, 4), one of each prediction; "
        "hand over the boxes of these predictions."
    )


def test_an_image_gives_its_text_and_numbers() -> None:
    made: CocoImage = Case("a", squares((2, 3, 4)), squares((0, 0, 5), scores=(0.25,))).image()
    assert made.shape == SHAPE
    assert made.truth.boxes_xywh.tolist() == [[3.0, 2.0, 4.0, 4.0]]
    assert made.predicted.areas_px.tolist() == [25]
    assert made.predicted.scores.tolist() == [0.25]
