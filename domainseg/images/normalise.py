"""Intensity ranges of whole images; never of a tile, so that tiles cannot disagree.

A percentile is an order statistic of the pixels: the smallest value that at least p percent
of them do not exceed (``numpy.percentile`` with ``method="inverted_cdf"``). It is exact for
every dtype and found in constant memory: integers of 8 and 16 bits by one histogram, all
others as float32 by two passes over the order-preserving integer key of the float (its upper
16 bits, then the lower 16 bits of the values that share the upper half of the answer).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numba
import numpy as np
from numpy.typing import NDArray

from domainseg.errors import InputError, UsageError, sentence
from domainseg.images.sweep import gathered, segment_of, sweep
from domainseg.records import Array, Plane

BINS = 1 << 16
SIGN = np.uint32(1 << 31)
PIECE_PX = 1 << 22
"""Pixels of the plane counted at a time, a thread; one tile or strip where that is larger."""
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
    plane: Plane,
    options: Normalisation,
    *,
    ignore: NDArray[np.bool_] | None = None,
    threads: int = 1,
) -> Range:
    """Return the range of one image ``(C, H, W)``, whatever the scope but ``fixed``.

    ``ignore`` ``(H, W)`` is True where a pixel does not count. A plane that knows its
    ``path`` is named in errors. So many ``threads`` decode and count; each tile, strip or
    chunk of the file is decoded once a pass.

    Raises:
        InputError: when no pixel counts.
    """
    return measure_group_range([plane], options, ignores=[ignore], threads=threads)


def measure_group_range(
    planes: Sequence[Plane],
    options: Normalisation,
    *,
    ignores: Sequence[NDArray[np.bool_] | None] | None = None,
    threads: int = 1,
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
    pixels = _Pixels(tuple(planes), tuple(ignores or [None] * len(planes)), options.per == "image")
    wanted = (options.low_percentile, options.high_percentile)
    found = _percentiles(pixels, wanted, threads=threads)
    if options.per == "image":
        found = np.repeat(found, channels, axis=0)
    return Range(found[:, 0].copy(), found[:, 1].copy())


def low_and_scale(range_: Range) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return what is taken off each channel and what it is then multiplied by, ``(C,)`` each."""
    width = range_.high - range_.low
    usable = width >= np.finfo(np.float32).tiny  # below, 1 / width is infinite
    scale = np.divide(np.float32(1.0), width, out=np.zeros_like(width), where=usable)
    return range_.low, scale


def apply_range(
    region: Array, range_: Range, *, clip: tuple[float, float] = CLIP
) -> NDArray[np.float32]:
    """Return ``(x - low) / (high - low)`` of a ``(C, h, w)`` region, float32, cut to ``clip``.

    A channel whose low and high are equal becomes 0 everywhere.
    """
    low, scale = (values[:, None, None] for values in low_and_scale(range_))
    out = np.empty(region.shape, np.float32)
    # As float32 first, whatever the dtype: then resampled and plain pixels take one road.
    np.subtract(region, low, out=out, dtype=np.float32, casting="same_kind")
    out *= scale
    return np.clip(out, *clip, out=out)


def pixels_last(windows: Array, range_: Range, *, clip: tuple[float, float]) -> NDArray[np.float32]:
    """Return integer windows ``(B, C, h, w)`` as ``(B, h, w, C)``, each as `apply_range` of it.

    Bit by bit the same, in one pass.
    """
    batch, channels, height, width = windows.shape
    out = np.empty((batch, height, width, channels), np.float32)
    low, scale = low_and_scale(range_)
    _apply_range(windows, low, scale, np.array(clip, np.float32), out)
    return out


