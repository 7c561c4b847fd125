"""Scores become shares that are right."""

from __future__ import annotations

import json

import numpy as np
import pytest

from domainseg.errors import InputError
from domainseg.quality.calibration import (
    Calibration,
    CalibrationMethod,
    calibration_error,
    fit_calibration,
    reliability,
)

METHODS: tuple[CalibrationMethod, ...] = ("temperature", "isotonic")


def drawn(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and rightness where a score is the chance to be right."""
    scores = rng.uniform(0.02, 0.98, count)
    return scores, rng.random(count) < scores


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))


def test_scores_that_are_chances_have_no_calibration_error() -> None:
    scores, right = drawn(np.random.default_rng(0), 200_000)
    assert calibration_error(scores, right) < 0.005


def test_the_error_by_hand() -> None:
    scores = np.array([0.1] * 10 + [0.9] * 10)
    right = np.array([True] + [False] * 9 + [True] * 7 + [False] * 3)
    # Bins of two: the errors of a bin do not cancel those of another.
    rows = reliability(scores, right, bins=2)
    assert [(row.objects, row.right) for row in rows] == [(10, 0.1), (10, 0.7)]
    by_bins = [abs(row.score - row.right) for row in reliability(scores, right)]
    assert calibration_error(scores, right) == pytest.approx(np.mean(by_bins))


def test_a_known_temperature_and_shift_are_found() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, 100_000)
    right = rng.random(len(logits)) < sigmoid(logits / 2.5 - 0.7)
    fitted = fit_calibration(sigmoid(logits), right)
    assert fitted.scores[0] == pytest.approx(2.5, rel=0.05)
    assert fitted.confidences[0] == pytest.approx(-0.7, abs=0.05)


@pytest.mark.parametrize("method", METHODS)
def test_overconfident_scores_are_mended_on_objects_not_fitted_to(
    method: CalibrationMethod,
) -> None:
    rng = np.random.default_rng(2)
    chances, right = drawn(rng, 40_000)
    scores = chances ** (1 / 3)
    fitted = fit_calibration(scores[::2], right[::2], method=method)
    before = calibration_error(scores[1::2], right[1::2])
    after = calibration_error(fitted.apply(scores[1::2]), right[1::2])
    assert before > 0.15
    assert after < 0.02


@pytest.mark.parametrize("method", METHODS)
def test_no_object_overtakes_another_and_confidences_are_shares(
    method: CalibrationMethod,
) -> None:
    scores, right = drawn(np.random.default_rng(3), 300)
    made = fit_calibration(scores, right, method=method).apply(np.linspace(0, 1, 101))
    assert (np.diff(made) >= 0).all()
    assert made.min() >= 0
    assert made.max() <= 1


@pytest.mark.parametrize("method", METHODS)
def test_a_calibration_comes_back_from_json(method: CalibrationMethod) -> None:
    scores, right = drawn(np.random.default_rng(4), 100)
    fitted = fit_calibration(scores, right, method=method)
    again = Calibration.from_json(json.loads(json.dumps(fitted.to_json())))
    np.testing.assert_array_equal(again.apply(scores), fitted.apply(scores))


@pytest.mark.parametrize(
    ("right", "found"),
    [
        ([True, False] * 9, "18 objects, 9"),
        ([True] * 30, "30 objects, 30"),
        ([False] * 30, "30 objects, 0"),
    ],
)
def test_too_few_or_one_sided_objects_are_refused(right: list[bool], found: str) -> None:
    with pytest.raises(InputError) as caught:
        fit_calibration(np.linspace(0.1, 0.9, len(right)), np.array(right))
    assert str(caught.value) == (
        f"calibration: found {found} of them right, wanted at least 20, right and wrong ones; "
        "use more validation images."
    )
