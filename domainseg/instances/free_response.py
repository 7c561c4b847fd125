"""Free response: recall against false calls, with calls taken in falling order of score.

The definitions stand in `domainseg.instances.detection`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domainseg.instances.detection import NEARLY, PX_PER_MPX, ImageDetection

CURVE_POINTS = 200
"""Points of a curve that are written; `FreeResponse` itself holds all."""


@dataclass(frozen=True, slots=True)
class FreeResponse:
    """Recall against false calls, with calls taken in falling order of score.

    Attributes:
        scores: float64 ``(K,)``, falling; calls of at least this score are taken.
        found: int64 ``(K,)``, truth objects found by them, never falling.
        false: int64 ``(K,)``, false calls among them, never falling.
        truths: number of truth objects.
        inspected_px: pixels looked at.
    """

    scores: NDArray[np.float64]
    found: NDArray[np.int64]
    false: NDArray[np.int64]
    truths: int
    inspected_px: int

    def at(self, false_calls_per_mpx: float) -> tuple[float, float | None]:
        """Return the largest recall with at most so many false calls per Mpx, and the score.

        The score is the lowest that keeps to it; None, with a recall of 0, where none does.
        NaN without a truth object. Nothing is interpolated.
        """
        if not self.truths:
            return math.nan, None
        allowed = self.false <= false_calls_per_mpx * self.inspected_px / PX_PER_MPX + NEARLY
        last = int(np.count_nonzero(allowed)) - 1
        if last < 0:
            return 0.0, None
        return int(self.found[last]) / self.truths, float(self.scores[last])

    def recall_at(self, false_calls_per_mpx: float) -> float:
        """Return the largest recall with at most so many false calls per Mpx."""
        return self.at(false_calls_per_mpx)[0]

    def points(self) -> list[dict[str, float]]:
        """Return the corners of the curve, at most CURVE_POINTS of them, for a plot.

        A corner is where recall rises; the last point is where the calls end.
        """
        if not self.truths or not len(self.scores) or not self.inspected_px:
            return []
        corners = np.flatnonzero(np.diff(self.found, prepend=0) > 0)
        corners = np.union1d(corners, [len(self.scores) - 1])
        chosen = np.unique(np.linspace(0, len(corners) - 1, CURVE_POINTS).round().astype(int))
        return [
            {
                "score": float(self.scores[i]),
                "false_calls_per_mpx": float(self.false[i] * PX_PER_MPX / self.inspected_px),
                "recall": float(self.found[i] / self.truths),
            }
            for i in corners[chosen]
        ]


def free_response(images: Sequence[ImageDetection]) -> FreeResponse:
    """Return the free-response curve of these images' calls together, classes left aside."""
    found_from = np.concatenate([one.found_from for one in images]).astype(np.float64)
    false = np.concatenate([one.call_scores[one.false] for one in images]).astype(np.float64)
    called = np.concatenate([one.call_scores for one in images]).astype(np.float64)
    scores = np.unique(called)[::-1]
    return FreeResponse(
        scores=scores,
        found=_at_least(found_from, scores),
        false=_at_least(false, scores),
        truths=len(found_from),
        inspected_px=sum(one.inspected_px for one in images),
    )


def _at_least(values: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return how many values are at least each score."""
    return len(values) - np.searchsorted(np.sort(values), scores, side="left")
