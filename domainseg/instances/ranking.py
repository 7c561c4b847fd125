"""Good and defect things ranked by a score: AUROC and average precision.

- **AUROC**: the chance that a defect pixel (or image) ranks above a good one; a tie counts
  half (Hanley and McNeil, Radiology 143, 1982).
- **AP** = sum over the thresholds of (R - R before) P, with precision P and recall R at the
  threshold; nothing is interpolated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domainseg.records import Array

Histogram = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Ranking:
    """How many good and how many defect things have each score; they add up.

    Attributes:
        good: int64 ``(K,)``, by rising score.
        defect: int64 ``(K,)``.
    """

    good: Histogram
    defect: Histogram

    def __add__(self, other: Ranking) -> Ranking:
        return Ranking(self.good + other.good, self.defect + other.defect)

    @classmethod
    def of_scores(cls, good: Array, defect: Array) -> Ranking:
        """Return the ranking of plain scores, both 1-D."""
        values, rows = np.unique(np.concatenate([good, defect]), return_inverse=True)
        return cls(
            np.bincount(rows[: len(good)], minlength=len(values)).astype(np.int64),
            np.bincount(rows[len(good) :], minlength=len(values)).astype(np.int64),
        )

    @property
    def auroc(self) -> float:
        """Chance that a defect ranks above a good one; NaN where one kind is missing."""
        pairs = int(self.good.sum()) * int(self.defect.sum())
        if not pairs:
            return math.nan
        below = np.cumsum(self.good) - self.good
        # Twice the count, so that ties stay whole numbers; Python's integers do not overflow.
        twice = sum(
            d * (2 * b + g)
            for d, b, g in zip(
                self.defect.tolist(), below.tolist(), self.good.tolist(), strict=True
            )
        )
        return float(twice / (2 * pairs))

    @property
    def average_precision(self) -> float:
        """Mean precision over the defects, by falling score; NaN without any."""
        total = int(self.defect.sum())
        if not total:
            return math.nan
        hits = np.cumsum(self.defect[::-1])
        taken = np.cumsum((self.good + self.defect)[::-1])
        some = self.defect[::-1] > 0
        precision = hits[some] / taken[some]
        return math.fsum((precision * self.defect[::-1][some]).tolist()) / total

    @property
    def false_positive_rate(self) -> NDArray[np.float64]:
        """Share of the good at or above each score, falling scores, float64 ``(K,)``."""
        return np.cumsum(self.good[::-1]) / max(int(self.good.sum()), 1)
