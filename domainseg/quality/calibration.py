"""Scores that mean what they say: of objects with confidence .8, eight in ten are right.

The score of an object is the mean foreground probability of its pixels, which is not the
chance that the object is one. Either of two monotone maps, fitted to objects of which it is
known whether they are right, turns it into that:

- **temperature**: the logit of the score divided by a temperature and shifted, two numbers,
  by least log loss (Platt 1999; Guo et al. 2017, On calibration of modern neural networks).
- **isotonic**: the rising step function of least squares (Zadrozny and Elkan 2002), read
  straight between its steps.

**Expected calibration error**: objects in 10 bins of equal number by score; the mean over
bins, weighed by their objects, of the difference between mean score and share of right ones
(Naeini et al. 2015, with bins of equal mass).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression, minimize

from domainseg.errors import InputError, sentence

CalibrationMethod = Literal["temperature", "isotonic"]
LEAST_OBJECTS = 20
"""Fewer say nothing about a share."""
BINS = 10
EDGE = 1e-4
"""Scores nearer to 0 or 1 are taken as this far from it: their logit would be infinite."""

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Calibration:
    """A monotone map from score to confidence, both in [0, 1].

    Attributes:
        method: ``temperature`` or ``isotonic``.
        scores: float64 ``(K,)``, rising; with ``temperature`` the temperature alone.
        confidences: float64 ``(K,)``, not falling; with ``temperature`` the shift alone.
    """

    method: CalibrationMethod
    scores: Scores
    confidences: Scores

    def apply(self, scores: NDArray[np.floating]) -> Scores:
        """Return the confidence of each score, float64."""
        given = np.asarray(scores, np.float64)
        if self.method == "temperature":
            return _scaled(_logit(given), float(self.scores[0]), float(self.confidences[0]))
        return np.asarray(np.interp(given, self.scores, self.confidences), np.float64)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "method": self.method,
            "scores": self.scores.tolist(),
            "confidences": self.confidences.tolist(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Calibration:
        """Return what `to_json` gave."""
        return cls(
            values["method"],
            np.array(values["scores"], np.float64),
            np.array(values["confidences"], np.float64),
        )


def fit_calibration(
    scores: NDArray[np.floating],
    right: NDArray[np.bool_],
    *,
    method: CalibrationMethod = "temperature",
) -> Calibration:
    """Return the calibration of objects with these ``scores (N,)``, ``right (N,)`` or not.

    Raises:
        InputError: for fewer than LEAST_OBJECTS objects, or all of them right or all wrong.
    """
    _require_both(right)
    given = np.asarray(scores, np.float64)
    if method == "isotonic":
        order = np.argsort(given, kind="stable")
        levels, at = np.unique(given[order], return_inverse=True)
        counts = np.bincount(at).astype(np.float64)
        shares = np.bincount(at, weights=right[order]) / counts
        fitted = np.clip(isotonic_regression(shares, weights=counts).x, 0.0, 1.0)
        return Calibration(method, levels, np.asarray(fitted, np.float64))
    logits, target = _logit(given), right.astype(np.float64)

    def loss(values: Scores) -> float:
        # log(1 + exp(x)) - t x, in a form that does not overflow.
        x = logits / np.exp(values[0]) + values[1]
        return float(np.mean(np.logaddexp(0.0, x) - target * x))

    found = minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-6}).x
    return Calibration(method, np.array([np.exp(found[0])]), np.array([found[1]]))


@dataclass(frozen=True, slots=True)
class Reliability:
    """Objects of similar score: their number, mean score, and share that is right."""

    objects: int
    score: float
    right: float


def reliability(
    scores: NDArray[np.floating], right: NDArray[np.bool_], *, bins: int = BINS
) -> tuple[Reliability, ...]:
    """Return bins of equal number by rising score; equal scores may fall into two."""
    order = np.argsort(np.asarray(scores, np.float64), kind="stable")
    parts = np.array_split(order, min(bins, max(1, len(order))))
    return tuple(
        Reliability(len(part), float(np.mean(scores[part])), float(np.mean(right[part])))
        for part in parts
        if len(part)
    )


def calibration_error(scores: NDArray[np.floating], right: NDArray[np.bool_]) -> float:
    """Return the expected calibration error, 0 for no object."""
    rows = reliability(scores, right)
    total = sum(row.objects for row in rows)
    return sum(row.objects * abs(row.score - row.right) for row in rows) / max(1, total)


def _require_both(right: NDArray[np.bool_]) -> None:
    count, good = len(right), int(np.count_nonzero(right))
    if count < LEAST_OBJECTS or good in (0, count):
        found = f"{count} objects, {good} of them right"
        raise InputError(
            sentence(
                "calibration",
                found=found,
                wanted=f"at least {LEAST_OBJECTS}, right and wrong ones",
                fix="use more validation images",
            )
        )


def _logit(scores: Scores) -> Scores:
    clipped = np.clip(scores, EDGE, 1 - EDGE)
    return np.asarray(np.log(clipped) - np.log1p(-clipped), np.float64)


def _scaled(logits: Scores, temperature: float, shift: float) -> Scores:
    return np.asarray(1.0 / (1.0 + np.exp(-(logits / temperature + shift))), np.float64)
