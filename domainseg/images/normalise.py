"""Intensity ranges of whole images; never of a tile, so that tiles cannot disagree.

A percentile is an order statistic of the pixels: the smallest value that at least p percent
of them do not exceed (``numpy.percentile`` with ``method="inverted_cdf"``). It is exact for
every dtype and found in constant memory: integers of 8 and 16 bits by one histogram, all
others as float32 by two passes over the order-preserving integer key of the float (its upper
16 bits, then the lower 16 bits of the values that share the upper half of the answer).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from domainseg.errors import InputError, UsageError, sentence
from domainseg.records import Array, Plane

BINS = 1 << 16
BAND_PX = 1 << 22
"""Pixels of the plane counted at a time."""
CLIP = (-1.0, 4.0)
"""Where normalised values end: far outside [0, 1], near enough that one hot pixel or a dust
grain cannot drive the activations of its neighbourhood out of what training saw."""


@dataclass(frozen=True, slots=True)
class Normalisation:
    """How intensities are brought to a common range.

    Attributes:
        low_percentile, high_percentile: what becomes 0 and 1.
        scope: ``image``: measured on each image; ``group``: on all images of a group (plate,
            lot), which stay comparable; ``fixed``: ``fixed_low`` and ``fixed_high``.
        per: ``channel``: each channel by itself; ``image``: one range for all channels, which
            keeps the colours.
        fixed_low, fixed_high: in the image's own units, for ``fixed`` only.
    """

    low_percentile: float = 1.0
    high_percentile: float = 99.8
    scope: Literal["image", "group", "fixed"] = "image"
    per: Literal["channel", "image"] = "channel"
    fixed_low: float | None = None
    fixed_high: float | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.low_percentile < self.high_percentile <= 100.0:
            raise UsageError(
                sentence(
                    "normalisation",
                    found=f"percentiles {self.low_percentile} and {self.high_percentile}",
                    wanted="0 <= low < high <= 100",
                    fix="correct low_percentile and high_percentile",
                )
            )
        low, high = self.fixed_low, self.fixed_high
        if (self.scope == "fixed") != (low is not None and high is not None and low < high) or (
            self.scope != "fixed" and (low, high) != (None, None)
        ):
            raise UsageError(
                sentence(
                    "normalisation",
                    found=f"scope {self.scope} with fixed_low {low} and fixed_high {high}",
                    wanted="fixed_low < fixed_high with scope fixed, and neither without",
                    fix="correct scope, fixed_low and fixed_high",
                )
            )


@dataclass(frozen=True, slots=True)
class Range:
    """What becomes 0 and 1 in each channel: ``low`` and ``high``, float32 ``(C,)``."""

    low: NDArray[np.float32]
    high: NDArray[np.float32]


def measure_range(
    plane: Plane, options: Normalisation, *, ignore: NDArray[np.bool_] | None = None
) -> Range:
    """Return the range of one image ``(C, H, W)``, whatever the scope but ``fixed``.

    ``ignore`` ``(H, W)`` is True where a pixel does not count. A plane that knows its
    ``path`` is named in errors.

    Raises:
        InputError: when no pixel counts.
    """
    return measure_group_range([plane], options, ignores=[ignore])


def measure_group_range(
    planes: Sequence[Plane],
    options: Normalisation,
    *,
    ignores: Sequence[NDArray[np.bool_] | None] | None = None,
) -> Range:
    """Return the one range of several images with the same channels, as if they were one.

    Raises:
        InputError: when no pixel counts.
        ValueError: when the images differ in their number of channels.
    """
    channels = planes[0].shape[0]
    if any(plane.shape[0] != channels for plane in planes):
        raise ValueError(f"images with {sorted({p.shape[0] for p in planes})} channels in a group")
    if options.scope == "fixed":
        low = np.full(channels, options.fixed_low, np.float32)
        return Range(low, np.full(channels, options.fixed_high, np.float32))
    values = _Values(planes, ignores or [None] * len(planes), joined=options.per == "image")
    quantiles = (options.low_percentile, options.high_percentile)
    found = np.array([_percentiles(values, c, quantiles) for c in range(values.channels)])
    if options.per == "image":
        found = np.repeat(found, channels, axis=0)
    return Range(found[:, 0].astype(np.float32), found[:, 1].astype(np.float32))


def apply_range(region: Array, range_: Range) -> NDArray[np.float32]:
    """Return ``(x - low) / (high - low)`` of a ``(C, h, w)`` region, float32, cut to CLIP.

    A channel whose low and high are equal becomes 0 everywhere.
    """
    low = range_.low[:, None, None]
    width = range_.high[:, None, None] - low
    scale = np.divide(np.float32(1.0), width, out=np.zeros_like(width), where=width > 0)
    out = np.subtract(region, low, dtype=np.float32)
    out *= scale
    return np.clip(out, *CLIP, out=out)
