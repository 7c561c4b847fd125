"""Agreement of outlines: by hand, laws, and against distances taken one by one."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from domainseg.instances.boundary_f import (
    BoundaryCounts,
    boundary,
    boundary_counts,
    summarise_boundary,
)

Mask = NDArray[np.bool_]


def mask(*rows: str) -> Mask:
    return np.array([[c != "." for c in row] for row in rows])


SQUARE = mask(
    "........",
    ".####...",
    ".####...",
    ".####...",
    ".####...",
    "........",
    "........",
    "........",
)


def test_the_boundary_is_inside_and_the_image_continues_beyond_its_border() -> None:
    found = boundary(SQUARE)
    assert found.sum() == 12
    assert not found[2:4, 2:4].any()
    assert not boundary(np.ones((4, 5), bool)).any()
    assert boundary(mask("##..", "##..")).tolist() == [[False, True, False, False]] * 2
    # A line one pixel wide is boundary all over.
    assert boundary(mask("....", "####", "....")).sum() == 4


def test_a_square_moved_by_two_agrees_as_counted() -> None:
    moved = np.roll(SQUARE, 2, axis=1)
    # They share columns 3 and 4 of their upper and lower sides and meet nowhere else.
    exact = boundary_counts(SQUARE, moved, tolerance_px=0)
    assert exact == BoundaryCounts(12, 4, 12, 4)
    # Within 1 px columns 2 of the upper and lower sides agree too, and of the side at
    # column 4 the pixels next to their ends.
    one = boundary_counts(SQUARE, moved, tolerance_px=1)
    assert one == BoundaryCounts(12, 8, 12, 8)
    two = boundary_counts(SQUARE, moved, tolerance_px=2)
    assert two.f == 1.0


def brute(asked: Mask, others: Mask, tolerance_px: float) -> int:
    theirs = np.argwhere(boundary(others))
    near = [
        min(((theirs - point) ** 2).sum(axis=1)) <= tolerance_px**2
        for point in np.argwhere(boundary(asked))
    ]
    return sum(near)


def test_counts_are_those_of_distances_taken_one_by_one() -> None:
    rng = np.random.default_rng(0)
    for tolerance in (0, 1, 1.5, 3):
        truth, predicted = rng.random((2, 20, 23)) < 0.05
        found = boundary_counts(truth, predicted, tolerance_px=tolerance)
        assert found.truth == boundary(truth).sum()
        assert found.truth_near == brute(truth, predicted, tolerance)
        assert found.predicted_near == brute(predicted, truth, tolerance)


def test_a_mask_agrees_with_itself_and_f_rises_with_the_tolerance() -> None:
    rng = np.random.default_rng(1)
    truth, predicted = rng.random((2, 30, 30)) < 0.03
    assert boundary_counts(truth, truth, tolerance_px=0).f == 1.0
    scores = [boundary_counts(truth, predicted, tolerance_px=r).f for r in range(6)]
    assert scores == sorted(scores)
    assert scores[0] < scores[-1]


def test_empty_against_empty_is_1_and_against_something_0() -> None:
    empty = np.zeros((8, 8), bool)
    both = boundary_counts(empty, empty)
    assert (both.precision, both.recall, both.f) == (1.0, 1.0, 1.0)
    for pair in ((empty, SQUARE), (SQUARE, empty)):
        one = boundary_counts(*pair)
        assert (one.precision, one.recall, one.f) == (0.0, 0.0, 0.0)


def test_the_default_tolerance_is_that_of_davis() -> None:
    # The diagonal of 300 x 400 px is 500 px: 3.75, so 4.
    truth, predicted = np.zeros((2, 300, 400), bool)
    truth[:, 100], predicted[:, 104] = True, True
    assert boundary_counts(truth, predicted).f == 1.0
    predicted[:, 104], predicted[:, 105] = False, True
    assert boundary_counts(truth, predicted).f == 0.0


def test_ignored_pixels_are_not_counted() -> None:
    ignore = np.zeros((8, 8), bool)
    ignore[:, 4] = True
    found = boundary_counts(SQUARE, SQUARE, tolerance_px=0, ignore=ignore)
    assert found == BoundaryCounts(8, 8, 8, 8)


def test_the_mean_leaves_images_without_a_boundary_out() -> None:
    found = summarise_boundary(
        [
            ("b", BoundaryCounts()),
            ("a", BoundaryCounts(4, 4, 4, 4)),
            ("c", BoundaryCounts(12, 6, 4, 4)),
        ],
        tolerance_px=2.0,
    )
    assert found.mean("f") == pytest.approx((1.0 + 2 / 3) / 2)
    assert found.pooled.precision == 10 / 16
    assert found.pooled.recall == 1.0
    content = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert list(content) == [
        *("tolerance_px", "share_of_diagonal", "drawn", "mean", "pooled", "images"),
    ]
    assert content["drawn"] == 2
    assert [row["id"] for row in content["images"]] == ["a", "b", "c"]
    header, rows = found.table()
    assert header == ("boundary within 2 px", "images", "precision", "recall", "F")
    assert rows[0] == ("mean", "2", "0.750", "1.000", "0.833")
    void = summarise_boundary([("b", BoundaryCounts())], tolerance_px=None)
    assert math.isnan(void.mean("f"))
    assert void.to_json()["mean"]["f"] is None
    assert void.table()[1][0] == ("mean", "0", "n/a", "n/a", "n/a")
