"""Weights of objects by their size: small ones count as much as large ones, for a while."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from domainseg.training.size_weights import LEAST, MOST, PLAIN_SHARE, faded, size_weights


def labels_of(*sides: int) -> np.ndarray:
    """Return squares of these sides, labels from 1 on, side by side with a gap between."""
    plane = np.zeros((max(sides), sum(sides) + len(sides)), np.int32)
    left = 0
    for label, side in enumerate(sides, 1):
        plane[:side, left : left + side] = label
        left += side + 1
    return plane


def test_objects_weigh_alike_within_bounds() -> None:
    labels = labels_of(10, 20, 25)
    weights = size_weights(labels, size_px=20)
    sums = np.bincount(labels.ravel(), weights.ravel())[1:]
    np.testing.assert_allclose(sums, np.pi / 4 * 20**2, rtol=1e-5)
    assert weights.dtype == np.float32
    assert (weights[labels == 0] == 1).all()


def test_no_pixel_weighs_more_or_less_than_the_bounds() -> None:
    labels = labels_of(1, 200)
    weights = size_weights(labels, size_px=20)
    assert weights[labels == 1] == MOST
    np.testing.assert_allclose(weights[labels == 2], LEAST)


def test_an_object_weighs_as_a_whole_where_a_patch_cuts_it() -> None:
    # Labels of a whole image go in: the weight at a pixel is that of its object, not of a part.
    labels = labels_of(20, 30)
    assert len(np.unique(size_weights(labels, size_px=20)[labels == 2])) == 1


def test_background_around_an_object_weighs_as_the_nearest_one_does() -> None:
    labels = np.zeros((30, 40), np.int32)
    labels[10:14, 5:9] = 1
    labels[8:20, 20:32] = 2
    weights = size_weights(labels, size_px=8, ring_px=3)
    alone = size_weights(labels, size_px=8)
    assert weights[12, 11] == alone[12, 8]
    assert weights[12, 12] == 1
    assert weights[6, 25] == weights[10, 25] == alone[10, 25]
    assert (weights[labels > 0] == alone[labels > 0]).all()
    assert (size_weights(np.zeros((4, 4), np.int32), size_px=8, ring_px=3) == 1).all()


def test_labels_may_have_gaps_and_an_image_may_be_empty() -> None:
    labels = labels_of(5, 5)
    labels[labels == 1] = 40
    assert np.ptp(size_weights(labels, size_px=20)[labels > 0]) == 0
    assert (size_weights(np.zeros((4, 4), np.int32), size_px=20) == 1).all()


def test_large_objects_fade_to_one_small_ones_to_their_root_and_what_is_ignored_stays() -> None:
    weight = torch.tensor([0.0, 0.2, 1.0, 4.0])
    torch.testing.assert_close(faded(weight, 0.0), weight)
    half = faded(weight, 0.5 * (1 - PLAIN_SHARE))
    torch.testing.assert_close(half, torch.tensor([0.0, 0.2**0.5, 1.0, 4.0**0.75]))
    for done in (1 - PLAIN_SHARE, 1.0):
        torch.testing.assert_close(faded(weight, done), torch.tensor([0.0, 1.0, 1.0, 2.0]))


@pytest.mark.parametrize("done", [0.0, 0.3, 0.9, 1.0])
def test_weights_that_are_none_stay_as_they_are(done: float) -> None:
    weight = torch.tensor([0.0, 1.0])
    assert torch.equal(faded(weight, done), weight)
