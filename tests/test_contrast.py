"""Contrast against the ring: by hand, and the same whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from domainseg.quality.contrast import Ring, RingSums


def sums_of(
    labels: NDArray[np.int32], image: NDArray[np.uint8], ring: Ring, *, block: int = 1000
) -> RingSums:
    made = RingSums(int(labels.max()), len(image), ring=ring)
    height, width = labels.shape
    reach = ring.reach_px
    for y in range(0, height, block):
        for x in range(0, width, block):
            top, left = max(0, y - reach), max(0, x - reach)
            bottom, right = min(height, y + block + reach), min(width, x + block + reach)
            core = (
                slice(y - top, min(y + block, height) - top),
                slice(x - left, min(x + block, width) - left),
            )
            made.add(labels[top:bottom, left:right], image[:, top:bottom, left:right], core=core)
    return made


def test_a_flat_square_on_flat_ground_stands_out_by_their_difference() -> None:
    labels = np.zeros((40, 40), np.int32)
    labels[15:25, 15:25] = 1
    image = np.where(labels > 0, 90, 30).astype(np.uint8)[None]
    contrast, to_noise = sums_of(labels, image, Ring()).contrasts(np.array([1]), np.array([[90.0]]))
    assert contrast[0, 0] == 60.0
    assert np.isnan(to_noise[0, 0]), "a flat ring has no noise"


def test_the_ring_of_one_pixel_is_counted_by_hand() -> None:
    labels = np.zeros((11, 11), np.int32)
    labels[5, 5] = 1
    image = np.arange(121, dtype=np.uint8).reshape(1, 11, 11)
    made = sums_of(labels, image, Ring(guard_px=1, reach_px=2))
    # Distances above 1 and up to 2: four diagonal neighbours and four two steps away.
    assert made.pixels[1] == 8
    assert made.sums[1, 0] == 8 * 60


def test_noise_of_the_ring_is_its_standard_deviation() -> None:
    rng = np.random.default_rng(0)
    labels = np.zeros((60, 60), np.int32)
    labels[25:35, 25:35] = 1
    image = np.clip(np.rint(rng.normal(100, 10, (1, 60, 60))), 0, 255).astype(np.uint8)
    image[0, labels > 0] = 150
    made = sums_of(labels, image, Ring())
    contrast, to_noise = made.contrasts(np.array([1]), np.array([[150.0]]))
    assert contrast[0, 0] == pytest.approx(50, abs=1)
    assert to_noise[0, 0] == pytest.approx(5, rel=0.1)


def test_the_guard_of_a_neighbour_is_in_no_ring() -> None:
    labels = np.zeros((30, 40), np.int32)
    labels[10:20, 10:18] = 1
    labels[10:20, 22:30] = 2
    image = np.full((1, 30, 40), 10, np.uint8)
    image[0, 10:20, 18:22] = 200
    made = sums_of(labels, image, Ring(guard_px=2, reach_px=6))
    # The bright pixels between the two lie within the guard of one or the other.
    assert made.sums[1, 0] == 10 * made.pixels[1]
    assert made.sums[2, 0] == 10 * made.pixels[2]


@pytest.mark.parametrize("block", [7, 16, 33])
def test_blocks_change_nothing(block: int) -> None:
    rng = np.random.default_rng(1)
    labels = np.zeros((90, 80), np.int32)
    for number in range(1, 25):
        y, x = rng.integers(0, 80), rng.integers(0, 70)
        labels[y : y + 6, x : x + 5] = number
    image = rng.integers(0, 255, (2, 90, 80)).astype(np.uint8)
    whole = sums_of(labels, image, Ring())
    parts = sums_of(labels, image, Ring(), block=block)
    np.testing.assert_array_equal(parts.pixels, whole.pixels)
    np.testing.assert_array_equal(parts.sums, whole.sums)
    np.testing.assert_array_equal(parts.squares, whole.squares)


def test_an_object_without_ground_has_no_contrast() -> None:
    labels = np.ones((20, 20), np.int32)
    image = np.full((1, 20, 20), 9, np.uint8)
    contrast, _ = sums_of(labels, image, Ring()).contrasts(np.array([1]), np.array([[9.0]]))
    assert np.isnan(contrast[0, 0])


def test_a_ring_inside_its_guard_is_refused() -> None:
    with pytest.raises(ValueError, match="wanted 0 <= guard < reach"):
        Ring(guard_px=4, reach_px=4)
