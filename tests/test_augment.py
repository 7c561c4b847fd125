"""Augmentation: seeded, geometry alike for image and targets, and refused in one sentence."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from domainseg.errors import RecipeError
from domainseg.training.augment import Augmentation

STEPS = (
    {"D4": {"p": 1.0}},
    {"Affine": {"scale": [0.7, 1.4], "rotate": [-45, 45], "p": 1.0}},
    {"RandomGamma": {"gamma_limit": [60, 160], "p": 0.5}},
    {"GaussNoise": {"std_range": [0.01, 0.06], "p": 0.5}},
)


def planes(side: int = 24) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    image = rng.random((3, side, side), np.float32)
    return image, (rng.random((2, side, side)) > 0.5).astype(np.float32)


def test_the_same_seed_gives_the_same_patch_and_another_another() -> None:
    augmentation = Augmentation(STEPS, crop_px=16)
    first = augmentation(*planes(), seed=5)
    augmentation(*planes(), seed=6)
    for a, b in zip(first, augmentation(*planes(), seed=5), strict=True):
        np.testing.assert_array_equal(a, b)
    other = Augmentation(STEPS, crop_px=16)(*planes(), seed=5)
    np.testing.assert_array_equal(first[0], other[0])
    assert not np.array_equal(first[0], augmentation(*planes(), seed=6)[0])


def test_without_steps_the_centre_is_cut_out() -> None:
    image, targets = planes()
    found = Augmentation((), crop_px=16)(image, targets, seed=0)
    np.testing.assert_array_equal(found[0], image[:, 4:20, 4:20])
    np.testing.assert_array_equal(found[1], targets[:, 4:20, 4:20])
    assert found[0].dtype == found[1].dtype == np.float32


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_image_and_targets_move_alike(channels: int) -> None:
    image = np.zeros((channels, 32, 32), np.float32)
    image[:, 6:14, 9:25] = 1.0
    targets = np.repeat(image[:1], 4, 0)
    for seed in range(6):
        found, moved = Augmentation(STEPS[:2], crop_px=24)(image, targets, seed=seed)
        assert found.shape == (channels, 24, 24)
        assert moved.shape == (4, 24, 24)
        assert set(np.unique(moved)) <= {0.0, 1.0}
        assert ((found[0] > 0.5) != (moved[0] > 0.5)).mean() < 0.05
        assert moved.any()


def test_intensities_stay_between_zero_and_one() -> None:
    image, targets = planes()
    steps = ({"RandomBrightnessContrast": {"brightness_limit": [0.5, 0.5], "p": 1.0}},)
    found, _ = Augmentation(steps, crop_px=16)(5 * image - 2, targets, seed=0)
    assert 0 <= found.min() < found.max() <= 1


@pytest.mark.parametrize(
    ("step", "sentence"),
    [
        (
            {"HorizontalFlipp": {}},
            "augment[0]: found 'HorizontalFlipp', wanted a transform of albumentations; "
            "perhaps 'HorizontalFlip'.",
        ),
        (
            {"qqqq": {}},
            "augment[0]: found 'qqqq', wanted a transform of albumentations; "
            "see albumentations 2.0.8.",
        ),
        (
            {"OneOf": {}},
            "augment[0]: found 'OneOf', wanted a transform of albumentations; "
            "see albumentations 2.0.8.",
        ),
        (
            {"D4": {}, "Transpose": {}},
            "augment[0]: found 2 names, wanted one, as `Name: {}`; split it.",
        ),
    ],
)
def test_a_step_that_does_not_exist_is_refused(step: Any, sentence: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Augmentation((step,), crop_px=16)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("options", [{"strength": 3}, {"p": 2.0}])
def test_options_that_the_library_refuses_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(RecipeError) as caught:
        Augmentation(({"D4": {}}, {"HorizontalFlip": options}), crop_px=16)
    text = str(caught.value)
    assert text.startswith("augment[1]: HorizontalFlip: found ")
    assert text.endswith(", wanted options that albumentations 2.0.8 takes; correct the step.")
    assert next(iter(options)) in text


def test_importing_the_library_asks_no_server() -> None:
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise SystemExit('a connection was tried')\n"
        "socket.socket.connect = refuse\nsocket.create_connection = refuse\n"
        "from domainseg.training.augment import Augmentation\n"
        "Augmentation(({'D4': {}},), crop_px=8)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
