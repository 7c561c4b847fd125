"""Intervals and summaries of counts and sizes: what a number is worth.

Every function takes plain numbers or a 1-D array and returns a frozen record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, gammainccinv, gammaincinv, ndtri


@dataclass(frozen=True, slots=True)
class Interval:
    """A closed range ``[low, high]``, in the unit of what it belongs to."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Quartiles:
    """The middle half of ``count`` values: 25 %, 50 % and 75 % points."""

    count: int
    q1: float
    median: float
    q3: float


@dataclass(frozen=True, slots=True)
class Dispersion:
    """How much counts differ between images, against what chance alone would do.

    Attributes:
        index: variance over mean; 1 where objects fall independently.
        p_value: chance of an index this large or larger if they did.
    """

    index: float
    p_value: float


def poisson_interval(count: int, *, exposure: float = 1.0, confidence: float = 0.95) -> Interval:
    """Return the exact two-sided interval of the rate ``count / exposure``.

    The bounds are quantiles of chi-squared: ``chi2(a/2; 2N) / 2A`` and
    ``chi2(1 - a/2; 2N + 2) / 2A`` with ``a = 1 - confidence`` (Garwood,
    Biometrika 28, 1936). The lower bound of a count of 0 is 0. Written with
    the inverse incomplete gamma function, of which these are special cases.

    Raises:
        ValueError: for a negative count, an exposure that is not positive and
            finite, or a confidence outside (0, 1).
    """
    if count < 0:
        raise ValueError(f"a count of {count} is negative")
    if not 0.0 < exposure < np.inf:
        raise ValueError(f"an exposure of {exposure} is not positive and finite")
    tail = _tail(confidence)
    low = float(gammaincinv(count, tail)) if count else 0.0
    return Interval(low / exposure, float(gammainccinv(count + 1, tail)) / exposure)


def wilson_interval(successes: int, trials: int, *, confidence: float = 0.95) -> Interval:
    """Return the score interval of the proportion ``successes / trials``, inside [0, 1].

    The interval inverts the normal test of a proportion (Wilson, JASA 22,
    1927). Without trials nothing is known: [0, 1].

    Raises:
        ValueError: unless ``0 <= successes <= trials``; for a confidence
            outside (0, 1).
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials is impossible")
    z = -float(ndtri(_tail(confidence)))
    if trials == 0:
        return Interval(0.0, 1.0)
    share, ratio = successes / trials, z * z / trials
    centre = (share + ratio / 2) / (1 + ratio)
    half = np.sqrt(share * (1 - share) * ratio + (ratio / 2) ** 2) / (1 + ratio)
    # At 0 and at all trials one bound is exact; rounding must not move it.
    low = 0.0 if successes == 0 else max(0.0, float(centre - half))
    high = 1.0 if successes == trials else min(1.0, float(centre + half))
    return Interval(low, high)


def quartiles(values: NDArray[np.floating]) -> Quartiles | None:
    """Return the quartiles of the finite ``values``, None when there are none.

    Linear interpolation between order statistics (type 7 of Hyndman and Fan,
    The American Statistician 50, 1996).
    """
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return None
    q1, median, q3 = np.quantile(finite.astype(np.float64), [0.25, 0.5, 0.75])
    return Quartiles(int(finite.size), float(q1), float(median), float(q3))


def dispersion(counts: Sequence[int], exposures: Sequence[float]) -> Dispersion | None:
    """Return the index of dispersion of counts over unequal exposures.

    With the pooled rate ``r = sum N / sum A``, ``X2 = sum (N - r A)^2 / (r A)``
    follows chi-squared with ``k - 1`` degrees of freedom when counts are
    Poisson; the index is ``X2 / (k - 1)`` (Fisher, Statistical Methods for
    Research Workers). None for fewer than two images or no object at all.

    Raises:
        ValueError: when the lengths differ or an exposure is not positive.
    """
    found = np.asarray(counts, np.float64)
    area = np.asarray(exposures, np.float64)
    if found.shape != area.shape:
        raise ValueError(f"{found.size} counts do not fit {area.size} exposures")
    if np.any(area <= 0):
        raise ValueError("every exposure must be positive")
    if found.size < 2 or found.sum() == 0:
        return None
    expected = area * (found.sum() / area.sum())
    statistic = float(((found - expected) ** 2 / expected).sum())
    freedom = found.size - 1
    return Dispersion(statistic / freedom, float(chdtrc(freedom, statistic)))


def _tail(confidence: float) -> float:
    """Return the probability left outside on each side."""
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence {confidence} is not between 0 and 1")
    return (1.0 - confidence) / 2
