"""Repeaters: what many dies have at one place, and what chance puts there."""

from __future__ import annotations

import numpy as np
import pytest

from domainseg.quality.repeaters import FEWEST, repeaters

PITCH = (2000.0, 3000.0)
DIES = np.stack(np.meshgrid(np.arange(-5, 5), np.arange(10)), -1).reshape(-1, 2)


def scattered(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return dies and places of defects that fall anywhere."""
    rng = np.random.default_rng(seed)
    die = DIES[rng.integers(0, len(DIES), count)]
    return die, rng.uniform(0, PITCH, (count, 2))


def repeated(dies: int, place: tuple[float, float], seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return one defect in each of several dies at a place, give or take 4 um."""
    rng = np.random.default_rng(seed)
    chosen = DIES[rng.permutation(len(DIES))[:dies]]
    return chosen, np.array(place) + rng.uniform(-2, 2, (dies, 2))


def plainly(die: np.ndarray, place: np.ndarray, tolerance: float) -> np.ndarray:
    """Return the dies at the place of each defect by looking at every pair."""
    cell = np.floor(place / tolerance)
    near = (np.abs(cell[:, None] - cell[None]) <= 1).all(2)
    return np.array([len({tuple(d) for d in die[row].tolist()}) for row in near])


@pytest.mark.parametrize("tolerance", [10.0, 150.0, 5000.0])
def test_dies_at_a_place_are_those_that_looking_at_every_pair_gives(tolerance: float) -> None:
    die, place = scattered(400)
    more, there = repeated(30, (700.0, 5.0))
    die, place = np.concatenate([die, more]), np.concatenate([place, there])
    found = repeaters(die, place, pitch_um=PITCH, dies=100, tolerance_um=tolerance)
    np.testing.assert_array_equal(found.dies, plainly(die, place, tolerance))


def test_what_repeats_is_told_from_what_is_scattered() -> None:
    die, place = scattered(2000)
    more, there = repeated(12, (700.0, 900.0))
    found = repeaters(
        np.concatenate([die, more]),
        np.concatenate([place, there]),
        pitch_um=PITCH,
        dies=100,
        tolerance_um=5.0,
    )
    assert found.repeats[2000:].all()
    # By chance a scattered one may lie at the very place.
    assert found.repeats[:2000].sum() <= 1


@pytest.mark.parametrize("seed", range(20))
def test_scattered_defects_are_no_repeaters_however_many_they_are(seed: int) -> None:
    for count, tolerance in ((30, 5.0), (3000, 30.0), (20_000, 60.0)):
        die, place = scattered(count, seed)
        found = repeaters(die, place, pitch_um=PITCH, dies=100, tolerance_um=tolerance)
        assert found.repeats.sum() == 0


def test_several_defects_of_one_die_at_one_place_are_one_die() -> None:
    die = np.zeros((20, 2), np.int64)
    place = np.full((20, 2), 50.0)
    found = repeaters(die, place, pitch_um=PITCH, dies=100, tolerance_um=5.0)
    assert set(found.dies.tolist()) == {1}
    assert not found.repeats.any()


def test_two_dies_are_too_few_and_no_defect_is_none() -> None:
    die, place = repeated(2, (10.0, 10.0))
    found = repeaters(die, place, pitch_um=PITCH, dies=100, tolerance_um=5.0)
    assert found.least == FEWEST
    assert not found.repeats.any()
    none = repeaters(
        np.zeros((0, 2), np.int64), np.zeros((0, 2)), pitch_um=PITCH, dies=9, tolerance_um=5.0
    )
    assert len(none.dies) == len(none.repeats) == 0


def test_at_the_border_of_a_die_no_place_wraps_to_the_other_side() -> None:
    die, place = repeated(10, (3.0, 3.0))
    other, there = repeated(10, (1997.0, 3.0), seed=2)
    found = repeaters(
        np.concatenate([die, other]),
        np.concatenate([place, there]),
        pitch_um=PITCH,
        dies=100,
        tolerance_um=5.0,
    )
    assert set(found.dies.tolist()) == {10}
