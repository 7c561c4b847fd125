"""Focus and saturation of images, by blocks as of the whole."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from domainseg.quality import image_check
from domainseg.quality.image_check import check_plane


def noise(side: int = 200) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.random.default_rng(0).normal(100, 10, (1, side, side))


def test_noise_has_focus_one_and_blur_lowers_it() -> None:
    focus = [check_plane(gaussian_filter(noise(), (0, s, s)))[0] for s in (0, 0.5, 1, 2, 4)]
    assert focus[0] == pytest.approx(1.0, abs=0.02)
    sharp = [one for one in focus if one is not None]
    assert len(sharp) == 5
    assert all(a > 1.15 * b for a, b in pairwise(sharp))
    assert sharp[-1] < 0.05


def test_light_and_contrast_do_not_change_focus() -> None:
    plain = check_plane(noise())[0]
    assert check_plane(3 * noise() + 500)[0] == pytest.approx(plain, rel=1e-6)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.clip(noise(101), 90, 110).round().astype(np.uint8)
    whole = check_plane(image)
    monkeypatch.setattr(image_check, "BLOCK_PX", 17)
    parts = check_plane(image)
    assert parts[0] == pytest.approx(whole[0], rel=1e-9)
    assert parts[1] == whole[1]


def test_saturated_pixels_are_those_at_the_ends_of_the_type() -> None:
    image = np.full((2, 10, 10), 100, np.uint8)
    image[0, 0, :5] = 0
    image[1, 0, 4:8] = 255
    assert check_plane(image)[1] == pytest.approx(0.08)
    assert check_plane(np.full((1, 4, 4), 65535, np.uint16))[1] == 1.0
    assert check_plane(noise())[1] is None


def test_one_grey_and_tiny_images_have_no_focus() -> None:
    assert check_plane(np.full((1, 30, 30), 7, np.uint8))[0] is None
    assert check_plane(np.arange(4, dtype=np.uint8).reshape(1, 2, 2))[0] is None
