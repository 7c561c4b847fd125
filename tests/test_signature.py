"""Patterns of made-up wafers, named; nothing named where nothing is."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from domainseg.quality.signature import SIGNATURES, signature

SIDE = 41


def wafer() -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the dies of a round wafer, their radius over the wafer's, and their turns."""
    y, x = np.mgrid[:SIDE, :SIDE].reshape(2, -1)
    u, v = (x - SIDE // 2) / (SIDE / 2), (y - SIDE // 2) / (SIDE / 2)
    inside = np.hypot(u, v) <= 1
    index = np.stack([x, y], 1)[inside].astype(np.int64)
    return index, np.hypot(u, v)[inside], (np.arctan2(v, u)[inside] / (2 * np.pi)) % 1.0


def failing(label: str) -> NDArray[np.bool_]:
    """Return a clear example of a pattern, on a background of one failing die in a hundred."""
    index, radius, turns = wafer()
    x, y = index.T
    rng = np.random.default_rng(3)
    made = {
        "Center": radius < 0.25,
        "Donut": (radius > 0.35) & (radius < 0.65),
        "Edge-Ring": radius > 0.9,
        "Edge-Loc": (radius > 0.8) & (turns < 0.15),
        "Loc": np.hypot(x - 30, y - 22) < 5,
        "Near-full": radius < 2,
        "Random": rng.random(len(x)) < 0.32,
        "Scratch": (np.abs(x - y + 6) <= 0) & (x > 8) & (x < 30),
        "none": radius > 2,
    }[label]
    return np.asarray(made | (rng.random(len(x)) < 0.01))


@pytest.mark.parametrize("label", SIGNATURES)
def test_a_clear_pattern_is_named(label: str) -> None:
    index, _, _ = wafer()
    made = signature(index, failing(label))
    assert made.label == label
    assert "dies fail" in made.evidence[0]


def test_where_a_wafer_lies_in_its_indices_does_not_matter() -> None:
    index, _, _ = wafer()
    for label in SIGNATURES:
        assert signature(index - 57, failing(label)) == signature(index, failing(label))


def test_nothing_fails_and_no_die_is_inspected() -> None:
    index, _, _ = wafer()
    assert signature(index, np.zeros(len(index), bool)).label == "none"
    assert signature(np.zeros((0, 2), np.int64), np.zeros(0, bool)).label == "none"
    assert signature(np.array([[3, 4]]), np.array([True])).label == "Near-full"
