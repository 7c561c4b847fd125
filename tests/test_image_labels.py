"""Labels of images from masks: sets, one each, masks and failing dies, by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from domainseg.instances.image_labels import ImageLabels, image_labels, summarise_labels
from domainseg.records import Instances

NAMES = ("ring", "scratch", "loc")


def objects(
    *rows: str, classes: dict[int, int] | None = None, scores: dict[int, float] | None = None
) -> Instances:
    """Return the objects of a map drawn with digits, ``.`` for background."""
    labels = np.array([[0 if c == "." else int(c) for c in row] for row in rows], np.int32)
    return Instances.from_label_map(labels, classes=classes, scores=scores)


def labels(*names: str) -> NDArray[np.bool_]:
    return np.array([name in names for name in NAMES])


def row(
    id_: str, truth: tuple[str, ...], predicted: tuple[str, ...], best: str | None = None
) -> ImageLabels:
    strongest = best or (predicted[0] if predicted else None)
    index = len(NAMES) if strongest is None else NAMES.index(strongest)
    return ImageLabels(id_, labels(*truth), labels(*predicted), index)


MIXED = [
    row("a", ("ring", "scratch"), ("ring", "scratch")),
    row("b", ("ring",), ("ring", "loc")),
    row("c", (), ()),
    row("d", ("loc",), ()),
]


def test_sets_of_labels_by_hand() -> None:
    found = summarise_labels(MIXED, class_names=NAMES)
    assert found.exact == 2 / 4
    counts = {one.name: (one.truth, one.predicted, one.both) for one in found.classes}
    assert counts == {"ring": (2, 2, 2), "scratch": (1, 1, 1), "loc": (1, 1, 0), "None": (1, 2, 1)}
    assert [one.f1 for one in found.classes] == [1.0, 1.0, 0.0, 2 / 3]
    assert found.macro_f1 == pytest.approx((1 + 1 + 0 + 2 / 3) / 4, abs=1e-12)
    none = found.classes[-1]
    assert (none.precision, none.recall) == (0.5, 1.0)
    # Two labels in one image: no single label is asked for.
    assert found.single is None
    assert found.to_json()["single"] is None


def test_one_label_each_makes_a_confusion_matrix() -> None:
    images = [
        row("a", ("ring",), ("ring", "loc"), best="ring"),
        row("b", ("ring",), ("ring", "loc"), best="loc"),
        row("c", (), ()),
        row("d", (), ("scratch",)),
    ]
    single = summarise_labels(images, class_names=NAMES).single
    assert single is not None
    assert single.names == (*NAMES, "None")
    assert single.confusion.tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 1]]
    assert single.accuracy == 0.5
    # ring 2/3, scratch 0, loc 0, None 2/3.
    assert single.macro_f1 == pytest.approx(1 / 3, abs=1e-12)
    header, rows = single.table()
    assert header == ("truth \\ predicted", *NAMES, "None", "recall", "F1")
    assert rows[0] == ("ring", "1", "0", "1", "0", "0.500", "0.667")
    assert rows[1] == ("scratch", "0", "0", "0", "0", "n/a", "0.000")


def test_a_class_that_never_occurs_is_not_in_the_mean() -> None:
    found = summarise_labels([row("a", ("ring",), ("ring",))], class_names=NAMES)
    assert found.macro_f1 == 1.0
    assert math.isnan(found.classes[1].f1)
    assert found.single is not None
    assert found.single.macro_f1 == 1.0
    assert found.exact_interval.low == pytest.approx(0.2065, abs=1e-4)


def test_labels_are_the_classes_of_the_objects_and_the_surest_object_is_the_strongest() -> None:
    predicted = objects("11112233", classes={1: 0, 2: 2, 3: 0}, scores={1: 0.7, 2: 0.9, 3: 0.8})
    found = image_labels("a", labels("ring"), predicted)
    assert found.predicted.tolist() == [True, False, True]
    assert found.strongest == 2
    tied = objects("1222", classes={1: 0, 2: 1})
    assert image_labels("a", labels(), tied).strongest == 1
    assert image_labels("a", labels(), objects("....")).strongest == 3


def test_masks_are_compared_by_class() -> None:
    truth = objects("11.2....", classes={1: 0, 2: 1})
    predicted = objects("1....3..", classes={1: 0, 3: 2})
    found = image_labels("a", labels("ring", "scratch"), predicted, truth=truth)
    assert found.mask_ious == (0.5, 0.0, 0.0)
    ignore = np.array([[False] * 5 + [True] * 3])
    found = image_labels("a", labels("ring"), predicted, truth=truth, ignore=ignore)
    assert found.mask_ious == (0.5, 0.0)
    summary = summarise_labels([found], class_names=NAMES)
    assert summary.mask_iou == 0.25


def test_the_failing_share_is_that_of_the_union_of_the_masks() -> None:
    failing = np.array([[True, True, True, True, False, False, False, True]])
    found = image_labels("a", labels("ring"), objects("11....2."), failing=failing)
    assert found.failing_share == 2 / 5
    all_of_it = image_labels("b", labels("ring"), objects("1111...2"), failing=failing)
    assert all_of_it.failing_share == 1.0
    unmarked = image_labels("c", labels("ring"), objects("........"), failing=failing)
    assert unmarked.failing_share == 0.0
    clean = image_labels("d", labels("ring"), objects("1......."), failing=np.zeros((1, 8), bool))
    assert clean.failing_share is None
    unlabelled = image_labels("e", labels(), objects("1......."), failing=failing)
    assert unlabelled.failing_share is None
    images = [found, all_of_it, unmarked, clean, unlabelled]
    summary = summarise_labels(images, class_names=NAMES)
    assert summary.localised == 1 / 3
    assert summary.to_json()["failing_dies"] == {
        "images": 3,
        "median_share": 0.4,
        "between": [0.02, 0.8],
        "localised": 1 / 3,
    }


def test_perfect_labels_give_1_whatever_the_order() -> None:
    images = [row("b", ("ring",), ("ring",)), row("a", (), ()), row("c", ("loc",), ("loc",))]
    found = summarise_labels(images, class_names=NAMES)
    assert found.exact == found.macro_f1 == 1.0
    assert found.single is not None
    assert found.single.accuracy == found.single.macro_f1 == 1.0
    other = summarise_labels(images[::-1], class_names=NAMES)
    assert json.dumps(found.to_json()) == json.dumps(other.to_json())
    assert found.to_json() == json.loads(json.dumps(found.to_json(), allow_nan=False))


def test_the_tables_name_what_applies() -> None:
    found = summarise_labels(MIXED, class_names=NAMES)
    header, rows = found.figures()
    assert header == ("4 images with labels", "share", "95 %")
    assert rows == [("all labels right", "0.500", "0.150-0.850"), ("macro F1", "0.667", "")]
    header, rows = found.table()
    assert header == ("label", "images", "predicted", "precision", "recall", "F1")
    assert rows[2] == ("loc", "1", "1", "0.000", "0.000", "0.000")
    assert found.to_json()["images"][1] == {
        "id": "b",
        "truth": ["ring"],
        "predicted": ["ring", "loc"],
        "failing_share": None,
    }
