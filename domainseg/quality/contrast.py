"""How much an object stands out from the pixels around it.

The **ring** of an object is the background within ``reach_px`` of it that is more than
``guard_px`` away from every object of its layer (Euclidean, between centres of pixels): the
guard keeps the blurred rims out, of neighbours too. A pixel may belong to the rings of
several objects; one that nobody inspected belongs to none.

**Contrast** is the mean intensity inside less the mean of the ring, in the image's own units;
**contrast to noise** is that over the standard deviation of the ring. Both are unknown where
an object has fewer than LEAST_PX pixels of ring, and contrast to noise where the ring is flat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from domainseg.records import Array

GUARD_PX = 2
REACH_PX = 8
LEAST_PX = 8
"""Pixels of ring below which its mean and deviation say little."""
_MOST_NEIGHBOURS = 64
"""Objects whose ring one pixel can lie in; in a window of 17 pixels there are no more."""


@dataclass(frozen=True, slots=True)
class Ring:
    """Which pixels around an object are its ground.

    Attributes:
        guard_px: distance from every object up to which background does not count.
        reach_px: distance from the object beyond which it does not count.
    """

    guard_px: int = GUARD_PX
    reach_px: int = REACH_PX

    def __post_init__(self) -> None:
        if not 0 <= self.guard_px < self.reach_px <= 32:
            raise ValueError(
                f"guard {self.guard_px} and reach {self.reach_px} px, wanted 0 <= guard < reach "
                "<= 32"
            )


class RingSums:
    """Number, sum and sum of squares of the ring of each object, gathered block by block.

    Sums of whole numbers of up to 16 bits are exact, and so do not depend on the blocks.

    Args:
        objects: largest label.
        channels: of the image.
    """

    def __init__(self, objects: int, channels: int, *, ring: Ring | None = None) -> None:
        self.ring = ring or Ring()
        self.pixels = np.zeros(objects + 1, np.int64)
        self.sums = np.zeros((objects + 1, channels))
        self.squares = np.zeros((objects + 1, channels))

    def add(
        self,
        labels: Array,
        image: Array,
        *,
        core: tuple[slice, slice],
        seen: NDArray[np.bool_] | None = None,
    ) -> None:
        """Count the ring pixels in a core of a window.

        ``labels`` ``(h, w)`` and ``image`` ``(C, h, w)`` reach ``ring.reach_px`` beyond the
        core, or to the image's border; ``core`` is where it lies in them. The cores of all
        calls partition the image. ``seen`` bool ``(h, w)`` says which pixels show anything.
        """
        if not labels.any():
            return
        side = 2 * self.ring.reach_px + 1
        near = maximum_filter(np.asarray(labels > 0), side, mode="constant") & (labels == 0)
        inside = np.zeros(labels.shape, bool)
        inside[core] = True if seen is None else seen[core]
        rows, columns = np.nonzero(near & inside)
        _gather(
            np.ascontiguousarray(labels, np.int64),
            np.asarray(image[:, rows, columns], np.float64),
            rows,
            columns,
            self.ring.guard_px,
            self.ring.reach_px,
            self.pixels,
            self.sums,
            self.squares,
        )

    def contrasts(
        self, labels: NDArray[np.int64], means: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return contrast and contrast to noise ``(N, C)`` of objects with these mean intensities.

        NaN where they are not known.
        """
        count = self.pixels[labels][:, None].astype(np.float64)
        known = count >= LEAST_PX
        safe = np.where(known, count, 1.0)
        ground = self.sums[labels] / safe
        variance = np.maximum(self.squares[labels] / safe - ground**2, 0.0)
        contrast = np.where(known, means - ground, np.nan)
        flat = variance <= 1e-12 * np.maximum(ground**2, 1.0)
        noise = np.where(flat, np.nan, np.sqrt(variance))
        return contrast, contrast / noise


def contrast_columns(table: pl.DataFrame, sums: RingSums, channels: Sequence[str]) -> pl.DataFrame:
    """Return ``contrast_<channel>`` and ``contrast_to_noise_<channel>`` of a table's objects.

    ``table`` is that of `measure`, with the mean intensity of each channel.
    """
    means = table.select(f"intensity_mean_{name}" for name in channels).to_numpy()
    contrast, to_noise = sums.contrasts(table["label"].to_numpy(), means)
    series = []
    for index, name in enumerate(channels):
        series.append(pl.Series(f"contrast_{name}", contrast[:, index], nan_to_null=True))
        series.append(pl.Series(f"contrast_to_noise_{name}", to_noise[:, index], nan_to_null=True))
    return pl.DataFrame(series)


@numba.njit(nogil=True, cache=True)
def _gather(
    labels: NDArray[np.int64],
    values: NDArray[np.float64],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    guard: int,
    reach: int,
    pixels: NDArray[np.int64],
    sums: NDArray[np.float64],
    squares: NDArray[np.float64],
) -> None:
    seen = np.empty(_MOST_NEIGHBOURS, np.int64)
    for at in range(len(rows)):
        for i in range(_neighbours(labels, rows[at], columns[at], guard, reach, seen)):
            label = seen[i]
            pixels[label] += 1
            for c in range(values.shape[0]):
                sums[label, c] += values[c, at]
                squares[label, c] += values[c, at] ** 2


@numba.njit(nogil=True, cache=True)
def _neighbours(
    labels: NDArray[np.int64], y: int, x: int, guard: int, reach: int, seen: NDArray[np.int64]
) -> int:
    """Put the objects within reach of a pixel into ``seen``; return how many, 0 if guarded."""
    height, width = labels.shape
    count = 0
    for v in range(max(0, y - reach), min(height, y + reach + 1)):
        for u in range(max(0, x - reach), min(width, x + reach + 1)):
            label = labels[v, u]
            away = (v - y) ** 2 + (u - x) ** 2
            if label == 0 or away > reach * reach:
                continue
            if away <= guard * guard:
                return 0
            if count < len(seen) and not (seen[:count] == label).any():
                seen[count] = label
                count += 1
    return count
