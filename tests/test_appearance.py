"""How an image looks: each number alone, and when an image is unlike a set of others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from domainseg.images.appearance import (
    ALARMS,
    FEATURES,
    FEWEST,
    Looks,
    Unlike,
    appearance,
)

Plane = NDArray[np.float32]


def spots(seed: int, *, noise: float = 0.02, side: int = 128) -> Plane:
    """Return bright discs on black with noise, grey in three channels."""
    rng = np.random.default_rng(seed)
    plane = np.zeros((side, side))
    y, x = np.mgrid[:side, :side]
    for cy, cx in rng.uniform(0, side, (20, 2)):
        plane[(y - cy) ** 2 + (x - cx) ** 2 < 30] = rng.uniform(0.5, 0.9)
    plane = gaussian_filter(plane, 1) + 0.1 + rng.normal(0, noise, plane.shape)
    return np.repeat(np.clip(plane, 0, 1)[None], 3, axis=0).astype(np.float32)


def numbers(plane: Plane) -> dict[str, float]:
    return dict(zip(FEATURES, appearance(plane).tolist(), strict=True))


def test_a_flat_image_has_a_level_and_nothing_else() -> None:
    found = numbers(np.full((3, 40, 30), 0.25, np.float32))
    assert found.pop("level") == pytest.approx(0.25)
    assert found.pop("grain") == pytest.approx(0)
    assert set(found.values()) == {0.0}


def test_shares_of_what_was_cut_off() -> None:
    plane = np.full((1, 10, 10), 0.5, np.float32)
    plane[0, :2] = 0
    plane[0, 9] = 1
    found = numbers(plane)
    assert found["black"] == pytest.approx(0.2)
    assert found["white"] == pytest.approx(0.1)


def test_colour_is_what_grey_has_none_of() -> None:
    plane = np.zeros((3, 8, 8), np.float32)
    plane[0] = 0.6
    assert numbers(plane)["colour"] == pytest.approx(0.6)
    assert numbers(np.repeat(plane[:1], 3, axis=0))["colour"] == 0


@pytest.mark.parametrize("sigma", [0.01, 0.05, 0.1])
def test_noise_is_told_from_structure(sigma: float) -> None:
    y = np.linspace(0.2, 0.8, 200, dtype=np.float32)
    ramp = np.tile(y, (200, 1))[None]
    noisy = ramp + np.random.default_rng(0).normal(0, sigma, ramp.shape).astype(np.float32)
    assert numbers(noisy)["noise"] == pytest.approx(sigma, rel=0.05)
    assert numbers(ramp)["noise"] == pytest.approx(0, abs=1e-6)


def test_skew_turns_round_with_the_light() -> None:
    plane = spots(0)
    assert numbers(plane)["skew"] > 0.2
    assert numbers(1 - plane)["skew"] == pytest.approx(-numbers(plane)["skew"], abs=1e-4)


def test_blur_makes_the_grain_smooth() -> None:
    plane = spots(0)
    blurred = gaussian_filter(plane, (0, 3, 3))
    assert numbers(blurred)["grain"] < numbers(plane)["grain"] - 0.5


def test_of_a_large_image_evenly_spread_windows_are_read() -> None:
    class Watched:
        shape = (1, 5000, 3000)
        dtype = np.dtype(np.float32)

        def __init__(self) -> None:
            self.read: list[tuple[int, int, int, int]] = []

        def __getitem__(self, key: tuple[slice, slice, slice]) -> Plane:
            _, rows, columns = key
            self.read.append((rows.start, rows.stop, columns.start, columns.stop))
            return np.zeros((1, rows.stop - rows.start, columns.stop - columns.start), np.float32)

    plane = Watched()
    appearance(plane)
    assert len(plane.read) == 16
    assert plane.read[0] == (497, 753, 247, 503)
    assert plane.read[-1] == (4247, 4503, 2497, 2753)
    assert sum((y1 - y0) * (x1 - x0) for y0, y1, x0, x1 in plane.read) == 1 << 20


@pytest.fixture(scope="module")
def looks() -> Looks:
    found = Looks.of([appearance(spots(seed)) for seed in range(100)])
    assert found is not None
    return found


def test_few_of_the_set_itself_are_unlike_the_rest() -> None:
    rows = [appearance(spots(seed)) for seed in range(100)]
    alarms = 0
    for number in range(100):
        rest = Looks.of(rows[:number] + rows[number + 1 :])
        assert rest is not None
        alarms += rest.unlike(rows[number]) is not None
    assert alarms / 100 <= 3 * ALARMS


def test_more_of_the_same_is_like_the_set(looks: Looks) -> None:
    alarms = [looks.unlike(appearance(spots(seed))) is not None for seed in range(500, 600)]
    assert np.mean(alarms) <= 0.06


def _noise(plane: Plane) -> Plane:
    return np.random.default_rng(0).uniform(0, 1, plane.shape).astype(np.float32)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda p: 1 - p, id="inverted"),
        pytest.param(lambda p: np.clip(4 * p, 0, 1), id="saturated"),
        pytest.param(lambda p: gaussian_filter(p, (0, 4, 4)), id="blurred"),
        pytest.param(_noise, id="empty"),
        pytest.param(np.zeros_like, id="black"),
        pytest.param(lambda p: p * np.array([1, 0.2, 0.2])[:, None, None], id="stained"),
    ],
)
def test_what_is_outside_is_unlike(looks: Looks, change: Callable[[Plane], Plane]) -> None:
    for seed in range(900, 905):
        why = looks.unlike(appearance(change(spots(seed)).astype(np.float32)))
        assert why is not None
        assert why.distance > why.limit


ONE = "it has one value wherever it was looked at; check the file"


def _grainy(plane: Plane) -> Plane:
    noise = np.random.default_rng(0).normal(0, 0.15, plane.shape[1:])
    return np.clip(plane + noise, 0, 1).astype(np.float32)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(lambda p: 1 - p, "it looks inverted (", id="inverted"),
        pytest.param(np.zeros_like, ONE, id="black"),
        pytest.param(np.ones_like, ONE, id="white"),
        pytest.param(lambda p: gaussian_filter(p, (0, 2, 2)), "it is smoother, as", id="blurred"),
        pytest.param(_grainy, "it is rougher, as with noise (", id="noise"),
    ],
)
def test_the_sentence_says_what_is_amiss(
    looks: Looks, change: Callable[[Plane], Plane], said: str
) -> None:
    for seed in range(900, 905):
        why = looks.unlike(appearance(change(spots(seed)).astype(np.float32)))
        assert why is not None
        start = "the image looks unlike those that the model was trained on: "
        assert why.text().startswith(start + said)


def test_the_sentence_names_the_number_that_is_furthest(looks: Looks) -> None:
    plane = spots(1)
    plane[0] = 1
    why = looks.unlike(appearance(plane))
    assert why is not None
    assert why.cause == "colour"
    assert why.nearest <= 1e-6 < why.value
    assert f"it has more colour (colour {why.value:.2g}, of the nearest 0" in why.text()
    assert why.text().endswith("; look at the overlay")


@pytest.mark.parametrize(
    ("feature", "more", "less"),
    [
        ("level", "brighter", "darker"),
        ("spread", "contrast is higher", "contrast is lower"),
        ("skew", "more of it is dark ground", "more of it is bright ground"),
        ("black", "more of it has the lowest", "less of it has the lowest"),
        ("white", "more of it has the highest", "less of it has the highest"),
        ("colour", "more colour", "less colour"),
        ("noise", "more noise", "less noise"),
        ("grain", "rougher", "smoother"),
    ],
)
def test_every_number_has_its_words_both_ways(feature: str, more: str, less: str) -> None:
    higher = Unlike(feature, 0.9, 0.1, 3.0, 1.0).text()
    lower = Unlike(feature, 0.1, 0.9, 3.0, 1.0).text()
    assert more in higher
    assert less in lower
    assert "distance 3.0, limit 1.0" in higher


def test_a_saturated_image_is_not_called_inverted(looks: Looks) -> None:
    # Its negative is nearer to the set than itself, but is not like the set.
    plane = spots(3)
    why = looks.unlike(appearance(np.clip(8 * plane, 0, 1).astype(np.float32)))
    assert why is not None
    assert "inverted" not in why.text()


def test_a_set_of_few_images_knows_nothing() -> None:
    rows = [appearance(spots(seed, side=32)) for seed in range(FEWEST - 1)]
    assert Looks.of(rows) is None
    assert Looks.of([*rows, rows[0]]) is not None


def test_deviations_are_those_within_a_kind() -> None:
    light, dark = ([appearance(spots(s) * g) for s in range(20)] for g in (1, 0.2))
    together = Looks.of([*light, *dark])
    apart = Looks.of([*light, *dark], ["light"] * 20 + ["dark"] * 20)
    assert together is not None
    assert apart is not None
    assert apart.scale[0] < together.scale[0] / 2


def test_a_set_comes_back_from_plain_values(looks: Looks) -> None:
    again = Looks.from_json(looks.to_json())
    assert again is not None
    assert np.array_equal(again.values, looks.values)
    plane = appearance(1 - spots(3))
    assert again.unlike(plane) == looks.unlike(plane)
    assert Looks.from_json({}) is None
    assert Looks.from_json({**looks.to_json(), "features": ["other"]}) is None


def test_a_number_that_is_none_is_unlike(looks: Looks) -> None:
    assert looks.unlike(np.full(len(FEATURES), np.nan)) is not None
