"""Confidence of a mean over images, by drawing the images again."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
"""Bootstrap samples behind an interval: its ends then move by a few hundredths of its width."""


def mean_interval(
    values: NDArray[np.float64], rng: np.random.Generator, *, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the bootstrap interval (low, high) of the mean of ``values``, float ``(N,)``.

    The values are drawn with replacement, N at a time, `RESAMPLES` times; the ends
    are percentiles of the means (Efron & Tibshirani, An Introduction to the
    Bootstrap, 1993, chapter 13). NaN for fewer than two values, of whose spread
    nothing is known. Values that belong together (images of one plate, one
    patient) are not independent, and the interval is then too narrow.

    For a paired comparison hand over the differences: what makes an image hard for
    both methods then does not widen the interval.
    """
    if len(values) < 2:
        return math.nan, math.nan
    # One sample at a time: memory stays that of the values, however many there are.
    means = np.array(
        [values[rng.integers(len(values), size=len(values))].mean() for _ in range(RESAMPLES)]
    )
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return float(low), float(high)