@numba.njit(nogil=True, cache=True)
def _apply_range(
    windows: NDArray[Any],
    low: NDArray[np.float32],
    scale: NDArray[np.float32],
    clip: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    # Float32 throughout and no fastmath: a fused multiply would round otherwise.
    for b in range(windows.shape[0]):
        for y in range(windows.shape[2]):
            for c in range(windows.shape[1]):
                for x in range(windows.shape[3]):
                    value = (np.float32(windows[b, c, y, x]) - low[c]) * scale[c]
                    out[b, y, x, c] = min(max(value, clip[0]), clip[1])


_Piece = tuple[int, slice, slice]
"""Number of a plane, rows and columns."""
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Pixels:
    """The pixels that count, as integer keys in the order of their values.

    Attributes:
        planes, ignores: the images and what does not count in each.
        joined: whether all channels are one.
    """

    planes: tuple[Plane, ...]
    ignores: tuple[NDArray[np.bool_] | None, ...]
    joined: bool

    @property
    def narrow(self) -> bool:
        """Whether a key has 16 bits: one dtype of integers of at most 16 bits."""
        dtypes = {np.dtype(plane.dtype) for plane in self.planes}
        first = next(iter(dtypes))
        return len(dtypes) == 1 and first.kind in "ui" and first.itemsize <= 2

    @property
    def where(self) -> str:
        """What an error names."""
        return ", ".join(str(getattr(plane, "path", "image")) for plane in self.planes[:3])

    def pieces(self) -> Iterator[_Piece]:
        """Yield pieces that cover all planes, of whole tiles or strips."""
        for number, plane in enumerate(self.planes):
            size = (int(plane.shape[1]), int(plane.shape[2]))
            for rows, columns in sweep(size, segment_of(plane), most_px=PIECE_PX):
                yield number, rows, columns

    def keys(self, piece: _Piece) -> Array:
        """Return the keys of a piece, uint16 or uint32 ``(C, n)``, ``(1, n)`` when joined."""
        number, rows, columns = piece
        pixels = np.asarray(self.planes[number][:, rows, columns])
        keys = _narrow_keys(pixels) if self.narrow else _wide_keys(pixels)
        if (ignore := self.ignores[number]) is not None:
            keys = keys[:, ~ignore[rows][:, columns]]
        return keys.reshape(1 if self.joined else len(keys), -1)

    def counted(
        self, shape: tuple[int, ...], count: Callable[[Counts, Array], None], *, threads: int
    ) -> Counts:
        """Return counts of ``shape``, to which ``count`` added the keys of every piece."""
        totals = gathered(
            self.pieces(),
            lambda: np.zeros(shape, np.int64),
            lambda total, piece: count(total, self.keys(piece)),
            threads=threads,
        )
        return np.asarray(sum(totals))


def _percentiles(
    pixels: _Pixels, percentiles: tuple[float, float], *, threads: int
) -> NDArray[np.float32]:
    """Return float32 ``(C, 2)`` percentiles (``C`` 1 when joined)."""
    shift = 0 if pixels.narrow else 16
    channels = 1 if pixels.joined else pixels.planes[0].shape[0]

    def count(counts: Counts, piece: Array) -> None:
        for keys, into in zip(piece, counts, strict=True):
            _count((keys >> shift).astype(np.uint16, copy=False), into)

    counts = pixels.counted((channels, BINS), count, threads=threads)
    totals = counts.sum(axis=1)
    if not totals.all():
        raise InputError(
            sentence(
                pixels.where,
                found="no pixel that counts",
                wanted="at least one to measure the intensity range on",
                fix="check the ignore mask",
            )
        )
    ranks = [[max(1, math.ceil(p / 100.0 * n)) for p in percentiles] for n in totals]
    halves = [[_find(c, rank) for rank in row] for c, row in zip(counts, ranks, strict=True)]
    bins = np.array([[at for at, _ in row] for row in halves], np.uint32)
    if pixels.narrow:
        offset = -32768 if pixels.planes[0].dtype.kind == "i" else 0
        return (bins.astype(np.int32) + offset).astype(np.float32)
    rest = [[rank for _, rank in row] for row in halves]
    lower = _lower_halves(pixels, bins, rest, threads=threads)
    return _wide_values(np.left_shift(bins, np.uint32(16)) | lower)


def _lower_halves(
    pixels: _Pixels, bins: NDArray[np.uint32], ranks: list[list[int]], *, threads: int
) -> NDArray[np.uint32]:
    """Return the lower 16 bits of the keys at ``ranks`` among those with upper bits ``bins``."""

    def count(counts: Counts, piece: Array) -> None:
        for keys, uppers, into in zip(piece, bins, counts, strict=True):
            for upper, target in zip(uppers, into, strict=True):
                _count_lower(keys, upper, target)

    counts = pixels.counted((*bins.shape, BINS), count, threads=threads)
    found = [
        [_find(counted, rank)[0] for counted, rank in zip(row, wanted, strict=True)]
        for row, wanted in zip(counts, ranks, strict=True)
    ]
    return np.array(found, np.uint32)


def _find(counts: NDArray[np.int64], rank: int) -> tuple[int, int]:
    """Return the bin of the ``rank``-th value (from 1) and its rank inside the bin."""
    reached = np.cumsum(counts)
    at = int(np.searchsorted(reached, rank))
    return at, rank - int(reached[at] - counts[at])


def _narrow_keys(values: Array) -> NDArray[np.uint16]:
    if values.dtype.kind == "i":
        return (values.astype(np.int32) + 32768).astype(np.uint16)
    return values.astype(np.uint16, copy=False)


def _wide_keys(values: Array) -> NDArray[np.uint32]:
    """Return integers in the order of the float32 values: IEEE 754 bits, negatives flipped."""
    bits = (values.astype(np.float32) + np.float32(0.0)).view(np.uint32)  # + 0 turns -0 into 0
    every_if_negative = (bits.view(np.int32) >> 31).view(np.uint32)
    return np.asarray(bits ^ (every_if_negative | SIGN))


def _wide_values(keys: NDArray[np.uint32]) -> NDArray[np.float32]:
    """Undo ``_wide_keys``."""
    every_if_negative = np.subtract(keys >> 31, 1, dtype=np.uint32)
    return np.ascontiguousarray(keys ^ (every_if_negative | SIGN)).view(np.float32)


@numba.njit(nogil=True, cache=True)
def _count(keys: NDArray[np.uint16], counts: NDArray[np.int64]) -> None:
    for i in range(len(keys)):
        counts[keys[i]] += 1


@numba.njit(nogil=True, cache=True)
def _count_lower(keys: NDArray[np.uint32], upper: int, counts: NDArray[np.int64]) -> None:
    for i in range(len(keys)):
        if keys[i] >> 16 == upper:
            counts[keys[i] & 0xFFFF] += 1
