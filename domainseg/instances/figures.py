"""Figures that may be unknown, as JSON values and as text."""

from __future__ import annotations

import math

from domainseg.quality.statistics import Interval

UNKNOWN = "n/a"


def known(value: float) -> float | None:
    """Return the value, None where it is not finite: JSON has no word for it."""
    return float(value) if math.isfinite(value) else None


def ends(interval: Interval) -> list[float | None]:
    """Return the two ends of an interval as JSON values."""
    return [known(interval.low), known(interval.high)]


def share(value: float) -> str:
    """Return a share with three digits."""
    return f"{value:.3f}" if math.isfinite(value) else UNKNOWN


def figure(value: float | None) -> str:
    """Return a number with three figures."""
    return UNKNOWN if value is None or not math.isfinite(value) else f"{value:.3g}"


def between(interval: Interval) -> str:
    """Return the two ends of an interval of a share."""
    return f"{share(interval.low)}-{share(interval.high)}"
